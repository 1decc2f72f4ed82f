"""Where a network looks, patch by patch, and whether it is where it should look. Chapter 8."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from ferlib.style import as_array, as_image
from ferlib.widgets.base import Explorer, data_address, module, picture
from ferlib.widgets.codec import pack, pack_maps, pack_rows

__all__ = ["AttentionExplorer", "TokenAttention"]

MOST_FACES = 16
Packed = Mapping[str, Any]


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
                "scores": None,
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


def faces_of(source: Packed) -> int:
    """How many faces a packed source is of, which is the same in all its layers."""
    if "size" in source:
        return source["codes"]["shape"][0]
    blocks = [layer[step] for layer in source["layers"] for step in ("softmax", "rollout") if layer[step]]
    counts = {block["codes"]["shape"][0] for block in blocks}
    if len(counts) > 1:
        raise ValueError(f"all layers look at the same faces, got {sorted(counts)} of them")
    return counts.pop()


class AttentionExplorer(Explorer):
    r"""Faces under two maps side by side: hover, tap or arrow-key a patch to see where it attends.

    Each side shows a network's attention (:class:`~ferlib.widgets.TokenAttention`: layer, head, step, level)
    or a plain map. The true region can be laid over, and every map is scored against it by the equations of
    ``ferlib.explain.attention_score``, on the map as the page holds it. The traits ``face``, ``left``,
    ``right``, ``asks``, ``query``, ``left_view``, ``right_view``, ``region`` and ``heat`` follow the reader's
    hand when a kernel is there. Chapter 8.

    Args:
        faces: Name -> picture (H, W), (H, W, 3) or (3, H, W), uint8 or floats in [0, 1], all of one size, 16
            at most.
        sources: Name -> ``TokenAttention``, an array (F, h, w) of one map a face (negative heat counts as
            none), or either as a record keeps it (``TokenAttention.packed``, ``pack_maps``).
        truth: (F, H', W') in [0, 1], such as the renderer's ``masks["expression"]``; 0.5 and more is inside.
        answers: Source name -> F short texts, such as what the network predicts for each face.
        query: The query at first: "patch" (the one in the middle), "token" or "all" (default: the class token
            where the first source has one, else a patch).

    Raises:
        ValueError: For numbers of faces that disagree, unknown names, an empty true region, or more than
            600 kB, naming what to reduce.

    Example::

        from ferlib.widgets import AttentionExplorer, TokenAttention

        AttentionExplorer({"the hard face": image}, truth=masks,      # last expression of a cell
                          sources={"ViT": TokenAttention(weights, prefix=1), "Grad-CAM": cam})
    """

    _source = module("heat.js", "attention.js")
    _smaller = "average the heads, pool to a coarser grid (grid=7), or give fewer layers, sources or faces"
    face = traitlets.Int(0).tag(sync=True)
    left = traitlets.Int(0).tag(sync=True)
    right = traitlets.Int(0).tag(sync=True)
    asks = traitlets.Enum(("patch", "token", "all"), "patch").tag(sync=True)
    query = traitlets.List(traitlets.Float(), [0.5, 0.5]).tag(sync=True)
    left_view = traitlets.Dict().tag(sync=True)
    right_view = traitlets.Dict().tag(sync=True)
    region = traitlets.Bool(True).tag(sync=True)
    heat = traitlets.Float(0.75, min=0, max=1).tag(sync=True)

    def __init__(
        self,
        faces: Mapping[str, ArrayLike],
        sources: Mapping[str, TokenAttention | Packed | ArrayLike],
        *,
        truth: ArrayLike | None = None,
        answers: Mapping[str, Sequence[str]] | None = None,
        query: str | None = None,
    ) -> None:
        names = [str(name) for name in faces]
        self._pictures = [as_image(image, f"face {name!r}") for name, image in faces.items()]
        if not 1 <= len(names) <= MOST_FACES or len({p.shape for p in self._pictures}) > 1:
            shapes = sorted({p.shape for p in self._pictures})
            raise ValueError(
                f"1 to {MOST_FACES} faces of one size can be shown, got {len(names)} of {shapes}"
            )
        self._sources = {str(name): _packed(name, source) for name, source in sources.items()}
        if not self._sources:
            raise ValueError("sources holds nothing to show")
        for name, source in self._sources.items():
            if faces_of(source) != len(names):
                raise ValueError(f"source {name!r} is of {faces_of(source)} faces, {len(names)} are shown")
        inside = None if truth is None else _region(truth, names)
        answers = {str(name): [str(text) for text in texts] for name, texts in (answers or {}).items()}
        for name, texts in answers.items():
            if name not in self._sources or len(texts) != len(names):
                raise ValueError(
                    f"{len(texts)} answers are for {name!r}, expected {len(names)} for one of the sources "
                    f"{', '.join(self._sources)}"
                )
        left, right = ([*self._sources] * 2)[:2]  # a single source is shown alone
        region = "the region that makes the expression"
        data = {
            "faces": names,
            "pictures": [data_address(p) for p in self._pictures],
            "ratio": self._pictures[0].shape[1] / self._pictures[0].shape[0],
            "truth": inside if inside is None else {"name": region, "inside": pack(inside)},
            "sources": [
                {"name": name, "answers": answers.get(name), **source}
                for name, source in self._sources.items()
            ],
        }
        super().__init__(
            data,
            left=0,
            right=min(1, len(self._sources) - 1),
            asks=query or ("token" if self._sources[left].get("prefix") else "patch"),
            left_view=self._view(left),
            right_view=self._view(right),
        )

    def _view(self, name: str) -> dict[str, object]:
        """What a side shows at first: the last layer, all heads and levels, after the softmax."""
        last = max(0, len(self._sources[name].get("layers", ())) - 1)
        return {"layer": last, "head": None, "step": "softmax", "level": None}

    def fallback(self) -> str:
        """The faces, as one picture."""
        return picture(self._pictures, f"The faces that are looked at: {', '.join(self.data['faces'])}")


def _packed(name: object, source: TokenAttention | Packed | ArrayLike) -> Packed:
    if isinstance(source, TokenAttention):
        return source.packed
    return source if isinstance(source, Mapping) else pack_maps(as_array(source, f"source {name!r}", 3))


def _region(truth: ArrayLike, names: list[str]) -> np.ndarray:
    inside = as_array(truth, "truth", 3) >= 0.5
    if len(inside) != len(names):
        raise ValueError(f"truth holds {len(inside)} masks for {len(names)} faces")
    for name, mask in zip(names, inside, strict=True):
        if not mask.any():
            raise ValueError(f"face {name!r} has no true region: nothing in its mask reaches 0.5")
    return inside.astype(np.uint8)
