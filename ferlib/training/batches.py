"""Batches as a network takes them: batch n of epoch e is the same whenever it is read.

A face has three forms on its way to the loss: the data set's item, a row of a :class:`Batch` on the device,
and the pair of images and target that a step gets. PyTorch's ``DataLoader`` reads ahead; its sampler yields a
:class:`BatchIndex` for each batch instead of single rows, so that a batch is read in one go, augmented from
its own seed, and shared between processes. torch has no loader for batches that can be drawn again.

Random numbers are a function of where they are needed: run (seed), epoch, step. A stream that is drawn from
step after step has a state, and a run that was killed would have to find it again. Here each stream begins
with a number made from (seed, purpose, epoch, step), so there is no state to keep and nothing that a
callback, a worker process or a kill could disturb. Chapter 6.
"""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ferlib.data.base import DataError, FaceDataset, identity
from ferlib.data.transforms import normalize, resize, to_float, to_rgb
from ferlib.training.build import build_augment
from ferlib.training.device import memory_format
from ferlib.training.recipes import Recipe


class FaultyDataError(DataError):
    """Faces that could not be read in mid-run; the message names them."""


class BatchIndex(NamedTuple):
    """What one batch consists of: rows of the data set, and a seed for a data set that draws faces itself.

    Where processes share a batch of ``count`` faces, the rows are those from place ``first`` on.
    """

    rows: list[int]
    seed: int
    first: int
    count: int


class Batch(NamedTuple):
    """What a step works on, and where it comes from.

    Attributes:
        images: (B, 3, S, S), normalized, on the device; None where no face could be read.
        target: Labels (B,) or vote shares (B, K).
        names: Paths of the faces, or row numbers where the data set has no paths.
        lost: Why faces are missing.
        problem: Why the run must stop because of them, or "".
    """

    images: Tensor | None
    target: Tensor | None
    names: list[str]
    lost: list[str]
    problem: str


class Batches:
    """The loader of a run, for training (``shuffle=True``) or for validation.

    For training the faces come in an order drawn from (seed, epoch), with an augmentation drawn from (seed,
    epoch, batch); with ``balance`` a face of class c is drawn with probability 1 / (K n_c). For validation
    every face comes once, as it is; only the released protocol shuffles and augments these, too.

    Args:
        data: The data set.
        recipe: Batch size, augmentation, targets, seed, and what to do about faces that cannot be read.
        device: Where the batches go.
        shuffle: For training.
        workers: Processes that read ahead; they change no number.
        place: (rank, world) of this process. It gets its share of the faces of a training batch; of the
            validation batches it gets whole ones, since a prediction may depend on the batch.

    Raises:
        DataError: For a data set without faces, or without votes where the recipe needs them.
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
            raise DataError("the data set is empty: there is nothing to train or measure on")
        if shuffle and recipe.batch_size < place[1]:
            raise DataError(f"batch_size {recipe.batch_size} has no face for each of {place[1]} processes")
        self.data, self.recipe, self.device, self.place = data, recipe, device, place
        self.shuffle, self.varied = shuffle, shuffle or recipe.protocol == "released"
        self.purpose = "learn" if shuffle else "judge"  # these words are part of every seed
        self.augment = build_augment(recipe) if self.varied else None
        self.next_pass = (0, 0)  # epoch and first batch, for the sampler
        self.loader = DataLoader(
            _Reader(data),
            sampler=_BatchSampler(self),
            batch_size=None,
            collate_fn=identity,
            num_workers=workers,
            worker_init_fn=_ignore_ctrl_c if workers else None,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # it draws a seed at each start: not from the caller's numbers
        )

    def __len__(self) -> int:
        size, count = self.recipe.batch_size, len(self.data)
        return count // size if self._drop_last() else math.ceil(count / size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(len(self) / self.recipe.accumulate)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, 3, S, S) and targets of each batch; faces that cannot be read are an error."""
        for batch in self.read(epoch):
            if batch.problem:
                raise FaultyDataError(batch.problem)
            yield batch.images, batch.target

    def steps(self, epoch: int, first: int = 0) -> Iterator[tuple[int, list[Batch]]]:
        """Number (from 0) and the ``accumulate`` batches of each step from ``first`` on."""
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
        self.next_pass = (epoch, first)
        for found in self.loader:
            yield self._batch(*found)

    def indices(self, epoch: int, first: int) -> Iterator[BatchIndex]:
        """What to read, in order: this process's part of batches ``first``, ``first + 1``, ..."""
        order, size, (rank, world) = self._order(epoch), self.recipe.batch_size, self.place
        for number in range(first, len(self)):
            rows = order[number * size : (number + 1) * size].tolist()
            share = own_share(len(rows), rank, world) if self.shuffle else slice(0, len(rows))
            if self.shuffle or number % world == rank:
                seed = draw_seed(self.recipe.seed, self.purpose, epoch, number)
                yield BatchIndex(rows[share], seed, share.start, len(rows))

    def _order(self, epoch: int) -> Tensor:
        draw = generator(self.recipe.seed, self.purpose, "order", epoch)
        if self.shuffle and self.recipe.balance:
            weights = (1 / self.data.class_counts().double())[torch.as_tensor(self.data.labels)]
            return torch.multinomial(weights, len(self.data), replacement=True, generator=draw)
        count = len(self.data)
        return torch.randperm(count, generator=draw) if self.varied else torch.arange(count)

    def _drop_last(self) -> bool:
        """A last batch of a few faces would disturb batch statistics and batch attention."""
        size, count, world = self.recipe.batch_size, len(self.data), self.place[1]
        if self.recipe.protocol == "released":  # trains on it, unless a process would get none or one face
            return self.shuffle and count > size and 0 < count % size < (2 if world == 1 else 2 * world)
        return self.shuffle and count >= size

    def _batch(self, index: BatchIndex, found: dict[str, Any] | None, lost: dict[int, str]) -> Batch:
        problem = self._problem(len(index.rows), list(lost.values()))
        if found is None:
            return Batch(None, None, [], list(lost.values()), problem)
        kept = [place for place in range(len(index.rows)) if place not in lost]
        images = to_float(found["image"].to(self.device))
        if self.recipe.image_size is not None:
            images = resize(images, self.recipe.image_size, self.recipe.interpolation)
        if self.augment is not None:  # drawn for the whole batch, however many processes share it
            drawn = self.augment.sample(index.count, torch.Generator().manual_seed(index.seed))
            own = torch.tensor(kept) + index.first
            images = self.augment.apply(images, {key: value[own] for key, value in drawn.items()})
        images = normalize(to_rgb(images)).contiguous(memory_format=memory_format(self.recipe))
        names = found.get("name") or [f"face {index.rows[place]}" for place in kept]
        return Batch(images, self._target(found), list(map(str, names)), list(lost.values()), problem)

    def _target(self, found: dict[str, Any]) -> Tensor:
        if self.recipe.targets == "label":
            return found["label"].to(self.device)
        if "votes" not in found:
            raise DataError("the data set has no votes, which targets: votes needs; use targets: label")
        votes = found["votes"].to(self.device)
        return votes / votes.sum(1, keepdim=True)

    def _problem(self, count: int, lost: list[str]) -> str:
        if not lost or (self.recipe.on_fault == "skip" and len(lost) <= count / 2):
            return ""
        shown = "; ".join(lost[:3]) + (f"; and {len(lost) - 3} more" if len(lost) > 3 else "")
        if self.recipe.on_fault == "skip":
            return f"{len(lost)} of {count} faces of a batch cannot be read, more than half: {shown}"
        return f"{shown}. Mend the file and resume, or go on without such faces by on_fault: skip"


