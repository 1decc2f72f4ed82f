r"""How sure a number is: the bootstrap, Wilson's interval of a share, Student's interval over seeds.

Every score of this book depends on the faces through sums over them: of right predictions, of the cells of
the confusion matrix, of confidence minus rightness in a bin. Drawing N faces with replacement gives each face
a count, and the sums of the drawn set are these counts times the faces' features. One matrix product thus
gives the sums of all resamples (:class:`Resamples`), and all scores, differences and means are computed from
them. The interval is always the percentile interval,

.. math:: [\, q_{0.025}(s^*_1 \dots s^*_R),\ q_{0.975}(s^*_1 \dots s^*_R)\,].

scipy's bootstrap has no place here because it computes a statistic anew for every resample; Wilson's and
Student's intervals and McNemar's test are scipy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

_CELLS = 8_000_000  # draws held at once: 64 MB


@dataclass(frozen=True)
class Interval:
    """A measured number with a confidence interval; its ends are NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def percent(self) -> str:
        """A share as a reader wants it: ``82.1 % (80.7-83.4)``, ``-1.2 % (-2.0 to 0.4)``."""
        if math.isnan(self.low):
            return f"{100 * self.value:.1f} %"
        to = " to " if self.low < 0 else "-"
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}{to}{100 * self.high:.1f})"

    def points(self) -> str:
        """A difference of shares in percentage points: ``-1.2 points (-2.0 to -0.4)``."""
        return f"{100 * self.value:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"

    def verdict(self) -> str:
        """What the interval of a difference shows: "higher", "lower" or "not distinguishable from zero"."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "not distinguishable from zero"


@dataclass(frozen=True)
class Resamples:
    r"""``count`` sets of N faces, each drawn with replacement from the N that there are.

    .. math:: S^*_r = \sum_{i=1}^{N} w_{ri} f_i, \qquad w_r \sim \mathrm{Multinomial}(N, 1/N)

    The same three numbers give the same sets, so two networks that are measured on the same faces are
    measured on the same resamples, and their differences are paired. Source: Efron 1979. Chapter 7.

    Attributes:
        faces: The number N.
        count: Resamples.
        seed: Of the draws.
    """

    faces: int
    count: int = 1000
    seed: int = 0

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """The faces that are drawn, some resamples at a time: (n, N)."""
        draw = np.random.default_rng(self.seed)
        at_once = max(1, _CELLS // self.faces)
        for start in range(0, self.count, at_once):
            yield draw.integers(0, self.faces, (min(at_once, self.count - start), self.faces))

    def weights(self) -> Iterator[NDArray[np.float64]]:
        """How often each face was drawn, some resamples at a time: (n, N) whose rows sum to N."""
        for rows in self.rows():
            shifted = rows + np.arange(len(rows))[:, None] * self.faces
            counts = np.bincount(shifted.ravel(), minlength=rows.size)
            yield counts.reshape(rows.shape).astype(np.float64)

    def sums(self, features: ArrayLike) -> NDArray[np.float64]:
        """Features (N, F) summed over each resample: (count, F)."""
        features = np.asarray(features, dtype=np.float64)
        return np.concatenate([weights @ features for weights in self.weights()])


def percentiles(values: ArrayLike) -> tuple[float, float]:
    """The ends of the middle 95 % of the numbers (R,) that are not NaN; NaN where all are."""
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (math.nan, math.nan)
    return float(low), float(high)


def mean_interval(values: ArrayLike | Tensor, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """The mean of one number per face, (N,), with its bootstrap interval. Chapters 7 and 8."""
    values = np.asarray(values, dtype=np.float64)
    drawn = Resamples(len(values), resamples, seed).sums(values[:, None])[:, 0] / len(values)
    return Interval(float(values.mean()), *percentiles(drawn))


def bootstrap_interval(
    statistic: Callable[[NDArray, NDArray], float],
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of any statistic, which is computed anew for each resample.

    :func:`ferlib.evaluation.scores` and :func:`mean_interval` do the same by one matrix product. Chapter 7.

    Args:
        statistic: Takes labels (N,) and predictions (N,) and returns a number.
        labels, predictions: Arrays (N,).
        resamples, seed: Of the bootstrap.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    draws = (row for rows in Resamples(len(labels), resamples, seed).rows() for row in rows)
    values = [statistic(labels[row], predictions[row]) for row in draws]
    return Interval(float(statistic(labels, predictions)), *percentiles(values))


def wilson_interval(right: int, total: int) -> Interval:
    r"""Wilson's score interval of a share, without any resampling.

    .. math:: \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}, \qquad p = \mathrm{right}/n

    with z = 1.96. It stays inside [0, 1] and is sensible where the bootstrap is not: for few faces,
    and for shares of 0 or 1, which every resample repeats. Source: Wilson 1927. Chapter 7.

    Raises:
        ValueError: Unless 0 <= right <= total and total > 0.
    """
    found = stats.binomtest(right, total).proportion_ci(method="wilson")
    low, high = found.low if right else 0.0, found.high if right < total else 1.0  # without rounding errors
    return Interval(right / total, float(low), float(high))


def accuracy_interval(labels: ArrayLike, predictions: ArrayLike) -> Interval:
    """Accuracy of predictions (N,) with Wilson's interval. Chapter 5."""
    right = np.asarray(labels) == np.asarray(predictions)
    return wilson_interval(int(right.sum()), len(right))


def summarize(values: Sequence[float]) -> Interval:
    r"""Mean over runs of different seeds, with Student's t interval of that mean.

    .. math:: \bar s \pm t_{0.975,\, n-1} \, \frac{\sigma}{\sqrt n}

    with the standard deviation :math:`\sigma` of the n values (divisor n - 1). The interval covers how far
    another seed may lie, not how far another test set may. Source: Student 1908. Chapters 2, 3 and 7.

    Returns:
        The interval; its ends are NaN for a single value.

    Raises:
        ValueError: There is no value.
    """
    if not len(values):
        raise ValueError("there are no values: expected one number per run, at least one")
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return Interval(mean)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5)
    return Interval(mean, mean - half, mean + half)


def mcnemar(only_first: int, only_second: int) -> float:
    r"""Exact p that two equally good networks differ on counts as unequal as these, or more so.

    .. math:: p = P\bigl(|X - \tfrac n2| \ge |b - \tfrac n2|\bigr), \qquad X \sim \mathrm{Bin}(n, \tfrac12),
        \ n = b + c

    b and c count the faces that only one of the two has right; without any such face p is 1.
    Source: McNemar 1947. Chapter 7.

    Raises:
        ValueError: A count is below 0.
    """
    total = only_first + only_second
    return float(stats.binomtest(only_first, total, 0.5).pvalue) if total else 1.0
