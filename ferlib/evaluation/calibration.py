"""Does a network that says "80 % sure" prove right in 80 of 100 cases, and how to make it so.

The calibration error is torchmetrics'. Chapter 7 draws the reliability diagram and scales the temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ferlib.evaluation.intervals import Interval, Resamples, percentiles


@dataclass(frozen=True)
class Bin:
    """The faces whose confidence lies in [low, high): how many, how confident, how often right.

    Shape: numbers; ``confidence`` is None and ``accuracy`` is None where the bin is empty. Chapter 7.
    """

    low: float
    high: float
    faces: int
    confidence: float | None
    accuracy: Interval | None


class Binned(NamedTuple):
    """Confidence (N,), whether right (N,), and which of the bins (N,); made by :func:`binned`."""

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    which: NDArray[np.int64]


def binned(labels: ArrayLike | Tensor, logits: ArrayLike | Tensor, bins: int = 15) -> Binned:
    """The largest probability of each face, whether its class is right, and its bin of equal width.

    Shape: (N,), (N, K) -> three of (N,), bins 0 ... bins - 1. Raises ``ValueError`` for other shapes. Chapter
    7.
    """
    probabilities, truth = _probabilities(labels, logits)
    if bins < 1:
        raise ValueError(f"bins is {bins}: expected at least one")
    confidence, guess = probabilities.max(1)
    edges = torch.linspace(0, 1, bins + 1)
    which = (torch.bucketize(confidence, edges, right=True) - 1).clamp_max(bins - 1)  # 1.0 is in the last
    return Binned(confidence.double().numpy(), (guess == truth).numpy(), which.numpy())


def calibration_error(labels: ArrayLike | Tensor, logits: ArrayLike | Tensor, bins: int = 15) -> float:
    r"""Expected calibration error: the distance of confidence and accuracy, averaged over the faces' bins.

    .. math:: \sum_b \frac{n_b}{N} \, \bigl| \mathrm{acc}_b - \mathrm{conf}_b \bigr|

    It is biased upwards where bins hold few faces: even a perfectly calibrated network has some.

    Shape: labels (N,), logits (N, K) -> scalar in [0, 1]. Raises ``ValueError`` for other shapes.
    Naeini et al. 2015; Guo et al. 2017, equation 3. Chapter 7.
    """
    # imported where it is used: it takes as long to load as torch itself
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities, truth = _probabilities(labels, logits)
    below_one = probabilities.clamp_max(1 - 2**-24)  # torchmetrics gives 1.0 a bin of its own
    return float(multiclass_calibration_error(below_one, truth, probabilities.shape[1], n_bins=bins))


def reliability(
    labels: ArrayLike | Tensor,
    logits: ArrayLike | Tensor,
    bins: int = 15,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Bin]:
    """What a reliability diagram draws: accuracy in each bin of confidence, with bootstrap intervals.

    Shape: labels (N,), logits (N, K) -> ``bins`` bins; ``ferlib.plots.reliability`` draws them.
    Niculescu-Mizil and Caruana 2005. Chapter 7.
    """
    sure, right, which = binned(labels, logits, bins)
    inside = which[:, None] == np.arange(bins)
    drawn = Resamples(len(sure), resamples, seed).sums(np.hstack([inside, inside & right[:, None]]))
    faces, hits = drawn[:, :bins], drawn[:, bins:]
    shares = np.divide(hits, faces, out=np.full(hits.shape, np.nan), where=faces > 0)
    edges = np.linspace(0, 1, bins + 1)
    found = []
    for b in range(bins):
        here, ends = inside[:, b], (float(edges[b]), float(edges[b + 1]))
        if not here.any():
            found.append(Bin(*ends, 0, None, None))
            continue
        accuracy = Interval(float(right[here].mean()), *percentiles(shares[:, b], confidence))
        found.append(Bin(*ends, int(here.sum()), float(sure[here].mean()), accuracy))
    return found


def nll(labels: ArrayLike | Tensor, logits: ArrayLike | Tensor) -> float:
    """Negative log-likelihood: the mean of -log of the probability given to the label; 0 is best.

    Shape: labels (N,), logits (N, K) -> scalar >= 0. Chapter 7.
    """
    logits, truth = _logits(labels, logits)
    return float(F.cross_entropy(logits, truth))


def brier(labels: ArrayLike | Tensor, logits: ArrayLike | Tensor) -> float:
    r"""Brier score :math:`\frac1N \sum_i \lVert p_i - \mathrm{onehot}(y_i) \rVert^2`, from 0 (best) to 2.

    Shape: labels (N,), logits (N, K) -> scalar. Brier 1950. Chapter 7.
    """
    logits, truth = _logits(labels, logits)
    wanted = F.one_hot(truth, logits.shape[1])
    return float((logits.softmax(1) - wanted).square().sum(1).mean())


def fit_temperature(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> float:
    r"""The temperature T > 0 at which softmax(z / T) gives the labels the largest likelihood.

    .. math:: T = \arg\min_T -\frac1N \sum_i \log \mathrm{softmax}(z_i / T)_{y_i}

    L-BFGS on log T. Dividing by T changes no answer, only how sure it sounds. Fit it on other faces than it
    is judged on: :func:`split_faces`.

    Shape: logits (N, K), labels (N,) -> a number; 0.01 to 100, where the likelihood has no maximum. Guo et
    al. 2017, section 4.2. Chapter 7.
    """
    values, truth = _logits(labels, logits)
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


def split_faces(labels: ArrayLike | Tensor, share: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows in two parts, each with its share of every class: one to fit a temperature on, one to judge it.

    Shape: labels (N,) -> rows (n,) and (N - n,), int64, ascending. Raises ``ValueError`` for a share outside
    (0, 1). Chapter 7.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}: expected a part between 0 and 1")
    labels = torch.as_tensor(labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    first = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = order[labels[order] == label]
        first[rows[: round(share * len(rows))]] = True
    return first.nonzero()[:, 0], (~first).nonzero()[:, 0]


def _logits(labels: ArrayLike | Tensor, logits: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    values, truth = torch.as_tensor(logits).detach().cpu().double(), torch.as_tensor(labels).cpu().long()
    if values.ndim != 2 or truth.shape != values.shape[:1] or not len(truth):
        raise ValueError(
            f"labels have shape {tuple(truth.shape)} and logits {tuple(values.shape)}: expected (N,) and "
            "(N, K), and at least one face"
        )
    return values, truth


def _probabilities(labels: ArrayLike | Tensor, logits: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    values, truth = _logits(labels, logits)
    return values.softmax(1).float(), truth
