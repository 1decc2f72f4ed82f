"""Measure a trained network, with confidence intervals.

  ferlib evaluate --checkpoint runs/ferplus/best.safetensors --data ~/FERPlus
  ferlib evaluate --checkpoint runs/ferplus/best.safetensors --data ~/FERPlus --output vit --record
  ferplus.json

The network is built from the recipe inside the checkpoint. Batches are drawn at random (--seed), because the
answer of a batch transformer depends on who is in the batch.
"""

from __future__ import annotations

import argparse

from ferlib.commands.faces import add_face_arguments, check_classes, open_split
from ferlib.data.base import DataError
from ferlib.evaluation import RecordError, evaluate
from ferlib.training import Recipe, RecipeError, build_model, checkpoints


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib evaluate``. Shape: parser in, nothing out."""
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="best or last of a run")
    add_face_arguments(parser)
    parser.add_argument("--split", choices=("train", "valid", "test"), default="valid")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="faces per batch (default 64)"
    )
    parser.add_argument(
        "--output", choices=("vit", "bt", "cba"), help="answer of a batch transformer (default bt)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the batches and the bootstrap")
    parser.add_argument("--record", metavar="FILE", help="also write the result record as JSON")
    parser.add_argument("--device", help="cpu, cuda, ... (default: cpu)")


def run(options: argparse.Namespace) -> int:
    """Evaluate and print. Shape: parsed options -> exit code. Raises ``DataError``."""
    try:
        stored = checkpoints.load(options.checkpoint)
        if "recipe" not in stored:
            raise DataError(
                f"{options.checkpoint} holds no recipe: expected a checkpoint that `ferlib train` wrote"
            )
        recipe = Recipe(**stored["recipe"])
        faces = open_split(options, options.split)
        heads = [tensor for name, tensor in stored["model"].items() if name.endswith("head.bias")]
        if heads:
            check_classes(len(heads[-1]), len(faces.classes), "the network")
        model = build_model(recipe, num_classes=len(faces.classes))
        checkpoints.load(options.checkpoint, model)
        if options.output:
            if not hasattr(model, "inference"):
                raise DataError(f"{type(model).__name__} has one output only: leave --output out")
            model.inference = options.output
        record = evaluate(
            model.to(options.device or "cpu"), faces, split=options.split, batch_size=options.batch_size,
            shuffle=options.seed, image_size=recipe.image_size, seed=options.seed,
            settings={"recipe": stored["recipe"], "checkpoint": str(options.checkpoint)},
        )  # fmt: skip
        if options.record:
            record.save(options.record)
    except (checkpoints.CheckpointError, RecipeError, RecordError) as error:
        raise DataError(str(error)) from error
    print(f"{record.what}, {options.split} split, 95 % intervals in brackets\n{record.table()}")
    return 0
