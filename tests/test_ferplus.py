"""FER+ in three layouts gives the same faces; what is wrong with files is told, counted, and never
crashes.
"""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ferlib.data.base import DataError
from ferlib.data.ferplus import FERPlus
from ferlib.data.labels import EMOTIONS_FERPLUS
from ferlib.data.prepare import DATASETS
from tests import data_files
from tests.data_files import name_of, picture, votes_for, write_rows

COUNTS = {"train": 9, "valid": 4, "test": 3}
LAYOUTS = {
    "microsoft": data_files.microsoft,
    "kaggle": data_files.kaggle,
    "neural-resizer": data_files.neural_resizer,
    "kaggle icml": lambda *given: data_files.kaggle(*given, icml=True),  # spaces in its header
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_each_layout_gives_the_same_faces(tmp_path: Path, layout: str) -> None:
    root = LAYOUTS[layout](tmp_path / "mit Leerzeichen é", COUNTS)
    assert DATASETS["ferplus"].find(root)[0] == layout.split()[0]
    for split, count in COUNTS.items():
        faces = FERPlus(root, split)
        assert len(faces) == count and faces.classes == EMOTIONS_FERPLUS
        assert faces.labels.tolist() == [i % 8 for i in range(count)]
        for i in range(count):
            item = faces[i]
            assert np.array_equal(item["image"].numpy()[0], picture(data_files.FIRST[split] + i))
            assert item["label"] == i % 8 and item["name"] == name_of(split, i)
        if layout == "neural-resizer":
            assert faces.votes is None and "votes" not in item
        else:
            assert faces.votes.shape == (count, 8) and faces.all_votes.shape == (count, 10)
            assert item["votes"].tolist() == votes_for((count - 1) % 8)[:8]
        assert not faces.skipped


def test_the_exchanged_names_of_the_neural_resizers_csv_are_put_right(tmp_path: Path) -> None:
    root = data_files.neural_resizer(tmp_path, {"train": 2, "valid": 2, "test": 2})
    assert FERPlus(root, "test")[0]["name"] == "fer0032220.png"  # marked PublicTest in that csv
    assert "other way round" in FERPlus(root, "test").source.notes[0]
    table = root / "data" / "fer2013new_jin2.csv"
    text = table.read_text()
    text = text.replace("PublicTest", "X").replace("PrivateTest", "PublicTest").replace("X", "PrivateTest")
    table.write_text(text)  # somebody repaired the file: the image numbers tell
    assert FERPlus(root, "test")[0]["name"] == "fer0032220.png"
    assert "are Microsoft's" in FERPlus(root, "test").source.notes[0]


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_layout_has_the_splits_that_it_has_faces_of(tmp_path: Path, layout: str) -> None:
    root = LAYOUTS[layout](tmp_path, {"train": 2, "test": 2})
    assert list(DATASETS["ferplus"].find(root)[1]) == ["train", "test"] and len(FERPlus(root, "test")) == 2
    with pytest.raises(DataError, match="'valid', only train, test"):
        FERPlus(root, "valid")


def test_super_resolved_names_beside_a_csv_above_the_images_are_found(tmp_path: Path) -> None:
    root = data_files.neural_resizer(tmp_path, {"train": 3}, suffix="_x8_SR", side=96)
    (root / "data" / "fer2013new_jin2.csv").rename(root / "fer2013new_jin2.csv")
    assert FERPlus(root, "train")[2]["image"].shape == (1, 96, 96)
    with pytest.raises(DataError, match="majority"):  # no votes to apply a rule to
        FERPlus(root, "train", labels="votes")


def test_rules_and_what_they_leave_out(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path, {"train": 3})
    rows = [[5, 0, 0, 0, 0, 0, 0, 0, 5, 0], [4, 3, 0, 0, 0, 0, 0, 0, 0, 3], [0] * 8 + [5, 5]]
    table = [[name_of("train", i), "(0, 0, 48, 48)", *row] for i, row in enumerate(rows)]
    write_rows(root / "data" / "FER2013Train" / "label.csv", table)
    with_votes = FERPlus(root, "train", labels="votes")
    assert len(FERPlus(root, "train", labels="half")) == 1 and len(with_votes) == 2
    assert with_votes.votes[1].tolist() == [4, 3, 0, 0, 0, 0, 0, 0]
    assert "fer0000002.png" not in with_votes.names
    faces = FERPlus(root, "train")
    assert len(faces) == 0
    with pytest.raises(DataError, match=r"'vote'.*majority, half, votes"):
        FERPlus(root, "train", labels="vote")


def test_faults_in_rows_and_files_are_counted_with_reasons(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path, {"train": 4})
    folder = root / "data" / "FER2013Train"
    box = "(0, 0, 48, 48)"
    Image.fromarray(picture(1)).save(folder / "extra.png")
    os.symlink(folder / "nowhere.png", folder / "dangling.png")
    os.symlink(folder / name_of("train", 3), folder / "linked.png")
    outside = tmp_path / "secret.png"
    Image.fromarray(picture(2)).save(outside)
    rows = [[name_of("train", i), box, *votes_for(0)] for i in range(4)]
    rows += [["linked.png", box, *votes_for(1)], [name_of("train", 0), box, *votes_for(5)]]  # named twice
    outward = ("../../secret.png", str(outside), "..\\secret.png", "")
    rows += [[name, box, *votes_for(0)] for name in ("gone.png", "dangling.png", *outward)]
    rows += [
        ["zero.png", box, *[0] * 10],
        ["short.png", box, 1, 2, 3],
        ["words.png", box, *["many"] * 10],
        ["minus.png", box, -1, *[1] * 9],
    ]
    write_rows(folder / "label.csv", rows)
    faces = FERPlus(root, "train")
    assert [faces[i]["name"] for i in range(5)] == [*(name_of("train", i) for i in range(4)), "linked.png"]
    reasons = {skip.name: skip.reason for skip in faces.skipped}
    assert "the first row counts" in reasons[name_of("train", 0)] and faces.labels[0] == 0
    assert reasons["gone.png"] == reasons["dangling.png"] == "the file is not there"
    for name in outward:
        assert "not a name inside the folder" in reasons[name]
    assert reasons["zero.png"] == "votes sum to zero"
    assert reasons["short.png"] == "row has not 12 columns"
    assert reasons["words.png"] == "votes are not numbers"
    assert reasons["minus.png"] == "votes are no counts from 0 to a million"
    assert reasons["extra.png"] == "no row in label.csv"
    assert len(faces.skipped) == 12


def test_paths_of_label_csv_may_be_written_otherwise(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path, {"train": 4})
    table = root / "data" / "FER2013Train" / "label.csv"
    rows = table.read_text().splitlines()
    rows[0] = "./" + rows[0]
    rows[1] = "FER2013Train\\" + rows[1]
    rows[2] = rows[2].replace(".png", ".PNG")
    table.write_text("\n".join([*rows, rows[0][2:], rows[3].replace("7", "1e-320", 1)]))
    faces = FERPlus(root, "train")
    assert faces.labels.tolist() == [0, 1, 2, 3]
    assert [skip.reason for skip in faces.skipped] == [
        "votes are no counts from 0 to a million",
        "named again (the first row counts)",
    ]


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path, {"train": 3})
    Image.fromarray(picture(9, 40)).save(root / "data" / "FER2013Train" / name_of("train", 2))
    with pytest.raises(DataError, match="40 x 40 pixels; expected 48 x 48"):
        FERPlus(root, "train")[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r / "data/FER2013Train/label.csv").write_text("a.png,1,2,3\n"), "4 columns; expected 12"),
        (lambda r: (r / "data/FER2013Train/label.csv").write_text(""), "label file is empty"),
        (lambda r: (r / "data/FER2013Train/label.csv").write_bytes(b"\xff\xfe\x00\x01"), "UTF-8"),
        (lambda r: (r / "data/FER2013Train/label.csv").unlink(), r"label\.csv: .*No such file"),
        (lambda r: [p.unlink() for p in (r / "data/FER2013Train").glob("*.png")], "none of the 2 images"),
    ],
)
def test_a_useless_label_file_is_one_error(tmp_path: Path, change, message: str) -> None:
    root = data_files.microsoft(tmp_path, {"train": 2})
    change(root)
    with pytest.raises(DataError, match=message) as error:
        FERPlus(root, "train")
    assert str(root) in str(error.value)


