"""What a run starts from: pretrained parts that the recipe names, found in the folder of weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ferlib.models.official import CheckpointError
from ferlib.models.pretrained import PRETRAINED, find_pretrained, load_pretrained, missing, weights_folder
from ferlib.models.resized_transformer import load_backbone
from ferlib.training.build import build_model
from ferlib.training.recipes import Recipe, RecipeError


def start_from(
    model: nn.Module, recipe: Recipe, folder: str | Path | None = None, *, from_scratch: bool = False
) -> list[str]:
    """Put the recipe's pretrained parts into a fresh network; returns a line for each.

    The files are those of ``ferlib.models.pretrained.PRETRAINED``, in ``folder``, ``$FERLIB_WEIGHTS`` or
    ``weights``. A ``backbone`` that is not there is fetched by ``timm``. All files are looked for before the
    first is read.

    Shape: a module and a recipe in, lines of text out; the module's tensors are replaced. Raises
    ``CheckpointError`` where a file is missing (what to get, where to put it) or does not fit, and
    ``RecipeError`` for a part or a file that is not known. Chapter 6.
    """
    if not recipe.weights:
        return []
    if from_scratch:
        return [f"from random weights; the recipe starts from {', '.join(recipe.weights.values())}"]
    rest = {part: kind for part, kind in recipe.weights.items() if part != "backbone"}
    if unknown := [kind for kind in recipe.weights.values() if kind not in PRETRAINED]:
        raise RecipeError(
            f"recipe '{recipe.name}': no weights are called {unknown[0]!r}; known: {', '.join(PRETRAINED)}"
        )
    if absent := [PRETRAINED[kind] for kind in rest.values() if find_pretrained(kind, folder) is None]:
        words = "; ".join(missing(entry, weights_folder(folder)) for entry in absent)
        raise CheckpointError(f"{words}; or begin with random weights by --from-scratch")
    lines = [_start_backbone(model, recipe, folder)] if "backbone" in recipe.weights else []
    load_pretrained(model, rest, folder)
    return lines + [f"{part}: {find_pretrained(kind, folder)}" for part, kind in rest.items()]


def _start_backbone(model: nn.Module, recipe: Recipe, folder: str | Path | None) -> str:
    kind = recipe.weights["backbone"]
    if not hasattr(model, "backbone"):
        raise RecipeError(f"recipe '{recipe.name}': {type(model).__name__} has no part 'backbone'")
    if file := find_pretrained(kind, folder):
        load_backbone(model.backbone, file)
        return f"backbone: {file}"
    try:
        donor = build_model(recipe.replace(model_options={**recipe.model_options, "pretrained": True}))
    except Exception as error:  # no network, no such file on the hub, a full disk: each library has its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        words = missing(PRETRAINED[kind], weights_folder(folder))
        raise CheckpointError(
            f"{words}; fetching it failed ({reason}); or begin with random weights by --from-scratch"
        ) from error
    model.backbone.load_state_dict(donor.backbone.state_dict())
    return "backbone: as timm publishes it"
