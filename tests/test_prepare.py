"""`prepare` makes the same bytes however often it is killed, checks them, and tells what it left out."""

import csv
import json
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import ferlib.data.prepare as module
from ferlib.cli import main
from ferlib.data import SyntheticFaces
from ferlib.data.base import DataError, Source
from ferlib.data.ferplus import FERPlus
from ferlib.data.folders import RAFDB, AffectNet
from ferlib.data.prepare import BLOCK, WORK, block_checksums, prepare, verify
from tests import data_files, documented
from tests.data_files import name_of, picture

COUNTS = {"train": 9, "valid": 4, "test": 3}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.mark.parametrize("layout", ["microsoft", "kaggle", "neural_resizer"])
def test_prepared_faces_are_the_faces(tmp_path: Path, layout: str) -> None:
    root, out = getattr(data_files, layout)(tmp_path / "in", COUNTS), tmp_path / "out ü"
    report = prepare("ferplus", root, out, progress=False)
    assert report.counts == COUNTS and not any(report.skipped.values()) and not (out / WORK).exists()
    for split in COUNTS:
        before, after = FERPlus(root, split), FERPlus(out, split)
        assert torch.equal(before.labels, after.labels) and after.classes == before.classes
        assert (before.votes is None and after.votes is None) or torch.equal(before.votes, after.votes)
        for one, other in zip(
            map(before.__getitem__, range(3)), map(after.__getitem__, range(3)), strict=True
        ):
            assert torch.equal(one["image"], other["image"]) and one["name"] == other["name"]
        batch = after.batch(torch.tensor([2, 0]))
        assert torch.equal(batch["image"], torch.stack([before[2]["image"], before[0]["image"]]))
        assert batch["label"].tolist() == [before[2]["label"], before[0]["label"]]


def test_numpy_reads_the_images_and_processes_share_them(tmp_path: Path) -> None:
    prepare("ferplus", data_files.microsoft(tmp_path / "in", COUNTS), tmp_path / "out", progress=False)
    images = np.load(tmp_path / "out" / "train.images.npy")
    assert images.shape == (9, 1, 48, 48) and images.dtype == np.uint8
    assert np.array_equal(images[3, 0], picture(3))
    faces = FERPlus(tmp_path / "out", "train")
    assert len(pickle.dumps(faces.source.load)) < 500  # the path travels to a loader process, not the pixels
    assert torch.equal(pickle.loads(pickle.dumps(faces))[3]["image"], faces[3]["image"])


def test_colour_data_sets(tmp_path: Path) -> None:
    root = data_files.rafdb_official(tmp_path / "raf", {"train": 9, "test": 2})
    prepare("rafdb", root, tmp_path / "raf out", progress=False)
    assert torch.equal(RAFDB(tmp_path / "raf out", "test")[1]["image"], RAFDB(root, "test")[1]["image"])
    assert torch.equal(RAFDB(tmp_path / "raf out", "train").labels, RAFDB(root, "train").labels)
    root = data_files.affectnet_official(tmp_path / "aff", {"train_set": [7, 0, 9], "val_set": [4, 2]})
    report = prepare("affectnet", root, tmp_path / "aff out", progress=False)
    assert report.counts == {"train": 2, "valid": 2} and len(report.skipped["train"]) == 1
    assert AffectNet(tmp_path / "aff out", "train", classes=7).labels.tolist() == [0]
    assert AffectNet(tmp_path / "aff out", "test").labels.tolist() == [4, 2]
    with pytest.raises(DataError, match=r"holds 'affectnet', not 'rafdb'|no RAF-DB found"):
        RAFDB(tmp_path / "aff out", "train")


CHILD = """
import sys, time
import ferlib.data.prepare as module
from ferlib.data.base import Source
module.PIECE_BYTES = 4 * 48 * 48
read = Source.read
def slow(source, index):
    time.sleep(0.02)
    return read(source, index)
Source.read = slow
module.prepare("ferplus", sys.argv[1], sys.argv[2], progress=False, workers=1)
"""


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path: Path, monkeypatch) -> None:
    root = data_files.microsoft(tmp_path / "in", {"train": 80, "valid": 10})
    damaged = root / "data" / "FER2013Train" / name_of("train", 30)
    damaged.write_bytes(damaged.read_bytes()[:99])
    monkeypatch.setattr(module, "PIECE_BYTES", 4 * 48 * 48)
    prepare("ferplus", root, tmp_path / "calm", progress=False)
    out = tmp_path / "killed"
    journal = out / WORK / "train.journal"
    lines = 0
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(root), str(out)])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            written = len(journal.read_bytes().splitlines()) if journal.is_file() else 0
            if written >= lines + 3:
                break
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        lines = len(journal.read_bytes().splitlines())
        assert not (out / "cache.json").exists()
    with (out / WORK / "train.images.npy").open("ab") as file:
        file.write(b"half a piece that the journal does not know")
    with journal.open("a") as file:
        file.write('{"stop": 48, "by')
    tried: list[int] = []
    real = Source.read
    monkeypatch.setattr(Source, "read", lambda source, index: tried.append(index) or real(source, index))
    report = prepare("ferplus", root, out, progress=False, workers=1)
    assert contents(out) == contents(tmp_path / "calm")
    assert 10 < len(tried) < 90 and tried[0] >= 4 * (lines - 2)  # it went on, it did not begin anew
    assert report.counts == {"train": 79, "valid": 10}
    assert "truncated" in report.skipped["train"][0].reason


