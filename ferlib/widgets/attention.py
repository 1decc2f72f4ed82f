"""Where a network looks, patch by patch, and whether it is where it should look. Chapter 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import traitlets
from numpy.typing import ArrayLike
from PIL import Image

from ferlib.widgets.base import Explorer, data_address, module, picture
from ferlib.widgets.codes import Shares
from ferlib.widgets.packing import as_array, as_image, pack
from ferlib.widgets.tokens import Asks, TokenAttention

__all__ = ["AttentionExplorer"]

STEPS = ("scores", "softmax", "rollout")
MOST_FACES = 16


class _PlainMaps:
    """One map a face, (F, h, w), without anybody who asks; negative heat counts as none."""

    def __init__(self, values: ArrayLike, name: str) -> None:
        maps = as_array(values, f"source {name!r}", 3).clip(0)
        self.faces, *self.size = maps.shape
        self.prefix, self.layers = 0, {}
        self._rows = Shares.of(maps.reshape(self.faces, -1))

    def map(self, face: int) -> np.ndarray:
        return self._rows.values(face).reshape(self.size)

    def packed(self) -> dict[str, object]:
        return {"size": self.size, **self._rows.packed()}


class AttentionExplorer(Explorer):
    r"""Faces under two maps side by side: hover, tap or arrow-key a patch to see where it attends.

    Each side shows a network's attention (:class:`~ferlib.widgets.TokenAttention`: layer, head, step, level)
    or a plain map. The true region can be laid over, and every map is scored against it by the equations of
    ``ferlib.explain.attention_score``, on the map as the page holds it; :meth:`shown` gives that map. The
    traits ``face``, ``left``, ``right``, ``asks``, ``query``, ``left_view``, ``right_view``, ``region`` and
    ``heat`` follow the reader's hand when a kernel is there.

    Parameters
    ----------
    faces: name -> picture, all of one size, 16 at most.
    sources: name -> ``TokenAttention``, or an array (F, h, w): one map a face, negative heat counts as none.
    truth: (F, H', W') in [0, 1], such as the renderer's ``masks["expression"]``; 0.5 and more is inside.
    truth_name: what that region is.
    answers: source name -> F short texts, such as what the network answers for each face.
    left, right: the sources shown at first (default the first two; a single one is shown alone).
    query: who asks at first: "token", "all", or the place (x, y) of a patch in [0, 1] (default the class
        token where the left source has one, else the middle).
    face: the face shown at first.

    Shape: pictures (H, W), (H, W, 3) or (3, H, W), uint8 or floats in [0, 1]; F is the number of faces.
    Raises: ``ValueError`` for numbers of faces that disagree, unknown names, an empty true region, or more
    than 600 kB, naming what to reduce. Chapter 8.

    Example::

        from ferlib.widgets import AttentionExplorer, TokenAttention

        AttentionExplorer({"the hard face": image}, truth=masks,      # last expression of a cell
                          sources={"ViT": TokenAttention(weights, prefix=1), "Grad-CAM": cam})
    """

    _source = module("heat.js", "attention.js")
    _smaller = (
        "average the heads (average_heads=True), pool to a coarser grid (grid=7), or give fewer layers, "
        "sources or faces"
    )
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
        sources: Mapping[str, TokenAttention | ArrayLike],
        *,
        truth: ArrayLike | None = None,
        truth_name: str = "the region that makes the expression",
        answers: Mapping[str, Sequence[str]] | None = None,
        left: str | None = None,
        right: str | None = None,
        query: Asks | None = None,
        face: str | None = None,
    ) -> None:
        names = [str(name) for name in faces]
        self._pictures = [as_image(image, f"face {name!r}") for name, image in faces.items()]
        if not 1 <= len(names) <= MOST_FACES or len({p.shape for p in self._pictures}) > 1:
            shapes = sorted({p.shape for p in self._pictures})
            raise ValueError(
                f"1 to {MOST_FACES} faces of one size can be shown, got {len(names)} of {shapes}"
            )
        self._sources = {
            str(name): source if isinstance(source, TokenAttention) else _PlainMaps(source, str(name))
            for name, source in sources.items()
        }
        if not self._sources:
            raise ValueError("sources holds nothing to show")
        for name, source in self._sources.items():
            if source.faces != len(names):
                raise ValueError(f"source {name!r} is of {source.faces} faces, {len(names)} are shown")
        inside = None if truth is None else _region(truth, names)
        answers = _answers(answers or {}, self._sources, len(names))
        both = list(self._sources)
        first, second = left or both[0], right or both[min(1, len(both) - 1)]
        for name in (first, second):
            if name not in both:
                raise ValueError(f"{name!r} is none of the sources {', '.join(both)}")
        if face is not None and face not in names:
            raise ValueError(f"{face!r} is none of the faces {', '.join(names)}")
        asks, place = self._start(query, self._sources[first])
        data = {
            "faces": names,
            "pictures": [data_address(p) for p in self._pictures],
            "ratio": self._pictures[0].shape[1] / self._pictures[0].shape[0],
            "truth": inside if inside is None else {"name": truth_name, "inside": pack(inside)},
            "sources": [
                {"name": name, "answers": answers.get(name), **source.packed()}
                for name, source in self._sources.items()
            ],
        }
        super().__init__(
            data, face=names.index(face or names[0]), left=both.index(first), right=both.index(second),
            asks=asks, query=place, left_view=self._view(first), right_view=self._view(second),
        )  # fmt: skip

    @staticmethod
    def _start(query: Asks | None, source: TokenAttention | _PlainMaps) -> tuple[str, list[float]]:
        query = query or ("token" if source.prefix else (0.5, 0.5))
        if isinstance(query, str):
            if query not in ("token", "all"):
                raise ValueError(f'query is "token", "all" or a place (x, y), got {query!r}')
            return query, [0.5, 0.5]
        x, y = map(float, query)
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(f"query is a place (x, y) in [0, 1], got ({x}, {y})")
        return "patch", [x, y]

    def _view(self, name: str) -> dict[str, object]:
        """What a side shows at first: the last layer, all heads and levels, after the softmax."""
        last = max(0, len(self._sources[name].layers) - 1)
        return {"layer": last, "head": None, "step": "softmax", "level": None}

    def shown(
        self,
        source: str,
        face: str,
        *,
        layer: str | None = None,
        head: int | None = None,
        step: str = "softmax",
        query: Asks | None = None,
        level: str | None = None,
    ) -> np.ndarray:
        """The map that the page shows for these settings, from the same bytes, to check its numbers with.

        Shape: (h, w) float64. ``layer`` is a name (default the last), ``head`` a number or None for the mean,
        ``query`` as in the constructor, ``level`` a name or None for all. Raises ``ValueError`` or
        ``KeyError`` for settings that the source does not have. Chapter 8.
        """
        index, chosen = self.data["faces"].index(face), self._sources[source]
        if isinstance(chosen, _PlainMaps):
            return chosen.map(index)
        if step not in STEPS:
            raise ValueError(f"step is one of {', '.join(STEPS)}, got {step!r}")
        asks, place = self._start(query, chosen)
        return chosen.map(
            index, layer or list(chosen.layers)[-1], head, step, tuple(place) if asks == "patch" else asks,
            None if level is None else chosen.levels.index(level),
        )  # fmt: skip

    def fallback(self) -> str:
        """The first face under the first two maps, as one picture. Shape: text."""
        name = self.data["faces"][self.face]
        places = list(dict.fromkeys([self.left, self.right]))
        both = [list(self._sources)[place] for place in places]
        query: Asks = tuple(self.query) if self.asks == "patch" else self.asks
        covered = [
            _cover(self._pictures[self.face], self.shown(source, name, query=query), self.heat)
            for source in both
        ]
        return picture(covered, f"{name}, and where it is looked at: {' and '.join(both)}")


def _region(truth: ArrayLike, names: list[str]) -> np.ndarray:
    inside = as_array(truth, "truth", 3) >= 0.5
    if len(inside) != len(names):
        raise ValueError(f"truth holds {len(inside)} masks for {len(names)} faces")
    for name, mask in zip(names, inside, strict=True):
        if not mask.any():
            raise ValueError(f"face {name!r} has no true region: nothing in its mask reaches 0.5")
    return inside.astype(np.uint8)


def _answers(
    answers: Mapping[str, Sequence[str]], sources: Mapping[str, object], count: int
) -> dict[str, list[str]]:
    for name, texts in answers.items():
        if name not in sources:
            raise ValueError(f"answers are for {name!r}, which is none of the sources {', '.join(sources)}")
        if len(texts) != count:
            raise ValueError(f"{len(texts)} answers of {name!r} for {count} faces")
    return {str(name): [str(text) for text in texts] for name, texts in answers.items()}


def _cover(image: np.ndarray, heat: np.ndarray, strength: float) -> np.ndarray:
    """A picture under a map, as the page draws it: the more heat, the more of its colour."""
    share = np.maximum(heat, 0) / max(heat.max(), 1e-12)
    size = tuple(side * max(1, 280 // max(image.shape[:2])) for side in image.shape[1::-1])
    share = np.asarray(Image.fromarray(share.astype(np.float32)).resize(size, Image.Resampling.NEAREST))
    colour = matplotlib.colormaps["viridis"](share)[..., :3] * 255
    alpha = (strength * (0.2 + 0.8 * np.sqrt(share)))[..., None]
    grey = np.asarray(Image.fromarray(image).convert("L").resize(size, Image.Resampling.BICUBIC))[..., None]
    return (grey * (1 - alpha) + colour * alpha).round().astype(np.uint8)
