"""The training loop: one step, one epoch, one run. Short enough to be read in chapter 6.

Every random number of epoch e comes from generators seeded by (seed, e). A run that was killed and resumed
after epoch e therefore draws what the run that was never killed draws, and ends with the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.training.batches import Batches
from ferlib.training.build import build_average, build_optimiser, set_lr
from ferlib.training.device import autocast, choose_device, move
from ferlib.training.progress import Progress, make_progress
from ferlib.training.recipes import Recipe
from ferlib.training.runs import RunFolder
from ferlib.training.tally import Tally, logits_of

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
    judged_by: str = "validation",
) -> list[dict[str, Any]]:
    r"""Train ``model`` as ``recipe`` says and return the history, one record per epoch.

    .. math:: w \leftarrow w - \mathrm{lr}(t) \cdot \mathrm{step}\bigl(\nabla_w L(f_w(x), y)\bigr)

    Parameters
    ----------
    model: takes ``(B, 3, S, S)`` floats; returns logits ``(B, K)``, in training mode also what the criterion
        wants (``BTNOutput``). It ends with the weights of the last epoch (their average, with ``ema``).
    criterion: ``(output, target) -> scalar``; the target is ``(B,)`` labels or ``(B, K)`` vote distributions.
    train, valid: data sets; ``valid`` only measures, and chooses the best epoch (the released protocol's
        callers give the test split here).
    run_dir: folder for the recipe, metrics and checkpoints ``last`` and ``best``; None writes nothing.
    resume: True goes on from ``run_dir``'s last checkpoint, a path from that file; False starts afresh.
    progress: see ``make_progress``.
    device: "cpu", "cuda", ...; by default the GPU where there is one.
    on_epoch: called with the evaluated model and the epoch's record, which it may extend.
    judged_by: what log and progress call ``valid``: "validation", or "test" in the released protocol.

    Shape: returns E records ``{epoch, lr, train_loss, train_accuracy, valid_loss, valid_accuracy, seconds}``,
    losses as means per face, accuracies in [0, 1]. Raises ``TrainingError`` when the loss is NaN or infinite,
    ``CheckpointError`` where a checkpoint does not fit or cannot be written. Chapter 6.
    """
    device = choose_device(device)
    move(model, recipe, device)
    optimiser = build_optimiser(recipe, model)
    average = build_average(recipe, model)
    folder = RunFolder(run_dir, recipe, judged_by)
    history = folder.resume(resume, model, optimiser, average, device) if resume else folder.begin()
    learned, judged = Batches(train, recipe, device, shuffle=True), Batches(valid, recipe, device)
    watch = make_progress(progress)
    watch.judged_by = judged_by
    watch.start(len(learned), recipe.epochs, history)
    try:
        for epoch in range(len(history) + 1, recipe.epochs + 1):
            began = time.monotonic()
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(1_000_003 * recipe.seed + epoch)
                record = train_epoch(model, criterion, learned, optimiser, average, epoch, recipe, watch)
            candidate = average.module if average else model
            record |= validate(candidate, criterion, judged, epoch)
            record["seconds"] = time.monotonic() - began
            if on_epoch is not None:
                on_epoch(candidate, record)
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
    tally = Tally(recipe.protocol == "released")
    for step, (images, target) in enumerate(batches.epoch(epoch)):
        lr = recipe.lr_at(epoch - 1 + step / len(batches), 1 / len(batches))
        set_lr(optimiser, lr)
        try:
            _, logits = train_step(
                model, criterion, optimiser, images, target, clip=recipe.clip, precision=recipe.precision
            )
        except TrainingError as error:
            where = f"epoch {epoch}, step {step + 1} of {len(batches)}, learning rate {lr:.3g}"
            raise TrainingError(
                f"{error} ({where}): lower lr, lengthen warmup or set clip; the checkpoint 'last' is sound"
            ) from None
        if average is not None:
            average.update_parameters(model)
        with torch.no_grad():  # what is shown: the loss of the judged answer, as in validation
            loss = float(criterion(logits, target))
        tally.add(loss, logits, target)
        watch.step(epoch, step + 1, loss)
    return {"epoch": epoch, "lr": lr, **tally.means("train")}


def train_step(
    model: nn.Module,
    criterion: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    target: Tensor,
    *,
    clip: float | None = None,
    precision: str = "fp32",
) -> tuple[float, Tensor]:
    """One optimiser step; returns the loss and the logits before it.

    What a network says it does not learn (its method ``frozen``, such as a landmark branch) is computed once
    for both passes of SAM.

    Shape: images (B, 3, S, S), target (B,) or (B, K) -> a number and (B, K). Raises ``TrainingError`` for a
    loss that is NaN or infinite, before any weight has moved. Chapter 6.
    """
    passes = []  # SAM calls the closure twice; the first pass is the one at the weights themselves
    with autocast(precision, images.device):
        frozen = model.frozen(images) if hasattr(model, "frozen") else None
    given = {} if frozen is None else {"frozen": frozen}

    def closure() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        with autocast(precision, images.device):
            output = model(images, **given)
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
def validate(model: nn.Module, criterion: nn.Module, batches: Batches, epoch: int = 0) -> dict[str, float]:
    """Loss and accuracy without learning. Shape: returns ``{valid_loss, valid_accuracy}``, means per face
    (per batch in the released protocol, which also varies the faces anew each ``epoch``).

    Chapter 6; chapter 7 measures with more care.
    """
    model.eval()
    tally = Tally(batches.recipe.protocol == "released")
    for images, target in batches.epoch(epoch):
        with autocast(batches.recipe.precision, images.device):
            logits = logits_of(model(images))
        tally.add(float(criterion(logits, target)), logits, target)
    return tally.means("valid")
