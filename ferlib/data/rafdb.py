"""RAF-DB: 15,339 colour faces (basic subset) labelled with one of seven expressions."""

from __future__ import annotations

from pathlib import Path

import torch

from ferlib.data.base import DataError
from ferlib.data.cache import cached_source, is_cache, read_manifest
from ferlib.data.labels import EMOTIONS_RAFDB
from ferlib.data.listing import (
    Skip,
    check_root,
    check_split,
    class_folders,
    list_folder,
    read_table,
    usable_files,
)
from ferlib.data.sources import Source, SourceDataset, file_source, with_size

SPLITS = ("train", "test")
SIDE = 100  # pixels, as published
TITLE = "RAF-DB"
EXPECTED = (
    "Expected one of: the official basic/Image/aligned with basic/EmoLabel/list_patition_label.txt; train/1 "
    "... train/7 and test/1 ... test/7; or a folder made by `ferlib prepare rafdb`"
)
FOLDER_LABELS = {str(i + 1): i for i in range(len(EMOTIONS_RAFDB))}  # RAF-DB counts its classes from 1


def _official(root: Path) -> tuple[Path, Path] | None:
    """The folder of aligned faces and the label file of the official release."""
    for base in (root / "basic", root, root / "RAF-DB" / "basic"):
        images = next((f for n in ("Image/aligned", "aligned") if (f := base / n).is_dir()), None)
        for place in ("EmoLabel", ""):
            if images and (labels := base / place / "list_patition_label.txt").is_file():
                return images, labels
    return None


def _split_folder(root: Path, split: str) -> Path | None:
    # POSTER V2 keeps RAF-DB's test images in a folder called valid; some copies have train/label/1
    names = {"train": ("train",), "test": ("test", "valid")}[split]
    found = (root / name / inner for name in names for inner in ("", "label"))
    return next((f for f in found if any((f / label).is_dir() for label in FOLDER_LABELS)), None)


def find_layout(root: Path) -> str | None:
    """Which layout of RAF-DB lies in a folder: "prepared", "official", "class-folders" or None.

    Shape: path -> text or None.
    """
    if is_cache(root):
        return "prepared" if read_manifest(root)["dataset"] == "rafdb" else None
    if _official(root):
        return "official"
    return "class-folders" if any(_split_folder(root, split) for split in SPLITS) else None


def available_splits(root: Path) -> list[str]:
    """Which of train and test a folder offers. Shape: path -> list of text."""
    layout = find_layout(root)
    if layout == "prepared":
        return list(read_manifest(root)["splits"])
    if layout == "official":
        return list(SPLITS)
    return [split for split in SPLITS if layout and _split_folder(root, split)]


def open_source(root: str | Path, split: str) -> Source:
    """One split of RAF-DB in whichever layout the folder has. Shape: path, text -> Source. Raises
    DataError.
    """
    root = check_root(root)
    if split == "valid":
        raise DataError("RAF-DB has no validation split: hold out part of 'train', and report on 'test'")
    check_split(split, SPLITS)
    layout = find_layout(root)
    if layout == "prepared":
        return cached_source(root, split, "rafdb")
    if layout == "official":
        return _read_official(root, split)
    if layout == "class-folders":
        return _read_folders(root, split)
    raise DataError(f"{root}: no RAF-DB found. {EXPECTED}")


def _read_official(root: Path, split: str) -> Source:
    places = _official(root)
    assert places is not None  # find_layout said so
    folder, label_file = places
    names, labels, skipped = [], [], []
    for row in read_table(label_file, delimiter=None):
        if row[0].startswith(("train", "test")) and not row[0].startswith(split):
            continue
        reason = None
        if len(row) != 2:
            reason = "row has not two columns (name, label)"
        elif not row[0].startswith(("train_", "test_")):
            reason = "the name says neither train nor test"
        elif row[1] not in FOLDER_LABELS:
            reason = "label is not 1 to 7"
        if reason:
            skipped.append(Skip(row[0], reason))
            continue
        stem, dot, suffix = row[0].rpartition(".")
        names.append(f"{stem}_aligned{dot}{suffix}")
        labels.append(FOLDER_LABELS[row[1]])
    good = usable_files(folder, names, skipped)
    listed = set(names)
    for name in list_folder(folder):
        if name.startswith(split) and name not in listed:
            skipped.append(Skip(name, f"no row in {label_file.name}"))
    kept = [i for i, ok in enumerate(good) if ok]
    if not kept:
        raise DataError(f"{folder}: none of the {len(names):,} {split!r} faces of {label_file.name} is there")
    names, labels = [names[i] for i in kept], [labels[i] for i in kept]
    paths = [folder / name for name in names]
    return file_source("rafdb", "official", split, EMOTIONS_RAFDB, names, labels, paths, SIDE, skipped)


def _read_folders(root: Path, split: str) -> Source:
    folder = _split_folder(root, split)
    if folder is None:
        raise DataError(f"{root}: no folder {split!r} with class folders 1 to 7. {EXPECTED}")
    names, labels, skipped = class_folders(folder, FOLDER_LABELS, "1 to 7")
    if not names:
        raise DataError(f"{folder}: its class folders 1 to 7 hold no images")
    paths = [folder / name for name in names]
    return file_source("rafdb", "class-folders", split, EMOTIONS_RAFDB, names, labels, paths, SIDE, skipped)


class RAFDB(SourceDataset):
    """RAF-DB faces (basic subset, aligned) of one split, in RAF-DB's own class order.

    Reads the official release (``basic/Image/aligned``, ``basic/EmoLabel/list_patition_label.txt``), folders
    ``train/1 ... 7`` and ``test/1 ... 7`` as the Batch Transformer's README asks for, and what ``ferlib
    prepare rafdb`` makes. Label files count from 1; ``labels`` here count from 0 in the order of
    ``EMOTIONS_RAFDB``.

    Parameters
    ----------
    root: the folder.
    split: ``"train"`` (12,271 faces) or ``"test"`` (3,068); RAF-DB has no validation split.
    size: side in pixels to resize to; default: as stored (100), and pictures of another size are refused.

    Shape: items ``dict(image uint8 (3, S, S), label int, path str)``; ``skipped``: list of :class:`Skip`.

    Raises
    ------
    DataError: unknown layout or split; damaged files, when they are read.

    Source: Li et al. 2017. Chapter 1.
    """

    def __init__(self, root: str | Path, split: str = "train", *, size: int | None = None):
        source = with_size(open_source(root, split), size)
        super().__init__(source, torch.arange(len(source)), source.labels, None)