def test_a_piece_that_changed_since_is_written_again(tmp_path: Path, monkeypatch) -> None:
    root = data_files.microsoft(tmp_path / "in", {"train": 20})
    monkeypatch.setattr(module, "PIECE_BYTES", 4 * 48 * 48)
    prepare("ferplus", root, tmp_path / "calm", progress=False)
    real, out = Source.read, tmp_path / "out"

    def stop(source: Source, index: int) -> np.ndarray:
        if index == 13:
            raise KeyboardInterrupt
        return real(source, index)

    monkeypatch.setattr(Source, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare("ferplus", root, out, progress=False, workers=1)
    monkeypatch.setattr(Source, "read", real)
    path = out / WORK / "train.images.npy"
    data = bytearray(path.read_bytes())
    data[128 + 5 * 48 * 48] ^= 255  # in the second piece
    path.write_bytes(data)
    prepare("ferplus", root, out, progress=False)
    assert contents(out) == contents(tmp_path / "calm")


def test_a_second_run_finds_it_done_and_mends_damage(tmp_path: Path) -> None:
    root, out = data_files.microsoft(tmp_path / "in", COUNTS), tmp_path / "out"
    first = prepare("ferplus", root, out, progress=False)
    before = contents(out)
    assert not first.already and prepare("ferplus", root, out, progress=False).already == list(COUNTS)
    data = bytearray((out / "valid.images.npy").read_bytes())
    data[500] ^= 1
    (out / "valid.images.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"valid.images.npy: its bytes changed"):
        verify(out)
    assert prepare("ferplus", root, out, progress=False).already == ["train", "test"]
    assert contents(out) == before


def test_splits_can_come_one_after_the_other(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path / "in", COUNTS)
    prepare("ferplus", root, tmp_path / "all", progress=False)
    prepare("ferplus", root, tmp_path / "one", splits=["valid"], progress=False)
    with pytest.raises(DataError, match="has no split 'train', only valid"):
        FERPlus(tmp_path / "one", "train")
    prepare("ferplus", root, tmp_path / "one", splits=["train", "test"], progress=False)
    assert contents(tmp_path / "one") == contents(tmp_path / "all")


def test_enlarging(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path / "in", {"train": 3})
    prepare("ferplus", root, tmp_path / "x8", upscale=8, method="lanczos", progress=False)
    assert FERPlus(tmp_path / "x8", "train")[0]["image"].shape == (1, 384, 384)
    prepare("ferplus", root, tmp_path / "96", upscale=2, method="nearest", progress=False)
    found = FERPlus(tmp_path / "96", "train")[0]["image"]
    assert found.shape == (1, 96, 96) and torch.equal(found[:, ::2, ::2], found[:, 1::2, 1::2])
    with pytest.raises(DataError, match=r"prepared otherwise .*shape"):
        prepare("ferplus", root, tmp_path / "x8", upscale=4, progress=False)
    prepare("ferplus", tmp_path / "x8", tmp_path / "again", progress=False)  # from a prepared folder
    assert FERPlus(tmp_path / "again", "train")[0]["image"].shape == (1, 384, 384)


def test_what_was_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = data_files.microsoft(tmp_path / "in", {"train": 4})
    folder = root / "data" / "FER2013Train"
    (folder / name_of("train", 0)).write_bytes(b"")
    (folder / name_of("train", 1)).unlink()
    (folder / name_of("train", 2)).write_text("no picture")
    assert main(["prepare", "ferplus", "--source", str(root), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "1 faces" in printed.out and "3 left out" in printed.out and "fer0000000.png" in printed.out
    assert "train: 100%" in printed.err  # the progress bar
    words = ["prepare", "ferplus", "--source", str(root), "--json", "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["faces"], found["size"]) == (str(tmp_path / "out"), {"train": 1}, 48)
    assert sum(found["left_out"]["train"].values()) == 3 and found["already"] == ["train"]
    assert found.keys() == documented.keys("prepare")
    assert found["twins"] == {} and found["dataset"] == "ferplus"
    assert main([*words, str(root)]) == 1 and capsys.readouterr().out == ""
    with (tmp_path / "out" / "skipped.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["split", "name", "reason"] and len(rows) == 4
    reasons = ["the file is empty", "the file is not there", "not an image"]
    assert [row[2].split(" (")[0] for row in sorted(rows[1:])] == reasons
    assert [s.name for s in FERPlus(tmp_path / "out", "train").skipped] == [row[1] for row in rows[1:]]


def test_names_are_no_formulas_and_no_codes(tmp_path: Path) -> None:
    root = data_files.class_folders(tmp_path / "in", {"train": 1}, "1234567")
    (root / "train" / "1" / "a\x1b[31m\n.jpg").touch()
    (root / "train" / "=1+1.jpg").touch()
    report = prepare("rafdb", root, tmp_path / "out", progress=False)
    assert report.counts == {"train": 7} and len(report.skipped["train"]) == 2
    assert "\x1b" not in str(report) and "a\\x1b[31m\\n.jpg" in str(report)
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        assert "'=1+1.jpg" in [row[1] for row in csv.reader(file)]


def test_a_csv_row_with_2303_pixels_is_left_out(tmp_path: Path) -> None:
    root = data_files.kaggle(tmp_path / "in", {"train": 3})
    emotion, pixels, usage = (lines := (root / "fer2013.csv").read_text().splitlines())[1].split(",")
    lines[1] = ",".join([emotion, pixels.rsplit(" ", 1)[0], usage])
    (root / "fer2013.csv").write_text("\n".join(lines))
    report = prepare("ferplus", root, tmp_path / "out", splits=["train"], progress=False)
    (left_out,) = report.skipped["train"]
    assert (
        report.counts == {"train": 2} and left_out.name == name_of("train", 0) and "2,303" in left_out.reason
    )


def test_refusals_are_one_line_and_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = data_files.microsoft(tmp_path / "in", {"train": 2})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    (tmp_path / "none").mkdir()
    cases = [
        ([str(root), str(tmp_path / "full")], "holds other files (thesis.tex"),
        ([str(root), str(tmp_path / "file")], "--out must be a folder"),
        ([str(root), str(root)], "source and out are the same folder"),
        ([str(tmp_path / "none"), str(tmp_path / "o")], "no FER+ found. Expected one of"),
        ([str(root), str(tmp_path / "o"), "--upscale", "0"], "upscale=0"),
        ([str(root), str(tmp_path / "o"), "--weights", str(tmp_path / "w")], "weights file is not there"),
        ([str(root), str(tmp_path / "o"), "--splits", "test"], "no split 'test'"),
    ]
    for (source, out, *more), message in cases:
        assert main(["prepare", "ferplus", "--source", source, "--out", out, "--quiet", *more]) == 1
        printed = capsys.readouterr().err
        assert message in printed and printed.startswith("ferlib prepare: ") and "Traceback" not in printed
    assert not (tmp_path / "o").exists()


def test_nothing_usable_and_a_full_disk_are_errors_with_reasons(tmp_path: Path, monkeypatch) -> None:
    root = data_files.microsoft(tmp_path / "in", {"train": 2})
    with monkeypatch.context() as patch:
        usage = module.shutil.disk_usage(tmp_path)._replace(free=100)
        patch.setattr(module.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(DataError, match=r"needed and 100 are free"):
            prepare("ferplus", root, tmp_path / "out", progress=False)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"not one of 2 faces can be used:\n +2  the file is empty"):
        prepare("ferplus", root, tmp_path / "out", progress=False)


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path / "in", {"train": 2})
    (tmp_path / "out" / WORK).mkdir(parents=True)
    with FileLock(tmp_path / "out" / WORK / "lock"), pytest.raises(DataError, match="another process"):
        prepare("ferplus", root, tmp_path / "out", progress=False)


def test_those_that_wait_find_it_done(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path / "in", {"train": 6})

    def one(_: int) -> list[str]:
        return prepare("ferplus", root, tmp_path / "out", progress=False, wait=True).already

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(one, range(4))) == [[], ["train"], ["train"], ["train"]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "train.images.npy").write_bytes(b""), "train.images.npy: 0 bytes"),
        (lambda out: (out / "train.votes.npy").unlink(), "train.votes.npy: No such file"),
        (lambda out: (out / "cache.json").write_text("{"), "cache.json: damaged"),
        (lambda out: (out / "cache.json").write_text("[]"), "not the description"),
        (lambda out: (out / "train.names.txt").write_text("x" * 135), "train.names.txt: "),
        (lambda out: relabel(out, format=2), "format 2, this version reads 1"),
    ],
)
def test_a_damaged_cache_is_refused_when_it_is_opened(tmp_path: Path, damage, message: str) -> None:
    prepare("ferplus", data_files.microsoft(tmp_path / "in", COUNTS), tmp_path / "out", progress=False)
    damage(tmp_path / "out")
    with pytest.raises(DataError, match=message) as error:
        FERPlus(tmp_path / "out", "train")
    assert "ferlib prepare" in str(error.value)


def relabel(out: Path, **changes: object) -> None:
    manifest = json.loads((out / "cache.json").read_text())
    (out / "cache.json").write_text(json.dumps(manifest | changes))


def test_checksums_cover_every_block(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(BLOCK + 10))
    before = block_checksums(path)
    with path.open("r+b") as file:
        file.seek(BLOCK + 5)
        file.write(b"1")
    after = block_checksums(path)
    assert len(before) == 2 and before[0] == after[0] and before[1] != after[1]
    assert block_checksums(path, [1]) == [after[1]]


def with_copies(root: Path) -> Path:
    """Three training faces again in the validation split: as they are, mirrored, and compressed."""
    data_files.microsoft(root, {"train": 12, "valid": 6, "test": 2})
    drawn = SyntheticFaces(20, size=48, channels=1, framing="ferplus").batch(range(20))["image"][:, 0].numpy()
    folders = [root / "data" / data_files.FOLDERS[split] for split in COUNTS]
    for i in range(12):
        Image.fromarray(drawn[i]).save(folders[0] / name_of("train", i))
    for i in range(6):
        Image.fromarray(drawn[12 + i]).save(folders[1] / name_of("valid", i))
    Image.fromarray(drawn[4]).save(folders[1] / name_of("valid", 1))
    Image.fromarray(drawn[5][:, ::-1]).save(folders[1] / name_of("valid", 2))
    Image.fromarray(drawn[4]).save(folders[0] / name_of("train", 7))
    Image.fromarray(drawn[4]).save(folders[2] / name_of("test", 0))
    (folders[0] / name_of("train", 9)).write_bytes(b"")
    (folders[1] / name_of("valid", 4)).write_bytes(b"")
    return root


def test_copies_are_counted_and_dropped_from_training_only(tmp_path: Path) -> None:
    root = with_copies(tmp_path / "in")
    kept = prepare("ferplus", root, tmp_path / "kept", progress=False)
    assert kept.counts == {"train": 11, "valid": 5, "test": 2}
    assert kept.manifest["twins"] == {
        "train": {"train": 2, "valid": 2, "test": 2},
        "valid": {"train": 1, "test": 1},
        "test": {"train": 1, "valid": 1},
    }
    assert "train: 2 with one in train and 2 with one in valid and 2 with one in test" in str(kept)
    report = prepare("ferplus", root, tmp_path / "out", twins="drop-across", progress=False)
    assert report.counts == {"train": 8, "valid": 5, "test": 2}
    reasons = {int(skip.name[3:10]): skip.reason for skip in report.skipped["train"]}
    copies = {4: "has a copy in test", 5: "has a copy in valid", 7: "has a copy in test"}
    assert reasons == copies | {9: "the file is empty"} and "train" not in report.manifest["twins"]
    only = prepare("ferplus", root, tmp_path / "only", splits=["train"], twins="drop-across", progress=False)
    assert only.counts == {"train": 8}  # the other splits are looked at, though they are not prepared
    again = prepare("ferplus", root, tmp_path / "out", twins="drop-across", progress=False)
    assert again.already == list(COUNTS)
    with pytest.raises(DataError, match="twins"):
        prepare("ferplus", root, tmp_path / "out", progress=False)  # prepared otherwise
    with pytest.raises(DataError, match="'all'"):
        prepare("ferplus", root, tmp_path / "x", twins="all", progress=False)


def test_the_doctor_tells_of_copies(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = with_copies(tmp_path / "in")
    for path in root.rglob("*.png"):
        if not path.stat().st_size:
            path.unlink()
    assert main(["doctor", "--data", str(root), "--every"]) == 0
    told = capsys.readouterr().out
    assert "shifted or compressed again: train: 2 with one in train and 3 with one in valid" in told
    prepare("ferplus", root, tmp_path / "out", progress=False)
    assert main(["doctor", "--data", str(tmp_path / "out")]) == 0
    assert "same pixels: valid: 1 with one in train and 1 with one in test" in capsys.readouterr().out
