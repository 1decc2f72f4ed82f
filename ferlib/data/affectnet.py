"""AffectNet: some 290,000 colour faces from the web, annotated by hand with eight expressions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from ferlib.data.base import DataError
from ferlib.data.cache import cached_source, is_cache, read_manifest
from ferlib.data.images import SUFFIXES
from ferlib.data.labels import EMOTIONS_AFFECTNET
from ferlib.data.listing import Skip, check_root, check_split, class_folders, list_folder
from ferlib.data.sources import Source, SourceDataset, file_source, with_size

SPLITS = ("train", "valid", "test")
SIDE = 224  # pixels, as published
TITLE = "AffectNet"
EXPECTED = (
    "Expected one of: the official train_set/ and val_set/, each with images/ and annotations/*_exp.npy; "
    "train/0 ... train/7 and valid/0 ... valid/7 (also val, val_set, test); or a folder made "
    "by `ferlib prepare affectnet`"
)
FOLDER_LABELS = {str(i): i for i in range(8)} | {name: i for i, name in enumerate(EMOTIONS_AFFECTNET)}
NO_EXPRESSION = {8: "none", 9: "uncertain", 10: "no face"}
_OFFICIAL = {"train": ("train_set",), "valid": ("val_set",), "test": ("test_set",)}
_FOLDERS = {"train": ("train", "train_set"), "valid": ("valid", "val", "val_set"), "test": ("test",)}
BORROWED = (
    "AffectNet's test set was never published; papers report on its validation set, so 'test' reads that"
)


def _official(root: Path, split: str) -> Path | None:
    bases = (root / name for name in _OFFICIAL[split])
    return next((b for b in bases if (b / "images").is_dir() and (b / "annotations").is_dir()), None)


def _folder(root: Path, split: str) -> Path | None:
    def has_classes(folder: Path) -> bool:
        return folder.is_dir() and any(e.lower() in FOLDER_LABELS for e in list_folder(folder))

    return next((f for name in _FOLDERS[split] if has_classes(f := root / name)), None)


def find_layout(root: Path) -> str | None:
    """Which layout of AffectNet lies in a folder: "prepared", "official", "class-folders" or None.

    Shape: path -> text or None.
    """
    if is_cache(root):
        return "prepared" if read_manifest(root)["dataset"] == "affectnet" else None
    if any(_official(root, split) for split in SPLITS):
        return "official"
    return "class-folders" if any(_folder(root, split) for split in SPLITS) else None


def available_splits(root: Path) -> list[str]:
    """Which of train, valid, test a folder really holds. Shape: path -> list of text."""
    layout = find_layout(root)
    if layout == "prepared":
        return list(read_manifest(root)["splits"])
    place = {"official": _official, "class-folders": _folder}.get(layout or "")
    return [split for split in SPLITS if place and place(root, split)]


def open_source(root: str | Path, split: str) -> Source:
    """One split of AffectNet in whichever layout the folder has. Shape: path, text -> Source. Raises
    DataError.

    "test" reads the validation set where no test folder is there, as papers do, and leaves a note.
    """
    root = check_root(root)
    check_split(split, SPLITS)
    layout = find_layout(root)
    if layout is None:
        raise DataError(f"{root}: no AffectNet found. {EXPECTED}")
    there = available_splits(root)
    real = "valid" if split == "test" and "test" not in there else split
    if real not in there:
        raise DataError(f"{root}: no split {split!r}, only {', '.join(there)}. {EXPECTED}")
    read = {"official": _read_official, "class-folders": _read_folders}
    source = cached_source(root, real, "affectnet") if layout == "prepared" else read[layout](root, real)
    if real != split:
        source.split = split
        source.notes.append(BORROWED)
    return source


def _expression(path: Path) -> int | str:
    """The number in an annotation file, or why there is none."""
    try:
        value = np.load(path, allow_pickle=False)
        number = int(
            value.item() if value.size == 1 else value
        )  # stored as text of length 1 or 2, or as a number
    except FileNotFoundError:
        return "no _exp.npy annotation"
    except (OSError, ValueError, TypeError, EOFError):
        return "its _exp.npy annotation cannot be read"
    if number in NO_EXPRESSION:
        return f"annotated as {NO_EXPRESSION[number]!r} ({number})"
    return number if 0 <= number < len(EMOTIONS_AFFECTNET) else f"annotation {number} is not 0 to 10"


def _read_official(root: Path, split: str) -> Source:
    base = _official(root, split)
    assert base is not None  # available_splits said so
    names, labels, skipped = [], [], []
    stems = set()
    for name in list_folder(base / "images"):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in SUFFIXES:
            skipped.append(Skip(name, "not an image by its ending"))
            continue
        stems.add(stem)
        label = _expression(base / "annotations" / f"{stem}_exp.npy")
        if isinstance(label, str):
            skipped.append(Skip(name, label))
        else:
            names.append(name)
            labels.append(label)
    for entry in list_folder(base / "annotations"):
        if entry.endswith("_exp.npy") and entry[: -len("_exp.npy")] not in stems:
            skipped.append(Skip(entry, "annotation without an image"))
    if not names:
        raise DataError(f"{base}: no image with an expression 0 to 7 in its annotation")
    paths = [base / "images" / name for name in names]
    return file_source(
        "affectnet", "official", split, EMOTIONS_AFFECTNET, names, labels, paths, SIDE, skipped
    )


def _read_folders(root: Path, split: str) -> Source:
    folder = _folder(root, split)
    assert folder is not None  # available_splits said so
    names, labels, skipped = class_folders(folder, FOLDER_LABELS, "0 to 7")
    if not names:
        raise DataError(f"{folder}: its class folders 0 to 7 hold no images")
    paths = [folder / name for name in names]
    return file_source(
        "affectnet", "class-folders", split, EMOTIONS_AFFECTNET, names, labels, paths, SIDE, skipped
    )


class AffectNet(SourceDataset):
    """AffectNet faces of one split, in AffectNet's own class order, with or without contempt.

    Reads the official release (``train_set/images``, ``train_set/annotations/*_exp.npy``,
    ``val_set/...``), class folders ``train/0 ... 7``, ``valid/0 ... 7``, and what ``ferlib prepare
    affectnet`` makes (opening hundreds of thousands of annotation files takes minutes, so do prepare it).

    Parameters
    ----------
    root: the folder.
    split: ``"train"``, ``"valid"`` or ``"test"``. The test set was never published, papers report on the
        validation set; where no test folder is there, "test" reads that one, too.
    classes: 7 or 8; 7 leaves contempt (the last class) out.
    size: side in pixels to resize to; default: as stored (224), and pictures of another size are refused.

    Shape: items ``dict(image uint8 (3, S, S), label int, path str)``; ``skipped`` and ``unlabelled``
    (contempt, with classes=7) are lists of :class:`Skip`.

    Raises
    ------
    DataError: unknown layout, split or number of classes; damaged files, when they are read.

    Source: Mollahosseini et al. 2017. Chapter 1.
    """

    def __init__(self, root: str | Path, split: str = "train", classes: int = 8, *, size: int | None = None):
        if classes not in (7, 8):
            raise DataError(f"classes={classes}; AffectNet has 8, or 7 without contempt")
        source = with_size(open_source(root, split), size)
        rows = torch.nonzero(source.labels < classes)[:, 0]
        super().__init__(source, rows, source.labels[rows], None)
        self.classes = EMOTIONS_AFFECTNET[:classes]
        self.unlabelled = [
            Skip(source.names[i], "contempt, left out with classes=7")
            for i in torch.nonzero(source.labels >= classes)[:, 0].tolist()
        ]
