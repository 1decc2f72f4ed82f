"""The training loop: batches, one step, one epoch, one run. Short enough to be read in chapter 6.

Every random number of epoch e comes from generators seeded by (seed, e). A run that was killed and resumed
after epoch e therefore draws what the run that was never killed draws, and ends with the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from ferlib.data.base import FaceDataset, identity
from ferlib.data.transforms import normalise, resize, to_float, to_rgb
from ferlib.training.build import build_augment, build_average, build_optimiser
from ferlib.training.progress import Progress, make_progress
from ferlib.training.recipes import Recipe
from ferlib.training.runs import RunFolder

OnEpoch = Callable[[nn.Module, dict[str, Any]], None]


class TrainingError(RuntimeError):
    """Training that cannot go on (the loss is no number any more); the message says where and what to try.

    Shape: takes one message string. Chapter 6.
    """


def fit(
    model: nn.Module,
    criterion: nn.Module,
    train: FaceDataset,
    valid: FaceDataset,
    recipe: Recipe,
    *,
    run_dir: str | Path | None = None,
    resume: bool | str | Path = False,
    progress: str | Progress | None = "auto",
    device: str | torch.device | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[dict[str, Any]]:
    r"""Train ``model`` as ``recipe`` says and return the history, one record per epoch.

    .. math:: w \leftarrow w - \mathrm{lr}(t) \cdot \mathrm{step}\bigl(\nabla_w L(f_w(x), y)\bigr)

    Parameters
    ----------
    model: takes ``(B, 3, S, S)`` floats; returns logits ``(B, K)``, in training mode also what the criterion
        wants (``BTNOutput``). It ends with the weights of the last epoch (their average, with ``ema``).
    criterion: ``(output, target) -> scalar``; the target is ``(B,)`` labels or ``(B, K)`` vote distributions.
    train, valid: data sets; ``valid`` only measures, and chooses the best epoch.
    run_dir: folder for the recipe, metrics and checkpoints ``last`` and ``best``; None writes nothing.
    resume: True goes on from ``run_dir``'s last checkpoint, a path from that file; False starts afresh.
    progress: see ``make_progress``.
    device: "cpu", "cuda", ...; by default the GPU where there is one.
    on_epoch: called with the evaluated model and the epoch's record, which it may extend.

    Shape: returns E records ``{epoch, lr, train_loss, train_accuracy, valid_loss, valid_accuracy, seconds}``,
    losses as means per face, accuracies in [0, 1]. Raises ``TrainingError`` when the loss is NaN or infinite,
    ``CheckpointError`` where a checkpoint does not fit or cannot be written. Chapter 6.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(device, memory_format=torch.channels_last)  # convolutions on a CPU are about 10 % faster
    optimiser = build_optimiser(recipe, model)
    average = build_average(recipe, model)
    folder = RunFolder(run_dir, recipe)
    history = folder.resume(resume, model, optimiser, average, device) if resume else folder.begin()
    batches = Batches(train, recipe, device, shuffle=True)
    watch = make_progress(progress)
    watch.start(len(batches), recipe.epochs, history)
    try:
        for epoch in range(len(history) + 1, recipe.epochs + 1):
            began = time.monotonic()
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(1_000_003 * recipe.seed + epoch)
                record = train_epoch(model, criterion, batches, optimiser, average, epoch, recipe, watch)
            judged = average.module if average else model
            record |= validate(judged, criterion, Batches(valid, recipe, device))
            record["seconds"] = time.monotonic() - began
            if on_epoch is not None:
                on_epoch(judged, record)
            history.append(record)
            folder.keep(model, optimiser, average, history)
            watch.epoch(record)
    except BaseException as error:
        watch.close(f"stopped: {error or type(error).__name__}")
        raise
    if average is not None:
        model.load_state_dict(average.module.state_dict())
    watch.close("done")
    return history


