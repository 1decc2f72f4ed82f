"""Plan, run, resume: what all experiments need, whatever their runs are.

A run is an arm with a condition, a fold, a repeat and a seed. Any number of processes may work at one queue,
each with one thread; whoever begins a run holds its lock until the row is written. A run that is killed goes
on from its last checkpoint. Finished runs are rows of JSON, one line each, in one file for each experiment.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import subprocess
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch

from ferlib.files import write_text

NICE = 10  # priority of a run: what a person does in the foreground comes first
ROWS = Path(__file__).with_name("rows")
Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        experiment: The experiment's name.
        arm: What is compared.
        condition: On what: labels, noise, backbone.
        fold: Which fold is held out; 0 where there are no folds.
        repeat: Which partition into folds, or which pretraining.
        seed: Of weights and order. Runs that are compared share it.
        settings: What else the run is told.
    """

    experiment: str
    arm: str
    condition: str
    fold: int
    repeat: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def place(self) -> tuple[str, str, int, int, int]:
        """What tells a run from the others of its experiment."""
        return self.arm, self.condition, self.fold, self.repeat, self.seed

    def __str__(self) -> str:
        what = f"{self.experiment}: {self.arm}, {self.condition}"
        return f"{what}, fold {self.fold}, repeat {self.repeat}, seed {self.seed}"

    @property
    def file(self) -> str:
        """A name for the run's files."""
        kept = "".join(c if c.isalnum() else "-" for c in f"{self.arm} {self.condition}")
        return f"{self.experiment}-{kept}-{self.fold}-{self.repeat}-{self.seed}"


class Checkpoint:
    """Where an unfinished run keeps its state between epochs: tensors and plain values, loaded as such."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Any] | None:
        """What was saved last, or None."""
        return torch.load(self.path, weights_only=True) if self.path.is_file() else None

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state in one move."""
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)

    def forget(self) -> None:
        """The run is finished."""
        self.path.unlink(missing_ok=True)


def resumed_epochs(checkpoint: Checkpoint, count: int, **parts: Any) -> Iterator[int]:
    """Epochs that are left of a run; after each of them the state of ``parts`` is kept.

    Args:
        checkpoint: Where the state is kept.
        count: Epochs of the whole run.
        parts: What has a state: network, optimizer, schedule.
    """
    begin = 0
    if state := checkpoint.load():
        begin = state.pop("epoch")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    for epoch in range(begin, count):
        yield epoch
        states = {name: part.state_dict() for name, part in parts.items()}
        checkpoint.save(states | {"epoch": epoch + 1})


def place_of(row: Row) -> tuple[str, str, int, int, int]:
    """The ``Run.place`` of a row."""
    return row["arm"], row["condition"], row["fold"], row["repeat"], row["seed"]


def read_rows(path: Path) -> dict[tuple[str, str, int, int, int], Row]:
    """Finished runs by their place; none where there is no file."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {place_of(row): row for row in rows}


def add_rows(path: Path, new: Iterable[Row]) -> None:
    """Add rows to a file in one move; whoever writes at the same time waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        rows = read_rows(path) | {place_of(row): row for row in new}
        lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows.values()]
        write_text(path, "".join(f"{line}\n" for line in lines))


def pack(values: np.ndarray, most: int = 1) -> dict[str, Any]:
    """Whole numbers from 0 to ``most`` of N faces as text; ``unpack`` gives them back."""
    data = np.packbits(values.astype(bool)) if most == 1 else values.astype(np.uint8)
    return {
        "count": len(values),
        "most": most,
        "data": base64.b85encode(zlib.compress(data.tobytes(), 9)).decode(),
    }


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """What ``pack`` was given, divided by ``most``: shares from 0 to 1, float64 (N,)."""
    data = np.frombuffer(zlib.decompress(base64.b85decode(packed["data"])), np.uint8)
    values = np.unpackbits(data)[: packed["count"]] if packed["most"] == 1 else data
    return values / packed["most"]


