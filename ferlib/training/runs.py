"""A run's folder: what was asked for, what was measured, where to go on.

::

    runs/x/recipe.yaml          all choices; load_recipe reads it back
    runs/x/environment.json     versions of what computed it
    runs/x/metrics.jsonl        one line per epoch
    runs/x/log.txt              the same for people, in the words of the Neural Resizer's log
    runs/x/last.safetensors     weights, optimiser, averaged weights, history: where to go on
    runs/x/best.safetensors     the weights that did best on validation
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ferlib
from ferlib.models.official import CheckpointError
from ferlib.training import checkpoints
from ferlib.training.files import write_text
from ferlib.training.recipes import Recipe, recipe_from


def versions() -> dict[str, str]:
    """Versions of what computes: Python, torch, ferlib, the machine.

    Shape: strings by name. Chapters 6 and 7.
    """
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ferlib": ferlib.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": str(torch.get_num_threads()),
    }


class RunFolder:
    """The files of one run; with ``path=None`` nothing is written.

    Shape: ``begin()`` and ``resume(...)`` return the history so far, ``keep(...)`` writes after an epoch.
    Raises ``CheckpointError`` where files cannot be written or do not fit. Chapter 6.
    """

    def __init__(self, path: str | Path | None, recipe: Recipe, judged_by: str = "validation") -> None:
        self.path = None if path is None else Path(path)
        self.recipe, self.judged_by = recipe, judged_by

    def begin(self) -> list[dict[str, Any]]:
        """Start afresh: note the recipe and the environment."""
        self._note()
        return []

    def resume(
        self,
        source: bool | str | Path,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: nn.Module | None,
        device: torch.device,
    ) -> list[dict[str, Any]]:
        """Put everything back as it was after the last finished epoch; returns the history until then."""
        if source is True:
            if self.path is None:
                raise CheckpointError(
                    "resume=True needs a run_dir to go on from, or give the checkpoint's path"
                )
            source = self.path / "last.safetensors"
        state = checkpoints.load(source, model, device=device)
        if "optimiser" not in state:
            raise CheckpointError(
                f"{Path(source).name} holds weights only: a run goes on from a 'last' checkpoint"
            )
        self._same_run(recipe_from(state["recipe"], Path(source).name), Path(source))
        optimiser.load_state_dict(state["optimiser"])
        if average is not None:
            average.load_state_dict(state["average"])
        self._note()
        return state["history"]

    def keep(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: nn.Module | None,
        history: list[dict[str, Any]],
    ) -> None:
        """Write ``last``, the metrics, and ``best`` where this epoch is the best so far."""
        if self.path is None:
            return
        if best_epoch(history, self.recipe) == history[-1]["epoch"]:
            judged = average.module if average is not None else model
            note = {"epoch": history[-1]["epoch"], "recipe": asdict(self.recipe), "record": history[-1]}
            checkpoints.save(self.path / "best.safetensors", judged, note)
        lines = "".join(json.dumps(record) + "\n" for record in history)
        self._write("metrics.jsonl", lines)
        self._write("log.txt", log_text(history, self.recipe, self.judged_by))
        state = {"recipe": asdict(self.recipe), "history": history, "optimiser": optimiser.state_dict()}
        if average is not None:
            state["average"] = average.state_dict()
        checkpoints.save(self.path / "last.safetensors", model, state)

    def _same_run(self, stored: Recipe, source: Path) -> None:
        before, now = asdict(stored), asdict(self.recipe)
        changed = [
            key for key, value in now.items() if before[key] != value and key not in ("name", "epochs")
        ]
        if now["epochs"] != before["epochs"] and self.recipe.schedule == "cosine":
            changed.append("epochs")  # the whole cosine depends on it
        if changed:
            key = changed[0]
            raise CheckpointError(
                f"{source.name} was trained with {key} {before[key]!r}, the recipe says {now[key]!r}: "
                "a run is resumed with the recipe it began with (recipe.yaml in its folder)"
            )

    def _note(self) -> None:
        self._write("recipe.yaml", self.recipe.to_yaml())
        self._write("environment.json", json.dumps(versions(), indent=1) + "\n")

    def _write(self, name: str, text: str) -> None:
        if self.path is None:
            return
        try:
            write_text(self.path / name, text)
        except OSError as error:
            raise CheckpointError(
                f"cannot write {self.path / name}: {error}; is the folder writable?"
            ) from error


def best_epoch(history: list[dict[str, Any]], recipe: Recipe) -> int:
    """The epoch chosen on validation; the earliest of equals.

    Shape: records in, the number of an epoch (from 1) out. Chapter 6.
    """
    if recipe.select == "loss":
        return min(history, key=lambda record: record["valid_loss"])["epoch"]
    return max(history, key=lambda record: record["valid_accuracy"])["epoch"]


def log_text(history: list[dict[str, Any]], recipe: Recipe, judged_by: str = "validation") -> str:
    """A run as text, four lines an epoch, in the words of the Neural Resizer's log.

    Its last line names the chosen epoch; in the released protocol, the highest accuracy of all epochs.

    Shape: E records in, a string out. Source: ``utils/train_model.py:99-110`` (which counts the epoch of its
    last line from 0; here from 1). Chapter 6.
    """
    word = judged_by.capitalize()
    text = ""
    for record in history:
        for title, key in (("Train", "train"), (word, "valid")):
            text += f"Epoch {record['epoch']}: Avg. {title} Loss: {record[f'{key}_loss']:.4f}\n"
            text += f"Epoch {record['epoch']}: Avg. {title} Acc.: {record[f'{key}_accuracy']:.4f}\n"
        text += "\n"
    if recipe.protocol == "released":
        epoch, title = max(history, key=lambda record: record["valid_accuracy"])["epoch"], "Best"
    else:
        epoch, title = best_epoch(history, recipe), "Chosen"
    reached = next(record for record in history if record["epoch"] == epoch)
    return text + f"{title} {word} Accuracy at Epoch {epoch}, {reached['valid_accuracy']:.4f}\n"
