"""All scores of one network with their intervals, from one set of bootstrap resamples.

Each score is a function of sums over faces: which cell of the confusion matrix, and confidence minus
rightness in which bin. The sums of all resamples are one matrix product, so a thousand resamples of a few
thousand faces take a fraction of a second, and two networks on the same faces meet the same resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ferlib.evaluation.calibration import binned, calibration_error
from ferlib.evaluation.intervals import Interval, Resamples, percentiles
from ferlib.evaluation.metrics import confusion_matrix, f1_means, macro_f1, mean_class_accuracy, recalls

ECE = "expected calibration error"


def scores(
    labels: ArrayLike | Tensor,
    logits: ArrayLike | Tensor,
    classes: Sequence[str],
    *,
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Accuracy, mean class accuracy, macro F1, expected calibration error and each class's recall.

    Intervals are bootstrap percentiles over faces. A resample in which a class has no face counts without
    that class; a class that has no face at all has no recall. The calibration error is the exception: chance
    adds to it in every resample as it did in the sample, so its interval is the reflected one,
    [2 s - high, 2 s - low] (Davison and Hinkley 1997, section 5.2: "basic"), not below 0. Of a network whose
    error is nearly 0 it covers that error less often than it says; the percentiles hardly ever would.

    Shape: labels (N,), logits (N, K), K class names -> intervals by name. Raises ``ValueError`` for other
    shapes. Chapter 7.
    """
    truth, _, logits = _arrays(labels, logits, classes)
    drawn = draw_scores(truth, logits, classes, bins=bins, resamples=resamples, seed=seed)
    numbers = {}
    for name, value in point_scores(truth, logits, classes, bins=bins).items():
        low, high = percentiles(drawn[name], confidence)
        if name == ECE:
            low, high = max(0.0, 2 * value - high), max(value, 2 * value - low)
        numbers[name] = Interval(value, low, high)
    return numbers


def point_scores(
    labels: ArrayLike | Tensor, logits: ArrayLike | Tensor, classes: Sequence[str], *, bins: int = 15
) -> dict[str, float]:
    """The scores themselves, without intervals: counted by scikit-learn and torchmetrics.

    Shape: labels (N,), logits (N, K), K class names -> numbers by name. Chapter 7.
    """
    truth, guess, logits = _arrays(labels, logits, classes)
    matrix = confusion_matrix(truth, guess, len(classes))
    found = {
        "accuracy": float(matrix.trace() / matrix.sum()),
        "mean class accuracy": mean_class_accuracy(truth, guess, len(classes)),
        "macro F1": macro_f1(truth, guess, len(classes)),
        ECE: calibration_error(truth, logits, bins),
    }
    recall = recalls(matrix)
    return found | {
        f"recall {name}": float(r) for name, r in zip(classes, recall, strict=True) if not np.isnan(r)
    }


def draw_scores(
    labels: ArrayLike | Tensor,
    logits: ArrayLike | Tensor,
    classes: Sequence[str],
    *,
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Each score in each resample; the same N, ``resamples`` and ``seed`` mean the same resamples.

    Shape: labels (N,), logits (N, K), K class names -> (R,) by name, R = ``resamples``; recalls are NaN where
    a resample has no face of the class. Chapter 7.
    """
    truth, guess, logits = _arrays(labels, logits, classes)
    k = len(classes)
    confusion_matrix(truth, guess, k)  # raises for a label that is no class
    cells = (truth * k + guess)[:, None] == np.arange(k * k)
    sure, right, which = binned(truth, logits, bins)
    gaps = (sure - right)[:, None] * (which[:, None] == np.arange(bins))
    drawn = Resamples(len(truth), resamples, seed).sums(np.hstack([cells, gaps]))
    counts = drawn[:, : k * k].reshape(-1, k, k)
    recall = recalls(counts)
    found = {
        "accuracy": np.trace(counts, axis1=1, axis2=2) / len(truth),
        "mean class accuracy": np.nanmean(recall, axis=1),
        "macro F1": f1_means(counts),
        ECE: np.abs(drawn[:, k * k :]).sum(1) / len(truth),
    }
    return found | {f"recall {name}": recall[:, i] for i, name in enumerate(classes)}


def confusion_shares(
    labels: ArrayLike,
    predictions: ArrayLike,
    classes: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The confusion matrix as shares of each row, and the ends of their bootstrap intervals.

    Shape: (N,), (N,) -> three of (K, K) in [0, 1]: share, low, high; NaN in the rows of classes without
    faces. Chapter 7.
    """
    matrix = confusion_matrix(labels, predictions, classes).astype(float)
    truth, guess = np.asarray(labels), np.asarray(predictions)
    cells = (truth * classes + guess)[:, None] == np.arange(classes**2)
    drawn = Resamples(len(truth), resamples, seed).sums(cells).reshape(-1, classes, classes)
    ends = np.array(
        [[percentiles(row, confidence) for row in rows] for rows in _rows(drawn).transpose(1, 2, 0)]
    )
    return _rows(matrix), ends[..., 0], ends[..., 1]


def _rows(counts: NDArray) -> NDArray[np.float64]:
    """Counts as shares of their row, NaN where it is empty."""
    faces = np.broadcast_to(counts.sum(-1, keepdims=True), counts.shape)
    return np.divide(counts, faces, out=np.full(counts.shape, np.nan), where=faces > 0)


def _arrays(
    labels: ArrayLike | Tensor, logits: ArrayLike | Tensor, classes: Sequence[str]
) -> tuple[NDArray, NDArray, NDArray]:
    truth, values = (np.asarray(v.detach().cpu() if isinstance(v, Tensor) else v) for v in (labels, logits))
    if values.ndim != 2 or values.shape != (len(truth), len(classes)) or not len(truth):
        raise ValueError(
            f"labels have shape {truth.shape} and logits {values.shape}: expected one label and "
            f"{len(classes)} logits (one per class) for each face, and at least one face"
        )
    return truth, values.argmax(1), values
