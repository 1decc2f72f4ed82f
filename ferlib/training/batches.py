"""Batches as a network takes them, and the same ones again whenever epoch e is asked for. Chapter 6."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from ferlib.data.base import FaceDataset, identity
from ferlib.data.transforms import normalise, resize, to_float, to_rgb
from ferlib.training.build import build_augment
from ferlib.training.device import memory_format
from ferlib.training.recipes import Recipe

_JUDGED = 500_009  # keeps the draws of the judged faces apart from those of the learned ones


class Batches:
    """Batches to learn from (``shuffle=True``) or to judge by: normalised, on the device, each epoch its own.

    To learn from: in an order and with an augmentation drawn from (seed, epoch); with ``balance`` a face of
    class c is drawn with probability 1 / (K n_c). To judge by: every face once, as it is; only the released
    protocol shuffles and augments these too.

    Shape: ``epoch(e)`` yields images ``(B, 3, S, S)`` and targets, ``(B,)`` labels or ``(B, K)`` votes that
    sum to one; ``len`` is the number of batches. Raises ``ValueError`` for a data set without faces, and
    without votes where the recipe asks for them. Chapter 6.
    """

    def __init__(
        self, data: FaceDataset, recipe: Recipe, device: torch.device, *, shuffle: bool = False
    ) -> None:
        if len(data) == 0:
            raise ValueError("the data set is empty: there is nothing to train or measure on")
        self.data, self.recipe, self.device = data, recipe, device
        self.seed = 1_000_003 * recipe.seed + (0 if shuffle else _JUDGED)
        varied = shuffle or recipe.protocol == "released"
        self.augment = build_augment(recipe) if varied else None
        self.generator = torch.Generator()
        sampler = BatchSampler(self._order(shuffle, varied), recipe.batch_size, self._drop_last(shuffle))
        # the loader draws a seed for workers at each start: from its own generator, not from the caller's
        own = torch.Generator()
        self.loader = DataLoader(data, batch_sampler=sampler, collate_fn=identity, generator=own)

    def _order(self, shuffle: bool, varied: bool) -> Sampler[int]:
        if shuffle and self.recipe.balance:
            counts = self.data.class_counts().double()
            weights = (1 / counts)[torch.as_tensor(self.data.labels)]
            return WeightedRandomSampler(weights, len(self.data), generator=self.generator)
        if varied:
            return RandomSampler(self.data, generator=self.generator)
        return SequentialSampler(self.data)

    def _drop_last(self, shuffle: bool) -> bool:
        """A last batch of a few faces would disturb batch statistics and batch attention."""
        size, count = self.recipe.batch_size, len(self.data)
        if self.recipe.protocol == "released":  # learns from it, unless it is one face: no batch norm can
            return shuffle and count > size and count % size == 1
        return shuffle and count >= size

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, the same whenever it is asked for."""
        self.generator.manual_seed(self.seed + epoch)
        for batch in self.loader:
            images = to_float(batch["image"].to(self.device))
            if self.recipe.image_size is not None:
                images = resize(images, self.recipe.image_size, self.recipe.interpolation)
            if self.augment is not None:
                images = self.augment(images, self.generator)
            images = normalise(to_rgb(images)).contiguous(memory_format=memory_format(self.recipe))
            yield images, self._target(batch)

    def _target(self, batch: dict[str, Any]) -> Tensor:
        if self.recipe.targets == "label":
            return batch["label"].to(self.device)
        if "votes" not in batch:
            raise ValueError(
                "targets: votes was asked for, but this data set has no votes; use targets: label"
            )
        votes = batch["votes"].to(self.device)
        return votes / votes.sum(1, keepdim=True)
