r"""A difference between two arms over runs and faces: estimate, interval, equivalence, visible effect.

Each run of one arm has its partner in the other: same faces, same folds, same seed. With d_ir the difference
of face i in run r (correct 1, wrong 0, or a share where a face is predicted in several batches), the estimate
is the mean of all d_ir. Its variance is robust to two kinds of dependence, of the runs of one group of twins
and of the faces of one run (Cameron, Gelbach and Miller, 2011):

.. math::

    V = V_{groups} + V_{runs} - V_{intersection},
    \qquad
    V_{clusters} = \frac{1}{N^2} \sum_{clusters} \Big( \sum_{(i,r) \in cluster} (d_{ir} - \bar d) \Big)^2

The interval is Student's with as many degrees of freedom as runs less one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """An estimate with what is needed to judge it; all but ``df`` and ``p`` in the unit of the differences.

    Attributes:
        value: Mean difference.
        se: Its standard error.
        df: Degrees of freedom.
        low: Lower end of the 95 % interval.
        high: Its upper end.
        p: Two-sided p value against no difference.
        narrow: The 90 % interval, by which equivalence is judged.
        detectable: The effect that a design with this standard error would find four times of five.
        parts: Standard errors by groups, by runs, and of their intersection alone.
    """

    value: float
    se: float
    df: int
    low: float
    high: float
    p: float
    narrow: tuple[float, float]
    detectable: float
    parts: tuple[float, float, float]

    def equivalent(self, margin: float) -> bool:
        """Whether the 90 % interval lies within the margin: two one-sided tests at 5 %."""
        return -margin < self.narrow[0] and self.narrow[1] < margin


def cluster_difference(
    differences: np.ndarray, groups: np.ndarray, runs: np.ndarray, weights: np.ndarray | None = None
) -> Difference:
    """The contrast of two arms from one difference per face and run.

    Args:
        differences: d of each face in each run, (N,).
        groups: The group of twins of each of them, (N,).
        runs: The run of each of them, (N,).
        weights: Weights of the mean, (N,); equal by default.

    Raises:
        ValueError: With fewer than two runs, or arrays of different lengths.
    """
    if not len(differences) == len(groups) == len(runs):
        raise ValueError(
            f"{len(differences)} differences, {len(groups)} groups, {len(runs)} runs: not as many"
        )
    return numbered_difference(differences, Clusters.of(groups, runs), weights)


@dataclass(frozen=True)
class Clusters:
    """The group, the run and the pair of both of each difference, numbered from 0, (N,) each."""

    group: np.ndarray
    run: np.ndarray
    both: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, runs: np.ndarray) -> Clusters:
        """Number them."""
        group, run = (np.unique(codes, return_inverse=True)[1] for codes in (groups, runs))
        return cls(group, run, np.unique(group * (run.max() + 1) + run, return_inverse=True)[1])


def numbered_difference(
    differences: np.ndarray, clusters: Clusters, weights: np.ndarray | None = None
) -> Difference:
    """:func:`cluster_difference` for clusters that are numbered already.

    Raises:
        ValueError: With fewer than two runs.
    """
    weights = np.ones(len(differences)) if weights is None else np.asarray(weights, dtype=float)
    weights = weights / weights.sum()
    value = float(weights @ differences)
    rest = weights * (differences - value)
    count = int(clusters.run.max()) + 1
    if count < 2:
        raise ValueError("a contrast needs two runs at least")
    by_group, by_run, by_both = (
        float((np.bincount(codes, rest) ** 2).sum())
        for codes in (clusters.group, clusters.run, clusters.both)
    )
    by_run *= count / (count - 1)
    variance = max(by_group + by_run - by_both, by_group, by_run)
    return difference(value, float(np.sqrt(variance)), count - 1, tuple(np.sqrt([by_group, by_run, by_both])))


def difference(value: float, se: float, df: int, parts: tuple[float, ...] = (np.nan,) * 3) -> Difference:
    """A contrast from its estimate, standard error and degrees of freedom."""
    t = stats.t(df)
    half, narrow = t.ppf(0.975) * se, t.ppf(0.95) * se
    p = float(2 * t.sf(abs(value) / se)) if se > 0 else float(value == 0)
    detectable = float((t.ppf(0.975) + t.ppf(0.8)) * se)
    return Difference(
        value, se, df, value - half, value + half, p, (value - narrow, value + narrow), detectable, parts
    )


def holm(p: dict[str, float]) -> dict[str, float]:
    """p values of a family after Holm's step-down correction."""
    found, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        found[name] = largest
    return found
