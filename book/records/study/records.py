"""From rows to records of ``book/results``, whatever the question is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contrasts import Runs

from ferlib.data.base import FaceDataset
from ferlib.evaluation import ResultRecord, about

KEPT = ("network", "options", "recipe", "prior", "faces", "noise")  # what a record says of each arm


def runs_of(rows: dict[str, Any], arms: list[str], seeds: tuple[int, ...]) -> Runs:
    """The rows of arms (``question | arm``) by arm; raises KeyError for a run that is not done."""
    return {arm: [rows[f"{arm} | seed {seed}"] for seed in seeds] for arm in arms}


def costs(rows: dict[str, Any], jobs: list[Any]) -> dict[str, dict[str, float]]:
    """By question: finished and planned runs, hours of one processor and of the clock, multiply-adds."""
    found: dict[str, dict[str, float]] = {}
    for job in jobs:
        names = ("runs", "planned", "processor hours", "hours", "multiply-adds, million million")
        one = found.setdefault(job.question, dict.fromkeys(names, 0))
        one["planned"] += 1
        if row := rows.get(job.key):
            done = 3 * row["faces"] * job.recipe().epochs * row["multiply-adds"] / 1e12
            spent = (1, row["processor seconds"] / 3600, row["seconds"] / 3600, done)
            for name, value in zip(("runs", *names[2:]), spent, strict=True):
                one[name] += value
    return found


def save(
    name: str, what: str, found: dict[str, Any], runs: Runs, data: FaceDataset, *,
    seeds: tuple[int, ...], command: str, data_name: str = "FER+", split: str = "valid",
) -> Path | None:  # fmt: skip
    """Write one record, if its runs come from one source: others do not pair."""
    every = list({row["key"]: row for some in runs.values() for row in some}.values())
    if len(sources := {row["versions"]["source"] for row in every}) > 1:
        print(f"{name}: left out, its runs come from several sources ({', '.join(sorted(sources))})")
        return None
    extra = {"shown": found["shown"], "processor seconds": sum(row["processor seconds"] for row in every)}
    extra["multiply-adds a face"] = {arm: some[0]["multiply-adds"] for arm, some in runs.items()}
    extra["parameters"] = {arm: some[0]["parameters"] for arm, some in runs.items()}
    extra |= {key: value for key, value in found.items() if key not in ("numbers", "shown")}
    settings = {arm: {key: some[0][key] for key in KEPT} for arm, some in runs.items()}
    record = ResultRecord(
        name=name, what=what, numbers=found["numbers"], data=about(data, split) | {"name": data_name},
        classes=list(data.classes), settings={"seeds": list(seeds), "arms": settings}, extra=extra,
        versions=every[0]["versions"], date=max(row["date"] for row in every), command=command,
        commit=every[0]["versions"]["ferlib"], seconds=float(sum(row["seconds"] for row in every)),
    )  # fmt: skip
    print(path := record.save())
    return path
