"""All that a run has to remember: what a checkpoint holds, and what a resumed run begins with. Chapter 6."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from ferlib.training.batches import Batch
from ferlib.training.build import build_average, build_optimiser
from ferlib.training.recipes import Recipe
from ferlib.training.tally import Tally
from ferlib.weights import CheckpointError, checkpoints


class RunState:
    """The network, the optimiser, the averaged weights, and how far the run has come.

    Random numbers need no memory (``ferlib.training.seeds``), nor does the learning rate, a function of time.

    Attributes
    ----------
    labels: short codes of the labels it learns from and is judged by; a resumed run must have the same.
    history: one record for each finished epoch.
    step: finished optimiser steps of the epoch under way.
    tally, seconds, left_out: loss and accuracy, time and missing faces of that epoch so far.
    faults: why faces are missing, each told once.

    Shape: ``pack()`` gives nested dictionaries of tensors and numbers, ``restore(...)`` takes them.
    Chapter 6.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, labels: list[str]) -> None:
        self.model, self.recipe, self.labels = model, recipe, labels
        self.optimiser = build_optimiser(recipe, model)
        self.average = build_average(recipe, model)
        self.history: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.step, self.left_out, self.seconds = 0, 0, 0.0
        self.tally = Tally(self.recipe.protocol == "released")

    @property
    def epoch(self) -> int:
        """Number of the epoch under way, from 1. Shape: -> a number."""
        return len(self.history) + 1

    @property
    def judged(self) -> nn.Module:
        """What is evaluated and kept: the averaged weights where there are some. Shape: -> a module."""
        return self.average.module if self.average is not None else self.model

    def at(self) -> str:
        """Where the run is, in words. Shape: -> text."""
        return f"epoch {self.epoch}, step {self.step}"

    def note_lost(self, batches: list[Batch]) -> int:
        """Tell of faces that could not be read, each once; returns how many there were. Shape: batches in."""
        reasons = [why for batch in batches for why in batch.lost]
        for why in reasons:
            if not any(line.endswith(f": {why}") for line in self.faults) and len(self.faults) < 1000:
                self.faults.append(f"Left out from epoch {self.epoch} on: {why}")
                print(self.faults[-1], file=sys.stderr)
        return len(reasons)

    def finish_step(self, sums: list[float], left_out: int, seconds: float) -> None:
        """Count a step: its sums of loss, right answers and faces, and the epoch's time so far."""
        self.step += 1
        self.left_out += left_out
        self.seconds = seconds
        self.tally.restore([old + new for old, new in zip(self.tally.state(), sums, strict=True)])

    def finish_epoch(self, record: dict[str, Any]) -> None:
        """Add an epoch's record to the history and go on to the next. Shape: a record in."""
        self.history.append(record)
        self._begin_epoch()

    def note(self) -> dict[str, Any]:
        """What stands beside weights that are kept. Shape: -> a dictionary."""
        record = dict(self.history[-1]) if self.history else {}
        record.pop("seconds", None)  # the clock is no property of the weights
        return {
            "epoch": len(self.history),
            "step": self.step,
            "recipe": asdict(self.recipe),
            "record": record,
        }

    def pack(self) -> dict[str, Any]:
        """Everything but the network's weights, as ``checkpoints.save`` takes it."""
        packed = {
            "recipe": asdict(self.recipe),
            "labels": self.labels,
            "history": self.history,
            "step": self.step,
            "tally": self.tally.state(),
            "seconds": self.seconds,
            "left_out": self.left_out,
            "faults": self.faults,
            "optimiser": self.optimiser.state_dict(),
        }
        if self.average is not None:
            packed["average"] = self.average.state_dict()
        return packed

    def restore(self, stored: dict[str, Any], where: str) -> None:
        """Take up what ``checkpoints.load`` found; the network's weights change last, when all else fits.

        Raises ``CheckpointError`` that begins with ``where``.
        """
        unfinished = len(stored.get("history", ())) < self.recipe.epochs
        if unfinished and stored.get("labels") != self.labels:
            raise CheckpointError(
                f"{where}: the run began with other faces (count and code of the labels were "
                f"{stored.get('labels')}, now {self.labels}): resume it with the data it began with"
            )
        weights: dict[str, Tensor] = stored["model"]
        checkpoints.check(where, weights, self.model)
        try:
            _check_history(stored["history"], int(stored["step"]))
            _check_groups(stored["optimiser"], self.optimiser.state_dict())
            self.optimiser.load_state_dict(stored["optimiser"])
            _check_moments(getattr(self.optimiser, "base", self.optimiser).state)
            if self.average is not None:
                self.average.load_state_dict(stored["average"])
            self.history, self.faults = list(stored["history"]), list(stored["faults"])
            self.step, self.left_out = int(stored["step"]), int(stored["left_out"])
            self.seconds = float(stored["seconds"])
            self.tally.restore(stored["tally"])
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
            raise CheckpointError(
                f"{where}: the state of the run is damaged or of another version ({error!r})"
            ) from error
        self.model.load_state_dict(weights)


def _check_history(history: Any, step: int) -> None:
    keys = ("lr", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "seconds")
    for number, record in enumerate(history, 1):
        if record["epoch"] != number or not all(isinstance(record[key], int | float) for key in keys):
            raise ValueError(f"record {number} of the history is not whole")
    if step < 0:
        raise ValueError(f"step is {step}")


def _check_groups(stored: dict[str, Any], fresh: dict[str, Any]) -> None:
    """The recipe is the same: so must be all that the optimiser was told, but the learning rate."""
    pairs = [state.get("base", state)["param_groups"] for state in (stored, fresh)]
    plain = [[{**group, "lr": None} for group in groups] for groups in pairs]
    if plain[0] != plain[1]:
        raise ValueError("the optimiser was told other things than the recipe says")


def _check_moments(state: dict[Tensor, dict[str, Any]]) -> None:
    for parameter, moments in state.items():
        for key, value in moments.items():
            if isinstance(value, Tensor) and value.numel() != 1 and value.shape != parameter.shape:
                raise ValueError(f"{key} has shape {tuple(value.shape)}, expected {tuple(parameter.shape)}")
    if len({tuple(sorted(moments)) for moments in state.values()}) > 1:
        raise ValueError("the optimiser remembers different things of different weights")
