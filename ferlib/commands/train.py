"""Train a network as a recipe says, or as the Neural Resizer's own config.json says.

  ferlib train --recipe btn-rafdb --data ~/RAF-DB
  ferlib train --recipe vt-nr-ferplus-small --data ~/FERPlus --out runs/first --epochs 3
  ferlib train -c config.json --data ~/FERPlus
  ferlib train --resume runs/first/last.safetensors

The run's folder holds the recipe, environment, log.txt, metrics.jsonl, curves.svg, the weights last and best
and the state of the run; by default it is runs/<recipe>, with -c experiments/<exp_name>. Ctrl-C finishes the
step, saves, and says how to go on; a killed run goes on from its last checkpoint (--save-minutes). On a CPU
--resume leads to the very numbers of a run that was never stopped.

Several GPUs, or processes of a CPU, share every batch:
  torchrun --nproc-per-node 4 -m ferlib train --recipe btn-rafdb --data ~/RAF-DB

--protocol paper (the default) chooses the epoch on validation, measures untouched faces, and reports the
test split once, at the end. --protocol released does what the Neural Resizer's released code does: it
chooses on the test split, varies the test faces at random, steps the schedule before each epoch and takes
means of batch means. Its numbers are there to be compared, not to be believed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from contextlib import nullcontext
from typing import Any

from torch import nn

from ferlib.commands.faces import add_face_arguments, tell_left_out
from ferlib.commands.plan import Plan, make_plan
from ferlib.data.base import DataError, FaceDataset
from ferlib.evaluation import RecordError, evaluate
from ferlib.losses import PRIOR_CLASSES, prior_for
from ferlib.training import (
    RecipeError,
    TrainingError,
    best_epoch,
    build_criterion,
    build_model,
    bundled,
    fit,
)
from ferlib.training.device import choose_device
from ferlib.training.lock import only_writer
from ferlib.training.processes import is_leader, leave
from ferlib.training.runs import state_file
from ferlib.training.start import start_from
from ferlib.weights import CheckpointError, load_network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib train``. Shape: parser in, nothing out."""
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--recipe", metavar="NAME", help=f"a YAML file or one of: {', '.join(bundled())}")
    what.add_argument("-c", "--config", metavar="FILE", help="a config.json of the Neural Resizer's program")
    add_face_arguments(parser, required=False)
    add("--out", metavar="DIR", help="folder of the run")
    add("--protocol", choices=("paper", "released"), help="how the run is judged (default paper)")
    add("--epochs", type=int, metavar="N", help="instead of the recipe's")
    add("--batch-size", type=int, metavar="N", help="instead of the recipe's")
    add("--accumulate", type=int, metavar="N", help="batches whose gradients make one step")
    add("--lr", type=float, metavar="X", help="learning rate instead of the recipe's")
    add("--seed", type=int, metavar="N", help="instead of the recipe's")
    add("--vit-weight", type=float, metavar="X", help="lambda of the batch transformer's loss")
    add("--precision", choices=("fp32", "bf16", "auto"), help="instead of the recipe's")
    add("--compile", choices=("never", "gpu", "always"), help="torch.compile, instead of the recipe's")
    add("--weights", metavar="DIR", help="folder of pretrained weights (default $FERLIB_WEIGHTS, or weights)")
    add("--from-scratch", action="store_true", help="begin with random weights where the recipe names others")
    add("--device", help="cpu, cuda, ... (default: the GPU where there is one)")
    add("--gpu", type=int, metavar="N", help="the GPU of this number")
    add(
        "--resume", nargs="?", const="last", metavar="CKPT",
        help="go on from a run's checkpoint, which needs nothing else; or, with --recipe, from OUT's 'last'",
    )  # fmt: skip
    add("--overwrite", action="store_true", help="replace the run that OUT holds")
    add("--on-fault", choices=("stop", "skip"), help="at a face that cannot be read: stop, or skip and count")
    add("--save-minutes", type=float, metavar="X", help="a checkpoint every X minutes, besides every epoch's")
    add("--workers", type=int, default=0, metavar="N", help="processes that read ahead (default 0)")
    add("--tensorboard", action="store_true", help="log for TensorBoard into OUT, too")
    add("--no-test", action="store_true", help="do not report the test split at the end")
    add("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Train, and say what was reached. Shape: parsed options -> exit code. Raises ``DataError``."""
    if options.workers < 0:
        raise DataError(f"--workers {options.workers}: expected 0 or more")
    plan = None
    try:
        plan = make_plan(options)
        device = choose_device(options.device if options.gpu is None else f"cuda:{options.gpu}")
        train, (name, judged), test = _open(plan, options)
        if plan.recipe.targets == "votes" and train.votes is None:
            raise DataError("this data set has no votes: choose a recipe with 'targets: label'")
        model = build_model(plan.recipe, num_classes=len(train.classes))
        if plan.resume is None:
            for line in start_from(model, plan.recipe, options.weights, from_scratch=options.from_scratch):
                _tell(line)
        known = set(train.classes) <= set(PRIOR_CLASSES)
        criterion = build_criterion(plan.recipe, prior=prior_for(train.classes) if known else None)
        _tell_size(plan, train)
        with only_writer(plan.out) if is_leader() else nullcontext():
            if is_leader():
                plan.note()
            history = fit(
                model, criterion, train, judged, plan.recipe, run_dir=plan.out, device=device,
                resume=plan.resume or False, overwrite=options.overwrite, workers=options.workers,
                tensorboard=options.tensorboard, progress=None if options.quiet else "auto", judged_by=name,
            )  # fmt: skip
            if is_leader():
                _report(plan, history, len(judged), name)
                if test is not None:
                    _report_test(plan, model, test, options.typed)
    except (RecipeError, CheckpointError, TrainingError, RecordError) as error:
        raise DataError(str(error)) from error
    except KeyboardInterrupt as stopped:
        _tell(f"\nferlib train: stopped ({stopped}); {_go_on(plan, options)}")
        return 130
    finally:
        leave()
    return 0


def _go_on(plan: Plan | None, options: argparse.Namespace) -> str:
    """The command that goes on with a stopped run."""
    if plan is None or not state_file(plan.out).is_file():
        return "nothing was saved yet: give the same command again"
    words = ["ferlib", "train", "--resume", str(plan.out)]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        words[:1] = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"], "-m", "ferlib"]
    for name in ("device", "gpu", "workers"):
        if (value := getattr(options, name)) is not None and (value or name == "gpu"):
            words += [f"--{name}", str(value)]
    words += [
        f"--{name.replace('_', '-')}"
        for name in ("no_test", "quiet", "tensorboard")
        if getattr(options, name)
    ]
    return f"go on with: {shlex.join(words)}"


def _tell(line: str) -> None:
    if is_leader():
        print(line, file=sys.stderr)


def _open(
    plan: Plan, options: argparse.Namespace
) -> tuple[FaceDataset, tuple[str, FaceDataset], FaceDataset | None]:
    """Faces to learn from, faces to judge each epoch by with their name, and faces for the end (or None)."""
    faces, released = plan.faces, plan.recipe.protocol == "released"
    train = faces.open("train", whole=released)
    test = None
    if released or not options.no_test:
        test, why = faces.open_test()
        if test is None:
            instead = "validation chooses the epoch and is reported instead"
            print(f"no test split: {instead} ({why})", file=sys.stderr)
    whole = released and test is not None  # the released code has two splits: nothing is held out
    if released and not whole:
        train = faces.open("train")
    judged = test if whole else faces.open("valid")
    for split, part in (("train", train), ("test" if whole else "valid", judged)):
        tell_left_out(part, faces.data, split)
    return train, ("test" if whole else "validation", judged), None if released else test


def _tell_size(plan: Plan, train: FaceDataset) -> None:
    """Say where faces are enlarged, since that is what the Neural Resizer's paper is about."""
    side, wanted = train[0]["image"].shape[-1], plan.recipe.image_size or 0
    if side < wanted:
        by = plan.recipe.interpolation
        if wanted == 8 * side:
            by += "; the authors' own are `ferlib prepare --upscale 8 --method dic`"
        _tell(f"faces of {side} pixels are enlarged to {wanted} ({by})")


def _report(plan: Plan, history: list[dict[str, Any]], count: int, name: str) -> None:
    chosen = best_epoch(history, plan.recipe)
    reached = next(record for record in history if record["epoch"] == chosen)
    by = "lowest loss" if plan.recipe.select == "loss" else "highest accuracy"
    accuracy = f"{100 * reached['valid_accuracy']:.1f} % on {count} {name} faces"
    print(
        f"best epoch {chosen} of {plan.recipe.epochs} ({by}): accuracy {accuracy}; "
        f"weights in {plan.out / 'best.safetensors'}"
    )
    if plan.recipe.protocol == "released":
        top = max(history, key=lambda record: record["valid_accuracy"])
        print(
            f"as the released code reports it: {100 * top['valid_accuracy']:.2f} %, the highest accuracy of "
            f"{len(history)} epochs (epoch {top['epoch']}), on randomly varied faces that also chose it"
        )


def _report_test(plan: Plan, model: nn.Module, test: FaceDataset, typed: str) -> None:
    """Measure the chosen weights on faces that had no part in the choice."""
    load_network(plan.out / "best.safetensors", model)
    record = evaluate(
        model, test, name="test", split="test", batch_size=plan.recipe.batch_size, shuffle=plan.recipe.seed,
        image_size=plan.recipe.image_size, interpolation=plan.recipe.interpolation, seed=plan.recipe.seed,
        settings={"recipe": plan.recipe.name},
    )  # fmt: skip
    record.command = typed
    path = plan.out / "test.json"
    record.save(path)
    accuracy = record.numbers["accuracy"].percent()
    print(f"test split, which had no part in the choice: accuracy {accuracy} on {len(test)} faces; {path}")
