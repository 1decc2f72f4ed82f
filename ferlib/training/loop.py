"""The training loop: one step, one epoch, one run. Short enough to be read in chapter 6.

Every random number of step s in epoch e comes from a generator that begins at a function of (seed, e, s), and
a checkpoint holds everything else (``RunState``). So a run that was killed anywhere and resumed draws what
the run that was never killed draws, and ends with the same weights. Devices and processes are Lightning
Fabric's; the loop is our own because Fabric's and Lightning's trainers resume at epochs, not at steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import TensorBoardLogger
from torch import Tensor, nn

from ferlib.data.base import DataError, FaceDataset
from ferlib.training.batches import Batch, Batches, FaultyDataError, draw_seed, drawing
from ferlib.training.build import check_image_size, set_lr
from ferlib.training.device import autocast, make_fabric, move, total
from ferlib.training.environment import data_code, environment
from ferlib.training.progress import Progress, make_progress
from ferlib.training.recipes import Recipe
from ferlib.training.runs import Interrupt, RunFolder, RunState, TrainingError

__all__ = ["TrainingError", "accumulated_step", "fit", "train_epoch", "train_step"]

OnEpoch = Callable[[nn.Module, dict[str, Any]], None]


class Run(NamedTuple):
    """What surrounds the steps of one call of ``fit``; ``network`` is the model as the processes share it."""

    fabric: Fabric
    network: nn.Module
    folder: RunFolder
    stop: Interrupt
    progress: Progress


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
    valid_name: str = "validation",
    notes: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    r"""Train ``model`` as ``recipe`` describes and return the history, one record per epoch.

    .. math:: w \leftarrow w - \mathrm{lr}(t) \cdot \mathrm{step}\bigl(\nabla_w L(f_w(x), y)\bigr)

    On a CPU the same seed gives the same bits (on the same machine, with as many threads), also when the run
    was killed at any step and resumed. On a GPU the order of additions inside some kernels (atomic adds in
    the backward passes of interpolation and indexing, cuDNN's choice of algorithm) is not fixed: numbers then
    agree to rounding, which later steps magnify, and only what is drawn and in which order is the same.
    Ctrl-C finishes the step, saves and raises ``KeyboardInterrupt``. Chapter 6.

    Args:
        model: Takes (B, 3, S, S) floats and returns logits (B, K), in training mode also what the criterion
            needs (``BTNOutput``). It ends with the weights of the last epoch (their average, with ``ema``).
        criterion: ``(output, target) -> scalar``; the target is labels (B,) or vote distributions (B, K).
        train: The training set.
        valid: Only measured; it chooses the best epoch (under the released protocol callers give the test
            split here).
        recipe: All choices of the run.
        run_dir: Folder for the recipe, metrics and checkpoints (``ferlib.training.runs``); None writes
            nothing.
        resume: True goes on from ``run_dir``, a path from that run's folder or file; False starts afresh.
        overwrite: A fresh start may replace a run of another recipe in ``run_dir``, and any run the files of
            a run's names in a folder that is no run's.
        progress: See :func:`make_progress`.
        device: "cpu", "cuda", ...; by default the GPU where there is one. Under ``torchrun`` each process has
            its own, and its share of every batch.
        workers: Processes that read data ahead; they change no number.
        tensorboard: Log steps and epochs for TensorBoard in ``run_dir``.
        on_epoch: Called with the evaluated model and the epoch's record, which it may extend; under
            ``torchrun`` in the first process.
        valid_name: What log and progress call ``valid``: "validation", or "test" in the released protocol.
        notes: Further text files of ``run_dir``, by name.

    Returns:
        Records ``{epoch, lr, train_loss, train_accuracy, valid_loss, valid_accuracy, seconds}`` (and
        ``left_out`` where faces may be skipped): losses averaged over faces, accuracies in [0, 1].

    Raises:
        TrainingError: The loss, the validation loss or a weight is NaN or infinite.
        FaultyDataError: Faces cannot be read.
        RecipeError: The network cannot take faces of the recipe's ``image_size``.
        CheckpointError: A checkpoint does not fit or cannot be written.
    """
    if tensorboard and run_dir is None:
        raise ValueError("tensorboard=True needs a run_dir to write its log to")
    fabric = make_fabric(device)
    move(model, recipe, fabric.device)
    network = fabric.strategy.setup_module(model)  # of several processes, all get the average gradient
    if list(valid.classes) != list(train.classes):
        raise DataError(f"the validation set has the classes {valid.classes}, expected {train.classes}")
    state = RunState(model, recipe, [data_code(train), data_code(valid)], train.classes)
    place = {"place": (fabric.global_rank, fabric.world_size), "workers": workers}
    train_loader = Batches(train, recipe, fabric.device, shuffle=True, **place)
    valid_loader = Batches(valid, recipe, fabric.device, **place)
    leads = fabric.is_global_zero  # the first process writes
    with RunFolder(run_dir, recipe, valid_name, notes=notes, writes=leads) as folder, Interrupt() as stop:
        watch = make_progress(progress) if leads else Progress()
        if resume:
            folder.resume(resume, state, overwrite=overwrite)
        else:
            folder.start(lambda: environment(fabric, train, valid), overwrite=overwrite)
        watch.start(train_loader.steps_per_epoch, recipe.epochs, state.history, state.step, valid_name)
        if tensorboard and leads:
            fabric.loggers.append(_tensorboard(folder.path, watch.done))
        run = Run(fabric, network, folder, stop, watch)
        try:
            while state.epoch <= recipe.epochs:
                record = train_epoch(state, criterion, train_loader, run)
                record |= validate_epoch(state, criterion, valid_loader, run)
                if on_epoch is not None and leads:
                    on_epoch(state.eval_model, record)
                state.finish_epoch(fabric.broadcast(record))
                folder.save_epoch(state)
                watch.epoch(record)
                numbers = {f"epoch/{k}": x for k, x in record.items() if isinstance(x, int | float)}
                fabric.log_dict(numbers, record["epoch"] * train_loader.steps_per_epoch)
        except BaseException as error:
            if isinstance(error, FaultyDataError):
                folder.save(state)
            watch.close(f"stopped: {error or type(error).__name__}")
            if isinstance(error, Exception) and state.epoch == 1 and state.step == 0:
                check_image_size(model, recipe, train)  # a clearer error, if that is why
            raise
        finally:
            for logger in fabric.loggers:
                logger.finalize("ended")
    if state.average is not None:
        model.load_state_dict(state.average.module.state_dict())
    watch.close("done")
    return state.history


def _tensorboard(run_dir: Path, done: int) -> TensorBoardLogger:
    """A logger in the run's folder; what was logged after the resumed run's ``done`` steps is struck out."""
    try:
        return TensorBoardLogger(run_dir, "tensorboard", "", purge_step=done + 1 if done else None)
    except ModuleNotFoundError as error:
        raise TrainingError("the package tensorboard is missing: pip install tensorboard") from error


def train_epoch(state: RunState, criterion: nn.Module, loader: Batches, run: Run) -> dict[str, Any]:
    """One pass over the training data, or the rest of one that was stopped.

    Loss and accuracy are those of the output that validation measures too, before each step.

    Returns:
        ``{epoch, lr, train_loss, train_accuracy}``.

    Raises:
        TrainingError: For a loss that is NaN or infinite; it names the faces of the batch.
        FaultyDataError: For faces that cannot be read.
        KeyboardInterrupt: After Ctrl-C, when the state is saved.
    """
    recipe, model, epoch, count = state.recipe, state.model, state.epoch, loader.steps_per_epoch
    model.train()
    clock = time.monotonic() - state.seconds
    for step, parts in loader.steps(epoch, state.step):
        set_lr(state.optimizer, recipe.lr_at(epoch - 1 + step / count, 1 / count))
        weights = batch_weights(parts, run.fabric)
        seed = draw_seed(recipe.seed, "step", epoch, step, run.fabric.global_rank)
        try:
            with drawing(seed, loader.device):
                outputs = accumulated_step(
                    model,
                    criterion,
                    state.optimizer,
                    [(part.images, part.target) for part in parts],
                    weights=weights,
                    network=run.network,
                    clip=recipe.clip,
                    precision=recipe.precision,
                )
        except TrainingError as error:
            names, lr = parts[error.batch].names, state.optimizer.param_groups[-1]["lr"]
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            advice = error.advice or f"{run.folder.advice()}; look at these faces"
            raise TrainingError(
                f"{error} (epoch {epoch}, step {step + 1} of {count}, learning rate {lr:.3g}; faces "
                f"{', '.join(names[:4])}{more}){advice}"
            ) from error
        if state.average is not None:
            state.average.update_parameters(model)
        tally = Tally(recipe.protocol == "released")
        with torch.no_grad():  # what is shown: the loss of the evaluated output, as in validation
            for (_, logits), part in zip(outputs, parts, strict=True):
                loss = float(criterion(logits, part.target))
                tally.add(loss, logits, part.target)
        run.progress.step(epoch, step + 1, loss)
        run.fabric.log("step/train_loss", loss, (epoch - 1) * count + step + 1)
        lost = state.note_lost([why for part in parts for why in part.lost])
        *sums, lost, stop = total(run.fabric, *tally.sums, lost, run.stop.asked)
        state.finish_step(sums, int(lost), time.monotonic() - clock)
        run.folder.maybe_save(state, bool(stop))
    averages = Tally(sums=state.sums).averages("train")
    return {"epoch": epoch, "lr": recipe.lr_at(epoch - 1 / count, 1 / count), **averages}


def batch_weights(parts: list[Batch], fabric: Fabric) -> list[float]:
    """Each batch's weight in the step's gradient, by its faces; averaged over processes their sum is 1.

    All processes stop (``FaultyDataError``) where one has to.
    """
    problem = next((part.problem for part in parts if part.problem), "")
    bad, faces = total(fabric, bool(problem), sum(len(part.names) for part in parts))
    if bad:
        raise FaultyDataError(problem or ELSEWHERE)
    return [len(part.names) * fabric.world_size / faces for part in parts]


ELSEWHERE = "another process cannot read its faces; its message names them"


def train_step(
    model: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    target: Tensor,
    *,
    clip: float | None = None,
    precision: str = "fp32",
) -> tuple[float, Tensor]:
    """One optimizer step on one batch, images (B, 3, S, S) and a target (B,) or (B, K).

    Where a part of the network does not learn (its method ``frozen``, such as a landmark branch), that part
    runs once for both passes of SAM.

    Returns:
        The loss and the logits (B, K) before the step.

    Raises:
        TrainingError: For a loss that is NaN or infinite, before any weight has moved.
    """
    one = [(images, target)]
    return accumulated_step(model, criterion, optimizer, one, clip=clip, precision=precision)[0]


def accumulated_step(
    model: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    weights: Sequence[float] | None = None,
    network: nn.Module | None = None,
    clip: float | None = None,
    precision: str = "fp32",
) -> list[tuple[float, Tensor]]:
    r"""One optimizer step on several batches, whose gradients are added up before it.

    .. math:: g = \sum_m \omega_m \nabla_w L(f_w(x_m), y_m), \qquad \omega_m = B_m / \textstyle\sum_n B_n

    For a network that predicts each face by itself, g is the gradient of one large batch in the memory of a
    small one. **Not so for batch attention and batch norm**: each batch is a batch of its own, whose faces
    attend to (and are normalized by) each other only. Four batches of 16 are then another network than one of
    64. SAM climbs by the g of all batches and descends by the g of all batches at the top.

    Args:
        model: Whose gradients are clipped.
        criterion: ``(output, target) -> scalar``.
        optimizer: Called with a closure.
        batches: M pairs of images (B, 3, S, S) and a target (B,) or (B, K).
        weights: The :math:`\omega_m`.
        network: ``model``, or what stands before it where several processes share the batch.
        clip: Largest norm of the gradient.
        precision: As in the recipe.

    Returns:
        M pairs of the loss and the logits (B, K) before the step.

    Raises:
        TrainingError: For a loss that is NaN or infinite, before any weight has moved.
    """
    network = network or model
    if weights is None:
        weights = [len(images) / sum(len(x) for x, _ in batches) for images, _ in batches]
    outputs = []  # SAM calls the closure twice; the first pass is the one at the weights themselves
    frozen = [_frozen(model, images, precision) for images, _ in batches]

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        for m, (images, target) in enumerate(batches):
            waits = m < len(batches) - 1 and hasattr(network, "no_sync")  # processes share the last gradient
            with network.no_sync() if waits else nullcontext():
                try:
                    with autocast(precision, images.device):
                        output = network(images, **frozen[m])
                        loss = criterion(output, target)
                except ValueError as error:
                    text = f"the network cannot learn from a batch {tuple(images.shape)}: {error}"
                    several = "set batch_size to 2 or more, as batch norm needs several faces"
                    advice = several if len(images) == 1 else "set image_size to one that the network takes"
                    raise TrainingError(text, m, f": {advice}") from error
                if not torch.isfinite(loss):
                    raise TrainingError(f"the loss is {loss.item()}", m)
                (loss * weights[m]).backward()
            outputs.append((loss.item(), logits_of(output)))
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        return loss

    optimizer.step(closure)
    return outputs[: len(batches)]


def _frozen(model: nn.Module, images: Tensor, precision: str) -> dict[str, Tensor]:
    if not hasattr(model, "frozen"):
        return {}
    with autocast(precision, images.device):
        found = model.frozen(images)
    return {} if found is None else {"frozen": found}


def validate_epoch(state: RunState, criterion: nn.Module, loader: Batches, run: Run) -> dict[str, Any]:
    """Validation after an epoch: each process measures some of the batches, all get the sums.

    After Ctrl-C it stops between two batches; the state is saved, and the resumed run begins with validation.

    Returns:
        ``{valid_loss, valid_accuracy, seconds}``, and ``left_out`` where faces may be skipped.
    """
    clock = time.monotonic()
    alone = run.fabric.world_size == 1
    if not alone:  # every process takes the first one's batch statistics
        for module in (state.model, state.eval_model):
            first = run.fabric.broadcast([buffer.cpu() for buffer in module.buffers()])
            for own, other in zip(module.buffers(), first, strict=True):
                own.copy_(other)
    pause = (lambda: run.folder.maybe_save(state, run.stop.asked)) if alone else lambda: None
    tally = validate(state.eval_model, criterion, loader, state.epoch, pause)
    *sums, missing, bad = total(run.fabric, *tally.sums, len(tally.lost), bool(tally.problem))
    if bad:
        raise FaultyDataError(tally.problem or ELSEWHERE)
    state.note_lost(tally.lost)
    if not math.isfinite(sums[0]):
        found = f"the validation loss of epoch {state.epoch} is {sums[0]}, so this epoch is not kept"
        raise TrainingError(found + run.folder.advice())
    record = Tally(sums=sums).averages("valid") | {"seconds": state.seconds + time.monotonic() - clock}
    return record | ({"left_out": state.left_out + int(missing)} if state.recipe.on_fault == "skip" else {})


@torch.no_grad()
def validate(
    model: nn.Module,
    criterion: nn.Module,
    loader: Batches,
    epoch: int = 0,
    pause: Callable[[], None] = lambda: None,
) -> Tally:
    """Loss and accuracy without learning, until the end or a problem; chapter 7 measures with more care.

    The released protocol augments the faces anew each ``epoch``. ``pause`` is called after each batch.
    """
    model.eval()
    recipe = loader.recipe
    tally = Tally(recipe.protocol == "released")
    for number, batch in enumerate(loader.read(epoch)):
        if batch.problem:
            tally.problem = batch.problem
            break
        tally.lost += batch.lost
        with drawing(draw_seed(recipe.seed, "judging", epoch, number), loader.device):
            with autocast(recipe.precision, loader.device):
                logits = logits_of(model(batch.images))
            tally.add(float(criterion(logits, batch.target)), logits, batch.target)
        pause()
    return tally


class Tally:
    r"""Average loss and accuracy of the faces seen so far.

    .. math:: \frac{\sum_b w_b \, m_b}{\sum_b w_b}

    over batches b with the batch averages :math:`m_b`; :math:`w_b` is the number of faces in the batch, or 1
    with ``by_batch``, as in the released code of the Neural Resizer (``utils/train_model.py:45-82``), where
    the faces of a small last batch count for more.

    Attributes:
        sums: Loss, correct predictions, weight.
        lost: Why faces are missing.
        problem: Why it had to stop because of them, or "".
    """

    def __init__(self, by_batch: bool = False, sums: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
        self.by_batch, self.sums = by_batch, list(sums)
        self.lost: list[str] = []
        self.problem = ""

    def add(self, loss: float, logits: Tensor, target: Tensor) -> None:
        """Count one batch: logits (B, K), a target (B,) or (B, K), and their average loss."""
        labels = target if target.ndim == 1 else target.argmax(1)
        correct = int((logits.argmax(1) == labels).sum())
        weight = 1 / len(labels) if self.by_batch else 1
        for k, value in enumerate((loss * len(labels), correct, len(labels))):
            self.sums[k] += value * weight

    def averages(self, split: str) -> dict[str, float]:
        """``{split_loss, split_accuracy}`` so far."""
        loss, correct, weight = self.sums
        return {f"{split}_loss": loss / weight, f"{split}_accuracy": correct / weight}


def logits_of(output: Any) -> Tensor:
    """The logits (B, K) that are evaluated, in 32 bits: the field ``bt`` of a batch transformer's output."""
    logits = (output if isinstance(output, Tensor) else output.bt).detach()
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
