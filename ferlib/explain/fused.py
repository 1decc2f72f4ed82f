"""What PyTorch's fused attention computes without writing it down."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CACHED = 2**19  # numbers that are worked on at once


def weights_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """softmax(scale Q K^T + mask) and its argument, as PyTorch documents the fused call, without dropout."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = (query * (scale or 1 / math.sqrt(query.shape[-1]))) @ key.transpose(-2, -1)
    if is_causal:
        queries, keys = scores.shape[-2:]
        attn_mask = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask if scores.requires_grad else scores.add_(attn_mask)
    return scores.softmax(-1), scores


def mean_weights(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **options: Any
) -> tuple[Tensor, None]:
    """The mean over heads, a few images at a time: what is thrown away never leaves the processor's cache."""
    batch, heads, queries, keys = *query.shape[:-1], key.shape[-2]
    step = max(1, _CACHED // (heads * queries * keys))
    own = attn_mask is not None and attn_mask.ndim == 4 and len(attn_mask) == batch
    means = []
    for n in range(0, batch, step):
        some = slice(n, n + step)
        mask = attn_mask[some] if own else attn_mask
        weights, _ = weights_of(query[some], key[some], value, mask, *args, **options)
        means.append(weights.mean(1, keepdim=True))
    return torch.cat(means), None


def explicit(
    weights: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any
) -> Tensor:
    """What the fused call would give, from weights that stand in the graph."""
    dropout = args[1] if len(args) > 1 else options.get("dropout_p", 0.0)
    if value.shape[-3] != weights.shape[-3]:
        value = value.repeat_interleave(weights.shape[-3] // value.shape[-3], dim=-3)
    return F.dropout(weights, dropout) @ value
