"""What a downloaded data set offers before it is prepared: names, labels, a way to read each face, and
what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from ferlib.data.base import DataError, FaceDataset
from ferlib.data.images import read_image, square, to_planes
from ferlib.data.listing import Skip, common_side


class Reader(Protocol):
    """Reads the faces of a :class:`Source`: called with an index, it gives uint8 ``(C, H, W)`` or raises
    DataError.

    Shape: ``content()`` gives what can be told about the files without reading them, as a list for
    comparison.
    """

    def __call__(self, index: int) -> np.ndarray: ...

    def content(self) -> list[Any]: ...


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
    read: Reader
    side: int
    channels: int
    skipped: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)


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

    def content(self) -> list[int]:
        """What can be told about the files without reading them: their sizes. Shape: -> N ints."""
        return [path.stat().st_size if path.is_file() else -1 for path in self.paths]


def file_source(
    dataset: str,
    layout: str,
    split: str,
    classes: tuple[str, ...],
    names: list[str],
    labels: list[int],
    paths: Sequence[Path],
    usual_side: int,
    skipped: list[Skip],
) -> Source:
    """One split of colour faces in files, each with one label and no votes.

    Shape: N names, labels and paths, and the side in pixels that faces have where they do not say otherwise
    (see :func:`ferlib.data.listing.common_side`) -> Source.
    """
    side = common_side(paths, usual_side)
    return Source(
        dataset, layout, split, classes, names, torch.tensor(labels), None,
        FileReader(paths, "RGB", side), side, 3, skipped,
    )  # fmt: skip


class Resized:
    """Another reader's faces at another size. Shape: index -> uint8 ``(C, side, side)``."""

    def __init__(self, read: Reader, side: int):
        self.read, self.side = read, side

    def __call__(self, index: int) -> np.ndarray:
        planes = self.read(index)
        image = Image.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0))
        return to_planes(np.array(square(image, self.side)))

    def content(self) -> list[Any]:
        """As the reader below. Shape: -> list."""
        return [self.side, *self.read.content()]


def with_size(source: Source, size: int | None) -> Source:
    """The same source with every face at ``size`` x ``size`` pixels. Shape: Source, pixels or None ->
    Source.
    """
    if size is None or (size == source.side and not isinstance(source.read, FileReader)):
        return source
    if not 8 <= size <= 4096:
        raise DataError(f"size={size}; expected a side from 8 to 4096 pixels")
    if isinstance(source.read, FileReader):
        read: Reader = FileReader(source.read.paths, source.read.mode, size, resize=True)
    else:
        read = Resized(source.read, size)
    return replace(source, read=read, side=size)


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
