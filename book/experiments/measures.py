"""What a run's predictions on its held-out faces are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from book.experiments.harness import pack

BINS = 15


def measure(logits: Tensor, labels: Tensor, shares: Tensor | None = None) -> dict[str, Any]:
    """All metrics of predictions for N faces, and which faces were right.

    Args:
        logits: (N, K).
        labels: (N,).
        shares: Votes as shares (N, K), where the faces have them.

    Returns:
        ``right`` (packed), and ``metrics``: accuracy, mean class accuracy, negative log-likelihood of labels
        and of votes, calibration error before and after one temperature. The temperature of each half of the
        faces is fitted on the other half.
    """
    logits, classes = logits.double(), logits.shape[1]
    right = logits.argmax(1) == labels
    counts = torch.bincount(labels, minlength=classes)
    recalls = torch.bincount(labels[right], minlength=classes)[counts > 0] / counts[counts > 0]
    cooled = cross_fitted(logits, labels)
    metrics = {
        "accuracy": right.double().mean(),
        "mean class accuracy": recalls.mean(),
        "negative log-likelihood": F.cross_entropy(logits, labels),
        "negative log-likelihood, one temperature": F.cross_entropy(cooled, labels),
        "calibration error": calibration_error(logits, labels),
        "calibration error, one temperature": calibration_error(cooled, labels),
    }
    if shares is not None:
        voted = shares.sum(1) > 0
        metrics["negative log-likelihood of votes"] = F.cross_entropy(logits[voted], shares[voted].double())
    return {
        "metrics": {name: round(float(value), 6) for name, value in metrics.items()},
        "right": pack(right.numpy()),
    }


def calibration_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean distance of confidence and accuracy over ``BINS`` equal bins."""
    return multiclass_calibration_error(logits.softmax(1), labels, logits.shape[1], n_bins=BINS, norm="l1")


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the smallest negative log-likelihood."""
    found = minimize_scalar(
        lambda log_t: float(F.cross_entropy(logits / np.exp(log_t), labels)), bounds=(-3, 3), method="bounded"
    )
    return float(np.exp(found.x))


def cross_fitted(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits divided by a temperature that was fitted on the other half of the faces (even and odd ones)."""
    cooled = logits.clone()
    for half in (0, 1):
        cooled[half::2] = logits[half::2] / temperature(logits[1 - half :: 2], labels[1 - half :: 2])
    return cooled
