"""Do the study's runs, one after the other; each finished run leaves one line in ``rows.jsonl``.

    FERLIB_DATA=/path/to/FERPlus python book/records/study/run.py                  # all that is missing
    FERLIB_DATA=/path/to/FERPlus python book/records/study/run.py --list           # what is left to do
    FERLIB_DATA=/path/to/FERPlus python book/records/study/run.py --only "losses | PDLS" --until 17:15

A run that has its line is not done again. A queue that was stopped goes on with the run it was in, from its
last checkpoint in ``--runs``. Two of these commands may work at the same time. Weights that others build on,
and those of the plain residual network, stay there; what else a run wrote goes when its line is kept.

All runs of a question have to come from the same training code, or their random draws are not the same and
nothing is paired: the rows say which it was (``source``), and ``summarise.py`` refuses to mix. While
``ferlib`` is being worked on, run from a copy: ``git worktree add --detach COPY`` and ``PYTHONPATH=COPY``.

``python book/records/study/summarise.py`` makes the records of ``book/results`` from the lines.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import platform
import shutil
import signal
import subprocess
import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import faces as study_faces
import measures
import networks
import timm
import torch
from jobs import BASE, Job, queue

import ferlib
from ferlib.models import part_costs
from ferlib.training import build_criterion, checkpoints, fit
from ferlib.training.files import write_text

ROWS = Path(__file__).with_name("rows.jsonl")


def rows() -> dict[str, dict[str, Any]]:
    """Every finished run by its name."""
    if not ROWS.is_file():
        return {}
    found = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    return {row["key"]: row for row in found}


def keep_row(row: dict[str, Any], lock: Path) -> None:
    """Add a line in one move; whoever writes at the same time waits."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = [
            json.dumps(one, ensure_ascii=False, separators=(",", ":"))
            for one in (rows() | {row["key"]: row}).values()
        ]
        write_text(ROWS, "\n".join(lines) + "\n")


@cache
def split(name: str) -> study_faces.Held:
    """The faces of a split, read once."""
    return study_faces.held(name)


@cache
def view(name: str) -> study_faces.Held:
    """Validation as it is (``upright``) or with every face turned."""
    return split("valid") if name == "upright" else study_faces.turned(split("valid"))


def folder(job_key: str, runs: Path) -> Path:
    """Where a run keeps its weights."""
    return runs / job_key.replace(" | ", "-").replace(", ", "-").replace(" ", "-")


def train(job: Job, runs: Path) -> dict[str, Any]:
    """One run, from fresh weights (or a pretrained backbone) to its row."""
    recipe, valid = job.recipe(), split("valid")
    learned = study_faces.share(
        split("train"), job.faces, job.seed if job.drawn is None else job.drawn, job.after
    )
    learned = study_faces.mislabelled(learned, job.noise, job.seed) if job.noise else learned
    model = networks.make(job.network, job.seed, **job.options)
    if job.backbone:
        start = {"resizer": "any rule", "spatial_transformer": False}
        donor = networks.make(job.network, job.seed, **start)
        checkpoints.load(folder(job.backbone, runs) / "last.safetensors", donor)
        networks.take_over(model, donor, job.seed)
    prior = study_faces.prior(job.prior)
    criterion = build_criterion(recipe, prior=prior)
    first, second = (valid.some(half) for half in study_faces.halves(valid))
    hard = build_criterion(recipe.but(targets="label"), prior=prior)

    def after_epoch(candidate: torch.nn.Module, record: dict[str, Any]) -> None:
        """What the second half says; in the released way, too, where that is the question."""
        logits = measures.answers(candidate, second, recipe)
        record["second"] = (logits.argmax(1) == second.labels).double().mean().item()
        if job.released:
            for name, half in (("first", first), ("second", second)):
                record[f"released {name}"] = measures.as_released(
                    candidate, half, hard, recipe, record["epoch"]
                )

    began, processor = time.monotonic(), time.process_time()
    place = folder(job.key, runs)
    resume = (place / "last.safetensors").is_file()
    history = fit(
        model, criterion, learned, first, recipe, run_dir=place, resume=resume, progress=None, device="cpu",
        on_epoch=after_epoch,
    )  # fmt: skip
    names = ["upright", "turned"] if job.question == "resizers" else ["upright"]
    judged = {name: measures.answers(model, view(name), recipe) for name in names}
    side = recipe.image_size or valid.images.shape[-1]
    costs = part_costs(model, torch.zeros(1, 3, side, side), repeats=0)
    own = {key: value for key, value in asdict(recipe).items() if value != asdict(BASE)[key]}
    for key in ("name", "seed"):  # they stand in the row already
        own.pop(key, None)
    return {
        "key": job.key, "question": job.question, "arm": job.arm, "seed": job.seed,
        "network": job.network, "options": job.options, "recipe": own, "prior": job.prior,
        "faces": len(learned), "after": job.after, "noise": job.noise,
        "history": curves(history),
        "final": {name: measures.final(logits, valid.labels) for name, logits in judged.items()},
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply-adds": sum(cost.multiply_adds for cost in costs),
        "seconds": round(time.monotonic() - began),
        "processor seconds": round(time.process_time() - processor),
        "resumed": resume, "data": study_faces.fingerprint(valid), "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f'FERLIB_DATA=/path/to/FERPlus python book/records/study/run.py --only "{job.key}"',
    }  # fmt: skip


