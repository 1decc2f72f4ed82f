"""Two networks on the same faces: who is better, by how much, and may it be chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from ferlib.evaluation.intervals import Interval, percentiles
from ferlib.evaluation.scoring import draw_scores, point_scores


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same N faces.

    Attributes
    ----------
    metric: the score that is compared, as :func:`ferlib.evaluation.scores` names it.
    first, second: its two values.
    difference: first minus second, with the paired bootstrap's interval.
    p_value: McNemar's exact p of the two counts below, whatever the metric.
    only_first, only_second: faces that only one of the two has right.
    faces: N.

    Shape: see the attributes. Chapter 7.
    """

    metric: str
    first: float
    second: float
    difference: Interval
    p_value: float
    only_first: int
    only_second: int
    faces: int

    def verdict(self) -> str:
        """``"higher"``, ``"lower"`` (the first than the second) or ``"no difference shown"``, by the
        interval. Shape: returns a string.
        """
        if self.difference.low > 0:
            return "higher"
        return "lower" if self.difference.high < 0 else "no difference shown"

    def __str__(self) -> str:
        return (
            f"{self.metric}: {100 * self.first:.1f} % against {100 * self.second:.1f} %, difference "
            f"{self.difference.percent()}; of {self.faces} faces {self.only_first} are right only with the "
            f"first, {self.only_second} only with the second, McNemar p = {self.p_value:.2g}"
        )


def mcnemar(only_first: int, only_second: int) -> float:
    r"""Exact p that two equally good networks differ on so unequal counts, or on more unequal ones.

    .. math:: p = P\bigl(|X - \tfrac n2| \ge |b - \tfrac n2|\bigr), \qquad X \sim \mathrm{Bin}(n, \tfrac12),
        \ n = b + c

    b and c count the faces that only one of the two has right; those that both have right or wrong say
    nothing about which is better. Without any such face p is 1.

    Shape: two counts -> p in (0, 1]. Raises ``ValueError`` for a count below 0. McNemar 1947. Chapter 7.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts are {only_first} and {only_second}: expected numbers of at least 0")
    total = only_first + only_second
    return float(stats.binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def compare(
    labels: ArrayLike | Tensor,
    first: ArrayLike | Tensor,
    second: ArrayLike | Tensor,
    classes: Sequence[str],
    *,
    metric: str = "accuracy",
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    r"""How much better the first network's answers are than the second's, on the same faces.

    .. math:: [\,q_{0.025}(d^*_r),\ q_{0.975}(d^*_r)\,], \qquad d^*_r = s(A^*_r) - s(B^*_r)

    with both scored on the same resample r of faces. What is hard for both cancels, so this interval is
    narrower than two separate ones allow.

    Shape: labels (N,), two times logits (N, K), K class names -> ``Comparison``. Raises ``ValueError`` for
    shapes that differ and for a metric that :func:`ferlib.evaluation.scores` does not have. Chapter 7.
    """
    options = {"bins": bins, "resamples": resamples, "seed": seed}
    points = [point_scores(labels, logits, classes, bins=bins) for logits in (first, second)]
    if metric not in points[0]:
        raise ValueError(f"metric is {metric!r}, expected one of: {', '.join(points[0])}")
    drawn = [draw_scores(labels, logits, classes, **options)[metric] for logits in (first, second)]
    values = [point[metric] for point in points]
    difference = Interval(values[0] - values[1], *percentiles(drawn[0] - drawn[1], confidence))
    only = discordant(labels, first, second)
    return Comparison(metric, *values, difference, mcnemar(*only), *only, len(labels))


def discordant(
    labels: ArrayLike | Tensor, first: ArrayLike | Tensor, second: ArrayLike | Tensor
) -> tuple[int, int]:
    """How many faces only the first network has right, and how many only the second.

    Shape: labels (N,), two times logits (N, K) -> two counts. Chapter 7.
    """
    one, two = (np.asarray(logits).argmax(1) == np.asarray(labels) for logits in (first, second))
    return int((one & ~two).sum()), int((two & ~one).sum())
