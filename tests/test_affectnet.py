"""AffectNet in both layouts, with 7 or 8 classes; what has no expression is told and counted."""

from pathlib import Path

import numpy as np
import pytest

from ferlib.data.base import DataError
from ferlib.data.folders import AffectNet
from ferlib.data.labels import EMOTIONS_AFFECTNET
from ferlib.data.prepare import DATASETS, kinds_in
from tests import data_files


def find(root: Path) -> tuple[str, list[str]]:
    layout, places = DATASETS["affectnet"].find(root)
    return layout, list(places)


def test_the_official_release(tmp_path: Path) -> None:
    root = data_files.affectnet_official(tmp_path, {"train_set": [0, 7, 3, 8, 9, 10, 6], "val_set": [4, 2]})
    assert find(root) == ("official", ["train", "valid"])
    eight, seven = AffectNet(root, "train"), AffectNet(root, "train", classes=7)
    assert eight.classes == EMOTIONS_AFFECTNET and seven.classes == EMOTIONS_AFFECTNET[:7]
    assert eight.labels.tolist() == [0, 7, 3, 6] and seven.labels.tolist() == [0, 3, 6]
    assert eight[1]["image"].shape == (3, 64, 64) and eight[1]["name"] == "1.jpg"
    assert {s.name: s.reason for s in eight.skipped} == {
        "3.jpg": "annotated as 'none' (8)",
        "4.jpg": "annotated as 'uncertain' (9)",
        "5.jpg": "annotated as 'no face' (10)",
    }
    assert {*eight.names} - {*seven.names} == {"1.jpg"}
    assert len(seven.class_counts()) == 7


def test_the_validation_set_stands_in_for_the_unpublished_test_set(tmp_path: Path) -> None:
    root = data_files.affectnet_official(tmp_path, {"train_set": [0], "val_set": [4, 2]})
    faces = AffectNet(root, "test")
    assert faces.labels.tolist() == [4, 2]
    assert len(faces.source.notes) == 1 and "validation" in faces.source.notes[0]


def test_class_folders(tmp_path: Path) -> None:
    numbers = [str(k) for k in range(8)]
    root = data_files.class_folders(tmp_path, {"train": 1, "val": 2, "test": 1}, numbers, side=64)
    assert find(root) == ("class-folders", ["train", "valid", "test"])
    assert AffectNet(root, "valid").labels.tolist() == [k for k in range(8) for _ in range(2)]
    assert AffectNet(root, "test", classes=7).labels.tolist() == list(range(7))
    assert not AffectNet(root, "test").source.notes


def test_folders_may_have_the_classes_names(tmp_path: Path) -> None:
    names = [name.capitalize() for name in EMOTIONS_AFFECTNET]
    root = data_files.class_folders(tmp_path, {"train": 1}, [*names, "Joy"], side=64)
    faces = AffectNet(root, "train")
    assert faces.labels.tolist() == list(range(8)) and faces[2]["name"].startswith("Sadness/")
    assert [s.reason for s in faces.skipped] == ["its folder is no class (0 to 7)"]


def test_folders_1_to_7_are_rafdbs(tmp_path: Path) -> None:
    root = data_files.class_folders(tmp_path / "a", {"train": 1, "val": 1}, "1234567", side=64)
    with pytest.raises(DataError, match=r"'neutral'.*AffectNet"):
        AffectNet(root, "valid", classes=7)
    assert [kind.name for kind in kinds_in(root)] == ["rafdb"]
    root = data_files.class_folders(tmp_path / "b", {"train": 1, "val": 1}, "0123456", side=64)
    assert len(AffectNet(root, "valid", classes=7)) == 7
    assert [kind.name for kind in kinds_in(root)] == ["affectnet"]


def test_kaggles_folders_are_read_by_their_names(tmp_path: Path) -> None:
    names = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    root = data_files.class_folders(tmp_path, {"train": 1, "test": 1}, names, side=48)
    faces = AffectNet(root, "test", classes=7)
    found = sorted((face["label"], face["name"].split("/")[0]) for face in map(faces.__getitem__, range(7)))
    assert [name for _, name in found] == ["neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"]
    assert [kind.name for kind in kinds_in(root)] == ["rafdb", "affectnet"]  # the second lacks contempt


def test_faults_of_annotations(tmp_path: Path) -> None:
    root = data_files.affectnet_official(tmp_path, {"train_set": [0, 1, 2, 11, 3]})
    notes = root / "train_set" / "annotations"
    (notes / "0_exp.npy").unlink()
    for name in ("empty", "zip", "header", "fraction", "infinite"):
        (root / "train_set" / "images" / f"{name}.jpg").touch()
    for name, content in (("empty", b""), ("zip", b"PK\x03\x04"), ("header", b"\x93NUMPY\x01\x00v\x00{")):
        (notes / f"{name}_exp.npy").write_bytes(content)
    np.save(notes / "fraction_exp.npy", 3.7)
    np.save(notes / "infinite_exp.npy", np.inf)
    (root / "train_set" / "images" / "4.jpg").unlink()
    (root / "train_set" / "images" / "readme.txt").touch()
    np.save(notes / "hostile_exp.npy", np.array([print], dtype=object), allow_pickle=True)
    (root / "train_set" / "images" / "hostile.jpg").touch()
    faces = AffectNet(root, "train")
    assert faces.labels.tolist() == [1, 2]
    reasons = {s.name: s.reason for s in faces.skipped}
    odd = [
        reasons.pop(f"{name}.jpg") for name in ("empty", "zip", "header", "fraction", "infinite", "hostile")
    ]
    assert all("_exp.npy" in reason or "annotation" in reason for reason in odd)
    assert reasons == {
        "0.jpg": "no _exp.npy annotation",
        "3.jpg": "annotation 11 is not 0 to 10",
        "4_exp.npy": "annotation without an image",
        "readme.txt": "not an image by its ending",
    }


def test_what_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no AffectNet found\. Expected one of"):
        AffectNet(tmp_path)
    root = data_files.affectnet_official(tmp_path / "a", {"val_set": [4]})
    with pytest.raises(DataError, match="no split 'train', only valid"):
        AffectNet(root, "train")
    with pytest.raises(DataError, match="classes=6"):
        AffectNet(root, "valid", classes=6)
    root = data_files.affectnet_official(tmp_path / "b", {"val_set": [9]})
    with pytest.raises(DataError, match="no image with an expression"):
        AffectNet(root, "valid")
