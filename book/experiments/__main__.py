"""The command of the experiments: ``python -m book.experiments COMMAND --help``.

python -m book.experiments maps --data FERPlus --labels fer2013_labels.csv --weights WEIGHTS
python -m book.experiments run                      # everything that is missing, resumed where it was
python -m book.experiments status
python -m book.experiments collect                  # finished rows into the repository
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import datetime
from pathlib import Path
from types import ModuleType

import numpy as np

from book.experiments import batch_attention, coverage, downsizing, faces, harness, losses, maps, summarize

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS: dict[str, ModuleType] = {module.NAME: module for module in (losses, batch_attention, downsizing)}


def parser() -> argparse.ArgumentParser:
    """What is typed."""
    found = argparse.ArgumentParser(
        prog="python -m book.experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = found.add_subparsers(dest="command", required=True)
    made = commands.add_parser("maps", help="make the faces and the maps of the frozen networks, once")
    made.add_argument("--data", type=Path, required=True, help="FER+ in Microsoft's folders")
    made.add_argument("--labels", type=Path, required=True, help="FER2013's labels: folder, name, fer2013")
    made.add_argument("--weights", type=Path, required=True, help="folder of the two networks' weights")
    work = commands.add_parser(
        "run", help="do the runs that are missing; several processes may do so at once"
    )
    work.add_argument("--only", default="", help="runs whose description holds this text")
    work.add_argument("--until", type=datetime.fromisoformat, help="begin no run after this time (ISO 8601)")
    trial = commands.add_parser("pilot", help="runs on the pilot faces, by which rates and epochs were set")
    trial.add_argument("--only", default="", help="runs whose description holds this text")
    simulated = commands.add_parser(
        "coverage", help="simulate how often the planned intervals hold the truth"
    )
    simulated.add_argument("--count", type=int, default=400, help="simulations of each setting")
    commands.add_parser("status", help="what is done and how long the rest takes")
    commands.add_parser("summarize", help="make the records from the rows that are finished")
    commands.add_parser("collect", help="bring finished rows into the repository")
    for command in commands.choices.values():
        command.add_argument(
            "--store",
            type=Path,
            default=Path(os.environ.get("FERLIB_STORE", ROOT / "runs" / "experiments")),
            help="folder of faces, maps and unfinished runs (default: $FERLIB_STORE, or runs/experiments)",
        )
    return found


def queue() -> list[harness.Run]:
    """All runs of all experiments."""
    return [run for module in EXPERIMENTS.values() for run in module.runs()]


def make(given: argparse.Namespace) -> None:
    """Faces, groups of twins, maps, projections, corrupted maps: each is made once, and resumed."""
    found = faces.read(given.data, given.labels)
    faces.save(found, given.store)
    fit_on = np.flatnonzero(faces.without_twins(found, faces.groups(found)))
    maps.make(found, given.weights, given.store, fit_on)
    if not (given.store / "projected.npy").is_file():
        maps.project(given.store, fit_on, losses.WIDTH)
    batch_attention.make_corrupted(found, given.weights, given.store)


def work(given: argparse.Namespace, pilot: bool = False) -> None:
    """Runs of one experiment after the other, in the order of their queues."""
    found = faces.load(given.store)
    groups = faces.groups(found)
    until = given.until.timestamp() if not pilot and given.until else None
    for name, module in EXPERIMENTS.items():
        every = module.pilots() if pilot else module.runs()
        runs = [run for run in every if given.only in str(run)]
        if runs and (until is None or time.time() < until):
            harness.seed_rows(given.store, name)
            trainer = module.Trainer(found, groups, given.store, pilot)
            harness.work(runs, trainer, given.store, until=until, pilot=pilot)


def summarized(given: argparse.Namespace) -> None:
    """Records of all experiments that have rows, with the corrected p values once all are complete."""
    found = faces.load(given.store)
    made = []
    for name, module in EXPERIMENTS.items():
        rows = list(harness.read_rows(harness.ROWS / f"{name}.jsonl").values())
        if rows:
            made.append(summarize.record(name, rows, len(module.runs()), found, faces.groups(found)))
    for one in made:
        one.extra["p values after Holm's correction"] = summarize.corrected(made)
        print(one.save())


def main() -> None:
    given = parser().parse_args()
    given.store.mkdir(parents=True, exist_ok=True)
    if given.command == "maps":
        make(given)
    elif given.command == "run":
        work(given)
    elif given.command == "pilot":
        work(given, pilot=True)
    elif given.command == "summarize":
        summarized(given)
    elif given.command == "coverage":
        print(coverage.record(given.count).save())
    elif given.command == "status":
        print("\n".join(harness.status(queue(), given.store)))
    else:
        for name in EXPERIMENTS:
            print(f"{name}: {harness.collect(given.store, name)} rows")


if __name__ == "__main__":
    main()
