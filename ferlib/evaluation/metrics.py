"""Numbers that judge a classifier, each with an interval that says how sure they are.

Counting is scikit-learn's; what is ours is the interval. Chapter 7 builds the bootstrap in the open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk


@dataclass(frozen=True)
class Interval:
    """A measured number with a confidence interval.

    Shape: three numbers, ``value`` and ``low <= high``. Chapter 7.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def percent(self) -> str:
        """As a reader wants it: ``82.1 % (80.7-83.4)``. Shape: returns a string."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}-{100 * self.high:.1f})"


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    r"""Share of faces that are labelled right, :math:`\frac1N \sum_i [\hat y_i = y_i]`, in [0, 1].

    Shape: (N,) and (N,) -> scalar. Raises ``ValueError`` for lengths that differ or are 0. Chapter 7.
    """
    labels, predictions = _pair(labels, predictions)
    return float(sk.accuracy_score(labels, predictions))


def class_recall(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.float64]:
    """Share of each class's faces that are labelled right; NaN for a class without faces.

    Shape: (N,), (N,) -> (K,) in [0, 1]. Chapter 7.
    """
    matrix = confusion_matrix(labels, predictions, classes)
    counts = matrix.sum(1)
    return np.where(counts > 0, matrix.diagonal() / np.maximum(counts, 1), np.nan)


def mean_class_accuracy(labels: ArrayLike, predictions: ArrayLike, classes: int) -> float:
    """Mean of the recalls of the classes that occur: every expression counts the same, however rare.

    Shape: (N,), (N,) -> scalar in [0, 1]. Chapter 7.
    """
    return float(np.nanmean(class_recall(labels, predictions, classes)))


def macro_f1(labels: ArrayLike, predictions: ArrayLike, classes: int) -> float:
    """Mean over the classes that occur of the harmonic mean of precision and recall.

    Shape: (N,), (N,) -> scalar in [0, 1]. Chapter 7.
    """
    labels, predictions = _pair(labels, predictions)
    present = np.unique(labels)
    return float(sk.f1_score(labels, predictions, labels=present, average="macro", zero_division=0))


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How often faces of class r are given class c: rows are labels, columns predictions.

    Shape: (N,), (N,) -> (K, K) counts. Raises ``ValueError`` for a class outside 0 ... K-1. Chapter 7.
    """
    labels, predictions = _pair(labels, predictions)
    for name, values in (("label", labels), ("prediction", predictions)):
        if values.min() < 0 or values.max() >= classes:
            raise ValueError(f"a {name} is {values.max()}, expected 0 ... {classes - 1}: {classes} classes")
    return sk.confusion_matrix(labels, predictions, labels=np.arange(classes))


def wilson_interval(right: int, total: int, *, confidence: float = 0.95) -> Interval:
    r"""Wilson's score interval of a share, without any resampling.

    .. math:: \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}, \qquad p = \mathrm{right}/n

    with z = 1.96 for 95 %. It stays inside [0, 1] and is sensible for few faces and shares near 0 or 1.

    Shape: two counts -> ``Interval``. Raises ``ValueError`` unless 0 <= right <= total and total > 0.
    Wilson 1927. Chapter 7.
    """
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} right of {total}: expected 0 <= right <= total and at least one face")
    z = NormalDist().inv_cdf(0.5 + _level(confidence) / 2)
    p, spread = right / total, z * z / total
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / total + spread / (4 * total)) / (1 + spread)
    low = 0.0 if right == 0 else centre - half  # exactly, not but for rounding
    return Interval(p, low, 1.0 if right == total else centre + half)


def bootstrap_interval(
    statistic: Callable[[NDArray, NDArray], float],
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    r"""Percentile bootstrap: measure again on many data sets of N faces drawn with replacement from the N.

    .. math:: [\, q_{(1-c)/2}(s^*_1 \dots s^*_R),\ q_{(1+c)/2}(s^*_1 \dots s^*_R)\,]

    Shape: ``statistic`` takes (N,) and (N,) and returns a number; (N,), (N,) -> ``Interval``.
    Efron 1979. Chapter 7.
    """
    labels, predictions = _pair(labels, predictions)
    tail = (1 - _level(confidence)) / 2
    draw = np.random.default_rng(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        rows = draw.integers(0, len(labels), len(labels))
        values[i] = statistic(labels[rows], predictions[rows])
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(statistic(labels, predictions)), float(low), float(high))


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
    labels, predictions = _pair(labels, predictions)
    right, total = int((labels == predictions).sum()), len(labels)
    if method == "wilson":
        return wilson_interval(right, total, confidence=confidence)
    if method != "bootstrap":
        raise ValueError(f"method is {method!r}, expected 'wilson' or 'bootstrap'")
    tail = (1 - _level(confidence)) / 2
    shares = np.random.default_rng(seed).binomial(total, right / total, resamples) / total
    low, high = np.quantile(shares, [tail, 1 - tail])
    return Interval(right / total, float(low), float(high))


def _level(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share between 0 and 1 such as 0.95")
    return confidence


def _pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[NDArray, NDArray]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or len(labels) == 0:
        raise ValueError(
            f"labels have shape {labels.shape} and predictions {predictions.shape}: expected one label and "
            "one predicted class per face, and at least one face"
        )
    return labels, predictions
