"""Differences between arms, over seeds by Student and over faces by the bootstrap; which one is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import measures
import numpy as np

from ferlib.evaluation import Interval, Resamples, summarise

RESAMPLES = 2000
METRICS = ("accuracy", "mean class accuracy")
Runs = dict[str, list[dict[str, Any]]]  # rows of each arm, one for each seed, in the order of the seeds


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms' scores, such as +1 and -1; ``family``: how many are asked together."""

    name: str
    weights: dict[str, float]
    family: int


def minus(one: str, other: str, family: int) -> Contrast:
    """The difference of two arms."""
    return Contrast(f"{one} - {other}", {one: 1.0, other: -1.0}, family)


class Faces:
    """The faces all runs are judged on, and 2,000 sets drawn from them, the same ones for all arms and seeds.

    ``scores`` turns what is right, (A, N) for A arms, into accuracies and mean class accuracies (A,), and
    those of every drawn set, (2000, A).
    """

    def __init__(self, labels: np.ndarray, classes: int) -> None:
        self.labels, self.member = labels, np.eye(classes)[labels]  # (N,), (N, K)
        self.draws = Resamples(len(labels), RESAMPLES, seed=0)
        self.counts = self.draws.sums(self.member)  # (R, K)

    def right(self, row: dict[str, Any], view: str) -> np.ndarray:
        """Which faces a run had right: (N,)."""
        return measures.unpack(row["final"][view]["right"], len(self.labels)).astype(float)

    def scores(self, right: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By metric: the value on the faces, and on every drawn set."""
        arms, classes = len(right), self.member.shape[1]
        hits = right[:, :, None] * self.member  # (A, N, K)
        drawn = self.draws.sums(hits.transpose(1, 0, 2).reshape(len(self.labels), -1))
        drawn = drawn.reshape(RESAMPLES, arms, classes)
        whole, counts = hits.sum(1), self.member.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            recalls = drawn / self.counts[:, None]  # a class nobody was drawn from is left out
        return {
            "accuracy": (whole.sum(1) / len(self.labels), drawn.sum(2) / len(self.labels)),
            "mean class accuracy": ((whole / counts).mean(1), np.nanmean(recalls, 2)),
        }


def calibration_error(table: list[list[float]]) -> float:
    """Mean distance of confidence and accuracy over the bins of a row, weighted by their faces."""
    count, confidence, right = np.array(table, dtype=float).T
    return float(np.abs(confidence - right).sum() / count.sum())


def judge(runs: Runs, contrasts: list[Contrast], faces: Faces, view: str = "upright") -> dict[str, Any]:
    """Numbers of every arm and contrast, and which contrasts are shown.

    Returns ``numbers``: ``arm | metric`` and ``contrast | metric`` over seeds, ``contrast | metric | faces``
    over faces (at the family's level); ``shown``: ``contrast | metric`` -> whether both leave out zero.
    """
    names = list(runs)
    seeds = len(next(iter(runs.values())))
    right = np.stack([[faces.right(row, view) for row in runs[name]] for name in names])  # (A, S, N)
    by_seed = [faces.scores(right[:, seed]) for seed in range(seeds)]
    numbers: dict[str, Interval] = {}
    shown: dict[str, bool] = {}
    per_seed = {m: np.stack([by_seed[s][m][0] for s in range(seeds)], 1) for m in METRICS}  # (A, S)
    per_seed["calibration error"] = np.array(
        [[calibration_error(row["final"][view]["bins"]) for row in runs[name]] for name in names]
    )
    for metric, values in per_seed.items():
        for name, some in zip(names, values, strict=True):
            numbers[f"{name} | {metric}"] = summarise(some)
        for contrast in contrasts:
            weights = np.array([contrast.weights.get(name, 0.0) for name in names])
            key = f"{contrast.name} | {metric}"
            numbers[key] = over_seeds = summarise(weights @ values)
            if metric not in METRICS:
                shown[key] = leaves_out_zero(over_seeds)
                continue
            drawn = np.mean([by_seed[s][metric][1] @ weights for s in range(seeds)], axis=0)
            tail = 0.05 / contrast.family / 2
            low, high = np.quantile(drawn, [tail, 1 - tail])
            over_faces = Interval(over_seeds.value, float(low), float(high))
            numbers[f"{key} | faces"] = over_faces
            shown[key] = leaves_out_zero(over_seeds) and leaves_out_zero(over_faces)
    return {"numbers": numbers, "shown": shown}


def leaves_out_zero(interval: Interval) -> bool:
    """Whether zero lies outside."""
    return interval.low > 0 or interval.high < 0
