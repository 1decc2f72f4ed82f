"""Ten simulated annotators, who confuse expressions as the annotators of FER+ do."""

from __future__ import annotations

import torch

from ferlib.data.base import DataError

ANNOTATORS = 10
#: Mean vote share (columns) by majority expression (rows) in FER+; order of the 8 FER+ expressions. These are
#: the constants of the Neural Resizer's released losses; chapter 1 recomputes them from the votes.
CONFUSION_8 = (
    (0.777334, 0.032610, 0.017447, 0.114091, 0.026224, 0.007145, 0.004379, 0.020772),
    (0.042842, 0.917618, 0.023221, 0.004816, 0.004217, 0.001969, 0.001755, 0.003563),
    (0.058354, 0.035775, 0.787254, 0.010370, 0.014319, 0.003015, 0.088513, 0.002400),
    (0.170124, 0.013292, 0.008632, 0.747902, 0.022808, 0.011237, 0.015923, 0.010082),
    (0.074781, 0.025350, 0.060215, 0.031924, 0.740551, 0.034938, 0.023251, 0.008989),
    (0.089590, 0.017445, 0.016911, 0.088629, 0.125152, 0.620813, 0.007788, 0.033671),
    (0.042815, 0.012239, 0.169483, 0.072557, 0.027228, 0.013045, 0.658964, 0.003671),
    (0.147933, 0.022174, 0.009890, 0.042923, 0.033551, 0.059924, 0.005507, 0.678099),
)


def vote_probabilities(noise: float, confusion: torch.Tensor | None = None, classes: int = 8) -> torch.Tensor:
    r"""How likely an annotator names each expression (columns) when another is meant (rows).

    .. math:: Q_{yc} = \nu P_{yc} \;(c \ne y), \qquad Q_{yy} = 1 - \sum_{c \ne y} Q_{yc}

    with the confusion prior P and the noise level nu: 0 makes every annotator right, 1 gives P, and above
    1 more
    confusion, the share of right votes never falling below a tenth.

    Shape: confusion ``(K, K)`` with rows summing to 1 -> ``(classes, classes)``. Raises ``DataError``.
    Chapter 1.
    """
    prior = (
        torch.tensor(CONFUSION_8, dtype=torch.float64)
        if confusion is None
        else torch.as_tensor(confusion).double()
    )
    if confusion is None:
        prior = prior[:classes, :classes]
        prior = prior / prior.sum(1, keepdim=True)
    if prior.shape != (classes, classes) or (prior < 0).any() or ((prior.sum(1) - 1).abs() > 1e-3).any():
        raise DataError(
            f"confusion has shape {tuple(prior.shape)}: expected ({classes}, {classes}) "
            "with rows of shares that sum to 1"
        )
    if not noise >= 0:
        raise DataError(
            f"vote_noise={noise!r}: expected a number of at least 0 (0 = all agree, 1 = as noisy as FER+)"
        )
    off = prior * (1 - torch.eye(classes, dtype=torch.float64))
    wrong = off.sum(1, keepdim=True)
    off = off * torch.minimum(torch.full_like(wrong, float(noise)), 0.9 / wrong.clamp(min=1e-9))
    return (off + torch.diag(1 - off.sum(1))).float()


def draw_votes(labels: torch.Tensor, probabilities: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Count the votes of the annotators.

    Shape: labels ``(B,)``, probabilities ``(K, K)``, u uniform ``(B, 10)`` -> votes ``(B, K)`` that sum to
    10. Chapter 1.
    """
    cumulative = probabilities.double().cumsum(1)[labels]
    choice = (u.double()[:, :, None] > cumulative[:, None, :-1]).sum(2)
    return torch.nn.functional.one_hot(choice, probabilities.shape[0]).sum(1).float()
