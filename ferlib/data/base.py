"""What every data set of this book has in common: items, batches, errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset

from ferlib.errors import DataError

__all__ = ["DataError", "FaceDataset", "identity"]

T = TypeVar("T")


class FaceDataset(Dataset):
    """A list of faces with labels, readable one by one or many at a time.

    An item is ``dict(image=uint8 (C, H, W), label=int, votes=float (K,) [optional], path=str, ...)``.
    A batch is one dict of the same keys with a leading axis: ``image`` uint8 ``(n, C, H, W)``,
    ``label`` int64 ``(n,)``, ``votes`` float32 ``(n, K)``. ``torch.utils.data.DataLoader`` finds
    ``__getitems__`` by itself; give it ``collate_fn=ferlib.data.base.identity``, since the batch is ready.

    Attributes
    ----------
    classes: names of the K classes, in label order.
    labels: int64 tensor ``(N,)``.
    votes: float32 tensor ``(N, K)``, the annotators' votes, or ``None`` where the data set has none.

    Subclasses write ``__getitem__``; one that can read many faces faster overrides ``batch``. Chapter 1.
    """

    classes: tuple[str, ...] = ()
    labels: torch.Tensor
    votes: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise TypeError(f"{type(self).__name__} does not say how to read one face: write __getitem__")

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        """Read many faces: one dict with ``image`` uint8 ``(n, C, H, W)``, ``label`` ``(n,)``, ..."""
        items = [self[int(i)] for i in indices]
        return {key: _stack([item[key] for item in items]) for key in items[0]}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        return self.batch(indices)

    def class_counts(self) -> torch.Tensor:
        """How many faces each class has: int64 ``(K,)``."""
        return torch.bincount(self.labels, minlength=len(self.classes))


def _stack(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.stack(values)
    if isinstance(first, dict):
        return {key: _stack([value[key] for value in values]) for key in first}
    if isinstance(first, bool | int | float):
        return torch.tensor(values)
    return values


def identity(batch: T) -> T:
    """Return the batch as it is: the ``collate_fn`` for data sets that read whole batches.

    Shape: any batch in, the same object out.
    """
    return batch
