"""Scaled dot-product attention: fused by default, with its weights written down where there are listeners.

Every attention of this package (windows, levels, transformer blocks, batches) computes through one small
module, so that one recorder can watch them all. Without a listener the weights are never formed, so recording
costs nothing when it is off. Chapter 4 derives it, chapter 8 listens to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ScaledDotProduct(nn.Module):
    r"""Average values with weights that say how well queries match keys.

    .. math:: A = \mathrm{softmax}(s\, Q K^\top + b), \qquad \mathrm{output} = A V

    Takes query (..., N, d), key (..., M, d), value (..., M, e), and a bias b broadcastable to (..., N, M);
    returns (..., N, e). The scale s is 1 / sqrt(d) by default. Leading axes are batch and heads:
    (B, heads, N, d) in a transformer.

    ``listeners`` is a list of functions; while it holds any, the attention weights (..., N, M) are computed
    explicitly (same values, still part of the graph) and each function is called with them.
    ``ferlib.explain.AttentionRecorder`` adds and removes itself there.

    Source: Vaswani et al. 2017, equation 1. Chapters 4, 5 and 8.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Callable[[Tensor], None]] = []

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        learned = bias is not None and bias.requires_grad and torch.is_grad_enabled()
        explicit = learned and query.device.type == "cpu"  # no fused kernel there gives a bias its gradient
        if not self.listeners and not explicit:
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
        weights = attention_weights(query, key, scale=scale, bias=bias)
        for listener in self.listeners:
            listener(weights)
        return weights @ value


def attention_weights(
    query: Tensor, key: Tensor, *, scale: float | None = None, bias: Tensor | None = None
) -> Tensor:
    """The weights that fused attention never writes down, softmax(scale * Q K^T + bias): rows sum to one.

    Takes query (..., N, d), key (..., M, d) and a bias broadcastable to (..., N, M); returns (..., N, M).
    Source: Vaswani et al. 2017, equation 1. Chapters 4 and 8.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return torch.softmax(scores, dim=-1)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Cut the channels into heads: (B, N, heads * d) -> (B, heads, N, d). Chapter 5."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """Put the heads side by side again: (B, heads, N, d) -> (B, N, heads * d). Chapter 5."""
    return tokens.transpose(1, 2).flatten(-2)
