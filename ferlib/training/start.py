"""What a run starts from: pretrained parts that the recipe names, found in the folder of weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ferlib.training.build import build_model
from ferlib.training.recipes import Recipe, RecipeError
from ferlib.weights import PRETRAINED, CheckpointError, find_pretrained, load_pretrained, missing


def start_from(
    model: nn.Module, recipe: Recipe, folder: str | Path | None = None, *, from_scratch: bool = False
) -> list[str]:
    """Put the recipe's pretrained parts into a fresh network.

    The files are those of ``ferlib.weights.PRETRAINED``. A ``backbone`` that is not there is fetched by
    ``timm``. All files are looked for before the first is read.

    Args:
        model: The network; its tensors are replaced.
        recipe: Its ``weights`` names the parts and their files.
        folder: Where the files are, by default ``$FERLIB_WEIGHTS`` or ``weights``.
        from_scratch: Leave the network as it is.

    Returns:
        A line of text for each part.

    Raises:
        CheckpointError: A file is missing (what to get, where to put it) or does not fit.
        RecipeError: A part or a file that is not known.

    Chapter 6.
    """
    if not recipe.weights:
        return []
    if from_scratch:
        return [f"from random weights; the recipe starts from {', '.join(recipe.weights.values())}"]
    if unknown := [kind for kind in recipe.weights.values() if kind not in PRETRAINED]:
        raise RecipeError(
            f"recipe '{recipe.name}': no weights are called {unknown[0]!r}; known: {', '.join(PRETRAINED)}"
        )
    if "backbone" in recipe.weights and not hasattr(model, "backbone"):
        raise RecipeError(f"recipe '{recipe.name}': {type(model).__name__} has no part 'backbone'")
    files = {part: find_pretrained(kind, folder) for part, kind in recipe.weights.items()}
    absent = [recipe.weights[part] for part, file in files.items() if file is None and part != "backbone"]
    if absent:
        words = "; ".join(missing(PRETRAINED[kind], folder) for kind in absent)
        raise CheckpointError(f"{words}; or begin with random weights by --from-scratch")
    if "backbone" in files and files["backbone"] is None:
        _fetch_backbone(model, recipe, folder)
    load_pretrained(model, {part: file for part, file in files.items() if file})
    return [f"{part}: {file or 'as timm publishes it'}" for part, file in files.items()]


def _fetch_backbone(model: nn.Module, recipe: Recipe, folder: str | Path | None) -> None:
    try:
        donor = build_model(recipe.replace(model_options={**recipe.model_options, "pretrained": True}))
    except Exception as error:  # no network, no such file on the hub, a full disk: each library has its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        words = missing(PRETRAINED[recipe.weights["backbone"]], folder)
        raise CheckpointError(
            f"{words}; fetching it failed ({reason}); or begin with random weights by --from-scratch"
        ) from error
    model.backbone.load_state_dict(donor.backbone.state_dict())
