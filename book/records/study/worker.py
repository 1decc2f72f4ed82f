"""What a queue of runs needs, whatever its runs are: lines that are kept, turns that are taken, a clock.

Each finished run is one line of JSON. Several processes may work at one queue; a run that is stopped goes on
from its folder's last checkpoint when its turn comes again.
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
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch

import ferlib
from ferlib.files import write_text
from ferlib.training import Recipe

Row = dict[str, Any]


def rows(path: Path) -> dict[str, Row]:
    """Every finished run by its name."""
    if not path.is_file():
        return {}
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["key"]: row for row in found}


def keep_row(path: Path, row: Row, lock: Path) -> None:
    """Add a line in one move; whoever writes at the same time waits."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = [
            json.dumps(one, ensure_ascii=False, separators=(",", ":"))
            for one in (rows(path) | {row["key"]: row}).values()
        ]
        write_text(path, "\n".join(lines) + "\n")


def folder(job_key: str, runs: Path) -> Path:
    """Where a run keeps its weights."""
    return runs / job_key.replace(" | ", "-").replace(", ", "-").replace(" ", "-")


def curves(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The history as columns, rounded: what training saw, what both halves of validation say."""
    columns = {"train_loss": 4, "train_accuracy": 4, "valid_accuracy": 6, "second": 6}
    found: dict[str, Any] = {
        {"valid_accuracy": "first"}.get(key, key): [round(record[key], digits) for record in history]
        for key, digits in columns.items()
        if key in history[-1]
    }
    for name in ("released first", "released second"):
        if name in history[-1]:
            found[name] = {key: [record[name][key] for record in history] for key in history[-1][name]}
    return found


@cache
def versions(*more: Path) -> dict[str, str]:
    """What computes, the commit, and a code for the source that decides a run's numbers.

    ``more``: files beside the library's own that decide them, too.
    """
    here = Path(ferlib.__file__).parent
    code = hashlib.sha256()
    for part in ("data", "losses", "models", "training"):
        for path in sorted((here / part).rglob("*.py")):
            code.update(path.read_bytes())
    for path in more:
        code.update(path.read_bytes())
    git = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True)
    return {
        "python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__,
        "ferlib": git.stdout.strip() or ferlib.__version__, "source": code.hexdigest()[:12],
        "threads": str(torch.get_num_threads()),
    }  # fmt: skip


class Clock:
    """Seconds on the wall and of the processor since it was made."""

    def __init__(self) -> None:
        self.began, self.processor = time.monotonic(), time.process_time()

    def read(self) -> dict[str, int]:
        """Both, as a row has them."""
        return {
            "seconds": round(time.monotonic() - self.began),
            "processor seconds": round(time.process_time() - self.processor),
        }


def changes(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    """What a recipe has otherwise than the study's own; name and seed stand in the row already."""
    own = {key: value for key, value in asdict(recipe).items() if value != asdict(base)[key]}
    return {key: value for key, value in own.items() if key not in ("name", "seed")}


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def work(
    jobs: list[Any], path: Path, runs: Path, train: Callable[[Any, Path], Row],
    ready: Callable[[Any, dict[str, Row]], bool], tell: Callable[[Row], str],
) -> None:  # fmt: skip
    """Every job that has no row, that nobody else is at, and that is ready.

    After each of them the queue is looked through from its start: what was not ready may be so now.
    """
    runs.mkdir(parents=True, exist_ok=True)
    while True:
        done = rows(path)
        left = [job for job in jobs if job.key not in done and ready(job, done)]
        if not any(_turn(job, path, runs, train, tell) for job in left):
            return


def _turn(
    job: Any, path: Path, runs: Path, train: Callable[[Any, Path], Row], tell: Callable[[Row], str]
) -> bool:
    with (runs / f"{folder(job.key, Path()).name}.lock").open("w") as mine:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if job.key in rows(path):  # somebody has just done it
            return False
        row = train(job, runs)
        keep_row(path, row, runs / "rows.lock")
        if not job.keep:
            shutil.rmtree(folder(job.key, runs), ignore_errors=True)
        spent = f"{row['processor seconds']} s of {row['seconds']} s"
        print(f"{row['date']}  {job.key:55s} {tell(row)}  {spent}", flush=True)
        return True


def stop_at(clock: str) -> None:
    """End this program at a time of the day (UTC), wherever it is."""
    hour, minute = (int(part) for part in clock.split(":"))
    today = datetime.now(UTC)
    left = (today.replace(hour=hour, minute=minute, second=0) - today).total_seconds()

    def ring(*_: object) -> None:
        raise SystemExit(f"{clock}: stopped; the rows written are safe")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(max(1, int(left)))


def command(
    about: str | None, jobs: list[Any], path: Path, runs: Path, work: Callable[[list[Any], Path], None]
) -> None:
    """The command line of a queue: ``--only``, ``--until``, ``--runs``, ``--list``."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=form)
    parser.add_argument("--only", default="", help="runs whose name holds this text")
    parser.add_argument("--until", help="stop at this time, HH:MM in UTC")
    parser.add_argument("--runs", type=Path, default=runs)
    parser.add_argument("--list", action="store_true", help="say what is done and what is left")
    options = parser.parse_args()
    jobs = [job for job in jobs if options.only in job.key]
    if options.list:
        done = rows(path)
        for job in jobs:
            print("done" if job.key in done else "    ", job.key)
        print(f"{sum(job.key in done for job in jobs)} of {len(jobs)} are done")
        return
    if options.until:
        stop_at(options.until)
    work(jobs, options.runs)
