"""Train a network as a recipe says.

  ferlib train --recipe btn-small-ferplus --data ~/FERPlus --out runs/ferplus
  ferlib train --recipe btn-small-synthetic --data synthetic --out runs/drawn --epochs 3
  ferlib train --recipe runs/ferplus/recipe.yaml --data ~/FERPlus --out runs/ferplus --resume last

The run's folder holds the recipe, metrics.jsonl, and the checkpoints last and best. Ctrl-C stops; --resume
last goes on after the last finished epoch, to the same numbers as a run that was never stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ferlib.commands.faces import add_face_arguments, open_split, prior_for
from ferlib.data.base import DataError
from ferlib.training import (
    RecipeError,
    TrainingError,
    best_epoch,
    build_criterion,
    build_model,
    bundled,
    fit,
    load_recipe,
)
from ferlib.training.checkpoints import CheckpointError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib train``. Shape: parser in, nothing out."""
    parser.add_argument(
        "--recipe", required=True, metavar="NAME", help=f"a YAML file or one of: {', '.join(bundled())}"
    )
    add_face_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--epochs", type=int, metavar="N", help="instead of the recipe's")
    parser.add_argument("--batch-size", type=int, metavar="N", help="instead of the recipe's")
    parser.add_argument("--lr", type=float, metavar="X", help="learning rate instead of the recipe's")
    parser.add_argument("--seed", type=int, metavar="N", help="instead of the recipe's")
    parser.add_argument("--device", help="cpu, cuda, ... (default: the GPU where there is one)")
    parser.add_argument(
        "--resume", nargs="?", const="last", metavar="CKPT", help="go on from OUT's 'last', or from a file"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Train, and say what was reached. Shape: parsed options -> exit code. Raises ``DataError``."""
    out = Path(options.out)
    last = out / "last.safetensors"
    if not options.resume and last.exists():
        raise DataError(
            f"{out} holds a run already: add --resume last to go on with it, or choose another --out"
        )
    try:
        recipe = load_recipe(options.recipe)
        given = {key: getattr(options, key) for key in ("epochs", "batch_size", "lr", "seed")}
        recipe = recipe.but(**{key: value for key, value in given.items() if value is not None})
        train, valid = open_split(options, "train"), open_split(options, "valid")
        if recipe.targets == "votes" and train.votes is None:
            raise DataError("this data set has no votes: choose a recipe with 'targets: label'")
        model = build_model(recipe, num_classes=len(train.classes))
        criterion = build_criterion(recipe, prior=prior_for(train.classes))
        history = fit(
            model, criterion, train, valid, recipe, run_dir=out, device=options.device,
            resume=last if options.resume == "last" else options.resume or False,
            progress=None if options.quiet else "auto",
        )  # fmt: skip
    except (RecipeError, CheckpointError, TrainingError) as error:
        raise DataError(str(error)) from error
    chosen = best_epoch(history, recipe)
    reached = next(record for record in history if record["epoch"] == chosen)
    print(
        f"best epoch {chosen} of {recipe.epochs}: accuracy {100 * reached['valid_accuracy']:.1f} % on "
        f"{len(valid)} validation faces; weights in {out / 'best.safetensors'}"
    )
    return 0
