"""Attention between tokens, layer by layer, as the AttentionExplorer shows it. Chapter 8."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ferlib.widgets.codes import Scores, Shares
from ferlib.widgets.packing import as_array

__all__ = ["Asks", "Block", "TokenAttention"]

Asks = str | tuple[float, float]  # "token", "all", or the place (x, y) of a patch


@dataclass(frozen=True)
class Block:
    """Who asks whom in one layer at one step: coded rows between two grids.

    Shape: ``rows`` code (F, heads, Q, K); ``asked`` and ``side`` are cells per side of the grids that the Q
    askers and the K answerers stand on. Chapter 8.
    """

    rows: Shares | Scores
    asked: int
    side: int

    def packed(self) -> dict[str, object]:
        """For the page. Shape: a mapping that JSON can hold."""
        return {"asked": self.asked, "side": self.side, **self.rows.packed()}


class TokenAttention:
    r"""A network's attention for the faces of an ``AttentionExplorer``: layers, heads, and who asks whom.

    Tokens are ``prefix`` class tokens and then, for each of the ``levels``, the cells of a square grid row by
    row: a vision transformer, multi-level attention, POSTER V2's levels, or window attention that has been
    put back into image coordinates. Kept is one byte an entry, right to 1/255 of its row's maximum.

    Parameters
    ----------
    weights: layer name -> attention after the softmax, (F, heads, K, K) for F faces and K tokens, or
        (F, heads, 1, K) where the class token alone asks. Layers may have different grids.
    prefix: how many class tokens stand in front.
    levels: names of the levels that follow each other; empty for one.
    scores: the same before the softmax, minus infinity where masked. Left out, the page shows the logarithm
        of the shares, which is the scores up to one constant a row (and not below -11 from the row's best).
    rollout: layer name -> (F, Q, K), what has arrived at the layer's Q tokens from the first layer's K; an
        array alone belongs to the last layer.
    average_heads: keep the mean of the heads alone, for a smaller figure.
    grid: pool finer grids to this many cells a side (shares of keys added, queries averaged).

    Shape: see ``weights``. Raises ``ValueError`` naming the layer for shapes that fit no grid, numbers below
    zero or not finite, layers that scores or rollout do not know, or a grid that does not divide. Chapter 8.
    """

    def __init__(
        self,
        weights: Mapping[str, ArrayLike],
        *,
        prefix: int = 0,
        levels: Sequence[str] = (),
        scores: Mapping[str, ArrayLike] | None = None,
        rollout: Mapping[str, ArrayLike] | ArrayLike | None = None,
        average_heads: bool = False,
        grid: int | None = None,
    ) -> None:
        if not weights:
            raise ValueError("weights holds no layer: record a forward pass first")
        self.prefix, self.levels = int(prefix), [str(name) for name in levels]
        self._average, self._grid = average_heads, grid
        if rollout is not None and not isinstance(rollout, Mapping):
            rollout = {list(weights)[-1]: rollout}
        scores, rollout = scores or {}, rollout or {}
        for word, given in (("scores", scores), ("rollout", rollout)):
            if stray := sorted(set(given) - set(weights)):
                raise ValueError(f"{word} is for {stray}, which are none of the layers {list(weights)}")
        if scores and (grid is not None or average_heads):
            raise ValueError("scores cannot be pooled or averaged as shares can: leave scores= out")
        self.layers = {
            str(name): {
                "scores": self._before(name, scores[name], rows) if name in scores else None,
                "softmax": self._block(f"attention of {name!r}", rows),
                "rollout": self._block(f"rollout of {name!r}", rollout[name]) if name in rollout else None,
            }
            for name, rows in weights.items()
        }
        counts = {len(b.rows.codes) for layer in self.layers.values() for b in layer.values() if b}
        if len(counts) > 1:
            raise ValueError(f"all layers look at the same faces, got {sorted(counts)} of them")
        self.faces = counts.pop()

    @classmethod
    def of(cls, records: Sequence[Any], names: Sequence[str] | None = None, **options: Any) -> TokenAttention:
        """What ``ferlib.explain.AttentionRecorder`` recorded of one forward pass, windows put back.

        Shape: L records of one prefix and number of levels, L names (default the modules'); ``options`` are
        the constructor's. Raises ``ValueError`` for records of several kinds, or of attention that does not
        lie on a picture (class batch attention has an explorer of its own).
        """
        kinds = {record.layout and (record.layout.prefix, record.layout.levels) for record in records}
        if len(kinds) != 1 or None in kinds:
            told = ", ".join(record.name for record in records) or "no record"
            raise ValueError(f"expected records whose tokens lie on a picture in one way, got {told}")
        prefix, levels = kinds.pop()
        options.setdefault("levels", [f"{i + 1}" for i in range(levels)] if levels > 1 else ())
        names = names or [record.name for record in records]
        weights = {name: record.on_grid() for name, record in zip(names, records, strict=True)}
        return cls(weights, prefix=prefix, **options)

    def _block(self, name: str, given: ArrayLike) -> Block:
        rolled = name.startswith("rollout")
        rows = as_array(given, name, 3 if rolled else 4)
        rows = rows[:, None] if rolled else rows
        if rows.size and rows.min() < 0:
            raise ValueError(f"{name} holds {rows.min():.3g}: shares are not negative (is it scores=?)")
        if self._average and not rolled:
            rows = rows.mean(1, keepdims=True)
        asked, side = self._side(rows.shape[2], name), self._side(rows.shape[3], name)
        if not side or (not asked and not (rows.shape[2] == 1 and self.prefix)):
            raise ValueError(
                f"{name} has shape {rows.shape}: its tokens are not {self.prefix} class tokens and "
                f"{max(1, len(self.levels))} square grids; say prefix= and levels= as the network has them"
            )
        rows, side = self._pool(rows, 3, side, name)
        rows, asked = self._pool(rows, 2, asked, name)
        return Block(Shares.of(rows), asked, side)

    def _before(self, name: str, given: ArrayLike, weights: ArrayLike) -> Block:
        rows = as_array(given, f"scores of {name!r}", 4, masked=True)
        if rows.shape != np.shape(weights):
            raise ValueError(f"scores of {name!r} have shape {rows.shape}, its weights {np.shape(weights)}")
        if np.isneginf(rows).all(-1).any():
            raise ValueError(f"scores of {name!r}: a row is masked altogether")
        return Block(Scores.of(rows), self._side(rows.shape[2], name), self._side(rows.shape[3], name))

    def _side(self, tokens: int, name: str) -> int:
        """Cells per side of the grids that so many tokens fill; 0 where they fill none."""
        cells, rest = divmod(tokens - self.prefix, max(1, len(self.levels)))
        side = math.isqrt(max(0, cells))
        return side if side * side == cells and not rest else 0

    def _pool(self, rows: np.ndarray, axis: int, side: int, name: str) -> tuple[np.ndarray, int]:
        """Fewer, larger cells along one axis: the shares of keys are added, queries averaged."""
        if self._grid is None or self._grid >= side:
            return rows, side
        if self._grid < 1 or side % self._grid:
            raise ValueError(f"grid={self._grid} does not divide the {side} x {side} cells of {name}")
        step, last = side // self._grid, np.moveaxis(rows, axis, -1)
        cells = last[..., self.prefix :].reshape(*last.shape[:-1], -1, self._grid, step, self._grid, step)
        cells = cells.sum((-1, -3)) if axis == 3 else cells.mean((-1, -3))
        cells = cells.reshape(*last.shape[:-1], -1)
        return np.moveaxis(np.concatenate([last[..., : self.prefix], cells], -1), -1, axis), self._grid

    def packed(self) -> dict[str, object]:
        """For the page. Shape: a mapping that JSON can hold."""
        layers = [
            {"name": name, **{step: block and block.packed() for step, block in layer.items()}}
            for name, layer in self.layers.items()
        ]
        return {"prefix": self.prefix, "levels": self.levels, "layers": layers}

    def rows(self, block: Block, asks: Asks, level: int | None) -> list[int]:
        """Which rows of a block are averaged: the class token's, those of one place, or of all patches.

        Shape: who asks, and a level or None for all, in; row numbers out. Where the class token alone asks it
        is always its row; "token" without class tokens is "all".
        """
        if block.rows.codes.shape[2] == 1 or (asks == "token" and self.prefix):
            return [0]
        side = block.asked
        if isinstance(asks, str):
            cells: Sequence[int] = range(side * side)
        else:
            x, y = (min(side - 1, max(0, int(v * side))) for v in asks)
            cells = [y * side + x]
        levels = range(max(1, len(self.levels))) if level is None else [level]
        return [self.prefix + lv * side * side + cell for lv in levels for cell in cells]

    def map(
        self, face: int, layer: str, head: int | None, step: str, asks: Asks, level: int | None
    ) -> np.ndarray:
        """The map that the page shows, from the same codes. Shape: (side, side) float64.

        Heads and rows are averaged, levels added (scores: averaged). Raises ``ValueError`` for a step that
        the layer does not have.
        """
        steps = self.layers[layer]
        block = steps[step] or (steps["softmax"] if step == "scores" else None)
        if block is None:
            raise ValueError(f"layer {layer!r} has no {step}: give {step}= to TokenAttention")
        count = block.rows.codes.shape[1]
        if head is not None and not 0 <= head < count and step != "rollout":
            raise ValueError(f"layer {layer!r} has heads 0 to {count - 1}, got {head}")
        heads = slice(None) if head is None or step == "rollout" else slice(head, head + 1)
        kept = block.rows.values((face, heads))[:, self.rows(block, asks, level)]
        kept = kept.reshape(-1, kept.shape[-1])[:, self.prefix :]
        cells = kept.reshape(len(kept), -1, block.side, block.side)
        if level is not None:
            cells = cells[:, level : level + 1]
        if isinstance(block.rows, Shares):
            shares = cells.mean(0).sum(0)
            with np.errstate(divide="ignore"):
                return np.log(shares) if step == "scores" else shares
        seen = np.isfinite(cells)
        total, count = np.where(seen, cells, 0).sum((0, 1)), seen.sum((0, 1))
        return np.where(count > 0, total / np.maximum(count, 1), -np.inf)
