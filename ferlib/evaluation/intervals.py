"""How sure a number is: Wilson's interval of a share, the bootstrap, Student's interval over seeds.

Every score of this book depends on the faces through sums over them: of right answers, of the cells of the
confusion matrix, of confidence minus rightness in a bin. A set of N faces drawn with replacement is a list of
N counts, one per face, and its sums are those counts times the faces' features. So one matrix product gives
the sums of all resamples at once (:class:`Resamples`), and every score is computed from the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

_CELLS = 8_000_000  # counts held at once: 64 MB


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

    The same three numbers give the same sets, so that two models judged on the same faces are judged on the
    same resamples: their differences are then paired.

    Shape: ``sums`` takes features f (N, F) and gives (count, F). Raises ``ValueError`` for N or ``count``
    below 1. Efron 1979. Chapter 7.
    """

    faces: int
    count: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.faces < 1 or self.count < 1:
            raise ValueError(f"{self.count} resamples of {self.faces} faces: expected at least one of each")

    def weights(self) -> Iterator[NDArray[np.float64]]:
        """How often each face was drawn, some resamples at a time: (n, N) whose rows sum to N."""
        draw = np.random.default_rng(self.seed)
        at_once = max(1, _CELLS // self.faces)
        for start in range(0, self.count, at_once):
            rows = min(at_once, self.count - start)
            drawn = draw.integers(0, self.faces, (rows, self.faces))
            drawn += np.arange(rows)[:, None] * self.faces
            counts = np.bincount(drawn.ravel(), minlength=rows * self.faces)
            yield counts.reshape(rows, self.faces).astype(np.float64)

    def sums(self, features: ArrayLike) -> NDArray[np.float64]:
        """Features (N, F) summed over each resample: (count, F)."""
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or len(features) != self.faces:
            raise ValueError(f"features have shape {features.shape}, expected ({self.faces}, F)")
        return np.concatenate([weights @ features for weights in self.weights()])


def percentiles(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """The two ends between which the middle ``confidence`` of the numbers lies; NaNs are left out.

    Shape: (R,) -> two numbers, NaN where all are NaN. Chapter 7.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    tail = (1 - level(confidence)) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_interval(
    statistic: Callable[[NDArray, NDArray], float],
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    r"""Percentile bootstrap of any statistic: measure again on many sets of N faces drawn from the N.

    .. math:: [\, q_{(1-c)/2}(s^*_1 \dots s^*_R),\ q_{(1+c)/2}(s^*_1 \dots s^*_R)\,]

    The scores of :func:`ferlib.evaluation.scores` have a faster way, by :class:`Resamples`.

    Shape: ``statistic`` takes (N,) and (N,) and returns a number; (N,), (N,) -> ``Interval``.
    Efron 1979. Chapter 7.
    """
    labels, predictions = pair(labels, predictions)
    tail = (1 - level(confidence)) / 2
    draw = np.random.default_rng(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        rows = draw.integers(0, len(labels), len(labels))
        values[i] = statistic(labels[rows], predictions[rows])
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(statistic(labels, predictions)), float(low), float(high))


def wilson_interval(right: int, total: int, *, confidence: float = 0.95) -> Interval:
    r"""Wilson's score interval of a share, without any resampling.

    .. math:: \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}, \qquad p = \mathrm{right}/n

    with z = 1.96 for 95 %. It stays inside [0, 1] and is sensible where the bootstrap is not: for few faces
    and shares at 0 or 1, of which every resample says the same.

    Shape: two counts -> ``Interval``. Raises ``ValueError`` unless 0 <= right <= total and total > 0.
    Wilson 1927. Chapter 7.
    """
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} right of {total}: expected 0 <= right <= total and at least one face")
    found = stats.binomtest(right, total).proportion_ci(level(confidence), method="wilson")
    low = 0.0 if right == 0 else float(found.low)  # exactly, not but for rounding
    return Interval(right / total, low, 1.0 if right == total else float(found.high))


def accuracy_interval(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    method: str = "wilson",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Accuracy with its interval, by ``"wilson"`` or ``"bootstrap"``.

    A resampled accuracy is a binomial number divided by N, so the bootstrap draws those directly.

    Shape: (N,), (N,) -> ``Interval`` in [0, 1]. Raises ``ValueError`` for another method. Chapter 7.
    """
    labels, predictions = pair(labels, predictions)
    right, total = int((labels == predictions).sum()), len(labels)
    if method == "wilson":
        return wilson_interval(right, total, confidence=confidence)
    if method != "bootstrap":
        raise ValueError(f"method is {method!r}, expected 'wilson' or 'bootstrap'")
    shares = np.random.default_rng(seed).binomial(total, right / total, resamples) / total
    return Interval(right / total, *percentiles(shares, confidence))


def summarise(values: Sequence[float], confidence: float = 0.95) -> Interval:
    r"""Mean over runs of different seeds, with Student's t interval of that mean.

    .. math:: \bar s \pm t_{(1+c)/2,\, n-1} \, \frac{\sigma}{\sqrt n}

    with the standard deviation :math:`\sigma` of the n values (divisor n - 1). It speaks of runs, not of
    faces: how far another seed may lie is in it, how far another test set may is not.

    Shape: n numbers -> ``Interval``; of one number the ends are NaN. Raises ``ValueError`` for none.
    Student 1908. Chapters 2, 3 and 7.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"values have shape {numbers.shape}: expected one number per run, at least one")
    mean, n = float(numbers.mean()), len(numbers)
    if n == 1:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + level(confidence) / 2, n - 1) * numbers.std(ddof=1) / n**0.5)
    return Interval(mean, mean - half, mean + half)


def level(confidence: float) -> float:
    """The confidence itself, when it is one. Shape: a number. Raises ``ValueError`` outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share between 0 and 1 such as 0.95")
    return confidence


def pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[NDArray, NDArray]:
    """Labels and predicted classes as arrays (N,), (N,). Raises ``ValueError`` where they do not fit."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or len(labels) == 0:
        raise ValueError(
            f"labels have shape {labels.shape} and predictions {predictions.shape}: expected one label and "
            "one predicted class per face, and at least one face"
        )
    return labels, predictions