def curves(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The history as columns, rounded: what training saw, what both halves of validation say."""
    columns = {"train_loss": 4, "train_accuracy": 4, "valid_accuracy": 6, "second": 6}
    found: dict[str, Any] = {
        {"valid_accuracy": "first"}.get(key, key): [round(record[key], digits) for record in history]
        for key, digits in columns.items()
    }
    for name in ("released first", "released second"):
        if name in history[-1]:
            found[name] = {key: [record[name][key] for record in history] for key in history[-1][name]}
    return found


@cache
def versions() -> dict[str, str]:
    """What computes, the commit, and a code for the source that decides a run's numbers."""
    here = Path(ferlib.__file__).parent
    code = hashlib.sha256()
    for part in ("data", "losses", "models", "training"):
        for path in sorted((here / part).rglob("*.py")):
            code.update(path.read_bytes())
    git = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True)
    return {
        "python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__,
        "ferlib": git.stdout.strip() or ferlib.__version__, "source": code.hexdigest()[:12],
        "threads": str(torch.get_num_threads()),
    }  # fmt: skip


def work(jobs: list[Job], runs: Path) -> None:
    """Every job that has no row and that nobody else is at."""
    runs.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        with (runs / f"{folder(job.key, Path()).name}.lock").open("w") as mine:
            try:
                fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if job.key in rows() or (job.backbone and job.backbone not in rows()):
                continue
            row = train(job, runs)
            keep_row(row, runs / "rows.lock")
            if not job.keep:
                shutil.rmtree(folder(job.key, runs))
            told = f"{100 * row['final']['upright']['accuracy']:.2f} %  {row['processor seconds']} s"
            print(f"{row['date']}  {job.key:55s} {told} of {row['seconds']} s", flush=True)


def stop_at(clock: str) -> None:
    """End this program at a time of the day (UTC), wherever it is."""
    hour, minute = (int(part) for part in clock.split(":"))
    now = datetime.now(UTC)
    left = (now.replace(hour=hour, minute=minute, second=0) - now).total_seconds()

    def ring(*_: object) -> None:
        raise SystemExit(f"{clock}: stopped; the rows written are safe")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(max(1, int(left)))


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--only", default="", help="runs whose name holds this text")
    parser.add_argument("--until", help="stop at this time, HH:MM in UTC")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "study")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    jobs = [job for job in queue() if options.only in job.key]
    if options.list:
        done = rows()
        for job in jobs:
            print("done" if job.key in done else "    ", job.key)
        print(f"{sum(job.key in done for job in jobs)} of {len(jobs)} are done")
        return
    if options.until:
        stop_at(options.until)
    work(jobs, options.runs)


if __name__ == "__main__":
    main()