def train_epoch(
    model: nn.Module,
    criterion: nn.Module,
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    average: nn.Module | None,
    epoch: int,
    recipe: Recipe,
    watch: Progress,
) -> dict[str, Any]:
    """One pass over the training data.

    Loss and accuracy are those of the answer that validation judges too, before each step, and so comparable.

    Shape: returns ``{epoch, lr, train_loss, train_accuracy}``. Chapter 6.
    """
    model.train()
    total, right, seen = 0.0, 0, 0
    for step, (images, target) in enumerate(batches.epoch(epoch)):
        lr = recipe.lr_at(epoch - 1 + (step + 1) / len(batches))
        for group in optimiser.param_groups:
            group["lr"] = lr
        try:
            _, logits = train_step(model, criterion, optimiser, images, target, clip=recipe.clip)
        except TrainingError as error:
            where = f"epoch {epoch}, step {step + 1} of {len(batches)}, learning rate {lr:.3g}"
            raise TrainingError(
                f"{error} ({where}): lower lr, lengthen warmup or set clip; the checkpoint 'last' is sound"
            ) from None
        if average is not None:
            average.update_parameters(model)
        with torch.no_grad():  # what is shown: the loss of the judged answer, as in validation
            loss = float(criterion(logits, target))
        labels = target if target.ndim == 1 else target.argmax(1)
        total, seen = total + loss * len(labels), seen + len(labels)
        right += int((logits.argmax(1) == labels).sum())
        watch.step(epoch, step + 1, loss)
    return {"epoch": epoch, "lr": lr, "train_loss": total / seen, "train_accuracy": right / seen}


def train_step(
    model: nn.Module,
    criterion: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    target: Tensor,
    *,
    clip: float | None = None,
) -> tuple[float, Tensor]:
    """One optimiser step; returns the loss and the logits before it.

    Shape: images (B, 3, S, S), target (B,) or (B, K) -> a number and (B, K). Raises ``TrainingError`` for a
    loss that is NaN or infinite, before any weight has moved. Chapter 6.
    """
    passes = []  # SAM calls the closure twice; the first pass is the one at the weights themselves

    def closure() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        output = model(images)
        loss = criterion(output, target)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss is {loss.item()}")
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        passes.append((loss.item(), logits_of(output)))
        return loss

    optimiser.step(closure)
    return passes[0]


@torch.no_grad()
def validate(model: nn.Module, criterion: nn.Module, batches: Batches) -> dict[str, float]:
    """Loss and accuracy without learning. Shape: returns ``{valid_loss, valid_accuracy}`` as means per face.

    Chapter 6; chapter 7 measures with more care.
    """
    model.eval()
    total, right, seen = 0.0, 0, 0
    for images, target in batches.epoch(0):
        logits = model(images)
        labels = target if target.ndim == 1 else target.argmax(1)
        total += float(criterion(logits, target)) * len(labels)
        right += int((logits_of(logits).argmax(1) == labels).sum())
        seen += len(labels)
    return {"valid_loss": total / seen, "valid_accuracy": right / seen}


def logits_of(output: Any) -> Tensor:
    """The one set of logits to judge by: the batch transformer's where a network returns several.

    Shape: (B, K), or a named tuple with a field ``bt`` -> (B, K). Chapter 5.
    """
    return (output if isinstance(output, Tensor) else output.bt).detach()


class Batches:
    """Batches as a network takes them: shuffled by (seed, epoch), augmented, normalised, on the device.

    Shape: ``epoch(e)`` yields images ``(B, 3, S, S)`` and targets, ``(B,)`` labels or ``(B, K)`` votes that
    sum to one; ``len`` is the number of batches. Chapter 6.
    """

    def __init__(
        self, data: FaceDataset, recipe: Recipe, device: torch.device, *, shuffle: bool = False
    ) -> None:
        if len(data) == 0:
            raise ValueError("the data set is empty: there is nothing to train or measure on")
        self.data, self.recipe, self.device = data, recipe, device
        self.augment = build_augment(recipe) if shuffle else None
        self.generator = torch.Generator()
        order = RandomSampler(data, generator=self.generator) if shuffle else SequentialSampler(data)
        # a last batch of a few faces would disturb batch statistics and batch attention
        drop_last = shuffle and len(data) >= recipe.batch_size
        sampler = BatchSampler(order, recipe.batch_size, drop_last)
        # the loader draws a seed for workers at each start: from its own generator, not from the caller's
        own = torch.Generator()
        self.loader = DataLoader(data, batch_sampler=sampler, collate_fn=identity, generator=own)

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.generator.manual_seed(1_000_003 * self.recipe.seed + epoch)
        for batch in self.loader:
            images = to_float(batch["image"].to(self.device))
            if self.recipe.image_size is not None:
                images = resize(images, self.recipe.image_size)
            if self.augment is not None:
                images = self.augment(images, self.generator)
            images = normalise(to_rgb(images)).contiguous(memory_format=torch.channels_last)
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
