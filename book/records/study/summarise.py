"""From the study's rows to records: one for every question whose runs are complete.

    FERLIB_DATA=/path/to/FERPlus python book/records/study/summarise.py

Writes ``book/results/study_<question>.json``; a question that lacks a run is named and left out. Nothing is
trained here: the rows say which faces each run had right, the data set says what they are. ``study_cost``
counts what the finished runs took, whether or not their question is complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import records
import worker
from contrasts import Contrast, Faces, Runs, judge, leaves_out_zero, minus
from faces import fingerprint, held
from jobs import BACKBONES, FRONTS, LOSSES, NOISE, PRIORS, SEEDS, TURNED, queue

from ferlib.evaluation import ResultRecord, about, summarise

ROWS = Path(__file__).with_name("rows.jsonl")
COMMAND = "FERLIB_DATA=/path/to/FERPlus python book/records/study/summarise.py"


def runs_of(rows: dict[str, Any], arms: list[str]) -> Runs:
    """The rows of arms (``question | arm``) by arm; raises KeyError for a run that is not done."""
    return records.runs_of(rows, arms, SEEDS)


def losses(rows: dict[str, Any], noise: float) -> tuple[Runs, list[Contrast]]:
    """Seven losses at one share of wrong labels: six against cross-entropy, five others against votes."""
    end = f"{100 * noise:.0f} % wrong"
    runs = runs_of(rows, [f"losses | {name} | {end}" for name in LOSSES])
    runs = {name: found for name, found in zip(LOSSES, runs.values(), strict=True)}
    others = [name for name in LOSSES if name != "cross-entropy"]
    first = [minus(name, "cross-entropy", len(others)) for name in others]
    return runs, first + [minus(name, "votes", len(others) - 1) for name in others if name != "votes"]


def robustness(rows: dict[str, Any]) -> tuple[Runs, list[Contrast]]:
    """What 40 % wrong labels cost each loss, against what they cost cross-entropy."""
    arms = {f"{name} | {100 * n:.0f} %": f"losses | {name} | {100 * n:.0f} % wrong"
            for name in LOSSES for n in (0.0, 0.4)}  # fmt: skip
    runs = dict(zip(arms, runs_of(rows, list(arms.values())).values(), strict=True))
    cost = {name: {f"{name} | 40 %": 1.0, f"{name} | 0 %": -1.0} for name in LOSSES}
    plain = {arm: -weight for arm, weight in cost["cross-entropy"].items()}
    found = [Contrast(f"change of {name}", weights, len(LOSSES)) for name, weights in cost.items()]
    return runs, found + [
        Contrast(f"change of {name} - change of cross-entropy", {**cost[name], **plain}, len(LOSSES) - 1)
        for name in LOSSES
        if name != "cross-entropy"
    ]


def priors(rows: dict[str, Any], loss: str) -> tuple[Runs, list[Contrast]]:
    """A loss with three priors: two against the published one."""
    arms = {"published": f"losses | {loss} | 0 % wrong"} | {n: f"priors | {loss} | {n}" for n in PRIORS}
    runs = dict(zip(arms, runs_of(rows, list(arms.values())).values(), strict=True))
    return runs, [minus(name, "published", len(PRIORS)) for name in PRIORS]


def resizers(rows: dict[str, Any], backbone: str) -> tuple[Runs, list[Contrast]]:
    """A backbone's arms: five pairs of resizers, two spatial transformers; with vit, one sampling."""
    exact = ["neural, exact size"] if backbone == "vit" else []
    names = [*FRONTS, *(f"{front} | STN" for front in TURNED), *exact]
    runs = runs_of(rows, [f"resizers | {backbone} | {name}" for name in names])
    runs = dict(zip(names, runs.values(), strict=True))
    found = [minus(front, "bilinear", 3) for front in FRONTS if front != "bilinear"]
    found += [minus("neural", rule, 3) for rule in ("bicubic", "antialiased")]
    found += [minus(f"{front} | STN", front, 2) for front in TURNED]
    return runs, found + [minus(name, "neural", 1) for name in exact]


def gains(rows: dict[str, Any]) -> tuple[Runs, list[Contrast]]:
    """The learned resizer's gain over bilinear with each transformer, against the convolutional network's."""
    runs: Runs = {}
    for backbone in BACKBONES:
        for front in ("neural", "bilinear"):
            arm = f"{backbone} | {front}"
            runs |= {arm: runs_of(rows, [f"resizers | {arm}"])[f"resizers | {arm}"]}
    gain = {b: {f"{b} | neural": 1.0, f"{b} | bilinear": -1.0} for b in BACKBONES}
    control = {arm: -weight for arm, weight in gain["conv"].items()}
    return runs, [
        Contrast(f"gain of {b} - gain of conv", {**gain[b], **control}, 2) for b in BACKBONES if b != "conv"
    ]


