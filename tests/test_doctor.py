"""`ferlib doctor` finds data sets and weights, counts them, and gives one thing to do for what is wrong."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ferlib.cli import main
from ferlib.data import EMOTIONS_AFFECTNET, EMOTIONS_RAFDB
from ferlib.data.prepare import prepare
from ferlib.doctor import Finding, examine, look_at_data, render
from ferlib.models import MobileFaceNet, NeuralResizer
from ferlib.weights import ARCHITECTURES
from tests import data_files, documented
from tests.contract_fill import read_rows
from tests.data_files import name_of


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder, cache or variable of the machine the tests run on."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FERLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FERLIB_DATA", raising=False)
    monkeypatch.delenv("FERLIB_WEIGHTS", raising=False)


def say(*words: str, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    code = main(["doctor", *words])
    return code, capsys.readouterr().out


def test_an_ordinary_computer_is_well(capsys: pytest.CaptureFixture) -> None:
    code, text = say(capsys=capsys)
    assert code == 0 and "Nothing is broken." in text
    for word in ("Python", "torch", "GPU", "disk here", "the chapters render synthetic ones", "FERLIB_DATA="):
        assert word in text
    assert max(map(len, text.splitlines())) <= 110


def test_counts_per_class_and_split(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = data_files.microsoft(tmp_path / "my faces", {"train": 9, "valid": 4, "test": 3})
    code, text = say("--data", str(root), capsys=capsys)
    assert code == 0 and f"microsoft layout in {root}" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["train"] == ["valid", "test"]
    assert rows["neutral"] == ["2", "1", "1"] and rows["contempt"] == ["1", "0", "0"]
    assert rows["labeled"] == ["9", "4", "3"]
    assert f"-> ferlib prepare ferplus --source '{root}' --out FOLDER" in text


def test_the_folder_above_and_other_data_sets_are_found(tmp_path: Path) -> None:
    data_files.microsoft(tmp_path / "all" / "fer", {"train": 2})
    data_files.rafdb_official(tmp_path / "all" / "raf", {"train": 7, "test": 1})
    data_files.affectnet_official(tmp_path / "all" / "aff", {"train_set": [1, 9], "val_set": [2]})
    prepare("rafdb", tmp_path / "all" / "raf", tmp_path / "all" / "ready", progress=False)
    found = {(f.what, f.text.split()[0]): f for f in examine([tmp_path / "all"]) if f.section == "Data"}
    layouts = {("RAF-DB", "official"), ("RAF-DB", "prepared"), ("AffectNet", "official")}
    assert set(found) == {("FER+", "microsoft"), *layouts}
    odd = found["FER+", "microsoft"]
    assert odd.status == "odd" and "valid and test" in odd.advice
    assert any("annotated as 'uncertain' (9)" in line for line in found["AffectNet", "official"].lines)
    prepared = found["RAF-DB", "prepared"]  # its only test face is one of the training faces
    assert prepared.status == "odd" and not prepared.advice and "in another split" in prepared.lines[-1]


def test_what_was_named_and_is_not_there_is_broken(tmp_path: Path, capsys, monkeypatch) -> None:
    code, text = say("--data", str(tmp_path / "gone"), capsys=capsys)
    assert code == 1 and "is not a folder" in text and "RAF-DB: the official" in text
    code, text = say("--data", str(tmp_path / "here"), capsys=capsys)
    assert code == 1 and "no data set found in" in text and "1 broken: data" in text
    code, text = say("--weights", str(tmp_path / "gone.pth"), capsys=capsys)
    assert code == 1 and "gone.pth is not there" in text
    code, text = say("--json", "--data", str(tmp_path / "gone"), capsys=capsys)
    broken = [finding for finding in json.loads(text) if finding["status"] == "broken"]
    assert code == 1 and broken[0]["section"] == "Data" and broken[0].keys() == documented.keys("doctor")
    monkeypatch.setenv("FERLIB_DATA", str(tmp_path / "gone"))  # the variable counts as named
    assert [f.status for f in examine() if f.section == "Data"] == ["broken"]


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("basic.zip", "unpacking"),
        ("basic/EmoLabel/list_partition_label.txt", "list_patition_label.txt"),
        ("basic/Image/original/train_00001.jpg", "Image/aligned"),
        ("validation/a.jpg", "the name valid"),
        ("train/1_surprise/a.jpg", "such as 1 or surprise"),
        ("train/1. happy/a.jpg", "such as 1 or surprise"),
        ("train/a.jpg", "a folder for its class"),
        ("labels.csv", "published label files"),
        ("train.parquet", "published label files"),
    ],
)
def test_near_misses_are_named_and_the_layout_itself_is_taken(name: str, needed: str, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    (root / name).parent.mkdir(parents=True)
    (root / name).touch()
    (finding,) = look_at_data([root])
    near = " ".join(line for line in finding.lines)
    assert finding.status == "broken" and needed in near and near.startswith("found ")
    data_files.rafdb_official(root / "one" / "deeper", {"train": 7, "test": 7})
    (finding,) = look_at_data([root])
    assert finding.what == "RAF-DB" and finding.status == "ok" and str(root / "one") in finding.text


def test_damage_is_found_and_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = data_files.microsoft(tmp_path / "in", {"train": 3, "valid": 2, "test": 2})
    (root / "data" / "FER2013Valid" / name_of("valid", 1)).write_bytes(b"")
    code, text = say("--data", str(root), capsys=capsys)
    assert code == 1 and "fer0028639.png: the file is empty" in text and "take the named files anew" in text
    out = tmp_path / "cache" / "ferplus-1"
    prepare("ferplus", root, out, progress=False)
    assert [f.what for f in examine() if f.section == "Data"] == ["FER+"]  # found without being named
    assert say("--data", str(out), capsys=capsys)[0] == 0
    with (out / "train.images.npy").open("r+b") as file:
        file.seek(2000)
        file.write(b"x")
    code, text = say("--data", str(out), capsys=capsys)
    assert code == 1 and "train.images.npy: its bytes changed" in text
    (out / "cache.json").write_text("{")
    code, text = say("--data", str(out), capsys=capsys)
    assert code == 1 and "cache.json: damaged" in text


class Recorder:
    """Something a training program might put beside its weights."""


def test_weights_are_recognised_by_names_and_shapes(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    official = {f"x.{i}": torch.zeros(3, i) for i in (1, 2)}
    save_file(official, folder / "a.safetensors")
    torch.save({"state_dict": official}, folder / "b.pth")
    (folder / "c.pt").write_bytes(b"\x00\x01 not a checkpoint")
    torch.save({"state_dict": official, "recorder": Recorder()}, folder / "d.pth")
    official_name = ARCHITECTURES["neural-resizer"].official_name
    known = {official_name(name): v for name, v in NeuralResizer(384, 224).state_dict().items()}
    save_file(known, folder / "resizer.safetensors")
    found = {f.what: f for f in examine(weights=[folder]) if f.section == "Weights"}
    resizer = found["resizer.safetensors"]
    assert resizer.status == "ok" and resizer.text.endswith("neural-resizer")
    assert found["a.safetensors"].text.startswith("2 tensors, 0.00 M numbers, of no network known")
    assert "neural-resizer" in found["a.safetensors"].advice
    assert found["b.pth"].text == found["a.safetensors"].text
    assert found["c.pt"].status == "broken" and "anew" in found["c.pt"].advice
    assert found["d.pth"].text == found["a.safetensors"].text  # its recorder is left alone


def test_given_weights_are_what_they_are(shared: Path) -> None:
    findings = examine(weights=[shared / "weights"])
    found = {f.what: f for f in findings if f.section == "Weights"}
    face, marks = found["mobilenet_faces.safetensors"], found["mobilefacenet_landmarks68.safetensors"]
    assert face.status == marks.status == "ok"
    assert face.text.endswith(", mobilenet-faces") and marks.text.endswith(", mobilefacenet")
    assert "a face branch that knows faces" in face.lines[0] and "the landmark branch" in marks.lines[0]
    assert "Weights" in render(findings)


def test_what_is_missing_and_what_it_would_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERLIB_WEIGHTS", str(tmp_path / "mine"))
    text = render([f for f in examine() if f.section == "Weights"])
    assert f"none in {tmp_path / 'mine'}" in text and "Nothing is broken." in text
    assert "ir50: the face branch of POSTER V2 and BTN" in text and "DIC_HELEN.pth: the README of" in text
    (tmp_path / "mine").mkdir()
    torch.save({"state_dict": MobileFaceNet().state_dict()}, tmp_path / "mine" / "ir50.pth")
    (found, rest) = [f for f in examine() if f.section == "Weights"]
    assert "mobilefacenet, but its name says ir50" in found.text and found.status == "odd"
    assert not any(line.startswith("mobilefacenet:") for line in found.lines) and rest.status == "missing"


def test_a_btn_checkpoint_with_names_of_its_own(tmp_path: Path) -> None:
    official = {row.key: torch.zeros(row.shape) for row in read_rows("posterv2_8cls")}
    record = {"state_dict": official | {"mla.q.weight": torch.zeros(3)}, "recorder": Recorder()}
    torch.save(record, tmp_path / "AffectNet8_64.29.pth")
    (found,) = [f for f in examine(weights=[tmp_path / "AffectNet8_64.29.pth"]) if f.section == "Weights"]
    assert found.status == "ok" and "btn-8: its part poster-v2 (1 names without a place)" in found.text


def test_wrong_numbers_have_the_right_advice_and_right_ones_none(tmp_path: Path) -> None:
    """RAF-DB counts from 1, AffectNet from 0: with the other's numbers a folder may look like either."""

    def look(name: str, numbers: range) -> Finding:
        splits = {"train": 1, "valid": 1} if name.startswith("aff") else {"train": 1, "test": 1}
        root = data_files.class_folders(tmp_path / name, splits, list(map(str, numbers)), side=224)
        (found,) = look_at_data([root])
        return found

    for name, numbers in (("raf from 0", range(7)), ("aff from 1", range(1, 9))):
        found = look(name, numbers)
        assert found.status in ("odd", "broken") and "by expression" in found.advice
        assert any("numbers are read as" in line for line in found.lines)
        assert "damaged" not in found.advice
    for name, numbers in (("raf", range(1, 8)), ("aff", range(8))):
        found = look(name, numbers)
        assert found.status == "ok" and "ferlib prepare" in found.advice


