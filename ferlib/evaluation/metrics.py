"""Scores of a classifier with their intervals, calibration, and the comparison of two networks. Chapter 7.

Counting is scikit-learn's and the calibration error torchmetrics'; the temperature is fitted here, by ten
lines that chapter 7 explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk
from sklearn.model_selection import train_test_split
from torch import Tensor

from ferlib.errors import choose
from ferlib.evaluation.intervals import Interval, Resamples, mcnemar, percentiles

Values = ArrayLike | Tensor
ECE = "expected calibration error"
BINS = 15


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    r"""Share of predictions (N,) that are right, :math:`\frac1N \sum_i [\hat y_i = y_i]`."""
    return float(sk.accuracy_score(labels, predictions))


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How often faces of class r are given class c: (K, K) counts, rows are labels, columns predictions.

    Raises:
        ValueError: A class is outside 0 ... K-1, or the two lengths differ.
    """
    for name, values in (("label", labels), ("prediction", predictions)):
        if strange := set(np.unique(values).tolist()) - set(range(classes)):
            raise ValueError(f"a {name} is {min(strange)}, expected 0 ... {classes - 1}: {classes} classes")
    return sk.confusion_matrix(labels, predictions, labels=np.arange(classes))


def recalls(counts: NDArray) -> NDArray[np.float64]:
    """Each class's recall, (..., K), from confusion matrices (..., K, K); NaN for a class without faces."""
    right, faces = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1)
    return np.divide(right, faces, out=np.full(right.shape, np.nan), where=faces > 0)


def _from_counts(counts: NDArray, classes: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    r"""The scores of confusion matrices (..., K, K), each of shape (...).

    .. math:: F_1 = \frac1{|P|} \sum_{k \in P} \frac{2\, c_{kk}}{\sum_j c_{kj} + \sum_j c_{jk}}

    averages over the classes P that have faces.
    """
    right, faces = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1)
    both = faces + counts.sum(-2)
    f1 = np.divide(2 * right, both, out=np.zeros(right.shape), where=both > 0)
    recall = recalls(counts)
    found = {
        "accuracy": right.sum(-1) / faces.sum(-1),
        "mean class accuracy": np.nanmean(recall, axis=-1),
        "macro F1": (f1 * (faces > 0)).sum(-1) / (faces > 0).sum(-1),
    }
    return found | {f"recall {name}": recall[..., i] for i, name in enumerate(classes)}


class Scores(NamedTuple):
    """Scores of one network on N faces: their values, and those of R resamples, (R,) each."""

    points: dict[str, float]
    drawn: dict[str, NDArray[np.float64]]

    def interval(self, metric: str) -> Interval:
        """One score with its bootstrap interval."""
        return Interval(self.points[metric], *percentiles(self.drawn[metric]))

    def minus(self, other: Scores, metric: str) -> Interval:
        """The difference to another network or other pictures of the same faces, paired by resample."""
        ends = percentiles(self.drawn[metric] - other.drawn[metric])
        return Interval(self.points[metric] - other.points[metric], *ends)


