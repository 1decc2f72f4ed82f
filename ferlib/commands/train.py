"""Train a network as a recipe says, or as the Neural Resizer's own config.json says.

  ferlib train --recipe btn-rafdb --data ~/RAF-DB
  ferlib train --recipe vt-nr-ferplus-small --data ~/FERPlus --out runs/first --epochs 3
  ferlib train -c config.json --data ~/FERPlus
  ferlib train --resume runs/first/last.safetensors

The run's folder holds the recipe, environment, log.txt, metrics.jsonl, the weights last and best
and the state of the run; by default it is runs/<recipe>, with -c experiments/<exp_name>. Ctrl-C finishes the
step, saves, and says how to go on; a killed run goes on from its last checkpoint (--save-minutes). On a CPU
--resume leads to the very numbers of a run that was never stopped.

--json prints one object at the end: folder, best epoch and its scores, checkpoints, seconds; everything else
is then on standard error.

Several GPUs, or processes on a CPU, share every batch:
  torchrun --nproc-per-node 4 -m ferlib train --recipe btn-rafdb --data ~/RAF-DB

--protocol paper (the default) chooses the epoch on validation, measures untouched faces, and reports the
test split once, at the end. --protocol released does what the Neural Resizer's released code does: it
chooses on the test split, augments the test faces at random, steps the schedule before each epoch and
averages batch averages. Its numbers are comparable with the published ones, and too high.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ferlib.commands.faces import HELD_OUT, Faces, add_face_arguments, choose_faces, tell_left_out
from ferlib.data.base import DataError, FaceDataset
from ferlib.evaluation import evaluate
from ferlib.losses import PRIOR_CLASSES, prior_for
from ferlib.training import (
    Recipe,
    best_epoch,
    build_criterion,
    build_model,
    bundled,
    checkpoints,
    fit,
    load_recipe,
    recipe_from,
)
from ferlib.training.build import check_image_size, start_from
from ferlib.training.device import choose_device, is_leader, leave_group
from ferlib.training.original_config import read_original_config
from ferlib.training.runs import BEST, LAST, STATE, check_folder, holds_run, state_file
from ferlib.weights import PRETRAINED, find_pretrained, missing

FACES_FILE = "run.json"  # in a run's folder: which faces it is trained on
OVERRIDES = {  # keys of a recipe that the command line may set
    "epochs": "passes over the training set",
    "batch_size": "faces per batch",
    "accumulate": "batches whose gradients make one step",
    "lr": "learning rate",
    "seed": "of order, augmentation and dropout",
    "vit_weight": "lambda of the batch transformer's loss",
    "precision": "fp32, bf16 or auto",
    "compile": "torch.compile: never, gpu or always",
    "on_fault": "at a face that cannot be read: stop, or skip and count",
    "save_minutes": "minutes between checkpoints, besides every epoch's",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib train``."""
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--recipe", metavar="NAME", help=f"a YAML file or one of: {', '.join(bundled())}")
    what.add_argument("-c", "--config", metavar="FILE", help="a config.json of the Neural Resizer's program")
    add_face_arguments(parser, required=False)
    add("--out", metavar="DIR", help="folder of the run")
    add("--protocol", choices=("paper", "released"), help="how the run is validated (default paper)")
    for key, meaning in OVERRIDES.items():
        add(f"--{key.replace('_', '-')}", metavar="X", help=f"{meaning}, instead of the recipe's")
    add("--weights", metavar="DIR", help="folder of pretrained weights (default $FERLIB_WEIGHTS, or weights)")
    add("--from-scratch", action="store_true", help="begin with random weights where the recipe names others")
    add("--device", help="cpu, cuda, ... (default: the GPU where there is one)")
    add("--gpu", type=int, metavar="N", help="the GPU of this number")
    resume = "go on from a run's checkpoint, which needs nothing else; or, with --recipe, from OUT's 'last'"
    add("--resume", nargs="?", const="last", metavar="CKPT", help=resume)
    add("--overwrite", action="store_true", help="replace the run, or other files, that OUT holds")
    add("--workers", type=int, default=0, metavar="N", help="processes that read ahead (default 0)")
    add("--tensorboard", action="store_true", help="log for TensorBoard into OUT, too")
    add("--no-test", action="store_true", help="do not report the test split at the end")
    add("--json", action="store_true", help="print JSON: folder, best epoch, scores, checkpoints, seconds")
    add("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Train, and print what was reached."""
    if options.workers < 0:
        raise DataError(f"--workers {options.workers}: expected 0 or more")
    with redirect_stdout(sys.stderr) if options.json else nullcontext():
        found = _train(options)
    if options.json and found:
        print(json.dumps(found, indent=1))
    return 130 if found is None else 0


def _train(options: argparse.Namespace) -> dict[str, Any] | None:
    """What --json prints, nothing in processes that do not lead; None after Ctrl-C."""
    plan, found = None, {}
    try:
        plan = _plan(options)
        device = choose_device(options.device if options.gpu is None else f"cuda:{options.gpu}")
        train, (valid_name, valid), test = _open(plan, options)
        held_out = len(valid) if plan.faces.holds_out and valid_name == "validation" else 0
        if held_out and is_leader():
            layout = f"{plan.faces.data} has no validation split of its own"
            print(f"validation: every {HELD_OUT}th training face, {held_out} faces held out, since {layout}")
        model = build_model(plan.recipe, num_classes=len(train.classes))
        check_image_size(model, plan.recipe, train)
        if plan.resume is None:
            kind = None if options.from_scratch else plan.recipe.weights.get("backbone")
            if kind in PRETRAINED and find_pretrained(kind, options.weights) is None:
                needed = missing(PRETRAINED[kind], options.weights)
                _print(f"{needed}. Fetching it now")
            for line in start_from(model, plan.recipe, options.weights, from_scratch=options.from_scratch):
                _print(line)
        known = set(train.classes) <= set(PRIOR_CLASSES)
        criterion = build_criterion(plan.recipe, prior=prior_for(train.classes) if known else None)
        history = fit(
            model,
            criterion,
            train,
            valid,
            plan.recipe,
            run_dir=plan.out,
            device=device,
            resume=plan.resume or False,
            overwrite=options.overwrite,
            workers=options.workers,
            tensorboard=options.tensorboard,
            progress=None if options.quiet else "auto",
            valid_name=valid_name,
            notes=plan.notes(),
        )
        if is_leader():
            found = _report(plan, history, len(valid), valid_name)
            found |= {"classes": list(train.classes), "held_out": held_out, "test": None}
            if test is not None:
                found["test"] = _report_test(plan, model, test, options.typed)
    except KeyboardInterrupt as stopped:
        _print(f"\nferlib train: stopped ({stopped}); {_how_to_go_on(plan, options)}")
        return None
    finally:
        leave_group()
    return found


@dataclass(frozen=True)
class Plan:
    """One run: recipe, faces, folder, the checkpoint to resume, the ``config`` file's text."""

    recipe: Recipe
    faces: Faces
    out: Path
    resume: Path | None = None
    config: str | None = None

    def notes(self) -> dict[str, str]:
        """What a later ``--resume`` needs beside the checkpoint, and the config as it was given."""
        faces = asdict(self.faces)
        if faces["data"] != "synthetic":
            faces["data"] = str(Path(faces["data"]).resolve())
        config = {} if self.config is None else {"config.json": self.config}
        return {FACES_FILE: json.dumps(faces, indent=1) + "\n", **config}


def _plan(options: argparse.Namespace) -> Plan:
    """Read recipe, config file or checkpoint, apply the command line, look at the data's layout."""
    stored: dict[str, Any] = {}
    config = resume = None
    if options.config:
        original = read_original_config(options.config, options.protocol or "paper")
        recipe, config = original.recipe, original.text
        stored = {"data": str(original.data), "kind": recipe.data}
        out = Path("experiments") / recipe.name
    elif options.recipe:
        recipe = load_recipe(options.recipe)
        out = Path("runs") / recipe.name
    elif options.resume and options.resume != "last":  # everything else is in the checkpoint and its folder
        resume = _checkpoint(options.resume)
        state = checkpoints.peek(resume)
        if "labels" not in state:
            raise DataError(f"{resume}: weights only; a run goes on from the {STATE} that it has written")
        recipe = recipe_from(state.get("recipe"), resume.name)
        if options.protocol not in (None, recipe.protocol):
            raise DataError(f"{resume} has the protocol {recipe.protocol!r}: leave --protocol out")
        stored, out = _stored_faces(resume.parent / FACES_FILE), resume.parent
    else:
        raise DataError("say what to train: --recipe NAME, -c config.json, or --resume CHECKPOINT to go on")
    out = Path(options.out or out)
    if options.resume and resume is None:
        resume = state_file(out) if options.resume == "last" else _checkpoint(options.resume)
    if options.resume == "last" and not resume.exists() and not holds_run(out):
        _print(f"{out} holds no run to go on with, which begins afresh")
        resume = None
    if not resume and not options.overwrite and holds_run(out):
        raise DataError(
            f"{out} holds a run already: add --resume last to go on with it, --overwrite to replace it, or "
            "choose another --out"
        )
    typed = {key: getattr(options, key) for key in OVERRIDES}
    recipe = recipe.replace(**{key: value for key, value in typed.items() if value is not None})
    if options.protocol:
        recipe = recipe.with_protocol(options.protocol)
    given, own = Path(options.recipe or ""), out / "recipe.yaml"
    same = given.is_file() and own.exists() and own.samefile(given)
    if same and own.read_text(encoding="utf-8") != recipe.to_yaml():
        raise DataError(
            f"{own} was given, and the run would write its own recipe there: choose another --out"
        )
    if not options.overwrite:
        check_folder(out, (FACES_FILE,) if config is None else (FACES_FILE, "config.json"))
    return Plan(recipe, _faces(options, stored, recipe), out, resume, config)


def _checkpoint(given: str) -> Path:
    path = state_file(Path(given).expanduser())
    if path.suffix != ".safetensors" and path.is_file():
        raise DataError(
            f"{path}: a run goes on from a .safetensors checkpoint that `ferlib train` wrote; an official "
            "file holds no state of our optimizer, but `ferlib evaluate --checkpoint` measures it"
        )
    return path


def _stored_faces(file: Path) -> dict[str, Any]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        kinds = {"data": str, "kind": str, "length": int | None}
        if not all(isinstance(value, kinds[key]) for key, value in stored.items()):
            raise ValueError("not what `ferlib train` writes")
    except (OSError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: damaged ({str(error)[:80]}); remove it and give --data") from None
    return stored


def _faces(options: argparse.Namespace, stored: dict[str, Any], recipe: Recipe) -> Faces:
    """The command line's faces, else those that were stored."""
    data = options.data or stored.get("data")
    if data is None:
        raise DataError("which faces? give --data DIR, or --data synthetic for drawn ones")
    kind, length = options.dataset, options.length
    if data == stored.get("data"):
        kind, length = kind or stored.get("kind"), length or stored.get("length")
    return choose_faces(data, None if kind == "synthetic" else kind, recipe.data, length)


def _open(
    plan: Plan, options: argparse.Namespace
) -> tuple[FaceDataset, tuple[str, FaceDataset], FaceDataset | None]:
    """The training set, the set that each epoch is validated on with its name, the test set (or None)."""
    faces, released = plan.faces, plan.recipe.protocol == "released"
    train = faces.open("train", whole=released)
    test = None
    if released or not options.no_test:
        test, why = faces.open_test()
        if test is None:
            instead = "validation chooses the epoch and is reported instead"
            _print(f"no test split: {instead} ({why})")
    whole = released and test is not None  # the released code has two splits: nothing is held out
    if released and not whole:
        train = faces.open("train")
    name, split = ("test", "test") if whole else ("validation", "valid")
    valid = test if whole else faces.open("valid")
    tell_left_out(train, faces.data, "train")
    tell_left_out(valid, faces.data, split)
    return train, (name, valid), None if released else test


def _print(line: str) -> None:
    if is_leader():
        print(line, file=sys.stderr)


def _how_to_go_on(plan: Plan | None, options: argparse.Namespace) -> str:
    """The command that goes on with a stopped run."""
    if plan is None or not state_file(plan.out).is_file():
        return "nothing was saved yet: give the same command again"
    words = ["ferlib", "train", "--resume", str(plan.out)]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        words[:1] = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"], "-m", "ferlib"]
    for name in ("device", "gpu", "workers", "no_test", "json", "quiet", "tensorboard"):
        value = getattr(options, name)
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value is not False and value is not None and (name, value) != ("workers", 0):
            words += [f"--{name}", str(value)]
    return f"go on with: {shlex.join(words)}"


def _report(plan: Plan, history: list[dict[str, Any]], count: int, valid_name: str) -> dict[str, Any]:
    """Print what was reached; gives it for --json."""
    chosen = history[best_epoch(history, plan.recipe) - 1]
    by = "lowest loss" if plan.recipe.select == "loss" else "highest accuracy"
    print(
        f"best epoch {chosen['epoch']} of {plan.recipe.epochs} ({by}): accuracy "
        f"{100 * chosen['valid_accuracy']:.1f} % on {count} {valid_name} faces; weights in {plan.out / BEST}"
    )
    if plan.recipe.protocol == "released":
        top = max(history, key=lambda record: record["valid_accuracy"])
        print(
            f"as the released code reports it: {100 * top['valid_accuracy']:.2f} %, the highest accuracy of "
            f"{len(history)} epochs (epoch {top['epoch']}), on randomly varied faces that also chose it"
        )
    files = {"best": BEST, "last": LAST, "state": STATE}
    return {
        "run": str(plan.out),
        "recipe": plan.recipe.name,
        "epochs": len(history),
        "best_epoch": chosen["epoch"],
        "valid_accuracy": chosen["valid_accuracy"],
        "valid_loss": chosen["valid_loss"],
        "valid_split": valid_name,
        "valid_faces": count,
        "checkpoints": {name: str(plan.out / file) for name, file in files.items()},
        "seconds": round(sum(record["seconds"] for record in history), 3),
    }


def _report_test(plan: Plan, model: nn.Module, test: FaceDataset, typed: str) -> dict[str, Any]:
    """Measure the chosen weights on faces that had no part in the choice; gives it for --json."""
    checkpoints.load(plan.out / BEST, model)
    recipe = plan.recipe
    record = evaluate(
        model,
        test,
        name="test",
        split="test",
        batch_size=recipe.batch_size,
        shuffle=recipe.seed,
        image_size=recipe.image_size,
        interpolation=recipe.interpolation,
        seed=recipe.seed,
        settings={"recipe": recipe.name},
    )
    record.command = typed
    path = plan.out / "test.json"
    record.save(path)
    accuracy = record.get("accuracy").percent()
    print(f"test split, which had no part in the choice: accuracy {accuracy} on {len(test)} faces; {path}")
    return {"accuracy": record.get("accuracy").value, "faces": len(test), "record": str(path)}
