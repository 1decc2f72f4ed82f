"""The faces of one split of a downloaded data set, as its layout gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ferlib.data.base import DataError, FaceDataset, Skip
from ferlib.images import center_square, to_pillow, to_planes


@dataclass
class Source:
    """One split of a downloaded data set, as its layout gives it.

    Attributes:
        dataset, layout, split: What it is ("ferplus", "microsoft", "train").
        classes: Class names in label order, K of them.
        names: N names, unique, safe relative paths or made-up names of csv rows.
        labels: int64 (N,); -1 where the label follows from ``votes`` by a rule.
        votes: float32 (N, columns) or ``None``.
        load: Index -> uint8 (C, H, W) as stored; raises DataError for a face that cannot be used.
        files: What is read, one file for each face or fewer.
        side: Pixels of a square face.
        channels: 1 or 3.
        skipped: Rows and files that were already left out, each with its reason.
        notes: Odd things worth telling that lose no face.
        resize: Resize faces of another size; otherwise they cannot be used.
    """

    dataset: str
    layout: str
    split: str
    classes: tuple[str, ...]
    names: list[str]
    labels: torch.Tensor
    votes: torch.Tensor | None
    load: Callable[[int], np.ndarray]
    files: Sequence[Path]
    side: int
    channels: int
    skipped: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resize: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """One face, uint8 (C, side, side). Raises DataError where it cannot be used."""
        planes = self.load(index)
        _, height, width = planes.shape
        if height == width == self.side:
            return planes
        if not self.resize:
            where = self.files[index] if len(self.files) == len(self) else self.names[index]
            raise DataError(f"{width} x {height} pixels; expected {self.side} x {self.side}", where)
        return to_planes(np.array(center_square(to_pillow(planes), self.side)))

    def resized(self, size: int | None) -> Source:
        """The same faces at ``size`` x ``size`` pixels."""
        if size is not None and not 8 <= size <= 4096:
            raise DataError(f"size={size}; expected a side from 8 to 4096 pixels")
        return self if size is None else replace(self, side=size, resize=True)


class SourceDataset(FaceDataset):
    """Faces of one :class:`Source`: files are decoded one by one, a prepared folder is read in one piece.

    Args:
        source: Where the faces are.
        rows: Which of them, int64 (n,) (default: all).
        labels: Their labels, int64 (n,) (default: the source's).

    Attributes:
        names: The faces' names, in their order.
        skipped: Files and rows that cannot be used.
    """

    def __init__(
        self, source: Source, rows: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> None:
        self.source, self.classes, self.skipped = source, source.classes, source.skipped
        self.rows = torch.arange(len(source)) if rows is None else rows
        self.labels = source.labels[self.rows] if labels is None else labels
        self.votes = None if source.votes is None else source.votes[self.rows]

    @property
    def names(self) -> list[str]:
        return [self.source.names[row] for row in self.rows.tolist()]

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.batch([index])
        return {key: values[0] for key, values in batch.items()} | {"label": int(batch["label"])}

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        index = torch.as_tensor(indices)
        rows = self.rows[index]
        if hasattr(self.source.load, "many") and not self.source.resize:
            images = self.source.load.many(rows)
        else:
            images = torch.from_numpy(np.stack([self.source.read(row) for row in rows.tolist()]))
        votes = {} if self.votes is None else {"votes": self.votes[index]}
        names = [self.source.names[row] for row in rows.tolist()]
        return {"image": images, "label": self.labels[index], **votes, "name": names}