def test_of_two_data_sets_the_one_that_leaves_nothing_out_is_named(tmp_path: Path) -> None:
    for words, kind in ((EMOTIONS_AFFECTNET, "AffectNet"), (EMOTIONS_RAFDB, "RAF-DB")):
        root = data_files.class_folders(tmp_path / kind, {"train": 1, "valid": 1}, words)
        assert look_at_data([root])[0].what == kind


def test_a_split_under_another_name_is_named(tmp_path: Path) -> None:
    for name, near in (("validation", True), ("valid", False)):
        root = data_files.class_folders(tmp_path / name, {"train": 1, name: 1}, EMOTIONS_AFFECTNET)
        (found,) = look_at_data([root])
        assert any("the name valid" in line for line in found.lines) == near == (found.status == "odd")


def test_copies_across_splits_are_not_ok(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path / "fer", {"train": 9, "valid": 4, "test": 3})
    places = {split: root / "data" / f"FER2013{split}" for split in ("Train", "Valid")}
    pictures = {split: sorted(place.glob("*.png")) for split, place in places.items()}
    for name, (one, other), status in (
        ("within", ("Train", "Train"), "ok"),
        ("across", ("Train", "Valid"), "odd"),
    ):
        pictures[other][1].write_bytes(pictures[one][0].read_bytes())
        prepare("ferplus", root, tmp_path / name, progress=False)
        (found,) = look_at_data([tmp_path / name])
        assert found.status == status
        assert ("drop-across" in "".join(found.lines)) == (status == "odd")


@pytest.mark.parametrize("folder", ["Training", "PublicTest", "private_test"])
def test_folders_of_fer2013_without_votes_are_named(tmp_path: Path, folder: str) -> None:
    data_files.class_folders(tmp_path / "all", {folder: 1}, ["happy", "sad"])
    (found,) = look_at_data([tmp_path / "all"])
    assert any(f"found {folder}, needs" in line for line in found.lines)
