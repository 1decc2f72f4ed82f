"""What every data set of this book has in common: items, batches, errors, and a code for their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset, default_collate

from ferlib.errors import DataError

__all__ = ["DataError", "FaceDataset", "Skip", "fingerprint", "identity"]

T = TypeVar("T")


@dataclass(frozen=True)
class Skip:
    """One face that is left out: its name, and why."""

    name: str
    reason: str


class FaceDataset(Dataset):
    """A list of faces with labels, readable one by one or many at a time.

    An item is ``dict(image=uint8 (C, H, W), label=int, [votes=float (K,)], name=str, ...)``. A batch is one
    dict of the same keys with a leading axis: ``image`` uint8 (n, C, H, W), ``label`` int64 (n,), ``votes``
    float32 (n, K). ``torch.utils.data.DataLoader`` finds ``__getitems__`` by itself; give it
    ``collate_fn=ferlib.data.identity``, since the batch is ready.

    Subclasses write ``__getitem__``; one that can read many faces faster overrides ``batch``. Chapter 1.

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
        raise TypeError(f"{type(self).__name__} does not say how to read one face: write __getitem__")

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        """Read many faces: one dict with ``image`` uint8 (n, C, H, W), ``label`` (n,), ..."""
        return default_collate([self[int(i)] for i in indices])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        return self.batch(indices)

    def class_counts(self) -> torch.Tensor:
        """How many faces each class has: int64 (K,)."""
        return torch.bincount(self.labels, minlength=len(self.classes))


def identity(batch: T) -> T:
    """Return the batch as it is: the ``collate_fn`` for data sets that read whole batches."""
    return batch


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