class _BatchSampler:
    """The loader's sampler: the batches of the pass that begins now."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[BatchIndex]:
        return self.batches.indices(*self.batches.next_pass)

    def __len__(self) -> int:
        return len(self.batches)


class _Reader(Dataset):
    """A data set of whole batches: for an index, the batch of its readable rows and why others are missing.

    Only what a data set says about its files (``DataError``, ``OSError``) counts as a fault; any other error
    is a defect and is raised.
    """

    def __init__(self, data: FaceDataset) -> None:
        self.data = data

    def __getitem__(self, index: BatchIndex) -> tuple[BatchIndex, dict[str, Any] | None, dict[int, str]]:
        lost: dict[int, str] = {}
        with drawing(index.seed):
            try:
                return index, self.data.batch(index.rows), lost
            except (DataError, OSError):
                for place, row in enumerate(index.rows):
                    try:
                        self.data.batch([row])
                    except (DataError, OSError) as error:
                        lost[place] = f"face {row}: {error or type(error).__name__}"
        rows = [row for place, row in enumerate(index.rows) if place not in lost]
        with drawing(index.seed):
            return index, self.data.batch(rows) if rows else None, lost


def _ignore_ctrl_c(worker: int) -> None:
    """Ctrl-C is the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def own_share(count: int, rank: int, world: int) -> slice:
    """Which of ``count`` rows belong to process ``rank`` of ``world``; shares differ by at most one."""
    return slice(count * rank // world, count * (rank + 1) // world)


def draw_seed(*words: int | str) -> int:
    r"""A seed from words and numbers: the first 63 bits of a hash of them.

    .. math:: \mathrm{seed} = \lfloor \mathrm{BLAKE2b}(\text{words}) / 2 \rfloor \in [0, 2^{63})

    Streams of neighboring epochs and steps then have nothing in common, which ``seed + epoch`` would not
    promise.
    """
    code = blake2b(repr(words).encode(), digest_size=8).digest()
    return int.from_bytes(code, "little") >> 1


def generator(*words: int | str) -> torch.Generator:
    """A generator on the CPU that begins with :func:`draw_seed`."""
    return torch.Generator().manual_seed(draw_seed(*words))


@contextmanager
def drawing(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, all global random numbers (torch, NumPy, Python) begin at ``seed``; afterwards they go on as if
    nothing had been drawn. ``device``: a GPU whose generator is meant, too.
    """
    gpu = [torch.device(device)] if torch.device(device).type == "cuda" else []
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=gpu):
        torch.default_generator.manual_seed(seed)
        for one in gpu:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
