"""Looking through folders and label files: RAF-DB, AffectNet, and what FER+ needs of it, too."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from ferlib.data.base import DataError, Skip, Source, SourceDataset, summarize
from ferlib.data.labels import EMOTIONS_AFFECTNET, EMOTIONS_RAFDB, class_folders, read_class
from ferlib.data.prepare import DATASETS, Kind, folders_in, list_folder
from ferlib.images import SUFFIXES, image_side, read_image

AGAIN = "take the file anew"


def safe_name(name: str) -> str:
    r"""A file name from a label file, if it stays inside its folder; ``./a``, ``.\a`` and ``a`` are one.

    Raises:
        DataError: An absolute name, a drive letter, ``..``, control characters, or nothing.
    """
    path = PurePosixPath(name.strip().replace("\\", "/"))
    strange = any(c == ":" or ord(c) < 32 for c in name)
    if strange or not path.name or path.is_absolute() or ".." in path.parts:
        raise DataError("not a name inside the folder")
    return str(path)


def read_table(path: Path, *, delimiter: str | None = ",") -> list[list[str]]:
    """Rows of a small text table, cells stripped, blank lines left out; a delimiter of None is white space.

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
    """The side that most of some 25 pictures have, taken from the whole list; else the usual one."""
    some = paths[:: max(1, -(-len(paths) // 25))]
    side, count = Counter(map(image_side, some)).most_common(1)[0]
    return side if side and 2 * count > len(some) else usual


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
        self.notes: list[str] = []
        self.seen: set[str] = set()
        self.there = [] if folder is None else list_folder(folder)
        self.spelled = {name.lower(): name for name in self.there}

    def skip(self, name: str, reason: str) -> None:
        """A row or file that is no face."""
        self.skipped.append(Skip(name, reason))

    def add(self, name: str, label: int | list[float], files: Sequence[str] = ()) -> None:
        """A face with its label or votes, and the names its file may have, in any case (its own)."""
        try:
            tried = [safe_name(file) for file in files or [name]]
        except DataError as error:
            return self.skip(name, str(error))
        file: str | None = tried[0]
        if self.folder is not None:
            tried += [PurePosixPath(path).name for path in tried]
            tried += [self.spelled.get(path.lower(), path) for path in tried]
            file = next((f for f in tried if os.path.isfile(self.folder / f)), None)  # links may lead nowhere
        if file is None:
            folder = self.folder is not None and any(os.path.isdir(self.folder / f) for f in tried)
            what = "a folder stands where an image is expected" if folder else "the file is not there"
            return self.skip(name, what)
        if file in self.seen:
            return self.skip(name, "named again (the first row counts)")
        self.seen.add(file)
        self.rows.append((safe_name(name), label, (self.folder or Path()) / file))
        return None

    def unlisted(self, reason: str, start: str = "") -> None:
        """Leave out what lies in the folder and was not named."""
        for name in sorted({*self.there} - self.seen - {skip.name for skip in self.skipped}):
            if name.startswith(start) and name.lower().endswith(SUFFIXES):
                self.skip(name, reason)

    def source(self, classes: tuple[str, ...], side: int, channels: int, empty: str) -> Source:
        """The faces that were added; most of the files may say otherwise than ``side``, as published.

        Raises:
            DataError: There are none; it begins with ``empty``.
        """
        if not self.rows:
            why = [" ".join(line.split()) for line in summarize(self.skipped, shown=1).splitlines()]
            there = f"; there is {self.there[0]}" if self.there else ""
            raise DataError("; ".join([empty, *why[:5]]) + there, self.folder or "")
        names, labels, paths = map(list, zip(*self.rows, strict=True))
        given, votes = torch.tensor(labels), None
        if given.ndim > 1:
            given, votes = torch.full((len(names),), -1), given
        load = partial(_load, paths, "L" if channels == 1 else "RGB")
        side = common_side(paths, side) if self.folder else side
        return Source(
            *self.what, classes, names, given, votes, load, paths, side, channels, self.skipped, self.notes
        )


def _load(paths: Sequence[Path], mode: str, index: int) -> np.ndarray:
    return read_image(paths[index], mode=mode)


# ---- one folder for each class ----


def _split_folders(
    root: Path, names: dict[str, tuple[str, ...]], fits: Callable[[Path], bool]
) -> dict[str, Path]:
    """The folder of each split: of the names it may have, in any case, the first one that fits."""
    there, found = {folder.name.lower(): folder for folder in folders_in(root)}, {}
    for split, known in names.items():
        for name, inner in product(known, ("", "label")):  # some copies of RAF-DB have train/label/1
            folder = there.get(name, root / name) / inner
            if split not in found and folder.is_dir() and fits(folder):
                found[split] = folder
    return found


def _by_class(folder: Path, classes: tuple[str, ...], first: int) -> bool:
    return any(read_class(inner.name, classes, first) is not None for inner in folders_in(folder))


def _class_folders(dataset: str, split: str, there: dict[str, Path], absent: tuple[str, ...] = ()) -> Listing:
    """Images in one folder per class, sorted by class and name."""
    kind, folder = DATASETS[dataset], there[split]
    first = kind.first
    listing = Listing(dataset, "class-folders", split, folder)
    inner = {folder.name for place in there.values() for folder in folders_in(place)}
    try:
        labels = class_folders(inner, kind.classes, first, absent, kind.title)
    except DataError as error:
        raise DataError(str(error), folder.parent) from None
    for entry in sorted(listing.there, key=lambda e: (labels.get(e, 99), e)):
        if not (folder / entry).is_dir():
            listing.skip(entry, "lies beside the class folders, so it has no label")
            continue
        for name in list_folder(folder / entry):
            if entry not in labels:
                numbers = f"{first} to {first + len(kind.classes) - 1}"
                listing.skip(f"{entry}/{name}", f"its folder is no class ({numbers})")
            elif not name.lower().endswith(SUFFIXES):
                listing.skip(f"{entry}/{name}", "not an image by its ending")
            else:
                listing.add(f"{entry}/{name}", labels[entry])
    others = {name for names in kind.splits.values() for name in names}
    for other in folders_in(folder.parent):
        if other.name.lower() in others and other not in there.values():
            listing.notes.append(f"the folder {other.name} beside it is not read")
    return listing


# ---- RAF-DB ----

# POSTER V2 keeps the test images in a folder called valid
_RAFDB_NAMES = {"train": ("train",), "test": ("test", "valid", "val")}


def _rafdb_look(root: Path) -> tuple[str, dict[str, Any]] | None:
    for base in (root / "basic", root):
        for images, place in product(("Image/aligned", "aligned"), ("EmoLabel", "")):
            labels = base / place / "list_patition_label.txt"
            if (base / images).is_dir() and labels.is_file():
                return "official", dict.fromkeys(("train", "test"), (base / images, labels))
    there = _split_folders(root, _RAFDB_NAMES, partial(_by_class, classes=EMOTIONS_RAFDB, first=1))
    return ("class-folders", there) if there else None


def _rafdb_read(there: dict[str, Any], layout: str, split: str) -> Source:
    if layout == "class-folders":
        listing = _class_folders("rafdb", split, there)
        return listing.source(EMOTIONS_RAFDB, 100, 3, "its class folders hold no images")
    folder, label_file = there[split]
    listing, table = Listing("rafdb", "official", split, folder), read_table(label_file, delimiter=None)
    labels = {row[1].removesuffix(".0") for row in table if len(row) == 2}
    if "0" in labels and "7" not in labels:
        raise DataError("labels count from 0; RAF-DB's count from 1 (surprise) to 7 (neutral)", label_file)
    for path, *rest in table:
        name = PurePosixPath(path.replace("\\", "/")).name  # some lists name the folder, too
        if name.startswith(("train", "test")) and not name.startswith(split):
            continue
        if len(rest) != 1:
            listing.skip(path, "row has not two columns (name, label)")
        elif not name.startswith(("train_", "test_")):
            listing.skip(path, "the name says neither train nor test")
        elif (label := read_class(rest[0], EMOTIONS_RAFDB, 1)) is None:
            listing.skip(path, "label is not 1 to 7")
        else:
            stem, dot, suffix = name.rpartition(".")
            listing.add(f"{stem.removesuffix('_aligned')}_aligned{dot}{suffix}", label)
    listing.unlisted(f"no row in {label_file.name}", split)
    empty = f"none of the {split!r} faces of {label_file.name} is there"
    return listing.source(EMOTIONS_RAFDB, 100, 3, empty)


DATASETS["rafdb"] = Kind(
    "rafdb",
    "RAF-DB",
    "the official basic/Image/aligned with basic/EmoLabel/list_patition_label.txt; train/1 ... train/7 and "
    "test/1 ... test/7, or folders with the expressions' names; or a folder made by `ferlib prepare rafdb`",
    EMOTIONS_RAFDB,
    _RAFDB_NAMES,
    _rafdb_look,
    _rafdb_read,
    published={"train": 12_271, "test": 3_068},
    first=1,
)


class RAFDB(SourceDataset):
    """RAF-DB: 15,339 aligned color faces with one of seven expressions (basic subset), in its own order.

    Reads the official release (``basic/Image/aligned``, ``basic/EmoLabel/list_patition_label.txt``), folders
    ``train/1 ... 7`` and ``test/1 ... 7`` as the Batch Transformer's README asks for (or ``train/surprise``
    ...), and what ``ferlib prepare rafdb`` makes. Label files count from 1; ``labels`` here count from 0 in
    the order of ``EMOTIONS_RAFDB``. Items are ``dict(image=uint8 (3, S, S), label=int, name=str)``.

    Source: Li et al. 2017. Chapter 1.

    Args:
        root: The folder.
        split: ``"train"`` (12,271 faces) or ``"test"`` (3,068). There is no validation split: hold out a
            part of "train", and report on "test".

    Attributes:
        skipped: Files and rows that cannot be used.

    Raises:
        DataError: Unknown layout or split; classes numbered otherwise; damaged files, when they are read.
    """

    def __init__(self, root: str | Path, split: str = "train"):
        super().__init__(DATASETS["rafdb"].open(root, split))


# ---- AffectNet ----

NO_EXPRESSION = {8: "none", 9: "uncertain", 10: "no face"}
_AFFECTNET_NAMES = {
    "train": ("train", "train_set"),
    "valid": ("valid", "val", "val_set"),
    "test": ("test", "test_set"),
}


def _affectnet_look(root: Path) -> tuple[str, dict[str, Path]] | None:
    def official(folder: Path) -> bool:
        return (folder / "images").is_dir() and (folder / "annotations").is_dir()

    by_class = partial(_by_class, classes=EMOTIONS_AFFECTNET, first=0)
    for layout, fits in (("official", official), ("class-folders", by_class)):
        if there := _split_folders(root, _AFFECTNET_NAMES, fits):
            return layout, there
    return None


def _expression(path: Path) -> int | str:
    """The number in an annotation file, or why there is none."""
    try:
        if path.stat().st_size > 4096:  # one number; a header may claim any size
            raise ValueError
        value = float(np.load(path, allow_pickle=False).item())  # text of length 1 or 2, or a number
    except FileNotFoundError:
        return "no _exp.npy annotation"
    except Exception:  # numpy fails in many ways on damaged headers
        return "its _exp.npy annotation cannot be read"
    if value in NO_EXPRESSION:
        return f"annotated as {NO_EXPRESSION[int(value)]!r} ({value:g})"
    return int(value) if value in range(len(EMOTIONS_AFFECTNET)) else f"annotation {value:g} is not 0 to 10"


def _affectnet_read(there: dict[str, Path], layout: str, split: str) -> Source:
    if layout == "class-folders":
        listing = _class_folders("affectnet", split, there, absent=("contempt",))
        return listing.source(EMOTIONS_AFFECTNET, 224, 3, "its class folders hold no images")
    base = there[split]
    listing, stems = Listing("affectnet", "official", split, base / "images"), set()
    for name in listing.there:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in SUFFIXES:
            listing.skip(name, "not an image by its ending")
            continue
        stems.add(stem)
        label = _expression(base / "annotations" / f"{stem}_exp.npy")
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
    "and valid/0 ... valid/7 (also val, val_set, test), or folders with the expressions' names; or a folder "
    "made by `ferlib prepare affectnet`",
    EMOTIONS_AFFECTNET,
    _AFFECTNET_NAMES,
    _affectnet_look,
    _affectnet_read,
    {"test": "valid"},
)


class AffectNet(SourceDataset):
    """AffectNet: some 290,000 color faces from the web with one of eight expressions, in its own class order.

    Reads the official release (``train_set/images``, ``train_set/annotations/*_exp.npy``, ``val_set/...``),
    class folders ``train/0 ... 7``, ``valid/0 ... 7`` (or ``train/neutral`` ...), and what ``ferlib prepare
    affectnet`` makes (opening hundreds of thousands of annotation files takes minutes, so do prepare it).
    Items are ``dict(image=uint8 (3, S, S), label=int, name=str)``.

    Source: Mollahosseini et al. 2017. Chapter 1.

    Args:
        root: The folder.
        split: ``"train"``, ``"valid"`` or ``"test"``. The test set was never published, papers report on the
            validation set; where no test folder is there, "test" reads that one, too.
        classes: 7 or 8; 7 leaves contempt (the last class) out.

    Attributes:
        skipped: Files and rows that cannot be used.

    Raises:
        DataError: Unknown layout, split or number of classes; classes numbered otherwise; damaged files, when
            they are read.
    """

    def __init__(self, root: str | Path, split: str = "train", classes: int = 8):
        if classes not in (7, 8):
            raise DataError(f"classes={classes}; AffectNet has 8, or 7 without contempt")
        source = DATASETS["affectnet"].open(root, split)
        labels = source.labels.where(source.labels < classes, -1)
        super().__init__(source, labels)
        self.classes = EMOTIONS_AFFECTNET[:classes]