def source() -> dict[str, Any]:
    """The commit that computes, and whether anything that could change a number differs from it."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True
        ).stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--", "ferlib", "book/experiments/*.py")),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


Train = Callable[[Run, Checkpoint], Row]


def work(
    runs: list[Run], train: Train, store: Path, *, until: float | None = None, pilot: bool = False
) -> int:
    """Do every run that has no row and that no other process is at; returns how many were done.

    Args:
        runs: The queue, in order.
        train: From a run and its checkpoint to the row's own fields.
        store: Folder of rows, locks and checkpoints.
        until: ``time.time()`` after which no run is begun.
        pilot: Rows that do not count: the tree may differ from its commit; they go to another file.

    Raises:
        SystemExit: Where the tree differs from its commit and the rows would count.
    """
    torch.set_num_threads(1)
    with suppress(AttributeError, OSError):  # Windows has none, and some machines forbid it
        os.nice(max(0, NICE - os.nice(0)))
    told = source()
    if told["changed"] and not pilot:
        raise SystemExit(
            "ferlib or book/experiments differs from its commit: rows count only from a clean tree"
        )
    for name in ("rows", "locks", "unfinished"):
        (store / name).mkdir(parents=True, exist_ok=True)
    done = 0
    for run in runs:
        if until is not None and time.time() > until:
            break
        path = rows_file(store, run.experiment, pilot)
        lock = filelock.FileLock(store / "locks" / f"{run.file}.lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            continue
        try:
            if run.place in read_rows(path):
                continue
            print(f"{datetime.now():%H:%M:%S}  {run}", flush=True)
            checkpoint = Checkpoint(store / "unfinished" / f"{run.file}.pt")
            began, spent = time.monotonic(), time.process_time()
            found = train(run, checkpoint)
            row = {
                **asdict(run),
                **found,
                "seconds": round(time.monotonic() - began, 1),
                "cpu_seconds": round(time.process_time() - spent, 1),
                "source": told,
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            add_rows(path, [row])
            checkpoint.forget()
            done += 1
        finally:
            lock.release()
    return done


def rows_file(store: Path, experiment: str, pilot: bool = False) -> Path:
    """Where finished runs of an experiment are kept while they are made."""
    return store / "rows" / f"{experiment}{'_pilot' if pilot else ''}.jsonl"


def seed_rows(store: Path, experiment: str) -> None:
    """Begin with the rows that the repository has."""
    add_rows(rows_file(store, experiment), read_rows(ROWS / f"{experiment}.jsonl").values())


def collect(store: Path, experiment: str) -> int:
    """Bring finished rows into the repository; returns how many there are then."""
    found = read_rows(rows_file(store, experiment))
    if found:
        add_rows(ROWS / f"{experiment}.jsonl", found.values())
    return len(read_rows(ROWS / f"{experiment}.jsonl"))


def status(runs: list[Run], store: Path) -> Iterator[str]:
    """One line for each experiment: runs done and left, and how long what is left takes one core."""
    for experiment in dict.fromkeys(run.experiment for run in runs):
        mine = [run for run in runs if run.experiment == experiment]
        rows = read_rows(ROWS / f"{experiment}.jsonl") | read_rows(rows_file(store, experiment))
        left = [run for run in mine if run.place not in rows]
        by_arm: dict[str, list[float]] = {}
        for row in rows.values():
            by_arm.setdefault(row["arm"], []).append(row["cpu_seconds"])
        every = [seconds for found in by_arm.values() for seconds in found]
        if not every:
            yield f"{experiment:18s}    0 of {len(mine)} runs done; no time is known yet"
            continue
        hours = sum(float(np.mean(by_arm.get(run.arm, every))) for run in left) / 3600
        done = len(mine) - len(left)
        yield f"{experiment:18s} {done:4d} of {len(mine)} runs done; the others take {hours:.1f} core hours"