def protocol(rows: dict[str, Any], network: str) -> dict[str, Any]:
    """The released number and the honest one of the same runs, and the parts of their difference, by seed.

    Each run counts as the mean of its two halves in turn: one chooses, the other is measured. The three parts
    (``random augmentation at the chosen epoch``, ``choosing by the measured half``, ``batch means at the best
    epoch``) sum to ``released - honest``. The interval over seeds decides alone what is shown.
    """
    found: dict[str, list[float]] = {}
    for row in runs_of(rows, [f"protocol | {network}"])[f"protocol | {network}"]:
        history = {key: value for key, value in row["history"].items()}
        parts: dict[str, list[float]] = {}
        for chooser, measured in (("first", "second"), ("second", "first")):
            chosen = int(np.argmax(history[chooser]))
            released = history[f"released {measured}"]
            best, least = int(np.argmax(released["accuracy"])), int(np.argmin(released["loss"]))
            clean = history[measured]
            for name, value in {
                "honest": clean[chosen],
                "last epoch": clean[-1],
                "released": released["accuracy"][best],
                "released at the lowest loss": released["accuracy"][least],
                "released - honest": released["accuracy"][best] - clean[chosen],
                "choosing by the measured half, clean": max(clean) - clean[chosen],
                "choosing by the measured half": released["by faces"][best] - released["by faces"][chosen],
                "random augmentation at the chosen epoch": released["by faces"][chosen] - clean[chosen],
                "batch means at the best epoch": released["accuracy"][best] - released["by faces"][best],
            }.items():
                parts.setdefault(name, []).append(value)
        for name, values in parts.items():
            found.setdefault(f"{network} | {name}", []).append(float(np.mean(values)))
    numbers = {name: summarise(values) for name, values in found.items()}
    levels = {"honest", "last epoch", "released", "released at the lowest loss"}
    shown = {name: leaves_out_zero(n) for name, n in numbers.items() if name.split(" | ")[-1] not in levels}
    return {"numbers": numbers, "shown": shown, "scores": found}


def save(name: str, what: str, found: dict[str, Any], runs: Runs, valid: Any) -> None:
    """Write one record."""
    records.save(f"study_{name}", what, found, runs, valid, seeds=SEEDS, command=COMMAND)


def main() -> None:
    rows = worker.rows(ROWS)
    valid = held("valid")
    if other := {row["data"] for row in rows.values()} - {fingerprint(valid)}:
        raise SystemExit(f"rows were judged on other faces ({', '.join(other)}) than FERLIB_DATA holds")
    faces = Faces(valid.labels.numpy(), len(valid.classes))
    plans = {f"losses_{100 * n:.0f}": ("Seven losses", lambda n=n: losses(rows, n)) for n in NOISE}
    plans["noise"] = ("What 40 % wrong labels cost each of seven losses", lambda: robustness(rows))
    for loss in ("F-PDLS", "PDLS"):
        slug = loss.lower().replace("-", "")
        plans[f"priors_{slug}"] = (f"{loss} with three priors", lambda loss=loss: priors(rows, loss))
    for b in BACKBONES:
        plans[f"resizers_{b}"] = (f"{b} behind four resizers", lambda b=b: resizers(rows, b))
    plans["gains"] = ("The learned resizer's gain by backbone", lambda: gains(rows))
    for name, (what, plan) in plans.items():
        try:
            runs, contrasts = plan()
        except KeyError as missing:
            print(f"study_{name}: not yet, {missing} is missing")
            continue
        views = list(next(iter(runs.values()))[0]["final"])
        for view in views:
            told = f"{what} on FER+ validation{', turned' if view == 'turned' else ''}: 3 seeds, paired"
            end = f"_{view}" if len(views) > 1 else ""
            save(f"{name}{end}", told, judge(runs, contrasts, faces, view), runs, valid)
    for network in ("residual-small", "vit behind the neural resizer"):
        try:
            runs = runs_of(rows, [f"protocol | {network}"])
        except KeyError as missing:
            print(f"study_protocol, {network}: not yet, {missing} is missing")
            continue
        slug = network.split()[0].replace("-", "_")
        save(f"protocol_{slug}", f"Released and honest judgement of the same runs: {network}",
             protocol(rows, network), runs, valid)  # fmt: skip
    if rows:
        spent = ResultRecord(
            name="study_cost", what="What the finished runs of the study cost, by question",
            data=about(valid, "valid") | {"name": "FER+"}, settings={"seeds": list(SEEDS)},
            extra={"questions": records.costs(rows, queue())}, versions=next(iter(rows.values()))["versions"],
            date=max(row["date"] for row in rows.values()), command=COMMAND,
        )  # fmt: skip
        print(spent.save())


if __name__ == "__main__":
    main()
