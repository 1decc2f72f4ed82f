"""The training loop: one step, one epoch, one run. Short enough to be read in chapter 6.

Every random number of step s in epoch e comes from a generator that begins at a function of (seed, e, s), and
a checkpoint holds everything else (``RunState``). So a run that was killed anywhere and resumed draws what
the run that was never killed draws, and ends with the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ferlib.data.base import FaceDataset
from ferlib.training.batches import Batches, FaultyDataError
from ferlib.training.build import set_lr
from ferlib.training.device import move
from ferlib.training.environment import environment, label_code
from ferlib.training.interrupt import Interrupt
from ferlib.training.judging import judge_epoch, validate
from ferlib.training.processes import make_fabric, total
from ferlib.training.progress import Progress, make_progress
from ferlib.training.recipes import Recipe
from ferlib.training.run import Run, share_of_step, some
from ferlib.training.runs import RunFolder
from ferlib.training.seeds import draw_seed, drawing
from ferlib.training.state import RunState
from ferlib.training.step import TrainingError, accumulated_step, train_step
from ferlib.training.tally import Tally

__all__ = ["OnEpoch", "TrainingError", "fit", "train_epoch", "train_step", "validate"]

OnEpoch = Callable[[nn.Module, dict[str, Any]], None]


def fit(
    model: nn.Module,
    criterion: nn.Module,
    train: FaceDataset,
    valid: FaceDataset,
    recipe: Recipe,
    *,
    run_dir: str | Path | None = None,
    resume: bool | str | Path = False,
    overwrite: bool = False,
    progress: str | Progress | None = "auto",
    device: str | torch.device | None = None,
    workers: int = 0,
    tensorboard: bool = False,
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
    run_dir: folder for the recipe, metrics and checkpoints (``ferlib.training.runs``); None writes nothing.
    resume: True goes on from ``run_dir``, a path from that run's folder or file; False starts afresh.
    overwrite: a fresh start may replace a run of another recipe in ``run_dir``.
    progress: see ``make_progress``. ``tensorboard``: log steps and epochs for TensorBoard in ``run_dir``.
    device: "cpu", "cuda", ...; by default the GPU where there is one. Under ``torchrun`` each process has its
        own, and its share of every batch.
    workers: processes that read data ahead; they change no number.
    on_epoch: called with the evaluated model and the epoch's record, which it may extend; under ``torchrun``
        in the first process.
    judged_by: what log and progress call ``valid``: "validation", or "test" in the released protocol.

    On a CPU the same seed gives the same bits (on the same machine, with as many threads), also when the run
    was killed at any step and resumed. On a GPU the order of additions inside some kernels (atomic adds in
    the backward passes of interpolation and indexing, cuDNN's choice of algorithm) is not fixed: numbers then
    agree to rounding, which later steps magnify, and only what is drawn and in which order is the same.
    Ctrl-C finishes the step, saves and raises ``KeyboardInterrupt``.

    Shape: returns E records ``{epoch, lr, train_loss, train_accuracy, valid_loss, valid_accuracy, seconds}``
    (and ``left_out`` where faces may be skipped), losses as means per face, accuracies in [0, 1]. Raises
    ``TrainingError`` when the loss is NaN or infinite, ``FaultyDataError`` for faces that cannot be read,
    ``CheckpointError`` where a checkpoint does not fit or cannot be written. Chapter 6.
    """
    fabric = make_fabric(device)
    move(model, recipe, fabric.device)
    network = fabric.strategy.setup_module(model)  # of several processes, all get the mean of their gradients
    state = RunState(model, recipe, [label_code(train), label_code(valid)])
    place = {"place": (fabric.global_rank, fabric.world_size), "workers": workers}
    learned = Batches(train, recipe, fabric.device, shuffle=True, **place)
    judged = Batches(valid, recipe, fabric.device, **place)
    leads = fabric.is_global_zero  # the first process writes and speaks
    with RunFolder(run_dir, recipe, judged_by, writes=leads) as folder, Interrupt() as stop:
        watch = make_progress(progress, tensorboard=folder.log(tensorboard)) if leads else Progress()
        if resume:
            folder.resume(resume, state)
        else:
            folder.begin(lambda: environment(fabric, train, valid), overwrite=overwrite)
        watch.begin(learned.count_steps, recipe.epochs, state.history, state.step, judged_by)
        run = Run(fabric, network, folder, stop, watch)
        try:
            while state.epoch <= recipe.epochs:
                record = train_epoch(state, criterion, learned, run)
                record |= judge_epoch(state, criterion, judged, run)
                if on_epoch is not None and leads:
                    on_epoch(state.judged, record)
                state.finish_epoch(fabric.broadcast(record))
                folder.keep(state)
                watch.epoch(record)
        except BaseException as error:
            if isinstance(error, FaultyDataError):
                folder.save(state)
            watch.close(f"stopped: {error or type(error).__name__}")
            raise
    if state.average is not None:
        model.load_state_dict(state.average.module.state_dict())
    watch.close("done")
    return state.history


def train_epoch(state: RunState, criterion: nn.Module, batches: Batches, run: Run) -> dict[str, Any]:
    """One pass over the training data, or the rest of one that was stopped.

    Loss and accuracy are those of the answer that validation judges too, before each step, and so comparable.

    Shape: returns ``{epoch, lr, train_loss, train_accuracy}``. Raises ``TrainingError`` that names the faces
    of a batch whose loss is no number, ``FaultyDataError``, and ``KeyboardInterrupt`` after Ctrl-C, when the
    state is saved. Chapter 6.
    """
    recipe, model, epoch, count = state.recipe, state.model, state.epoch, batches.count_steps
    model.train()
    clock = time.monotonic() - state.seconds
    for step, parts in batches.steps(epoch, state.step):
        set_lr(state.optimiser, recipe.lr_at(epoch - 1 + step / count, 1 / count))
        weights = share_of_step(parts, run.fabric)
        try:
            with drawing(draw_seed(recipe.seed, "step", epoch, step, run.fabric.global_rank), batches.device):
                answers = accumulated_step(
                    model, criterion, state.optimiser, [(part.images, part.target) for part in parts],
                    weights=weights, network=run.network, clip=recipe.clip, precision=recipe.precision,
                )  # fmt: skip
        except TrainingError as error:
            faces, lr = parts[error.batch].names, state.optimiser.param_groups[-1]["lr"]
            where = f"epoch {epoch}, step {step + 1} of {count}, learning rate {lr:.3g}"
            raise TrainingError(
                f"{error} ({where}; {some(faces)}): lower lr, lengthen warmup or set clip; look at these "
                "faces; the last checkpoint is sound"
            ) from None
        if state.average is not None:
            state.average.update_parameters(model)
        tally = Tally(recipe.protocol == "released")
        with torch.no_grad():  # what is shown: the loss of the judged answer, as in validation
            for (_, logits), part in zip(answers, parts, strict=True):
                loss = float(criterion(logits, part.target))
                tally.add(loss, logits, part.target)
        run.watch.step(epoch, step + 1, loss)
        *sums, lost, asked = total(run.fabric, *tally.state(), state.note_lost(parts), run.stop.asked)
        state.finish_step(sums, int(lost), time.monotonic() - clock)
        run.folder.rest(state, bool(asked))
    return {"epoch": epoch, "lr": recipe.lr_at(epoch - 1 / count, 1 / count), **state.tally.means("train")}
