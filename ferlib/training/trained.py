"""A trained network for a chapter that needs one: the run of an earlier chapter, or a run of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from ferlib.data.base import FaceDataset
from ferlib.training import checkpoints
from ferlib.training.build import build_criterion, build_model
from ferlib.training.loop import fit
from ferlib.training.progress import Progress
from ferlib.training.recipes import Recipe, recipe_from


def runs_folder() -> Path:
    """Where runs are kept: ``$FERLIB_RUNS``, or the folder ``runs`` of the repository the chapters stand in.

    Shape: nothing in, a path out. Chapter 6.
    """
    return Path(os.environ.get("FERLIB_RUNS") or Path.cwd().parent / "runs")


def load_or_fit(
    recipe: Recipe,
    train: FaceDataset,
    valid: FaceDataset,
    run_dir: str | Path,
    *,
    progress: str | Progress | None = "auto",
    epochs: int | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The best network of ``run_dir`` if there is one of this recipe, or else one trained now.

    A run counts as one of this recipe when all but its number of epochs agrees. With ``epochs``, a network
    that has to be trained now is trained that long; nothing is then written.

    Shape: returns the network in evaluation mode and its record ``{"epoch", "valid_accuracy", ...,
    "loaded"}``. Raises what ``fit`` raises. Chapters 7 and 8.
    """
    model = build_model(recipe, num_classes=len(train.classes))
    try:
        note = checkpoints.load(Path(run_dir) / "best.safetensors", model)
        same = recipe_from(note["recipe"], "best").replace(epochs=recipe.epochs) == recipe
    except (checkpoints.CheckpointError, KeyError, TypeError, ValueError):
        same = False  # no run, or one of another version of the network or of the recipe
    if same:
        return model.eval(), {**note["record"], "loaded": True}
    shorter = recipe.replace(epochs=epochs or recipe.epochs)
    model = build_model(recipe, num_classes=len(train.classes))
    history = fit(model, build_criterion(shorter), train, valid, shorter, progress=progress)
    return model.eval(), {**history[-1], "loaded": False}