def test_missing_folders_and_splits_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is not there"):
        FERPlus(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no FER\+ found. Expected one of"):
        FERPlus(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="a file; give the folder"):
        FERPlus(tmp_path / "file")
    root = data_files.microsoft(tmp_path / "ms", {"train": 2})
    with pytest.raises(DataError, match="'test', only train"):
        FERPlus(root, "test")
    with pytest.raises(DataError, match=r"'validation'.* train, valid, test"):
        FERPlus(root, "validation")


def kaggle_with(root: Path, change) -> Path:
    data_files.kaggle(root, COUNTS)
    path = root / "fer2013.csv"
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")
    return root


def test_csv_files_that_do_not_belong_together_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"15 faces and fer2013new\.csv 16 rows"):
        FERPlus(kaggle_with(tmp_path / "a", lambda lines: lines.pop()), "train")
    with pytest.raises(DataError, match="not marked 'Training'"):
        FERPlus(kaggle_with(tmp_path / "b", lambda lines: lines.insert(1, lines.pop())), "train")
    with pytest.raises(DataError, match="columns are a, b; expected emotion, pixels and Usage"):
        FERPlus(kaggle_with(tmp_path / "c", lambda lines: lines.__setitem__(0, "a,b")), "train")
    root = data_files.kaggle(tmp_path / "d", COUNTS)
    (root / "fer2013new.csv").unlink()
    with pytest.raises(DataError, match=r"fer2013new\.csv"):
        FERPlus(root, "train")
    root = data_files.kaggle(tmp_path / "e", COUNTS)
    text = (root / "fer2013new.csv").read_text().replace("disgust", "boredom", 1)
    (root / "fer2013new.csv").write_text(text)
    with pytest.raises(DataError, match="boredom"):
        FERPlus(root, "train")


