"""What a downloaded data set offers before it is prepared: names, labels, a way to read each face, and
what is wrong.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from ferlib.data.base import DataError, FaceDataset
from ferlib.data.images import image_side, read_image, square, to_planes


@dataclass(frozen=True)
class Skip:
    """One face that is left out: its name, and why. Shape: two strings. Chapter 1."""

    name: str
    reason: str


@dataclass
class Source:
    """One split of a downloaded data set, as its layout gives it.

    Attributes
    ----------
    dataset, layout, split: what it is ("ferplus", "microsoft", "train").
    classes: class names in label order, K of them.
    names: N names, unique, safe relative paths or made-up names of csv rows.
    labels: int64 ``(N,)``; -1 where the label follows from ``votes`` by a rule.
    votes: float32 ``(N, columns)`` or ``None``.
    read: index -> uint8 ``(C, H, W)``; raises DataError for a face that cannot be used.
    side: pixels of a square face.
    channels: 1 or 3.
    skipped: rows and files that were already left out, each with its reason.
    notes: odd things worth telling that lose no face.

    Shape: see the attributes. Chapter 1.
    """

    dataset: str
    layout: str
    split: str
    classes: tuple[str, ...]
    names: list[str]
    labels: torch.Tensor
    votes: torch.Tensor | None
    read: Callable[[int], np.ndarray]
    side: int
    channels: int
    skipped: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)


def summarise(skipped: Sequence[Skip], shown: int = 5) -> str:
    """Skipped faces as text: for each reason its count and the first names. Shape: list -> lines of text."""
    groups: dict[str, list[str]] = {}
    for skip in skipped:
        groups.setdefault(skip.reason, []).append(skip.name)
    lines = []
    for reason, names in sorted(groups.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(names) > shown else ""
        lines.append(f"{len(names):7,}  {reason}: {', '.join(names[:shown])}{more}")
    return "\n".join(lines)


def safe_name(name: str) -> str:
    """A file name from a label file, if it stays inside its folder.

    Shape: text -> the same text. Raises DataError for absolute names, drive letters, back-slashes, ``..``,
    control characters and empty names.
    """
    path = PurePosixPath(name)
    bad = (
        not name.strip()
        or "\\" in name
        or ":" in name
        or any(ord(c) < 32 for c in name)
        or path.is_absolute()
        or ".." in path.parts
    )
    if bad:
        raise DataError("the name leaves the data folder or is no file name")
    return name


def read_table(path: Path, *, delimiter: str | None = ",") -> list[list[str]]:
    """Rows of a small text table, cells stripped, blank lines left out; ``delimiter=None`` splits at white
    space.

    Shape: path -> N lists of text. Raises DataError if the file is missing, unreadable, empty or no UTF-8
    text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: the label file is not there") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8: save the label file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if delimiter is None:
        rows = [line.split() for line in text.splitlines()]
    else:
        try:
            rows = [
                [cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter)
            ]
        except csv.Error as error:
            raise DataError(f"{path}: not a readable csv file ({error})") from None
    rows = [row for row in rows if any(row)]
    if not rows:
        raise DataError(f"{path}: the label file is empty")
    return rows


def usable_files(folder: Path, wanted: Iterable[str], skipped: list[Skip]) -> list[bool]:
    """Which named files exist below a folder, in order; the others join ``skipped``, as do second mentions
    of a name.

    Shape: N names -> N booleans.
    """
    try:
        entries = {entry.name: entry.is_symlink() for entry in os.scandir(folder)}
    except FileNotFoundError:
        raise DataError(f"{folder}: the folder is not there") from None
    except (NotADirectoryError, PermissionError) as error:
        raise DataError(f"{folder}: cannot be opened as a folder ({error.strerror})") from None
    good, seen = [], set()
    for name in wanted:
        reason = None
        try:
            safe_name(name)
            if name in seen:
                reason = "named again in the label file (the first row counts)"
            elif "/" in name or entries.get(name):
                reason = None if os.path.exists(folder / name) else "file is not there, or a link to nowhere"
            elif name not in entries:
                reason = "file is not there"
        except DataError as error:
            reason = str(error)
        seen.add(name)
        if reason:
            skipped.append(Skip(name, reason))
        good.append(reason is None)
    return good


