"""A network's recorded attention as :class:`ferlib.widgets.AttentionExplorer` shows it. Chapter 8."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from ferlib.style import as_array
from ferlib.widgets.attention import faces_of
from ferlib.widgets.base import class_colors
from ferlib.widgets.codec import pack, pack_rows


class TokenAttention:
    """A network's attention for the faces of an :class:`AttentionExplorer`: layers, heads, queries and keys.

    Tokens are ``prefix`` class tokens and then, for each of the ``levels``, the cells of a square grid row by
    row: a vision transformer, multi-level attention, POSTER V2's levels, or window attention that has been
    put back into image coordinates. ``packed`` holds all of it as JSON, one byte an entry, right to 1/255 of
    its row's maximum; an explorer shows it from there, and a record keeps it. Chapter 8.

    Args:
        weights: Layer name -> attention after the softmax, (F, heads, K, K) for F faces and K tokens, or
            (F, heads, 1, K) where the class token is the only query. Layers may have different grids.
        prefix: How many class tokens stand in front.
        levels: Names of the levels that follow each other; empty for one.
        rollout: Layer name -> (F, Q, K), what has arrived at the layer's Q tokens from the first layer's K.
        grid: Pool finer grids to this many cells a side (shares of keys added, queries averaged).

    Raises:
        ValueError: Naming the layer, for shapes that fit no grid, numbers below zero or not finite, a rollout
            of unknown layers, or a grid that does not divide.
    """

    def __init__(
        self,
        weights: Mapping[str, ArrayLike],
        *,
        prefix: int = 0,
        levels: Sequence[str] = (),
        rollout: Mapping[str, ArrayLike] | None = None,
        grid: int | None = None,
    ) -> None:
        self._prefix, self._levels, self._grid = int(prefix), [str(name) for name in levels], grid
        rollout = rollout or {}
        if not weights:
            raise ValueError("weights holds no layer: record a forward pass first")
        if stray := sorted(set(rollout) - set(weights)):
            raise ValueError(f"rollout is for {stray}, which are none of the layers {list(weights)}")
        layers = [
            {
                "name": str(name),
                "rollout": self._block(f"rollout of {name!r}", rollout[name], 3) if name in rollout else None,
                "softmax": self._block(f"attention of {name!r}", rows, 4),
            }
            for name, rows in weights.items()
        ]
        self.packed: dict[str, Any] = {"prefix": self._prefix, "levels": self._levels, "layers": layers}
        faces_of(self.packed)

    @classmethod
    def of(cls, records: Sequence[Any], names: Sequence[str] | None = None, **options: Any) -> TokenAttention:
        """What ``ferlib.explain.AttentionRecorder`` recorded of one forward pass, windows put back.

        Args:
            records: Records whose tokens lie on a picture in one way.
            names: Names of the layers (default: those of the modules).
            options: More arguments of the class.

        Raises:
            ValueError: For records of several kinds, or of attention that does not lie on a picture (class
                batch attention has an explorer of its own).
        """
        kinds = {record.layout and (record.layout.prefix, record.layout.levels) for record in records}
        if len(kinds) != 1 or None in kinds:
            found = ", ".join(record.name for record in records) or "no record"
            raise ValueError(f"expected records whose tokens lie on a picture in one way, got {found}")
        prefix, levels = kinds.pop()
        options.setdefault("levels", [f"{i + 1}" for i in range(levels)] if levels > 1 else ())
        names = names or [record.name for record in records]
        weights = {name: record.on_grid() for name, record in zip(names, records, strict=True)}
        return cls(weights, prefix=prefix, **options)

    def _block(self, name: str, given: ArrayLike, ndim: int) -> dict[str, Any]:
        """Rows (F, heads, Q, K) of one layer at one step, pooled and packed; cells a side of both grids."""
        rows = as_array(given, name, ndim)
        rows = rows.reshape(len(rows), -1, *rows.shape[-2:])
        if rows.size and rows.min() < 0:
            raise ValueError(f"{name} holds {rows.min():.3g}: shares are not negative")
        asked, side = self._side(rows.shape[2]), self._side(rows.shape[3])
        if not side or (not asked and not (rows.shape[2] == 1 and self._prefix)):
            raise ValueError(
                f"{name} has shape {rows.shape}: its tokens are not {self._prefix} class tokens and "
                f"{max(1, len(self._levels))} square grids; say prefix= and levels= as the network has them"
            )
        if self._grid is not None and self._grid < side:
            rows, side = rows @ self._pooling(side, name).T, self._grid
        if self._grid is not None and self._grid < asked:
            pooling = self._pooling(asked, name)
            rows, asked = pooling / pooling.sum(1, keepdims=True) @ rows, self._grid
        return {"asked": asked, "side": side, **pack_rows(rows)}

    def _side(self, tokens: int) -> int:
        """Cells per side of the grids that so many tokens fill; 0 where they fill none."""
        cells, rest = divmod(tokens - self._prefix, max(1, len(self._levels)))
        side = math.isqrt(max(0, cells))
        return side if side * side == cells and not rest else 0

    def _pooling(self, side: int, name: str) -> np.ndarray:
        """Which tokens (columns) make up each of the fewer tokens (rows): class tokens, then larger cells."""
        if self._grid < 1 or side % self._grid:
            raise ValueError(f"grid={self._grid} does not divide the {side} x {side} cells of {name}")
        line = np.kron(np.eye(self._grid), np.ones(side // self._grid))
        grids = np.kron(np.eye(max(1, len(self._levels))), np.kron(line, line))
        return block_diag(np.eye(self._prefix), grids)


def computed(model: Any, images: Any, classes: Sequence[str]) -> dict[str, Any]:
    """The transformer of a small Batch Transformer Network and its input for some faces, to run in a page.

    The page computes the output "vit", which does not depend on other images. Weights and tokens are rounded
    to half precision. Chapter 8.

    Args:
        model: A :class:`ferlib.models.BatchTransformerNetwork` in evaluation mode.
        images: Its input, (F, 3, H, W).
        classes: Names of its classes.

    Example::

        AttentionExplorer(faces, {"small network": computed(model, inputs, EMOTIONS_FERPLUS)})
    """
    import torch

    vit, levels = model.vit, ("fine", "middle", "coarse")
    with torch.no_grad():
        tokens = model.encode(images)[0]
        start = torch.cat([vit.cls_token.expand(len(tokens), -1, -1), tokens], 1) + vit.pos_embed
    weights = {
        name: pack(value, "float16")
        for name, value in vit.state_dict().items()
        if name not in ("cls_token", "pos_embed")
    }
    network = {
        "tokens": pack(start, "float16"),
        "weights": weights,
        "heads": vit.blocks[0].attn.heads,
        "depth": len(vit.blocks),
        "side": math.isqrt(tokens.shape[1] // len(levels)),
        "classes": [str(name) for name in classes],
        "colours": class_colors(classes),
    }
    return {"prefix": 1, "levels": list(levels), "network": network}
