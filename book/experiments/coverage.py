"""How often the planned intervals hold the truth, in simulations of each design; the worst case is reported.

The difference of face i in run r is simulated as a draw from {-1, 0, 1} with the mean theta + g_i + u_r: g of
a face (shared by its twins), u of a run. The two arms disagree on a share of faces, which is the variance of
the draws.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.stats import binomtest
from tqdm.auto import tqdm

from book.experiments.contrasts import Clusters, numbered_difference
from book.experiments.faces import grouped_folds
from ferlib.evaluation import ResultRecord
from ferlib.evaluation.records import Number

RUN_SD = (0.0, 0.0025, 0.005)
DISAGREEMENT = (0.03, 0.13)
FACE_SD = (0.0, 0.1)


@dataclass(frozen=True)
class Design:
    """Faces and runs of a contrast; with ``folds`` 1 every run is measured on all faces."""

    name: str
    faces: int
    folds: int
    repeats: int
    pretrainings: int = 0
    pretraining_sd: float = 0.0


DESIGNS = (
    Design("batch attention", 28_000, 5, 3),
    Design("losses", 25_000, 5, 4),
    Design("downsizing", 6_000, 1, 9, pretrainings=3),
    Design("downsizing, pretrainings differ", 6_000, 1, 9, pretrainings=3, pretraining_sd=0.003),
)


def layout(
    design: Design, twins: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces, groups and runs of all differences; a share of faces lies in groups of two."""
    groups = np.arange(design.faces)
    second = rng.choice(design.faces // 2, int(design.faces * twins / 2), replace=False) * 2 + 1
    groups[second] = groups[second - 1]
    if design.folds == 1:
        face = np.tile(np.arange(design.faces), design.repeats)
        return face, groups[face], np.repeat(np.arange(design.repeats), design.faces)
    labels = np.zeros(design.faces, dtype=int)
    folds = [grouped_folds(groups, labels, design.folds, seed) for seed in range(design.repeats)]
    face = np.tile(np.arange(design.faces), design.repeats)
    return face, groups[face], np.concatenate([f + design.folds * r for r, f in enumerate(folds)])


def simulate(
    design: Design, run_sd: float, disagree: float, face_sd: float, count: int, seed: int = 0
) -> dict:
    """The share of ``count`` simulated 95 % intervals that hold the mean difference of zero."""
    rng = np.random.default_rng(seed)
    face, group, run = layout(design, 0.06, rng)
    clusters = Clusters.of(group, run)
    runs, held = run.max() + 1, 0
    widths = []
    for _ in range(count):
        mean = (face_sd * rng.standard_normal(group.max() + 1))[group]
        mean += (run_sd * rng.standard_normal(runs))[run]
        if design.pretrainings:
            of_run = np.arange(runs) // (runs // design.pretrainings)
            mean += (design.pretraining_sd * rng.standard_normal(design.pretrainings))[of_run][run]
        mean = np.clip(mean, -disagree, disagree)
        u = rng.random(len(face))
        drawn = np.where(u < (disagree + mean) / 2, 1.0, np.where(u > 1 - (disagree - mean) / 2, -1.0, 0.0))
        found = numbered_difference(drawn, clusters)
        held += found.low <= 0 <= found.high
        widths.append(found.high - found.low)
    return {"coverage": held / count, "half width": float(np.mean(widths)) / 2}


def record(count: int) -> ResultRecord:
    """The worst coverage of each design, and all settings."""
    found = table(count)
    numbers = []
    for design in DESIGNS:
        worst = min(row["coverage"] for row in found if row["name"] == design.name)
        low, high = binomtest(round(worst * count), count).proportion_ci(method="wilson")
        numbers.append(Number(worst, low, high, metric="worst coverage", arm=design.name))
    return ResultRecord(
        name="experiments_coverage",
        what="How often the planned 95 % intervals hold the truth in simulations: worst settings",
        numbers=numbers,
        extra={"simulations of each setting": count, "settings": found},
        command=f"python -m book.experiments coverage --count {count}",
    )


def table(count: int) -> list[dict[str, Any]]:
    """Every design in every setting."""
    settings = list(product(DESIGNS, RUN_SD, DISAGREEMENT, FACE_SD))
    return [
        {**asdict(d), "run sd": run, "disagreement": v, "face sd": g, **simulate(d, run, v, g, count)}
        for d, run, v, g in tqdm(settings, desc="coverage")
    ]
