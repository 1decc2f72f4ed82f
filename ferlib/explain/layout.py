"""Where tokens lie in the picture: which place each row and column of an attention matrix stands for.

Windows are cut out of the picture, sometimes after rolling it round its edges, and their attention stands in
the batch axis. Here it is put back, so that every place of the picture has its row again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """How the tokens of one attention lie on the picture.

    ``grid``: rows and columns of places, counted from the upper left, row by row. ``prefix``: tokens in front
    that stand for no place (class token, registers). ``levels``: how many whole grids follow one after the
    other (3 in the Batch Transformer Network: fine, middle, coarse). ``window`` and ``shift``: rows and
    columns of a window, and by how much the grid was rolled up and to the left before it was cut (Swin);
    without windows None and (0, 0).

    Shape: attention (B, heads, N, N) with N = prefix + levels * rows * columns; with windows
    (B * windows, heads, w * w, w * w), windows row by row. Chapter 8.
    """

    grid: tuple[int, int]
    prefix: int = 0
    levels: int = 1
    window: tuple[int, int] | None = None
    shift: tuple[int, int] = (0, 0)

    @property
    def places(self) -> int:
        """How many places the grid has. Shape: a number."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """How many keys the whole picture has. Shape: a number."""
        return self.prefix + self.levels * self.places

    def cut(self, rows: Tensor) -> Tensor:
        """Tokens on the grid -> tokens in windows: (B, ..., places) -> (B, ..., windows, w * w).

        Padding, where a window reaches over the edge, gets 0.
        """
        index = self._index(rows.device)
        padded = torch.cat([rows, rows.new_zeros(*rows.shape[:-1], 1)], dim=-1)
        return padded[..., index]

    def join(self, windows: Tensor) -> Tensor:
        """Undo ``cut``: (B, ..., windows, w * w) -> (B, ..., places). What lies on padding is dropped."""
        index = self._index(windows.device).flatten()
        out = windows.new_zeros(*windows.shape[:-2], self.places + 1)
        out[..., index] = windows.flatten(-2)
        return out[..., :-1]

    def per_image(self, weights: Tensor) -> Tensor:
        """Windows out of the batch axis: (B * windows, heads, Q, K) -> (B, windows, heads, Q, K)."""
        return weights.unflatten(0, (-1, len(self._index(weights.device))))

    def whole(self, weights: Tensor, outside: float = 0.0) -> Tensor:
        """Attention inside windows -> attention over the picture, ``outside`` where no window holds both.

        Shape: (B * windows, heads, w * w, w * w) -> (B, heads, places, places).
        """
        if self.window is None:
            return weights
        index = self._index(weights.device)
        split = self.per_image(weights).transpose(1, 2)  # (B, heads, windows, Q, K)
        n = self.places + 1  # one more for padding
        out = weights.new_full((*split.shape[:2], n, n), outside)
        out[:, :, index[:, :, None], index[:, None, :]] = split
        return out[:, :, :-1, :-1]

    def pictures(self, keys: Tensor) -> Tensor:
        """The last axis, over tokens, as a picture; prefix dropped, levels added up.

        Shape: (..., tokens) -> (..., rows, columns). Raises ``ValueError`` for another number of tokens.
        """
        if keys.shape[-1] != self.tokens:
            raise ValueError(f"{keys.shape[-1]} tokens do not lie on {self}: expected {self.tokens}")
        return keys[..., self.prefix :].unflatten(-1, (self.levels, *self.grid)).sum(-3)

    def _index(self, device: torch.device) -> Tensor:
        assert self.window is not None
        return _window_index(self.grid, self.window, self.shift).to(device)


@lru_cache(maxsize=64)
def _window_index(grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """Which place each token of each window is: (windows, w * w), the number of places where it is padding.

    The order of things is timm's: roll up and left by the shift, pad below and right, cut.
    """
    (rows, columns), (high, wide) = grid, window
    down, right = -(-rows // high), -(-columns // wide)  # windows, counting those that reach over the edge
    r, c = torch.arange(down * high), torch.arange(right * wide)
    row = torch.where(r < rows, (r + shift[0]) % rows, -1)
    column = torch.where(c < columns, (c + shift[1]) % columns, -1)
    place = row[:, None] * columns + column[None]
    place[(row < 0)[:, None] | (column < 0)[None]] = rows * columns
    return place.view(down, high, right, wide).transpose(1, 2).reshape(down * right, high * wide)
