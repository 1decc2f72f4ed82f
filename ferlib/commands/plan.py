"""From the words of ``ferlib train`` to one plan: recipe, faces, folder, afresh or resumed."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ferlib.commands.faces import Faces, choose_faces
from ferlib.data.base import DataError
from ferlib.files import write_text
from ferlib.training import Recipe, load_recipe, recipe_from
from ferlib.training.original_config import read_original_config
from ferlib.training.runs import BEST, LAST, STATE, state_file
from ferlib.weights import checkpoints

RUN_FILE = "run.json"  # in a run's folder: which faces it learns from
OVERRIDES = (
    "epochs", "batch_size", "accumulate", "lr", "seed", "vit_weight", "precision", "compile", "on_fault",
    "save_minutes",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is to be done: ``recipe``, ``faces``, the run's folder ``out``, the checkpoint to ``resume`` or
    None, and the ``config`` file's text where there was one. Shape: scalars and paths.
    """

    recipe: Recipe
    faces: Faces
    out: Path
    resume: Path | None = None
    config: str | None = None

    def note(self) -> None:
        """Write into the run's folder what a later ``--resume`` needs, and the config as it was given."""
        faces = asdict(self.faces)
        if faces["data"] != "synthetic":
            faces["data"] = str(Path(faces["data"]).resolve())
        try:
            write_text(self.out / RUN_FILE, json.dumps(faces, indent=1) + "\n")
            if self.config is not None:
                write_text(self.out / "config.json", self.config)
        except OSError as error:
            raise DataError(f"cannot write {self.out / RUN_FILE}: {error}; has the disk room?") from error


def make_plan(options: argparse.Namespace) -> Plan:
    """Read recipe, config file or checkpoint, apply what the command line changes, look at the data's layout.

    Shape: parsed options in, a :class:`Plan` out. Raises ``DataError``, ``RecipeError`` and
    ``CheckpointError``.
    """
    noted: dict[str, Any] = {}
    config = None
    if options.config:
        original = read_original_config(options.config, options.protocol or "paper")
        recipe, config = original.recipe, original.text
        noted = {"data": str(original.data), "kind": original.dataset}
        out = Path(options.out or Path("experiments") / original.exp_name)
    elif options.recipe:
        recipe = load_recipe(options.recipe)
        out = Path(options.out or Path("runs") / recipe.name)
    elif options.resume and options.resume != "last":
        return _plan_from_checkpoint(options)
    else:
        raise DataError("say what to train: --recipe NAME, -c config.json, or --resume CHECKPOINT to go on")
    if not options.resume and not options.overwrite and any((out / n).exists() for n in (STATE, LAST, BEST)):
        raise DataError(
            f"{out} holds a run already: add --resume last to go on with it, --overwrite to replace it, or "
            "choose another --out"
        )
    recipe = _overridden(recipe, options)
    if options.protocol:
        recipe = recipe.under(options.protocol)
    resume = None
    if options.resume:
        resume = state_file(out) if options.resume == "last" else _checkpoint(options.resume)
    return Plan(recipe, _faces(options, noted, recipe), out, resume, config)


def _plan_from_checkpoint(options: argparse.Namespace) -> Plan:
    """``--resume CKPT`` alone: everything else is in the checkpoint and its folder."""
    path = _checkpoint(options.resume)
    state = checkpoints.peek(path)
    if "optimiser" not in state or "recipe" not in state:
        raise DataError(f"{path}: weights only; a run goes on from the {STATE} that it has written")
    recipe = _overridden(recipe_from(state["recipe"], path.name), options)
    if options.protocol not in (None, recipe.protocol):
        raise DataError(f"{path} was trained under the protocol {recipe.protocol!r}: leave --protocol out")
    file = path.parent / RUN_FILE
    try:
        noted = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if not isinstance(noted, dict) or set(noted) - {"data", "kind", "length"}:
            raise ValueError("not what `ferlib train` writes")
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: damaged ({error}); remove it and give --data") from None
    return Plan(recipe, _faces(options, noted, recipe), Path(options.out or path.parent), path)


def _checkpoint(given: str) -> Path:
    path = state_file(Path(given).expanduser())
    if path.suffix != ".safetensors" and path.is_file():
        raise DataError(
            f"{path}: a run goes on from a .safetensors checkpoint that `ferlib train` wrote; an official "
            "file holds no state of our optimiser, but `ferlib evaluate --checkpoint` measures it"
        )
    return path


def _overridden(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    given = {key: getattr(options, key) for key in OVERRIDES}
    return recipe.but(**{key: value for key, value in given.items() if value is not None})


def _faces(options: argparse.Namespace, noted: dict[str, Any], recipe: Recipe) -> Faces:
    """The command line's faces, else those that were noted."""
    data = options.data or noted.get("data")
    if data is None:
        raise DataError("which faces? give --data DIR, or --data synthetic for drawn ones")
    kind, length = options.dataset, options.length
    if data == noted.get("data") or not options.data:
        kind = kind or noted.get("kind")
        length = length or noted.get("length")
    return choose_faces(data, None if kind == "synthetic" else kind, recipe.data, length)
