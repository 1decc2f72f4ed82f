"""Batches as a network takes them, the same again whenever batch n of epoch e is asked for. Chapter 6."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ferlib.data.base import DataError, FaceDataset, identity
from ferlib.data.transforms import normalise, resize, to_float, to_rgb
from ferlib.training.build import build_augment
from ferlib.training.device import memory_format
from ferlib.training.processes import own_share
from ferlib.training.reading import Reader, Reading, Ticket, start_worker
from ferlib.training.recipes import Recipe
from ferlib.training.seeds import draw_seed, generator


class FaultyDataError(DataError):
    """Faces that could not be read in mid-run; the message names them. Shape: takes one message string."""


class Batch(NamedTuple):
    """What a step works on, and where it comes from.

    ``images`` (B, 3, S, S) and ``target`` are None where no face could be read; ``names`` are paths, or row
    numbers where the data set gives none; ``lost``: why faces are missing; ``problem``: why the run must stop
    because of them, or "". Shape: B faces.
    """

    images: Tensor | None
    target: Tensor | None
    names: list[str]
    lost: list[str]
    problem: str


class Batches:
    """Batches to learn from (``shuffle=True``) or to judge by: normalised, on the device, each epoch its own.

    To learn from: in an order drawn from (seed, epoch), with an augmentation drawn from (seed, epoch, batch);
    with ``balance`` a face of class c is drawn with probability 1 / (K n_c). To judge by: every face once, as
    it is; only the released protocol shuffles and augments these too.

    ``workers``: processes that read ahead; they change no number. ``place``: (rank, world) of this process;
    of a batch to learn from it gets its share of the faces, of those to judge by whole batches, since an
    answer may depend on the batch.

    Shape: ``epoch(e)`` yields images ``(B, 3, S, S)`` and targets, ``(B,)`` labels or ``(B, K)`` votes that
    sum to one; ``steps(e, first)`` yields lists of ``accumulate`` :class:`Batch`; ``len`` is the number of
    batches. Raises ``ValueError`` for a data set without faces, without votes where the recipe asks for them,
    and for faces that cannot be read (``FaultyDataError``, see ``Recipe.on_fault``). Chapter 6.
    """

    def __init__(
        self,
        data: FaceDataset,
        recipe: Recipe,
        device: torch.device,
        *,
        shuffle: bool = False,
        workers: int = 0,
        place: tuple[int, int] = (0, 1),
    ) -> None:
        if len(data) == 0:
            raise ValueError("the data set is empty: there is nothing to train or measure on")
        if shuffle and recipe.batch_size < place[1]:
            raise ValueError(f"batch_size {recipe.batch_size} has no face for each of {place[1]} processes")
        self.data, self.recipe, self.device, self.place = data, recipe, device, place
        self.shuffle, self.varied = shuffle, shuffle or recipe.protocol == "released"
        self.purpose = "learn" if shuffle else "judge"
        self.augment = build_augment(recipe) if self.varied else None
        self.now = (0, 0)  # epoch and first batch of the next pass, for the loader's sampler
        self.loader = DataLoader(
            Reader(data),
            sampler=_Tickets(self),
            batch_size=None,
            collate_fn=identity,
            num_workers=workers,
            worker_init_fn=start_worker if workers else None,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # it draws a seed at each start: not from the caller's numbers
        )

    def __len__(self) -> int:
        size, count = self.recipe.batch_size, len(self.data)
        return count // size if self._drop_last() else math.ceil(count / size)

    @property
    def count_steps(self) -> int:
        """Optimiser steps of an epoch. Shape: -> a number."""
        return math.ceil(len(self) / self.recipe.accumulate)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, the same whenever it is asked for."""
        for batch in self.read(epoch):
            if batch.problem:
                raise FaultyDataError(batch.problem)
            yield batch.images, batch.target

    def steps(self, epoch: int, first: int = 0) -> Iterator[tuple[int, list[Batch]]]:
        """Number (from 0) and batches of each step from ``first`` on; the last may have fewer."""
        group: list[Batch] = []
        size, left = self.recipe.accumulate, len(self) - first * self.recipe.accumulate
        for batch in self.read(epoch, first * size):
            group.append(batch)
            left -= 1
            if len(group) == size or left == 0:
                yield first, group
                first, group = first + 1, []

    def read(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch with their names and faults, from batch ``first`` (from 0) on."""
        if first >= len(self):
            return
        self.now = (epoch, first)
        for reading in self.loader:
            yield self._batch(reading)

    def tickets(self, epoch: int, first: int) -> Iterator[Ticket]:
        """What to read, in order: this process's part of batches ``first``, ``first + 1``, ..."""
        order, size, (rank, world) = self._order(epoch), self.recipe.batch_size, self.place
        for number in range(first, len(self)):
            rows = order[number * size : (number + 1) * size].tolist()
            share = own_share(len(rows), rank, world) if self.shuffle else slice(0, len(rows))
            if self.shuffle or number % world == rank:
                seed = draw_seed(self.recipe.seed, self.purpose, epoch, number)
                yield Ticket(rows[share], seed, share.start, len(rows))

    def _order(self, epoch: int) -> Tensor:
        draw = generator(self.recipe.seed, self.purpose, "order", epoch)
        if self.shuffle and self.recipe.balance:
            counts = self.data.class_counts().double()
            weights = (1 / counts)[torch.as_tensor(self.data.labels)]
            return torch.multinomial(weights, len(self.data), replacement=True, generator=draw)
        count = len(self.data)
        return torch.randperm(count, generator=draw) if self.varied else torch.arange(count)

    def _drop_last(self) -> bool:
        """A last batch of a few faces would disturb batch statistics and batch attention."""
        size, count, world = self.recipe.batch_size, len(self.data), self.place[1]
        if self.recipe.protocol == "released":  # learns from it, unless a process would get none or one face
            return self.shuffle and count > size and 0 < count % size < (2 if world == 1 else 2 * world)
        return self.shuffle and count >= size

    def _batch(self, reading: Reading) -> Batch:
        ticket, lost = reading.ticket, [why for _, why in reading.lost]
        problem = self._problem(len(ticket.rows), lost)
        if reading.batch is None:
            return Batch(None, None, [], lost, problem)
        images = to_float(reading.batch["image"].to(self.device))
        if self.recipe.image_size is not None:
            images = resize(images, self.recipe.image_size, self.recipe.interpolation)
        if self.augment is not None:  # drawn for the whole batch, however many processes share it
            drawn = self.augment.sample(ticket.count, torch.Generator().manual_seed(ticket.seed))
            own = torch.tensor(reading.kept) + ticket.first
            images = self.augment.apply(images, {key: value[own] for key, value in drawn.items()})
        images = normalise(to_rgb(images)).contiguous(memory_format=memory_format(self.recipe))
        rows = [ticket.rows[place] for place in reading.kept]
        names = reading.batch.get("path") or [f"face {row}" for row in rows]
        return Batch(images, self._target(reading.batch), list(map(str, names)), lost, problem)

    def _problem(self, count: int, lost: list[str]) -> str:
        if not lost or (self.recipe.on_fault == "skip" and len(lost) <= count / 2):
            return ""
        shown = "; ".join(lost[:3]) + (f"; and {len(lost) - 3} more" if len(lost) > 3 else "")
        if self.recipe.on_fault == "skip":
            return f"{len(lost)} of {count} faces of a batch cannot be read, more than half: {shown}"
        return f"{shown}. Mend the file and resume, or go on without such faces by on_fault: skip"

    def _target(self, batch: dict[str, Any]) -> Tensor:
        if self.recipe.targets == "label":
            return batch["label"].to(self.device)
        if "votes" not in batch:
            raise ValueError(
                "targets: votes was asked for, but this data set has no votes; use targets: label"
            )
        votes = batch["votes"].to(self.device)
        return votes / votes.sum(1, keepdim=True)


class _Tickets:
    """The loader's sampler: the tickets of the pass that begins now."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Ticket]:
        return self.batches.tickets(*self.batches.now)

    def __len__(self) -> int:
        return len(self.batches)
