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
    landmark features themselves: the queries have no projection, as in the released code. With
    ``project_query`` they have one (dim^2 + dim parameters); it starts as the identity, so that weights
    trained without it give what they gave.

    Shape: asking (B, N, dim), answering (B, N, dim), N = window^2 -> (B, N, dim). Listeners of ``attention``
    get (B, heads, N, N). Source: POSTER V2 (arXiv 2301.12149), section 3. Chapter 5.
    """

    def __init__(self, dim: int, heads: int, window: int, project_query: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query: nn.Module = nn.Identity()
        if project_query:
            self.query = nn.Linear(dim, dim)
            nn.init.eye_(self.query.weight)
            nn.init.zeros_(self.query.bias)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("positions", relative_positions(window), persistent=False)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention = ScaledDotProduct()

    def forward(self, asking: Tensor, answering: Tensor) -> Tensor:
        key, value = (split_heads(t, self.heads) for t in self.key_value(answering).chunk(2, dim=-1))
        places = self.positions.shape[
            0
        ]  # contiguous, and with an axis for the batch: fused kernels want that
        bias = self.bias_table.t().contiguous().index_select(1, self.positions.flatten())
        bias = bias.view(1, self.heads, places, places)
        query = split_heads(self.query(asking), self.heads)
        return self.proj(merge_heads(self.attention(query, key, value, bias=bias)))


SHORTCUTS = ("normalised", "input")


class LevelFusion(nn.Module):
    """One level: halve the face map, let the landmark map ask it, add, and refine.

    Equation: S = LayerNorm(conv(F)), X = S + g1 * attention(L, S), out = X + g2 * mlp(LayerNorm(X)). The
    shortcut S is the *normalised* map, as in the released code; with ``shortcut="input"`` it is the map
    before its normalisation, X = conv(F) + g1 * attention(L, S), as pre-norm transformers have it.

    Shape: face (B, dim, 2s, 2s), landmarks (B, dim, s, s) -> (B, s, s, dim), channels last. ``size`` is s;
    ``window`` divides it, and by default is as large: each place asks all places, as released. With a smaller
    one, the map is cut into (s / window)^2 windows, and each place asks those of its own.
    ``scale`` is the start value of the gains g1 and g2, ``drop_path`` the chance that a branch is skipped.

    Raises: ``ValueError`` for a window that does not divide the map, or an unknown shortcut.
    Source: POSTER V2, ``window`` and ``feedforward``. Chapter 5.
    """

    def __init__(
        self, dim: int, heads: int, size: int, *, window: int | None = None, shortcut: str = "normalised",
        project_query: bool = False, scale: float = 1e-5, drop_path: float = 0.0, mlp_ratio: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        window = size if window is None else window
        if window < 1 or size % window:
            raise ValueError(f"a window of {window} does not divide a map of {size} x {size} places")
        if shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut is one of {SHORTCUTS}, got {shortcut!r}")
        self.window, self.shortcut = window, shortcut
        self.conv = nn.Conv2d(dim, dim, 3, 2, 1)
        self.norm = nn.LayerNorm(dim)
        self.attn = WindowCrossAttention(dim, heads, window, project_query)
        self.gain1 = nn.Parameter(torch.full((dim,), scale))
        self.gain2 = nn.Parameter(torch.full((dim,), scale))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, face: Tensor, landmarks: Tensor) -> Tensor:
        halved = self.conv(face).permute(0, 2, 3, 1)  # (B, s, s, dim)
        answering = self.norm(halved)
        asking = cut_windows(landmarks.permute(0, 2, 3, 1), self.window)
        mixed = self.attn(asking, cut_windows(answering, self.window))
        mixed = join_windows(mixed, self.window, halved.shape[1])
        shortcut = answering if self.shortcut == "normalised" else halved
        out = shortcut + self.drop_path(self.gain1 * mixed)
        return out + self.drop_path(self.gain2 * self.mlp(self.norm2(out)))


def cut_windows(maps: Tensor, window: int) -> Tensor:
    """Cut maps into square windows: (B, s, s, d) -> (B * (s / w)^2, w^2, d), row by row. Chapter 5."""
    batch, size, _, dim = maps.shape
    if window == size:
        return maps.flatten(1, 2)
    count = size // window
    cut = maps.unflatten(2, (count, window)).unflatten(1, (count, window))  # (B, n, w, n, w, d)
    return cut.transpose(2, 3).reshape(batch * count**2, window**2, dim)


def join_windows(tokens: Tensor, window: int, size: int) -> Tensor:
    """Undo ``cut_windows``: (B * (s / w)^2, w^2, d) -> (B, s, s, d). Chapter 5."""
    count, dim = size // window, tokens.shape[-1]
    cut = tokens.view(-1, count, count, window, window, dim)
    return cut.transpose(2, 3).reshape(-1, size, size, dim)
