"""From attention of several layers to one map over the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rollout(weights: Sequence[Tensor], *, residual: float = 0.5) -> Tensor:
    r"""Attention rollout: how much of each input token arrives at each output token through all layers.

    .. math:: R = \tilde A_L \cdots \tilde A_1, \qquad
              \tilde A_l = r I + (1 - r) \tfrac1H \sum_h A_{l,h}

    The identity stands for the shortcut around each attention, r = ``residual`` for its share. Rows of R sum
    to one. What it leaves out: values, MLPs and the sign of any contribution; chapter 8 tests what that
    costs.

    Shape: L tensors (B, heads, N, N), first layer first -> (B, N, N). Raises ``ValueError`` for an empty
    list, for weights that are not square or of several sizes, and for r outside [0, 1].
    Abnar and Zuidema 2020, equation 1. Chapter 8.
    """
    if not weights:
        raise ValueError("no attention weights: record a forward pass first")
    if not 0 <= residual <= 1:
        raise ValueError(f"residual is {residual}, expected a share between 0 and 1")
    sizes = {tuple(layer.shape) for layer in weights}
    first = weights[0]
    if first.ndim != 4 or first.shape[-1] != first.shape[-2] or len({(s[0], *s[2:]) for s in sizes}) > 1:
        raise ValueError(
            f"weights have shapes {sorted(sizes)}, expected (B, heads, N, N) with one B and one N"
        )
    identity = torch.eye(first.shape[-1], device=first.device, dtype=first.dtype)
    result = identity.expand(len(first), -1, -1)
    for layer in weights:
        result = (residual * identity + (1 - residual) * layer.mean(1)) @ result
    return result


def token_map(attention: Tensor, *, grid: int, query: int = 0, prefix: int = 1) -> Tensor:
    """The share of one output token (by default the class token) that comes from each place in the image.

    Tokens after the ``prefix`` are read row by row on a square grid; where there are several levels of the
    same grid one after the other (3 x 49 tokens in the Batch Transformer Network), their shares are added.

    Shape: (B, N, N) with N = prefix + levels * grid^2 -> (B, grid, grid), not negative. Raises ``ValueError``
    where N does not fit. Chapter 8.
    """
    row = attention[:, query, prefix:]
    if row.shape[1] == 0 or row.shape[1] % (grid * grid):
        raise ValueError(f"{row.shape[1]} tokens after the first {prefix} do not fill a {grid} x {grid} grid")
    return row.unflatten(1, (-1, grid, grid)).sum(1)
