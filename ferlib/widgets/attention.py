"""Where a network looks, patch by patch, and whether it is where it should look. Chapter 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from ferlib.style import as_array, as_image
from ferlib.widgets.base import Explorer, data_address, module, picture
from ferlib.widgets.codec import pack, pack_maps

__all__ = ["AttentionExplorer"]

MOST_FACES = 16
Packed = Mapping[str, Any]


def faces_of(source: Packed) -> int:
    """How many faces a packed source is of, which is the same in all its layers."""
    if "size" in source:
        return source["codes"]["shape"][0]
    if "network" in source:
        return source["network"]["tokens"]["shape"][0]
    blocks = [layer[step] for layer in source["layers"] for step in ("softmax", "rollout") if layer[step]]
    counts = {block["codes"]["shape"][0] for block in blocks}
    if len(counts) > 1:
        raise ValueError(f"all layers look at the same faces, got {sorted(counts)} of them")
    return counts.pop()


class AttentionExplorer(Explorer):
    r"""Faces under two maps side by side: hover, tap or arrow-key a patch to see where it attends.

    Each side shows a network's attention (by layer, head, step and level) or a plain map. The true region can
    be laid over, and every map is scored against it by the equations of
    ``ferlib.explain.attention_score``, on the map as the page holds it. The traits ``face``, ``left``,
    ``right``, ``asks``, ``query``, ``left_view``, ``right_view``, ``region`` and ``heat`` follow the reader's
    hand when a kernel is there. Chapter 8.

    A recorded source holds weights of attention alone. A computed one
    (``book.figures.token_attention.computed``) carries a small network: the page steps through one weight
    with real numbers, lets attention be changed by hand, and computes the prediction anew.

    Args:
        faces: Name -> picture (H, W), (H, W, 3) or (3, H, W), uint8 or floats in [0, 1], all of one size, 16
            at most.
        sources: Name -> an array (F, h, w) of one map a face (negative heat counts as none), or what a record
            keeps: maps of ``pack_maps``, attention or a network as ``book.figures.token_attention`` packs it.
        truth: (F, H', W') in [0, 1], such as the renderer's ``masks["expression"]``; 0.5 and more is inside.
        answers: Source name -> F short texts, such as what the network predicts for each face.
        query: The query at first: "patch" (the one in the middle), "token" or "all" (default: the class token
            where the first source has one, else a patch).

    Raises:
        ValueError: For numbers of faces that disagree, unknown names, an empty true region, or more than
            600 kB, naming what to reduce.

    Example::

        from ferlib.widgets import AttentionExplorer

        AttentionExplorer({"the hard face": image}, truth=masks,      # last expression of a cell
                          sources={"Grad-CAM": cam, "edges": edges})
    """

    _source = module("attend.js", "transformer.js", "heat.js", "lab.js", "attention.js")
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
        sources: Mapping[str, Packed | ArrayLike],
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
        source = self._sources[name]
        layers = source["network"]["depth"] if "network" in source else len(source.get("layers", ()))
        last = max(0, layers - 1)
        return {"layer": last, "head": None, "step": "softmax", "level": None}

    def fallback(self) -> str:
        """The faces, as one picture."""
        return picture(self._pictures, f"The faces that are looked at: {', '.join(self.data['faces'])}")


def _packed(name: object, source: Packed | ArrayLike) -> Packed:
    return source if isinstance(source, Mapping) else pack_maps(as_array(source, f"source {name!r}", 3))


def _region(truth: ArrayLike, names: list[str]) -> np.ndarray:
    inside = as_array(truth, "truth", 3) >= 0.5
    if len(inside) != len(names):
        raise ValueError(f"truth holds {len(inside)} masks for {len(names)} faces")
    for name, mask in zip(names, inside, strict=True):
        if not mask.any():
            raise ValueError(f"face {name!r} has no true region: nothing in its mask reaches 0.5")
    return inside.astype(np.uint8)