def resampled_scores(
    labels: Values,
    logits: Values,
    classes: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    r"""Accuracy, mean class accuracy, macro F1, calibration error and each class's recall, resampled.

    In a resample without a face of a class its recall is NaN and the averages are over the other classes; a
    class that has no face at all has no recall. In a resample r the gap of a bin, confidence minus accuracy,
    keeps the sign that it has in the whole sample,

    .. math:: \mathrm{ECE}^*_r = \sum_b \frac{n^*_{rb}}{N}\, \mathrm{sign}(\mathrm{conf}_b - \mathrm{acc}_b)
        \, (\mathrm{conf}^*_{rb} - \mathrm{acc}^*_{rb}),

    because absolute values would turn the noise of resampling into error a second time.

    Args:
        labels: (N,).
        logits: (N, K).
        classes: K names.
        resamples, seed: Of the bootstrap; the same N and the same two give the same resamples.

    Raises:
        ValueError: The shapes do not fit.
    """
    values, truth = _checked(labels, logits, len(classes))
    guess, k = values.argmax(1), len(classes)
    matrix = confusion_matrix(truth, guess, k)
    cells = (truth * k + guess)[:, None] == np.arange(k * k)
    gaps = _gaps(truth, values)
    drawn = Resamples(len(truth), resamples, seed).sums(np.hstack([cells, gaps * np.sign(gaps.sum(0))]))
    points = _from_counts(matrix, classes) | {ECE: calibration_error(truth, values)}
    found = _from_counts(drawn[:, : k * k].reshape(-1, k, k), classes)
    found[ECE] = drawn[:, k * k :].sum(1) / len(truth)
    return Scores({name: float(value) for name, value in points.items() if not np.isnan(value)}, found)


def scores(
    labels: Values,
    logits: Values,
    classes: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """The scores of :func:`resampled_scores` with their bootstrap intervals, by name.

    The interval of the calibration error reaches down to 0 where a perfectly calibrated network would show as
    large an error by chance once in forty: the noise of the bins' gaps, which the resamples tell, adds up to
    an error of its own.
    """
    found = resampled_scores(labels, logits, classes, resamples=resamples, seed=seed)
    numbers = {name: found.interval(name) for name in found.points}
    gaps, error = _gaps(labels, logits), numbers[ECE]
    noise = np.abs(Resamples(len(gaps), resamples, seed).sums(gaps) - gaps.sum(0)).sum(1) / len(gaps)
    by_chance = error.value <= np.quantile(noise, 0.975)
    return numbers | {ECE: replace(error, low=0.0 if by_chance else max(0.0, error.low))}


@dataclass(frozen=True)
class Bin:
    """The faces whose confidence lies in [low, high): how many, how confident on average, how often right.

    ``confidence`` and ``accuracy`` are None where the bin is empty.
    """

    low: float
    high: float
    faces: int
    confidence: float | None
    accuracy: Interval | None


def _binned(labels: Values, logits: Values) -> tuple[NDArray, NDArray, NDArray]:
    """Confidence, whether right, and in which of the bins of equal width: three times (N,)."""
    values, truth = _checked(labels, logits)
    confidence, guess = torch.from_numpy(values).softmax(1).float().max(1)
    edges = torch.linspace(0, 1, BINS + 1)
    which = (torch.bucketize(confidence, edges, right=True) - 1).clamp_max(BINS - 1)  # 1.0 is in the last
    return confidence.double().numpy(), guess.numpy() == truth, which.numpy()


def _gaps(labels: Values, logits: Values) -> NDArray[np.float64]:
    """Confidence minus rightness of each face, in the column of its bin: (N, 15)."""
    sure, right, which = _binned(labels, logits)
    return (sure - right)[:, None] * (which[:, None] == np.arange(BINS))


def calibration_error(labels: Values, logits: Values) -> float:
    r"""Expected calibration error of logits (N, K): the distance of confidence and accuracy over 15 bins.

    .. math:: \sum_b \frac{n_b}{N} \, \bigl| \mathrm{acc}_b - \mathrm{conf}_b \bigr|

    It is biased upwards: even a perfectly calibrated network shows some, the more the fewer faces there are.
    Source: Naeini et al. 2015; Guo et al. 2017, equation 3. Chapter 7.

    Raises:
        ValueError: The shapes do not fit.
    """
    # imported where it is used: it takes as long to load as torch itself
    from torchmetrics.functional.classification import multiclass_calibration_error

    values, truth = map(torch.from_numpy, _checked(labels, logits))
    below_one = values.softmax(1).float().clamp_max(1 - 2**-24)  # torchmetrics gives 1.0 a bin of its own
    return float(multiclass_calibration_error(below_one, truth, values.shape[1], n_bins=BINS))


def reliability(
    labels: Values,
    logits: Values,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Bin]:
    """What a reliability diagram shows: the accuracy in 15 bins of confidence, with bootstrap intervals.

    ``book.figures.reliability`` draws it. Source: Niculescu-Mizil and Caruana 2005. Chapter 7.

    Args:
        labels: (N,).
        logits: (N, K).
        resamples, seed: Of the bootstrap.
    """
    sure, right, which = _binned(labels, logits)
    inside = which[:, None] == np.arange(BINS)
    drawn = Resamples(len(sure), resamples, seed).sums(np.hstack([inside, inside & right[:, None]]))
    faces, hits = drawn[:, :BINS], drawn[:, BINS:]
    shares = np.divide(hits, faces, out=np.full(hits.shape, np.nan), where=faces > 0)
    edges = np.linspace(0, 1, BINS + 1)
    found = []
    for b, here in enumerate(inside.T):
        mean = accuracy = None
        if here.any():
            mean = float(sure[here].mean())
            accuracy = Interval(float(right[here].mean()), *percentiles(shares[:, b]))
        found.append(Bin(float(edges[b]), float(edges[b + 1]), int(here.sum()), mean, accuracy))
    return found


def fit_temperature(logits: Values, labels: Values) -> float:
    r"""The temperature T > 0 at which softmax(z / T) gives the labels the largest likelihood.

    .. math:: T = \arg\min_T -\frac1N \sum_i \log \mathrm{softmax}(z_i / T)_{y_i}

    L-BFGS on log T. Dividing by T changes no prediction, only its confidence. Fit it on other faces than it
    is measured on: :func:`split_faces`. Source: Guo et al. 2017, section 4.2. Chapter 7.

    Args:
        logits: (N, K).
        labels: (N,).

    Returns:
        The temperature, from 0.01 to 100 where the likelihood has no maximum.
    """
    values, truth = map(torch.from_numpy, _checked(labels, logits))
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = F.cross_entropy(values / log_t.clamp(-4.6, 4.6).exp(), truth)
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(closure)
    return float(log_t.detach().clamp(-4.6, 4.6).exp())


def split_faces(labels: Values, share: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows in two parts, each with its share of every class: one to fit a temperature on, one to measure it.

    Args:
        labels: (N,).
        share: Of the first part, between 0 and 1.
        seed: Of the draw.

    Returns:
        The rows of both parts, int64, ascending.
    """
    how = {"train_size": share, "stratify": np.asarray(labels), "random_state": seed}
    return tuple(torch.from_numpy(np.sort(part)) for part in train_test_split(np.arange(len(labels)), **how))


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same N faces.

    Attributes:
        metric: The score that is compared, as :func:`scores` names it.
        first, second: Its two values.
        difference: First minus second, with the paired bootstrap's interval.
        p_value: McNemar's exact p of the two counts below, whatever the metric.
        only_first, only_second: Faces that only one of the two has right.
    """

    metric: str
    first: float
    second: float
    difference: Interval
    p_value: float
    only_first: int
    only_second: int


def compare(
    labels: Values,
    first: Values,
    second: Values,
    classes: Sequence[str],
    *,
    metric: str = "accuracy",
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    r"""How much better the first network's predictions are than the second's, on the same faces.

    .. math:: [\,q_{0.025}(d^*_r),\ q_{0.975}(d^*_r)\,], \qquad d^*_r = s(A^*_r) - s(B^*_r)

    with both scored on the same resample r of faces. What is hard for both cancels, so this interval is
    narrower than two separate ones allow. Chapter 7.

    Args:
        labels: (N,).
        first, second: Logits (N, K).
        classes: K names.
        metric: A score of :func:`scores`.
        resamples, seed: As there.

    Raises:
        ValueError: The shapes do not fit, or there is no such metric.
    """
    same = {"classes": classes, "resamples": resamples, "seed": seed}
    a, b = (resampled_scores(labels, logits, **same) for logits in (first, second))
    difference = a.minus(b, choose("metric", metric, a.points))
    one, two = (np.asarray(logits).argmax(1) == np.asarray(labels) for logits in (first, second))
    only = (int((one & ~two).sum()), int((two & ~one).sum()))
    return Comparison(metric, a.points[metric], b.points[metric], difference, mcnemar(*only), *only)


def _checked(
    labels: Values, logits: Values, classes: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits (N, K) and labels (N,) as arrays, of at least one face."""
    values = torch.as_tensor(logits).detach().cpu().double().numpy()
    truth = torch.as_tensor(labels).cpu().long().numpy()
    if values.ndim != 2 or truth.shape != values.shape[:1] or classes not in (None, values.shape[1]):
        raise ValueError(
            f"labels have shape {truth.shape} and logits {values.shape}: expected (N,) and "
            f"(N, {classes or 'K'})"
        )
    if not len(truth):
        raise ValueError("there is no face to score")
    return values, truth
