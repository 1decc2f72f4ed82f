"""The network that a chapter looks at: the one of an earlier chapter's run, or one trained now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ferlib.data.base import FaceDataset
from ferlib.training import Recipe, build_criterion, build_model, fit, recipe_from
from ferlib.weights import checkpoints, load_network


def load_or_fit(
    recipe: Recipe,
    train: FaceDataset,
    valid: FaceDataset,
    run_dir: str | Path,
    *,
    epochs: int | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The best network of ``run_dir`` if there is one of this recipe, or else one trained now.

    A run counts as one of this recipe when all but its number of epochs agrees. With ``epochs``, a network
    that has to be trained now is trained that long; nothing is then written.

    Returns:
        The network in evaluation mode and its record ``{"epoch", "valid_accuracy", ..., "loaded"}``.

    Chapters 7 and 8.
    """
    best = Path(run_dir) / "best.safetensors"
    try:
        note = checkpoints.peek(best)
        if recipe_from(note["recipe"], best.name).replace(epochs=recipe.epochs) == recipe:
            model = load_network(best, recipe, num_classes=len(train.classes))
            return model, {**note["record"], "loaded": True}
    except (KeyError, TypeError, ValueError):
        pass  # no run, or one of another version of the network or of the recipe
    shorter = recipe.replace(epochs=epochs or recipe.epochs)
    model = build_model(recipe, num_classes=len(train.classes))
    history = fit(model, build_criterion(shorter), train, valid, shorter)
    return model.eval(), {**history[-1], "loaded": False}
