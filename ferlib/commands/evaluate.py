"""Measure a trained network, with confidence intervals.

  ferlib evaluate --data ~/FERPlus --checkpoint runs/ferplus/best.safetensors
  ferlib evaluate --data ~/FERPlus --checkpoint runs/ferplus/best.safetensors --output vit
  ferlib evaluate --data ~/RAF-DB --checkpoint RAFDB92.54.pth --recipe btn-rafdb

A checkpoint of ours holds its recipe. An official one (.pth) is read without running anything in it, and
needs --recipe to say which network it is. Batches are drawn at random (--seed), because the answer of a
batch transformer depends on who is in the batch; with --in-order they are taken as the folders have them,
which in class folders puts faces of one expression together.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from torch import nn

from ferlib.commands.faces import add_face_arguments, check_classes, choose_faces
from ferlib.data.base import DataError, FaceDataset
from ferlib.evaluation import RecordError, evaluate
from ferlib.models import ResizedTransformer, from_official
from ferlib.models.official_files import read_official
from ferlib.models.pretrained import architecture_of
from ferlib.training import Recipe, RecipeError, build_model, bundled, checkpoints, load_recipe, recipe_from
from ferlib.training.device import choose_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib evaluate``. Shape: parser in, nothing out."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help="best or last of a run, or an official file")
    add_face_arguments(parser)
    add("--recipe", metavar="NAME", help=f"which network an official file is of: {', '.join(bundled())}")
    add("--mapping", metavar="FILE", help="JSON with places for names of an official file that are not known")
    add("--split", choices=("train", "valid", "test"), help="default test, or valid where there is no test")
    add("--batch-size", type=int, default=64, metavar="N", help="faces per batch (default 64)")
    add("--output", choices=("vit", "bt", "cba"), help="answer of a batch transformer (default bt)")
    add("--in-order", action="store_true", help="batches in the order of the files, not at random")
    add("--seed", type=int, default=0, metavar="N", help="of the batches and the bootstrap")
    add("--record", metavar="FILE", help="also write the result record as JSON")
    add("--device", help="cpu, cuda, ... (default: the GPU where there is one)")
    add("--gpu", type=int, metavar="N", help="the GPU of this number")


def run(options: argparse.Namespace) -> int:
    """Evaluate and print. Shape: parsed options -> exit code. Raises ``DataError``."""
    if options.batch_size < 1:
        raise DataError(f"--batch-size {options.batch_size}: expected at least one face")
    device = choose_device(options.device if options.gpu is None else f"cuda:{options.gpu}")
    try:
        official = not options.checkpoint.endswith(".safetensors")
        stored = {} if official else checkpoints.load(options.checkpoint)
        recipe = _recipe(options, stored)
        faces, split = _faces(options, recipe)
        model = build_model(recipe, num_classes=len(faces.classes))
        if official:
            _load_official(model, options)
        else:
            _check_heads(stored["model"], len(faces.classes))
            checkpoints.load(options.checkpoint, model)
        if options.output:
            if not hasattr(model, "inference"):
                raise DataError(f"{type(model).__name__} has one output only: leave --output out")
            model.inference = options.output
        record = evaluate(
            model.to(device), faces, split=split, batch_size=options.batch_size,
            shuffle=None if options.in_order else options.seed, image_size=recipe.image_size,
            interpolation=recipe.interpolation, seed=options.seed,
            settings={"recipe": stored.get("recipe", recipe.name), "checkpoint": str(options.checkpoint)},
        )  # fmt: skip
        if options.record:
            record.save(options.record)
    except (checkpoints.CheckpointError, RecipeError, RecordError) as error:
        raise DataError(str(error)) from error
    print(f"{record.what}, {split} split, 95 % intervals in brackets\n{record.table()}")
    return 0


def _recipe(options: argparse.Namespace, stored: dict) -> Recipe:
    if options.recipe:
        return load_recipe(options.recipe)
    if "recipe" in stored:
        return recipe_from(stored["recipe"], Path(options.checkpoint).name)
    raise DataError(
        f"{options.checkpoint} holds no recipe: give --recipe, one of {', '.join(bundled())}; or a "
        "checkpoint that `ferlib train` wrote"
    )


def _faces(options: argparse.Namespace, recipe: Recipe) -> tuple[FaceDataset, str]:
    faces = choose_faces(options.data, options.dataset, recipe.data, options.length)
    if options.split:
        return faces.open(options.split), options.split
    test, why = faces.open_test()
    if test is not None:
        return test, "test"
    print(f"no test split, measured on validation ({why})", file=sys.stderr)
    return faces.open("valid"), "valid"


def _check_heads(weights: dict, classes: int) -> None:
    heads = [tensor for name, tensor in weights.items() if name.endswith("head.bias")]
    if heads:
        check_classes(len(heads[-1]), classes, "the network")


def _load_official(model: nn.Module, options: argparse.Namespace) -> None:
    mapping = None
    if options.mapping:
        try:
            mapping = json.loads(Path(options.mapping).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{options.mapping}: not a readable JSON file ({error})") from None
        if not isinstance(mapping, dict):
            raise DataError(f"{options.mapping}: expected an object of names, {{theirs: ours or null}}")
    network = "vt-nr-swin-base" if isinstance(model, ResizedTransformer) else architecture_of(model)
    if network is None:
        raise DataError(f"{options.checkpoint}: no official weights are known for a {type(model).__name__}")
    model.load_state_dict(from_official(read_official(options.checkpoint), network, mapping=mapping))
