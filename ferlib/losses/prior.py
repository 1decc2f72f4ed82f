"""What is known beforehand about labels: how annotators vote on faces of each majority class. Chapter 3."""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: The classes of the published prior, in its order.
PRIOR_CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

#: Mean vote share per majority class on the FER+ training images, (8, 8); rows and columns in the order
#: neutral, happiness, surprise, sadness, anger, disgust, fear, contempt. Constants of the released Neural
#: Resizer (utils/losses.py:6-15); chapter 1 recomputes them from the votes in fer2013new.csv to within 1e-4.
FERPLUS_PRIOR = torch.tensor(
    [
        [0.777334, 0.032610, 0.017447, 0.114091, 0.026224, 0.007145, 0.004379, 0.020772],
        [0.042842, 0.917618, 0.023221, 0.004816, 0.004217, 0.001969, 0.001755, 0.003563],
        [0.058354, 0.035775, 0.787254, 0.010370, 0.014319, 0.003015, 0.088513, 0.002400],
        [0.170124, 0.013292, 0.008632, 0.747902, 0.022808, 0.011237, 0.015923, 0.010082],
        [0.074781, 0.025350, 0.060215, 0.031924, 0.740551, 0.034938, 0.023251, 0.008989],
        [0.089590, 0.017445, 0.016911, 0.088629, 0.125152, 0.620813, 0.007788, 0.033671],
        [0.042815, 0.012239, 0.169483, 0.072557, 0.027228, 0.013045, 0.658964, 0.003671],
        [0.147933, 0.022174, 0.009890, 0.042923, 0.033551, 0.059924, 0.005507, 0.678099],
    ]
)


def check_prior(prior: torch.Tensor | Sequence[Sequence[float]]) -> torch.Tensor:
    """A prior as a float32 tensor, after checking that it is one.

    Shape: ``(K, K)`` in and out, K at least 2; every entry at least 0, every row sums to 1 within 1e-4.
    Raises ``ValueError`` naming the shape, entry or row that is wrong. Chapter 3.
    """
    prior = torch.as_tensor(prior, dtype=torch.float32).detach().clone()
    if prior.ndim != 2 or prior.shape[0] != prior.shape[1]:
        raise ValueError(f"a prior is a square matrix (K, K), got shape {tuple(prior.shape)}")
    if len(prior) < 2:
        raise ValueError("a prior says what is taken for what: it needs two classes at least, got one")
    if not torch.isfinite(prior).all() or (prior < 0).any():
        raise ValueError("a prior holds probabilities: every entry must be finite and at least 0")
    sums = prior.sum(1)
    worst = int((sums - 1).abs().argmax())
    if abs(float(sums[worst]) - 1) > 1e-4:
        raise ValueError(
            f"every row of a prior must sum to 1; row {worst} sums to {float(sums[worst]):.6f}: "
            "divide each row by its sum (prior / prior.sum(1, keepdim=True))"
        )
    return prior


def reorder_prior(prior: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """The prior of a data set with other classes: class k there is class ``order[k]`` here.

    Rows and columns are picked together and each row is divided by its sum, so classes may be left out
    (RAF-DB has no contempt). The released code always uses the FER+ rows, whatever the data set.

    Shape: prior ``(K, K)`` and ``K'`` indices in, ``(K', K')`` out.

    Raises: ``ValueError`` for an index out of range or used twice. Chapter 3.
    """
    prior = check_prior(prior)
    order = [int(index) for index in order]
    if len(set(order)) != len(order) or not all(0 <= index < len(prior) for index in order):
        raise ValueError(f"order must hold different classes from 0 to {len(prior) - 1}, got {order}")
    picked = prior[order][:, order]
    return picked / picked.sum(1, keepdim=True)


def prior_for(classes: Sequence[str]) -> torch.Tensor:
    """The published FER+ prior for another data set, matched by the names of its classes.

    Works for RAF-DB's seven, AffectNet's seven or eight, in their own orders. The rows still say how FER+'s
    annotators vote; where a data set brings votes of its own, a prior from those is the better one.

    Shape: K names in, ``(K, K)`` out, rows sum to 1.

    Raises: ``ValueError`` for a name the published prior does not have, or the same one twice. Chapter 3.
    """
    unknown = [name for name in classes if name not in PRIOR_CLASSES]
    if unknown:
        raise ValueError(
            f"the published prior has no class {', '.join(map(repr, unknown))}, only "
            f"{', '.join(PRIOR_CLASSES)}: make a prior from votes, or give one"
        )
    return reorder_prior(FERPLUS_PRIOR, [PRIOR_CLASSES.index(name) for name in classes])
