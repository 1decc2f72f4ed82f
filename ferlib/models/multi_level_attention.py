"""Multi-level attention and the class maps: OUR RECONSTRUCTION of parts of the Batch Transformer Network.

The paper states what multi-level attention is for (the correlations between feature levels, so that no level
is overfitted) and what it costs together with the batch transformer (1.3 M parameters, 0.18 G operations);
its inside is not public to us. Two 768 x 768 maps applied to all 147 tokens cost 1.18 M parameters and 173 M
multiply-adds, so a query map and a key map for all tokens fit that budget, and a value map would not.
Chapter 5 does this arithmetic and keeps the ledger of what is original and what is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ferlib.models.attention import ScaledDotProduct, merge_heads, split_heads

LEVELS = 3


class LevelOutput(NamedTuple):
    """What multi-level attention hands on.

    Shape: ``tokens`` (B, 147, dim) for the transformer; ``query`` and ``key`` (B, C, 49) for the batch.
    """

    tokens: Tensor
    query: Tensor
    key: Tensor


class MultiLevelAttention(nn.Module):
    r"""Let the tokens of three feature levels ask each other, and draw each class's maps from the result.

    A reconstruction by this book, within the paper's stated budget; not the authors' code.

    Equation: with X the 147 tokens, N = LayerNorm(X), per head: A = softmax((N W_q)(N W_k)^T / sqrt(d_head)),
    Y = X + g * A N, g a learned gain per channel. Values are not projected. The class maps are
    query_c(p) = u_c . m(p) and key_c(p) = w_c . m(p), m(p) = LayerNorm of the mean of Y over the three levels
    at position p of the 7 x 7 grid.

    Shape: tokens (B, 147, dim), levels one after the other from fine to coarse, 49 positions each row by row
    -> :class:`LevelOutput`. Listeners of ``attention`` get (B, heads, 147, 147).

    Parameters: 2 (dim^2 + dim) + 2 C (dim + 1) + 5 dim. ``gain`` is the start value of g; with 0 the tokens
    pass unchanged, so that a loaded POSTER V2 starts as it was.
    Raises: ``ValueError`` where the tokens have another shape. Source: see the module. Chapter 5.
    """

    def __init__(
        self, num_classes: int, *, dim: int = 768, heads: int = 8, positions: int = 49, gain: float = 0.1
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} cannot be cut into {heads} equal heads")
        self.heads, self.positions = heads, positions
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.attention = ScaledDotProduct()
        self.gain = nn.Parameter(torch.full((dim,), float(gain)))
        self.map_norm = nn.LayerNorm(dim)
        self.class_query = nn.Linear(dim, num_classes)
        self.class_key = nn.Linear(dim, num_classes)

    def mix(self, tokens: Tensor) -> Tensor:
        """Tokens after asking all levels: (B, 147, dim) -> (B, 147, dim)."""
        normed = self.norm(tokens)
        query, key, value = (
            split_heads(t, self.heads) for t in (self.query(normed), self.key(normed), normed)
        )
        return tokens + self.gain * merge_heads(self.attention(query, key, value))

    def class_maps(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Each class's query map and key map on the 7 x 7 grid: (B, 147, dim) -> two of (B, C, 49)."""
        grid = self.map_norm(tokens.unflatten(1, (LEVELS, self.positions)).mean(1))
        return self.class_query(grid).transpose(1, 2), self.class_key(grid).transpose(1, 2)

    def forward(self, tokens: Tensor) -> LevelOutput:
        if tokens.ndim != 3 or tokens.shape[1:] != (LEVELS * self.positions, self.gain.shape[0]):
            raise ValueError(
                f"expected tokens (B, {LEVELS * self.positions}, {self.gain.shape[0]}), "
                f"got {tuple(tokens.shape)}"
            )
        tokens = self.mix(tokens)
        return LevelOutput(tokens, *self.class_maps(tokens))
