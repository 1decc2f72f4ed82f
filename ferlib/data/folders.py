"""Looking through folders and label files: RAF-DB, AffectNet, and what FER+ needs of it, too."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from ferlib.data.base import DataError, Skip
from ferlib.data.images import Source, SourceDataset
from ferlib.data.labels import EMOTIONS_AFFECTNET, EMOTIONS_RAFDB
from ferlib.data.prepare import DATASETS, Kind
from ferlib.images import SUFFIXES, image_side, read_image

AGAIN = "take the file anew"


def list_folder(folder: Path) -> list[str]:
    """Sorted names in a folder, without hidden ones. Raises DataError if it cannot be opened."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        raise DataError("the folder is not there", folder) from None
    except OSError as error:
        raise DataError(f"cannot be opened as a folder ({error.strerror})", folder) from None


def safe_name(name: str) -> str:
    """A file name from a label file, if it stays inside its folder.

    Raises:
        DataError: An absolute name, a drive letter, a back-slash, ``..``, control characters, or nothing.
    """
    path = PurePosixPath(name)
    strange = any(c in "\\:" or ord(c) < 32 for c in name)
    if strange or not name.strip() or path.is_absolute() or ".." in path.parts:
        raise DataError("not a name inside the folder")
    return name


def read_table(path: Path, *, delimiter: str | None = ",") -> list[list[str]]:
    """Rows of a small text table, cells stripped, blank lines left out.

    Args:
        path: The file.
        delimiter: Between cells; None: white space.

    Raises:
        DataError: The file is missing, unreadable, empty or no UTF-8 text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter=delimiter) if delimiter else map(str.split, file)
            rows = [[cell.strip() for cell in line] for line in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"cannot be read as a table of text in UTF-8 ({why}); {AGAIN}", path) from None
    if not (rows := [row for row in rows if any(row)]):
        raise DataError("the label file is empty", path)
    return rows


def common_side(paths: Sequence[Path], usual: int) -> int:
    """The side most of some 25 square pictures have, taken from the whole list, so that damaged files at its
    front do not decide; the usual one on a tie or where none can be read.
    """
    some = paths[:: max(1, -(-len(paths) // 25))]
    sides = Counter(side for side in map(image_side, some) if side)
    best = max(sides.values(), default=0)
    winners = [side for side, count in sides.items() if count == best]
    return usual if usual in winners or not winners else max(winners)


class Listing:
    """The faces that a layout names, added one by one; those that cannot be used are kept with the reason.

    Args:
        dataset, layout, split: What is listed.
        folder: Where the files lie; None: the faces are no files.
    """

    def __init__(self, dataset: str, layout: str, split: str, folder: Path | None):
        self.what, self.folder = (dataset, layout, split), folder
        self.rows: list[tuple[str, int | list[float], Path]] = []
        self.skipped: list[Skip] = []
        self.seen: set[str] = set()
        self.there = set() if folder is None else set(list_folder(folder))

    def skip(self, name: str, reason: str) -> None:
        """A row or file that is no face."""
        self.skipped.append(Skip(name, reason))
        self.seen.add(name)

    def add(self, name: str, label: int | list[float], files: Sequence[str] = ()) -> None:
        """A face with its label or votes.

        Args:
            name: What it is called.
            label: Its label, or its votes.
            files: Names its file may have (default: the name itself).
        """
        if name in self.seen:
            return self.skip(name, "named again (the first row counts)")
        file: str | None = name
        if self.folder is not None:
            try:
                tried = [safe_name(file) for file in files or [name]]
            except DataError as error:
                return self.skip(name, str(error))
            file = next((f for f in tried if os.path.exists(self.folder / f)), None)  # links may lead nowhere
        if file is None:
            return self.skip(name, "file is not there")
        self.seen.add(name)
        self.rows.append((name, label, (self.folder or Path()) / file))
        return None

    def unlisted(self, reason: str, start: str = "") -> None:
        """Leave out what lies in the folder and was not named."""
        for name in sorted(self.there - self.seen):
            if name.startswith(start) and name.lower().endswith(SUFFIXES):
                self.skip(name, reason)

    def source(self, classes: tuple[str, ...], side: int, channels: int, empty: str) -> Source:
        """The faces in files.

        Args:
            classes: The classes' names.
            side: Pixels as published; most of the files may say otherwise.
            channels: 1 or 3.
            empty: What to say where there are none.

        Raises:
            DataError: There are none.
        """
        if not self.rows:
            raise DataError(empty, self.folder or "")
        names, labels, paths = map(list, zip(*self.rows, strict=True))
        given, votes = torch.tensor(labels), None
        if given.ndim > 1:
            given, votes = torch.full((len(names),), -1), given
        load = partial(_load, paths, "L" if channels == 1 else "RGB")
        side = common_side(paths, side) if self.folder else side
        return Source(*self.what, classes, names, given, votes, load, paths, side, channels, self.skipped)


def _load(paths: Sequence[Path], mode: str, index: int) -> np.ndarray:
    return read_image(paths[index], mode=mode)


def _class_folders(dataset: str, split: str, folder: Path, labels: Mapping[str, int], what: str) -> Listing:
    """Images in one folder per class, sorted by class and name.

    Args:
        dataset, split, folder: What is read, and where.
        labels: Folder name in lower case -> label.
        what: In words, which names are classes.
    """
    listing = Listing(dataset, "class-folders", split, folder)
    for entry in sorted(listing.there, key=lambda e: (labels.get(e.lower(), 99), e)):
        if not (folder / entry).is_dir():
            listing.skip(entry, "lies beside the class folders, so it has no label")
            continue
        for name in list_folder(folder / entry):
            if entry.lower() not in labels:
                listing.skip(f"{entry}/{name}", f"its folder is no class ({what})")
            elif not name.lower().endswith(SUFFIXES):
                listing.skip(f"{entry}/{name}", "not an image by its ending")
            else:
                listing.rows.append((f"{entry}/{name}", labels[entry.lower()], folder / entry / name))
    return listing


# ---- RAF-DB ----

RAFDB_FOLDERS = {str(i + 1): i for i in range(len(EMOTIONS_RAFDB))}  # RAF-DB counts its classes from 1
_RAFDB_TEST = tuple(("test", name, inner) for name in ("test", "valid") for inner in ("", "label"))


def _rafdb_look(root: Path) -> tuple[str, dict[str, Any]] | None:
    for base in (root / "basic", root, root / "RAF-DB" / "basic"):
        for images, place in product(("Image/aligned", "aligned"), ("EmoLabel", "")):
            labels = base / place / "list_patition_label.txt"
            if (base / images).is_dir() and labels.is_file():
                return "official", dict.fromkeys(("train", "test"), (base / images, labels))
    # POSTER V2 keeps RAF-DB's test images in a folder called valid; some copies have train/label/1
    there = {}
    for split, name, inner in (("train", "train", ""), ("train", "train", "label"), *_RAFDB_TEST):
        folder = root / name / inner
        if split not in there and any((folder / label).is_dir() for label in RAFDB_FOLDERS):
            there[split] = folder
    return ("class-folders", there) if there else None


def _rafdb_read(place: Any, layout: str, split: str) -> Source:
    if layout == "class-folders":
        listing = _class_folders("rafdb", split, place, RAFDB_FOLDERS, "1 to 7")
        return listing.source(EMOTIONS_RAFDB, 100, 3, "its class folders 1 to 7 hold no images")
    folder, label_file = place
    listing = Listing("rafdb", "official", split, folder)
    for name, *rest in read_table(label_file, delimiter=None):
        if name.startswith(("train", "test")) and not name.startswith(split):
            continue
        if len(rest) != 1:
            listing.skip(name, "row has not two columns (name, label)")
        elif not name.startswith(("train_", "test_")):
            listing.skip(name, "the name says neither train nor test")
        elif rest[0] not in RAFDB_FOLDERS:
            listing.skip(name, "label is not 1 to 7")
        else:
            stem, dot, suffix = name.rpartition(".")
            listing.add(f"{stem}_aligned{dot}{suffix}", RAFDB_FOLDERS[rest[0]])
    listing.unlisted(f"no row in {label_file.name}", split)
    empty = f"none of the {split!r} faces of {label_file.name} is there"
    return listing.source(EMOTIONS_RAFDB, 100, 3, empty)


DATASETS["rafdb"] = Kind(
    "rafdb",
    "RAF-DB",
    "the official basic/Image/aligned with basic/EmoLabel/list_patition_label.txt; train/1 ... train/7 and "
    "test/1 ... test/7; or a folder made by `ferlib prepare rafdb`",
    ("train", "test"),
    _rafdb_look,
    _rafdb_read,
)


class RAFDB(SourceDataset):
    """RAF-DB: 15,339 aligned color faces with one of seven expressions (basic subset), in its own order.

    Reads the official release (``basic/Image/aligned``, ``basic/EmoLabel/list_patition_label.txt``), folders
    ``train/1 ... 7`` and ``test/1 ... 7`` as the Batch Transformer's README asks for, and what ``ferlib
    prepare rafdb`` makes. Label files count from 1; ``labels`` here count from 0 in the order of
    ``EMOTIONS_RAFDB``. Items are ``dict(image=uint8 (3, S, S), label=int, name=str)``.

    Source: Li et al. 2017. Chapter 1.

    Args:
        root: The folder.
        split: ``"train"`` (12,271 faces) or ``"test"`` (3,068). There is no validation split: hold out a
            part of "train", and report on "test".
        size: Side in pixels to resize to (default: as stored, 100, and pictures of another size are refused).

    Attributes:
        skipped: Files and rows that cannot be used.

    Raises:
        DataError: Unknown layout or split; damaged files, when they are read.
    """

    def __init__(self, root: str | Path, split: str = "train", *, size: int | None = None):
        super().__init__(DATASETS["rafdb"].open(root, split, size))


# ---- AffectNet ----

AFFECTNET_FOLDERS = {str(i): i for i in range(8)} | {name: i for i, name in enumerate(EMOTIONS_AFFECTNET)}
NO_EXPRESSION = {8: "none", 9: "uncertain", 10: "no face"}
# of two that fit the last counts
_NAMES = {"train": ("train_set", "train"), "valid": ("val_set", "val", "valid"), "test": ("test_set", "test")}


def _affectnet_look(root: Path) -> tuple[str, dict[str, Path]] | None:
    def official(folder: Path) -> bool:
        return (folder / "images").is_dir() and (folder / "annotations").is_dir()

    def by_class(folder: Path) -> bool:
        return folder.is_dir() and any(name.lower() in AFFECTNET_FOLDERS for name in list_folder(folder))

    for layout, fits in (("official", official), ("class-folders", by_class)):
        there = {split: root / name for split, names in _NAMES.items() for name in names if fits(root / name)}
        if there:
            return layout, there
    return None


def _expression(path: Path) -> int | str:
    """The number in an annotation file, or why there is none."""
    try:
        value = np.load(path, allow_pickle=False)
        number = int(value.item() if value.size == 1 else value)  # text of length 1 or 2, or a number
    except FileNotFoundError:
        return "no _exp.npy annotation"
    except (OSError, ValueError, TypeError, EOFError):
        return "its _exp.npy annotation cannot be read"
    if number in NO_EXPRESSION:
        return f"annotated as {NO_EXPRESSION[number]!r} ({number})"
    return number if 0 <= number < len(EMOTIONS_AFFECTNET) else f"annotation {number} is not 0 to 10"


def _affectnet_read(base: Path, layout: str, split: str) -> Source:
    if layout == "class-folders":
        listing = _class_folders("affectnet", split, base, AFFECTNET_FOLDERS, "0 to 7")
        return listing.source(EMOTIONS_AFFECTNET, 224, 3, "its class folders 0 to 7 hold no images")
    listing, stems = Listing("affectnet", "official", split, base / "images"), set()
    for name in sorted(listing.there):
        stem, suffix = os.path.splitext(name)
        label = _expression(base / "annotations" / f"{stem}_exp.npy")
        if suffix.lower() not in SUFFIXES:
            listing.skip(name, "not an image by its ending")
            continue
        stems.add(stem)
        if isinstance(label, str):
            listing.skip(name, label)
        else:
            listing.add(name, label)
    for entry in list_folder(base / "annotations"):
        if entry.endswith("_exp.npy") and entry.removesuffix("_exp.npy") not in stems:
            listing.skip(entry, "annotation without an image")
    return listing.source(EMOTIONS_AFFECTNET, 224, 3, "no image with an expression 0 to 7 in its annotation")


DATASETS["affectnet"] = Kind(
    "affectnet",
    "AffectNet",
    "the official train_set/ and val_set/, each with images/ and annotations/*_exp.npy; train/0 ... train/7 "
    "and valid/0 ... valid/7 (also val, val_set, test); or a folder made by `ferlib prepare affectnet`",
    ("train", "valid", "test"),
    _affectnet_look,
    _affectnet_read,
    {"test": "valid"},
)


class AffectNet(SourceDataset):
    """AffectNet: some 290,000 color faces from the web with one of eight expressions, in its own class order.

    Reads the official release (``train_set/images``, ``train_set/annotations/*_exp.npy``, ``val_set/...``),
    class folders ``train/0 ... 7``, ``valid/0 ... 7``, and what ``ferlib prepare affectnet`` makes (opening
    hundreds of thousands of annotation files takes minutes, so do prepare it). Items are ``dict(image=uint8
    (3, S, S), label=int, name=str)``.

    Source: Mollahosseini et al. 2017. Chapter 1.

    Args:
        root: The folder.
        split: ``"train"``, ``"valid"`` or ``"test"``. The test set was never published, papers report on the
            validation set; where no test folder is there, "test" reads that one, too.
        classes: 7 or 8; 7 leaves contempt (the last class) out.
        size: Side in pixels to resize to (default: as stored, 224, and pictures of another size are refused).

    Attributes:
        skipped: Files and rows that cannot be used.
        unlabeled: Faces of contempt that classes=7 leaves out.

    Raises:
        DataError: Unknown layout, split or number of classes; damaged files, when they are read.
    """

    def __init__(self, root: str | Path, split: str = "train", classes: int = 8, *, size: int | None = None):
        if classes not in (7, 8):
            raise DataError(f"classes={classes}; AffectNet has 8, or 7 without contempt")
        source = DATASETS["affectnet"].open(root, split, size)
        super().__init__(source, torch.nonzero(source.labels < classes)[:, 0])
        self.classes = EMOTIONS_AFFECTNET[:classes]
        self.unlabeled = [
            Skip(source.names[i], "contempt, left out with classes=7")
            for i in torch.nonzero(source.labels >= classes)[:, 0].tolist()
        ]
