"""What every data set of this book has in common: faces with labels, where they are read, a code for both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from ferlib.errors import DataError, printable

T = TypeVar("T")


@dataclass(frozen=True)
class Skip:
    """One face that is left out: its name, and why."""

    name: str
    reason: str


def summarize(skipped: Sequence[Skip], shown: int = 5) -> str:
    """Skipped faces as lines of text: for each reason its count and the first names, safe for a terminal."""
    groups: dict[str, list[str]] = {}
    for skip in skipped:
        groups.setdefault(printable(skip.reason), []).append(printable(skip.name))
    return "\n".join(
        f"{len(names):7,}  {reason}: {', '.join(names[:shown])}{', ...' if len(names) > shown else ''}"
        for reason, names in sorted(groups.items(), key=lambda item: -len(item[1]))
    )


class FaceDataset(Dataset):
    """A list of faces with labels, readable one by one or many at a time.

    An item is ``dict(image=uint8 (C, H, W), label=int, [votes=float (K,)], name=str, ...)``. A batch is one
    dict of the same keys with a leading axis: ``image`` uint8 (n, C, H, W), ``label`` int64 (n,), ``votes``
    float32 (n, K). ``torch.utils.data.DataLoader`` reads the faces of a batch together.

    Subclasses write ``batch``, or ``__getitem__`` where faces can only be read one by one. Chapter 1.

    Attributes:
        classes: Names of the K classes, in label order.
        labels: int64 tensor (N,).
        votes: float32 tensor (N, K), the annotators' votes, or ``None`` where the data set has none.
    """

    classes: tuple[str, ...] = ()
    labels: torch.Tensor
    votes: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        """Read many faces: one dict with ``image`` uint8 (n, C, H, W), ``label`` (n,), ..."""
        return default_collate([self[int(i)] for i in indices])

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        batch = self.batch(indices)
        return [_item(batch, i) | {"label": int(batch["label"][i])} for i in range(len(indices))]

    def class_counts(self) -> torch.Tensor:
        """How many faces each class has: int64 (K,)."""
        return torch.bincount(self.labels, minlength=len(self.classes))


def _item(batch: dict[str, Any], i: int) -> dict[str, Any]:
    return {key: _item(all_, i) if isinstance(all_, dict) else all_[i] for key, all_ in batch.items()}


def identity(batch: T) -> T:
    """Return the batch as it is: the ``collate_fn`` where whole batches are read."""
    return batch


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

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """One face, uint8 (C, side, side). Raises DataError where it cannot be used."""
        planes = self.load(index)
        _, height, width = planes.shape
        if height == width == self.side:
            return planes
        where = self.files[index] if len(self.files) == len(self) else self.names[index]
        raise DataError(f"{width} x {height} pixels; expected {self.side} x {self.side}", where)


class SourceDataset(FaceDataset):
    """Faces of one :class:`Source`: files are decoded one by one, a prepared folder is read in one piece.

    Args:
        source: Where the faces are.
        labels: int64 (N,), one for each face of the source; those below 0 are left out (default: all faces
            with the source's labels).

    Attributes:
        names: The faces' names, in their order.
        skipped: Files and rows that cannot be used.
    """

    def __init__(self, source: Source, labels: torch.Tensor | None = None) -> None:
        self.source, self.classes, self.skipped = source, source.classes, source.skipped
        kept = torch.ones(len(source), dtype=torch.bool) if labels is None else labels >= 0
        self.rows = torch.nonzero(kept)[:, 0]
        self.labels = (source.labels if labels is None else labels)[kept]
        self.votes = None if source.votes is None else source.votes[kept]
        self.names = [source.names[row] for row in self.rows.tolist()]

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        index = torch.as_tensor(indices)
        rows = self.rows[index].tolist()
        stored = getattr(self.source.load, "images", None)  # of a prepared folder
        images = np.stack([self.source.read(row) for row in rows]) if stored is None else stored[rows]
        votes = {} if self.votes is None else {"votes": self.votes[index]}
        names = [self.source.names[row] for row in rows]
        return {"image": torch.from_numpy(images), "label": self.labels[index], **votes, "name": names}


def fingerprint(data: FaceDataset, sample: int | None = None) -> str:
    """A short code for the content of a data set, so that two results can be known to be of the same faces.

    SHA-256 of all class names, labels and pixels, in their order. One changed label, one changed pixel,
    another order or another size of picture gives another code. Synthetic faces may differ between
    processors by the rounding of a pixel, and then their code does, though they are the same people. Chapter
    7.

    Args:
        data: N faces; files that are decoded one by one are all read for it.
        sample: Take that many evenly spaced images only, of data sets too large to be read twice; then a
            change in the others is not seen.

    Returns:
        16 hexadecimal digits.

    Raises:
        DataError: An image cannot be read.
        ValueError: ``sample`` is below 1.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample is {sample}: expected at least one image, or None for all")
    count = len(data) if sample is None else min(sample, len(data))
    code = hashlib.sha256("\n".join(data.classes).encode())
    code.update(torch.as_tensor(data.labels).cpu().numpy().astype("<i8").tobytes())
    rows = [i * len(data) // count for i in range(count)]
    for start in range(0, count, 256):
        images = data.batch(rows[start : start + 256])["image"].contiguous()
        code.update(f"{tuple(images.shape[1:])}".encode())
        code.update(images.numpy())
    return code.hexdigest()[:16]
