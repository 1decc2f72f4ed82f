"""Numbers that judge a classifier's answers, one number each; counting is scikit-learn's.

:mod:`ferlib.evaluation.scores` gives them their intervals. Chapter 7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk

from ferlib.evaluation.intervals import pair


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    r"""Share of faces that are labelled right, :math:`\frac1N \sum_i [\hat y_i = y_i]`, in [0, 1].

    Shape: (N,) and (N,) -> scalar. Raises ``ValueError`` for lengths that differ or are 0. Chapter 7.
    """
    labels, predictions = pair(labels, predictions)
    return float(sk.accuracy_score(labels, predictions))


def class_recall(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.float64]:
    """Share of each class's faces that are labelled right; NaN for a class without faces.

    Shape: (N,), (N,) -> (K,) in [0, 1]. Chapter 7.
    """
    return recalls(confusion_matrix(labels, predictions, classes))


def mean_class_accuracy(labels: ArrayLike, predictions: ArrayLike, classes: int) -> float:
    """Mean of the recalls of the classes that occur: every expression counts the same, however rare.

    Shape: (N,), (N,) -> scalar in [0, 1]. Chapter 7.
    """
    return float(np.nanmean(class_recall(labels, predictions, classes)))


def macro_f1(labels: ArrayLike, predictions: ArrayLike, classes: int) -> float:
    """Mean over the classes that occur of the harmonic mean of precision and recall.

    Shape: (N,), (N,) -> scalar in [0, 1]. Chapter 7.
    """
    labels, predictions = pair(labels, predictions)
    present = np.unique(labels)
    return float(sk.f1_score(labels, predictions, labels=present, average="macro", zero_division=0))


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How often faces of class r are given class c: rows are labels, columns predictions.

    Shape: (N,), (N,) -> (K, K) counts. Raises ``ValueError`` for a class outside 0 ... K-1. Chapter 7.
    """
    labels, predictions = pair(labels, predictions)
    for name, values in (("label", labels), ("prediction", predictions)):
        if values.min() < 0 or values.max() >= classes:
            wrong = values.min() if values.min() < 0 else values.max()
            raise ValueError(f"a {name} is {wrong}, expected 0 ... {classes - 1}: {classes} classes")
    return sk.confusion_matrix(labels, predictions, labels=np.arange(classes))


def recalls(counts: NDArray) -> NDArray[np.float64]:
    """Each class's recall from one confusion matrix, or from many at once; NaN for a class without faces.

    Shape: (..., K, K) counts -> (..., K) in [0, 1]. Chapter 7.
    """
    right, faces = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1)
    return np.divide(right, faces, out=np.full(right.shape, np.nan), where=faces > 0)


def f1_means(counts: NDArray) -> NDArray[np.float64]:
    r"""Macro F1 from one confusion matrix, or from many at once.

    .. math:: \frac1{|P|} \sum_{k \in P} \frac{2\, c_{kk}}{\sum_j c_{kj} + \sum_j c_{jk}}

    over the classes P that have faces.

    Shape: (..., K, K) counts -> (...) in [0, 1]. Chapter 7.
    """
    right, faces = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1)
    both = faces + counts.sum(-2)
    each = np.divide(2 * right, both, out=np.zeros(right.shape), where=both > 0)
    return (each * (faces > 0)).sum(-1) / np.maximum((faces > 0).sum(-1), 1)
