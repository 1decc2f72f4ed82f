"""From the attention of several layers to one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rollout(weights: Sequence[Tensor], *, residual: float = 0.5) -> Tensor:
    r"""Attention rollout: how much of each input token arrives at each output token through all layers.

    .. math:: R = \tilde A_L \cdots \tilde A_1, \qquad
              \tilde A_l = r I + (1 - r) \tfrac1H \sum_h A_{l,h}

    The identity stands for the shortcut around each attention, r = ``residual`` for its share. What it leaves
    out: values, MLPs and the sign of any contribution. Source: Abnar and Zuidema 2020, equation 1. Chapter 8.

    Args:
        weights: L tensors (B, heads, N, N), first layer first.
        residual: r, between 0 and 1.

    Returns:
        (B, N, N), whose rows sum to one.

    Raises:
        ValueError: There are no weights, they are not square or of several sizes, or r is outside [0, 1].
    """
    shapes = {tuple(layer.shape[-2:]) for layer in weights}
    first = weights[0] if weights else None
    if len(shapes) != 1 or first.ndim != 4 or first.shape[-1] != first.shape[-2]:
        raise ValueError(f"weights have shapes {sorted(shapes)}, expected (B, heads, N, N) with one N")
    identity = torch.eye(first.shape[-1], device=first.device, dtype=first.dtype)
    result = identity.expand(len(first), -1, -1)
    for layer in weights:
        result = (residual * identity + (1 - residual) * layer.mean(1)) @ result
    return result


def token_map(attention: Tensor, *, grid: int) -> Tensor:
    """The share of the first output token, the class token, that comes from each place of the picture.

    The tokens after it are read row by row on a square grid; the shares of several levels of the same
    grid, one after the other, are added.

    Args:
        attention: (B, N, N) with N = 1 + levels * grid^2.
        grid: Places on a side.

    Returns:
        (B, grid, grid).

    Raises:
        ValueError: N does not fit.
    """
    row = attention[:, 0, 1:]
    if row.shape[1] == 0 or row.shape[1] % (grid * grid):
        raise ValueError(f"{row.shape[1]} tokens after the first do not fill a {grid} x {grid} grid")
    return row.unflatten(1, (-1, grid, grid)).sum(1)