def common_side(paths: Sequence[Path], usual: int) -> int:
    """The side most of the first square pictures have; the usual one on a tie or where none can be read.

    Shape: paths -> pixels.
    """
    sides = Counter(side for side in map(image_side, paths[:25]) if side)
    best = max(sides.values(), default=0)
    winners = [side for side, count in sides.items() if count == best]
    return usual if usual in winners or not winners else max(winners)


class FileReader:
    """Faces in image files. Shape: index -> uint8 ``(C, side, side)``; picklable, so that loader processes
    can have it.

    ``resize``: make every picture ``side`` wide; otherwise one of another size is refused.
    """

    def __init__(self, paths: Sequence[Path], mode: str, side: int, resize: bool = False):
        self.paths, self.mode, self.side, self.resize = list(paths), mode, side, resize

    def __call__(self, index: int) -> np.ndarray:
        size = self.side if self.resize else None
        return read_image(self.paths[index], mode=self.mode, expect=self.side, size=size)


class Resized:
    """Another reader's faces at another size. Shape: index -> uint8 ``(C, side, side)``."""

    def __init__(self, read: Callable[[int], np.ndarray], side: int):
        self.read, self.side = read, side

    def __call__(self, index: int) -> np.ndarray:
        planes = self.read(index)
        image = Image.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0))
        return to_planes(np.array(square(image, self.side)))


def with_size(source: Source, size: int | None) -> Source:
    """The same source with every face at ``size`` x ``size`` pixels. Shape: Source, pixels or None ->
    Source.
    """
    if size is None or (size == source.side and not isinstance(source.read, FileReader)):
        return source
    if not 8 <= size <= 4096:
        raise DataError(f"size={size}; expected a side from 8 to 4096 pixels")
    if isinstance(source.read, FileReader):
        read: Callable[[int], np.ndarray] = FileReader(source.read.paths, source.read.mode, size, resize=True)
    else:
        read = Resized(source.read, size)
    return replace(source, read=read, side=size)


def check_root(root: str | os.PathLike[str]) -> Path:
    """A data folder as a path. Shape: path -> path. Raises DataError if it is missing or no folder."""
    root = Path(root).expanduser()
    if root.is_dir():
        return root
    if root.exists():
        raise DataError(f"{root}: a file; give the folder it lies in")
    raise DataError(f"{root}: the folder is not there")


def check_split(split: str, splits: Sequence[str]) -> None:
    """Refuse an unknown split with the known ones. Shape: text, texts -> None."""
    if split not in splits:
        raise DataError(f"split {split!r}; choose one of {', '.join(splits)}")


class SourceDataset(FaceDataset):
    """Faces of one :class:`Source`: files are decoded one by one, a prepared cache is read in one piece.

    Shape: items as :class:`FaceDataset`; ``rows`` int64 ``(n,)`` chooses and orders faces of the source.
    Chapter 1.
    """

    def __init__(self, source: Source, rows: torch.Tensor, labels: torch.Tensor, votes: torch.Tensor | None):
        self.source, self.rows, self.labels, self.votes = source, rows, labels, votes
        self.classes = source.classes
        self.skipped = source.skipped

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = int(self.rows[index])
        item: dict[str, Any] = {
            "image": torch.from_numpy(self.source.read(row)),
            "label": int(self.labels[index]),
        }
        if self.votes is not None:
            item["votes"] = self.votes[index]
        item["path"] = self.source.names[row]
        return item

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        many = getattr(self.source.read, "many", None)
        if many is None:
            return super().batch(indices)
        index = torch.as_tensor(indices)
        rows = self.rows[index]
        batch: dict[str, Any] = {"image": many(rows), "label": self.labels[index]}
        if self.votes is not None:
            batch["votes"] = self.votes[index]
        batch["path"] = [self.source.names[row] for row in rows.tolist()]
        return batch