def test_rows_without_a_name_are_counted(tmp_path: Path) -> None:
    root = data_files.kaggle(tmp_path, COUNTS)
    lines = (root / "fer2013new.csv").read_text().splitlines()
    lines[1] = "Training,," + ",".join(["0"] * 9 + ["10"])
    lines[2] = f"Training,{name_of('train', 1)}," + ",".join(["0"] * 10)
    (root / "fer2013new.csv").write_text("\n".join(lines))
    faces = FERPlus(root, "train")
    assert len(faces) == 7 and np.array_equal(faces[0]["image"].numpy()[0], picture(2))
    assert {s.name: s.reason for s in faces.skipped} == {
        "row 1": "no image name in fer2013new.csv (FER+ removed the picture)",
        name_of("train", 1): "votes sum to zero",
    }
    lines[3] = lines[3][:30]
    (root / "fer2013new.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="line 4 is damaged"):
        FERPlus(root, "train")


def test_faults_in_the_neural_resizers_table(tmp_path: Path) -> None:
    root = data_files.neural_resizer(tmp_path, {"train": 3})
    path = root / "data" / "fer2013new_jin2.csv"
    lines = path.read_text().splitlines()
    hot = ",".join(["0"] * 10)
    lines += [
        f"Training,fer9.png,{hot},2",
        f"Training,../x.png,{hot},2",
        "Training,torn.png",
        lines[1],
    ]
    lines[3] = lines[3].rsplit(",", 1)[0] + ",8"
    path.write_text("\n".join(lines))
    faces = FERPlus(root, "train")
    assert len(faces) == 2
    assert sorted(s.reason for s in faces.skipped) == [
        "emotion is not one of 0 to 7",
        "named again (the first row counts)",
        "not a name inside the folder",
        "row has not 13 columns",
        "the file is not there",
    ]
    path.write_text(path.read_text().replace("Usage", "Set"))
    with pytest.raises(DataError, match="columns are Set"):
        FERPlus(root, "train")


def test_a_clone_of_microsofts_repository_is_read_with_kaggles_pixels(tmp_path: Path) -> None:
    root = data_files.microsoft(tmp_path, COUNTS)
    for path in root.rglob("*.png"):
        path.unlink()
    data_files.kaggle(root, COUNTS)
    assert DATASETS["ferplus"].find(root)[0] == "kaggle" and len(FERPlus(root, "test")) == 3


def test_batches_in_loader_processes(tmp_path: Path) -> None:
    faces = FERPlus(data_files.kaggle(tmp_path, COUNTS), "train")
    batches = list(DataLoader(faces, batch_size=4, num_workers=1))
    assert [len(b["label"]) for b in batches] == [4, 4, 1]
    assert batches[0]["image"].shape == (4, 1, 48, 48) and batches[0]["votes"].shape == (4, 8)
    again = pickle.loads(pickle.dumps(faces))
    assert torch.equal(again.batch([3, 1])["image"], faces.batch([3, 1])["image"])


def test_real_faces_have_the_papers_counts(ferplus_real: Path) -> None:
    for split, count in (("train", 25_045), ("valid", 3_191)):
        faces = FERPlus(ferplus_real, split)
        assert len(faces) == count and not faces.skipped
        assert faces[count - 1]["image"].shape == (1, 48, 48)
