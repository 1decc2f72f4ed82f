"""Cross-attention between landmarks and face features, level by level: the heart of POSTER V2.

The landmark map asks, the face map answers, inside windows. In POSTER V2 each window is as large as the map,
so every place asks every place. Chapter 5 says what else is unexpected here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ferlib.models.attention import ScaledDotProduct, merge_heads, split_heads
from ferlib.models.token_transformer import Mlp


def relative_positions(window: int) -> Tensor:
    """Which entry of the bias table a pair of places uses: int64 (window^2, window^2).

    Equation: index(p, q) = (row_p - row_q + w - 1) (2w - 1) + (column_p - column_q + w - 1).
    Shape: w -> (w^2, w^2), values below (2w - 1)^2. Source: Swin Transformer (Liu et al. 2021). Chapter 5.
    """
    place = torch.arange(window)
    rows, columns = (t.flatten() for t in torch.meshgrid(place, place, indexing="ij"))
    down = rows[:, None] - rows[None] + window - 1
    right = columns[:, None] - columns[None] + window - 1
    return down * (2 * window - 1) + right


class WindowCrossAttention(nn.Module):
    """Every place of the landmark map asks every place of the face map in its window.

    Equation: softmax(L K^T / sqrt(d) + bias) V per head, with K and V projected from the face map, and L the
    landmark features themselves: the queries have no projection.

    Shape: asking (B, N, dim), answering (B, N, dim), N = window^2 -> (B, N, dim). Listeners of ``attention``
    get (B, heads, N, N). Source: POSTER V2 (arXiv 2301.12149), section 3. Chapter 5.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("positions", relative_positions(window), persistent=False)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention = ScaledDotProduct()

    def forward(self, asking: Tensor, answering: Tensor) -> Tensor:
        key, value = (split_heads(t, self.heads) for t in self.key_value(answering).chunk(2, dim=-1))
        bias = self.bias_table[self.positions].permute(2, 0, 1)  # (heads, N, N)
        query = split_heads(asking, self.heads)
        return self.proj(merge_heads(self.attention(query, key, value, bias=bias)))


class LevelFusion(nn.Module):
    """One level: halve the face map, let the landmark map ask it, add, and refine.

    Equation: S = LayerNorm(conv(F)), X = S + g1 * attention(L, S), out = X + g2 * mlp(LayerNorm(X)). The
    shortcut S is the *normalised* map, as in the released code, not the map itself.

    Shape: face (B, dim, 2w, 2w), landmarks (B, dim, w, w) -> (B, w, w, dim), channels last.
    ``scale`` is the start value of the gains g1 and g2, ``drop_path`` the chance that a branch is skipped.
    Source: POSTER V2, ``window`` and ``feedforward``. Chapter 5.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        *,
        scale: float = 1e-5,
        drop_path: float = 0.0,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, 2, 1)
        self.norm = nn.LayerNorm(dim)
        self.attn = WindowCrossAttention(dim, heads, window)
        self.gain1 = nn.Parameter(torch.full((dim,), scale))
        self.gain2 = nn.Parameter(torch.full((dim,), scale))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, face: Tensor, landmarks: Tensor) -> Tensor:
        shortcut = self.norm(self.conv(face).permute(0, 2, 3, 1))  # (B, w, w, dim)
        asking = landmarks.flatten(2).transpose(1, 2)  # (B, w * w, dim)
        mixed = self.attn(asking, shortcut.flatten(1, 2)).view_as(shortcut)
        out = shortcut + self.drop_path(self.gain1 * mixed)
        return out + self.drop_path(self.gain2 * self.mlp(self.norm2(out)))
