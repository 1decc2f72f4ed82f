"""Keep the networks of runs as one small file of ``book/checkpoints``.

    python -m book.experiments.keep --half pocket_ferplus runs/pocket-ferplus/best.safetensors
    python -m book.experiments.keep --half pocket_ferplus_three runs/pocket-*/last.safetensors

Several files become one ``Ensemble``, averaged over face and mirror image; ``--mirror`` makes one of a
single file. ``--half`` stores 16 bits a number. ``checkpoints.py`` then measures what was kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ferlib.training import Recipe, recipe_from
from ferlib.weights import checkpoints

FOLDER = Path(__file__).parents[1] / "checkpoints"


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep the networks of runs as one small file.")
    parser.add_argument("name", help="of the file in book/checkpoints")
    parser.add_argument("runs", nargs="+", metavar="FILE", help="checkpoints that `ferlib train` wrote")
    parser.add_argument("--half", action="store_true", help="16 bits a number")
    parser.add_argument("--mirror", action="store_true", help="average a single one over both views")
    given = parser.parse_args()
    path = FOLDER / f"{given.name}.safetensors"
    keep(path, given.runs, half=given.half, mirror=given.mirror)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def keep(path: Path, runs: list[str], *, half: bool = False, mirror: bool = False) -> Path:
    """Write the network of one run, or the ensemble of several, without what only a run needs."""
    one_alone = len(runs) == 1 and not mirror
    stored = [checkpoints.load(run) for run in runs]
    recipes = [recipe_from(one["recipe"], run) for one, run in zip(stored, runs, strict=True)]
    tensors: dict[str, Tensor] = {}
    for number, one in enumerate(stored):
        start = "" if one_alone else f"members.{number}."
        for name, tensor in one["model"].items():
            tensors[start + name] = tensor.half() if half and tensor.dtype == torch.float32 else tensor
    recipe = recipes[0] if one_alone else together(path.stem, recipes)
    made = [
        {"recipe": r.name, "seed": r.seed, "epoch": s["record"]["epoch"]}
        for r, s in zip(recipes, stored, strict=True)
    ]
    state: dict[str, Any] = {"recipe": vars(recipe), "record": stored[0]["record"], "made of": made}
    return checkpoints.save(path, tensors, state)


def together(name: str, recipes: list[Recipe]) -> Recipe:
    """The ensemble of networks with these recipes; all take pictures of one size."""
    sizes = {(recipe.image_size, recipe.interpolation) for recipe in recipes}
    if len(sizes) > 1:
        raise SystemExit(f"members take pictures of different sizes: {sizes}")
    members = [{"model": recipe.model, "model_options": dict(recipe.model_options)} for recipe in recipes]
    return recipes[0].replace(name=name, model="Ensemble", model_options={"members": members})


if __name__ == "__main__":
    main()
