"""RAF-DB in both layouts: labels 1-7 become 0-6 in its own order; faults are told and counted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ferlib.data.base import DataError
from ferlib.data.folders import RAFDB
from ferlib.data.labels import EMOTIONS_RAFDB
from ferlib.data.prepare import DATASETS
from tests import data_files
from tests.data_files import picture


def find(root: Path) -> tuple[str, list[str]]:
    layout, places = DATASETS["rafdb"].find(root)
    return layout, list(places)


LABELS = [str(k) for k in range(1, 8)]


def test_the_official_release(tmp_path: Path) -> None:
    root = data_files.rafdb_official(tmp_path / "RAF DB", {"train": 9, "test": 4})
    assert find(root) == ("official", ["train", "test"])
    train, test = RAFDB(root, "train"), RAFDB(root, "test")
    assert train.classes == EMOTIONS_RAFDB and train.votes is None
    assert train.labels.tolist() == [i % 7 for i in range(9)] and test.labels.tolist() == [0, 1, 2, 3]
    item = train[8]
    assert item["image"].shape == (3, 100, 100) and item["name"] == "train_00009_aligned.jpg"
    # the label of file 1 is written "1", RAF-DB's surprise
    assert train.classes[train[0]["label"]] == "surprise"
    with Image.open(root / "basic" / "Image" / "aligned" / item["name"]) as image:
        assert np.array_equal(item["image"].numpy().transpose(1, 2, 0), np.asarray(image))
    assert train.class_counts().tolist() == [2, 2, 1, 1, 1, 1, 1]


def test_the_class_folders_of_the_batch_transformers_readme(tmp_path: Path) -> None:
    root = data_files.class_folders(tmp_path, {"train": 2, "test": 1}, LABELS)
    assert find(root)[0] == "class-folders"
    faces = RAFDB(root, "train")
    assert faces.labels.tolist() == [k for k in range(7) for _ in range(2)]
    assert faces[3]["name"] == "2/train_1_1.jpg" and faces.classes[faces[3]["label"]] == "fear"
    assert len(RAFDB(root, "test")) == 7
    (tmp_path / "train").rename(tmp_path / "label")  # the folders of classes may lie in one of that name
    (tmp_path / "train").mkdir()
    (tmp_path / "label").rename(tmp_path / "train" / "label")
    assert torch.equal(RAFDB(root, "train").labels, faces.labels)


def test_a_folder_called_valid_holds_the_test_faces(tmp_path: Path) -> None:
    root = data_files.class_folders(tmp_path, {"train": 1, "valid": 1}, LABELS)
    assert find(root)[1] == ["train", "test"] and len(RAFDB(root, "test")) == 7
    with pytest.raises(DataError, match=r"valid.*train, test"):
        RAFDB(root, "valid")
    assert not RAFDB(root, "test").source.notes
    data_files.class_folders(tmp_path, {"test": 1}, LABELS)
    assert "valid" in RAFDB(root, "test").source.notes[0]  # a split that is not read is noted


def test_faults_of_the_official_list(tmp_path: Path) -> None:
    root = data_files.rafdb_official(tmp_path, {"train": 3, "test": 1})
    images = root / "basic" / "Image" / "aligned"
    Image.fromarray(picture(0, 100, 3)).save(images / "train_00099_aligned.jpg")
    with (root / "basic" / "EmoLabel" / "list_patition_label.txt").open("a") as file:
        file.write("train_00001.jpg 4\ntrain_00050.jpg 2\ntrain_00002.jpg 9\ntrain_x.jpg\n../train.jpg 1\n")
        file.write("train_../../../x.jpg 1\n")
    faces = RAFDB(root, "train")
    assert faces.labels.tolist() == [0, 1, 2]
    assert sorted((s.name, s.reason) for s in faces.skipped) == [
        ("../train.jpg", "the name says neither train nor test"),
        ("train_../../../x.jpg", "the name says neither train nor test"),
        ("train_00001_aligned.jpg", "named again (the first row counts)"),
        ("train_00002.jpg", "label is not 1 to 7"),
        ("train_00050_aligned.jpg", "the file is not there"),
        ("train_00099_aligned.jpg", "no row in list_patition_label.txt"),
        ("train_x.jpg", "row has not two columns (name, label)"),
    ]


def test_faults_of_class_folders(tmp_path: Path) -> None:
    root = data_files.class_folders(tmp_path, {"train": 1}, [*LABELS, "extra", "happy"])
    (root / "train" / "1" / "notes.txt").write_text("x")
    (root / "train" / "loose.jpg").write_bytes(b"")
    (root / "train" / "3" / "train_2_0.jpg").write_bytes(b"")
    faces = RAFDB(root, "train")
    assert len(faces) == 7
    assert {s.name: s.reason for s in faces.skipped} == {
        "1/notes.txt": "not an image by its ending",
        "extra/train_7_0.jpg": "its folder is no class (1 to 7)",
        "happy/train_8_0.jpg": "its folder is no class (1 to 7)",
        "loose.jpg": "lies beside the class folders, so it has no label",
    }
    with pytest.raises(DataError, match=r"train_2_0\.jpg: the file is empty"):
        faces[2]
    with pytest.raises(DataError, match="test"):
        RAFDB(root, "test")


def test_labels_that_count_from_0_are_refused(tmp_path: Path) -> None:
    root = data_files.rafdb_official(tmp_path, {"train": 7, "test": 7})
    table = root / "basic" / "EmoLabel" / "list_patition_label.txt"
    rows = [line.split() for line in table.read_text().splitlines()]
    table.write_text("\n".join(f"{name} {label}.0" for name, label in rows))
    assert RAFDB(root, "test").labels.tolist() == [*range(7)]
    table.write_text("\n".join(f"{name} {int(label) - 1}" for name, label in rows))
    with pytest.raises(DataError, match="count from 0"):
        RAFDB(root, "test")


def test_names_with_aligned_and_other_endings_are_found(tmp_path: Path) -> None:
    root = data_files.rafdb_official(tmp_path, {"train": 2})
    images = root / "basic" / "Image" / "aligned"
    (images / "train_00001_aligned.jpg").rename(images / "train_00001_aligned.JPG")
    table = root / "basic" / "EmoLabel" / "list_patition_label.txt"
    table.write_text(table.read_text().replace(".jpg", "_aligned.jpg"))
    assert RAFDB(root, "train").labels.tolist() == [0, 1]


@pytest.mark.parametrize("names", [[name.upper() for name in EMOTIONS_RAFDB], LABELS])
def test_numbers_and_names_of_class_folders(tmp_path: Path, names: list[str]) -> None:
    root = data_files.class_folders(tmp_path, {"Train": 1, "Test": 1}, names)
    assert RAFDB(root, "train").labels.tolist() == [*range(7)]
    (root / "Train" / names[6]).rename(root / "Train" / "0")
    (root / "Test" / names[6]).rename(root / "Test" / "0")
    for split in ("train", "test"):
        with pytest.raises(DataError, match=r"'0'.*RAF-DB"):
            RAFDB(root, split)


def test_a_folder_in_a_folder_is_found(tmp_path: Path) -> None:
    data_files.rafdb_official(tmp_path / "RAF-DB" / "RAF-DB", {"train": 2})
    assert len(RAFDB(tmp_path, "train")) == 2
    (tmp_path / "RAF-DB" / "other").mkdir()
    with pytest.raises(DataError, match="no RAF-DB found"):
        RAFDB(tmp_path, "train")


@pytest.mark.parametrize("start", ["./", "Image/aligned/", "Image\\aligned\\", "basic\\Image/aligned/"])
def test_the_list_may_name_the_folder_too(tmp_path: Path, start: str) -> None:
    root = data_files.rafdb_official(tmp_path, {"train": 4, "test": 2})
    table = root / "basic" / "EmoLabel" / "list_patition_label.txt"
    table.write_text("".join(f"{start}{line}\n" for line in table.read_text().splitlines()))
    train, test = RAFDB(root, "train"), RAFDB(root, "test")
    assert (len(train), len(test)) == (4, 2) and not train.skipped and not test.skipped
