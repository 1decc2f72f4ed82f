"""Validation: loss and accuracy without learning, after every epoch. Chapters 6 and 7."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ferlib.training.batches import Batch, Batches, FaultyDataError
from ferlib.training.device import autocast
from ferlib.training.processes import make_equal, total
from ferlib.training.run import ELSEWHERE, Run
from ferlib.training.seeds import draw_seed, drawing
from ferlib.training.state import RunState
from ferlib.training.tally import Tally, logits_of


def validate(model: nn.Module, criterion: nn.Module, batches: Batches, epoch: int = 0) -> dict[str, float]:
    """Loss and accuracy without learning. Shape: returns ``{valid_loss, valid_accuracy}``, means per face
    (per batch in the released protocol, which also varies the faces anew each ``epoch``).

    Raises ``FaultyDataError`` for faces that cannot be read. Chapter 6; chapter 7 measures with more care.
    """
    tally, _, problem = _judge(model, criterion, batches, epoch)
    if problem:
        raise FaultyDataError(problem)
    return tally.means("valid")


def judge_epoch(state: RunState, criterion: nn.Module, batches: Batches, run: Run) -> dict[str, Any]:
    """Validation of an epoch that is learned: each process judges some of the batches, all get the sums.

    Ctrl-C is heard between two batches; the state is saved, and the resumed run begins with validation.

    Shape: returns ``{valid_loss, valid_accuracy, seconds}``, and ``left_out`` where faces may be skipped.
    Raises ``FaultyDataError`` and ``KeyboardInterrupt``. Chapter 6.
    """
    clock = time.monotonic()
    make_equal(run.fabric, state.model)
    make_equal(run.fabric, state.judged)
    alone = run.fabric.world_size == 1
    pause = (lambda: run.folder.rest(state, run.stop.asked)) if alone else lambda: None
    tally, faulty, problem = _judge(state.judged, criterion, batches, state.epoch, pause)
    missing = sum(len(batch.lost) for batch in faulty)
    *sums, missing, bad = total(run.fabric, *tally.state(), missing, bool(problem))
    if bad:
        raise FaultyDataError(problem or ELSEWHERE)
    state.note_lost(faulty)
    tally.restore(sums)
    record = tally.means("valid") | {"seconds": state.seconds + time.monotonic() - clock}
    return record | ({"left_out": state.left_out + int(missing)} if state.recipe.on_fault == "skip" else {})


@torch.no_grad()
def _judge(
    model: nn.Module,
    criterion: nn.Module,
    batches: Batches,
    epoch: int,
    pause: Callable[[], None] = lambda: None,
) -> tuple[Tally, list[Batch], str]:
    """Sums, batches that lack faces, and why it had to stop, or ""."""
    model.eval()
    recipe, faulty = batches.recipe, []
    tally = Tally(recipe.protocol == "released")
    for number, batch in enumerate(batches.read(epoch)):
        if batch.problem:
            return tally, faulty, batch.problem
        if batch.lost:
            faulty.append(batch._replace(images=None, target=None))
        with drawing(draw_seed(recipe.seed, "judging", epoch, number), batches.device):
            with autocast(recipe.precision, batches.device):
                logits = logits_of(model(batch.images))
            tally.add(float(criterion(logits, batch.target)), logits, batch.target)
        pause()
    return tally, faulty, ""
