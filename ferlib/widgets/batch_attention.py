"""Class batch attention, computed anew as faces go in and out of a batch. Chapter 4."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import traitlets
from numpy.typing import ArrayLike
from PIL import Image

from ferlib.style import as_array, as_image
from ferlib.widgets.base import Explorer, class_colors, module, picture
from ferlib.widgets.codec import pack

__all__ = ["BatchAttentionExplorer"]

MOST_FACES = 32
PARTS = ("query", "key", "value")


class BatchAttentionExplorer(Explorer):
    r"""A tray of faces, a batch of some of them, and class batch attention recomputed as it changes.

    For the batch the reader has put together the page computes
    :math:`A_c = \mathrm{softmax}(\text{scale}\; Q_c K_c^\top)`, CBA = :math:`A_c V_{:,c}` and BT = CBA + V,
    by the equations of ``ferlib.models.class_batch_attention``. The traits ``members``, ``attending``,
    ``cls`` and ``scale`` follow the reader's hand when a kernel is there. Chapter 4.

    Args:
        faces: (N, H, W) or (N, 1, H, W), uint8 or floats in [0, 1], N up to 32.
        query: (N, C, E), as it enters the attention.
        key: (N, C, E).
        value: (N, C), the scores of each face alone.
        labels: (N,) true classes.
        classes: C names.
        scale: Multiplies the products (default: 1/sqrt(C)).
        start: The members at first, the first of them attends.
        presets: Name -> members ("everyone" and "alone" are always there).
        names: N names (default: the class of each).
        own: The layers "query", "key" and "value" of chapter 4's toy, (weight, bias) each. With them a face
            of the reader's own can join the batch: the page finds its edges as that chapter does. The faces
            are then squares of 48 pixels, and E is 49.

    Raises:
        ValueError: For shapes that disagree, and for labels or members out of range.

    Example::

        from ferlib.widgets import BatchAttentionExplorer

        BatchAttentionExplorer(faces, q, k, v, labels, EMOTIONS_FERPLUS, start=[0, 3, 4, 5],
                               presets={"with the false friend": [0, 1, 4, 5]})   # last line of a cell
    """

    _source = module("attend.js", "edges.js", "own.js", "batch_attention.js")
    members = traitlets.List(traitlets.Int()).tag(sync=True)
    attending = traitlets.Int(0).tag(sync=True)
    cls = traitlets.Int(0).tag(sync=True)
    scale = traitlets.Float(1.0).tag(sync=True)

    def __init__(
        self,
        faces: ArrayLike,
        query: ArrayLike,
        key: ArrayLike,
        value: ArrayLike,
        labels: ArrayLike,
        classes: Sequence[str],
        *,
        scale: float | None = None,
        start: Sequence[int] | None = None,
        presets: Mapping[str, Sequence[int]] | None = None,
        names: Sequence[str] | None = None,
        own: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ) -> None:
        classes = [str(c) for c in classes]
        pictures = _gray(faces)
        query, key = as_array(query, "query", 3), as_array(key, "key", 3)
        value, labels = as_array(value, "value", 2), as_array(labels, "labels", 1)
        count, wanted = len(pictures), (len(pictures), len(classes), query.shape[2])
        if query.shape != wanted or key.shape != wanted or value.shape != wanted[:2]:
            raise ValueError(
                f"{count} faces and {len(classes)} classes need query, key {wanted} and value {wanted[:2]}, "
                f"got {query.shape}, {key.shape} and {value.shape}"
            )
        if labels.shape != (count,) or not all(0 <= int(y) < len(classes) for y in labels):
            raise ValueError(f"labels: {count} numbers from 0 to {len(classes) - 1}, got {labels.tolist()}")
        names = [classes[int(y)] for y in labels] if names is None else [str(n) for n in names]
        if len(names) != count:
            raise ValueError(f"{count} faces need {count} names, got {len(names)}")
        chosen = {str(name): _members(who, count, name) for name, who in (presets or {}).items()}
        if start is None:
            start = next(iter(chosen.values()), range(min(8, count)))
        first = _members(start, count, "start")
        usual = [(f"√{name} = √{n}", 1 / math.sqrt(n)) for name, n in zip("CE", wanted[1:], strict=True)]
        scale = usual[0][1] if scale is None else float(scale)
        if not any(math.isclose(scale, other) for _, other in usual):
            usual.append((f"{1 / scale:.3g}", scale))
        data = {
            "classes": classes,
            "colours": class_colors(classes),
            "labels": [int(y) for y in labels],
            "names": names,
            "presets": [[name, sorted(who)] for name, who in chosen.items()],
            "scales": usual,
            "faces": pack(pictures),
            **{name: pack(part, "float32") for name, part in zip(PARTS, (query, key, value), strict=True)},
        }
        if own is not None:
            data["own"] = {name: [pack(part, "float32") for part in own[name]] for name in PARTS}
        self._pictures = pictures
        super().__init__(
            data, members=sorted(first), attending=first[0], cls=int(labels[first[0]]), scale=scale
        )

    def fallback(self) -> str:
        """The faces of the batch at the start, as one picture."""
        words = "A batch of faces: " + ", ".join(self.data["names"][i] for i in self.members)
        return picture([self._pictures[i] for i in self.members], words)


def _gray(faces: ArrayLike) -> np.ndarray:
    """(N, H, W) or (N, 1 or 3, H, W) as gray uint8 (N, H, W)."""
    pictures = [np.asarray(Image.fromarray(as_image(face, "faces")).convert("L")) for face in faces]
    if not 1 <= len(pictures) <= MOST_FACES or len({p.shape for p in pictures}) > 1:
        raise ValueError(f"1 to {MOST_FACES} faces of one size (H, W) can be shown, got {len(pictures)}")
    return np.stack(pictures)


def _members(who: Sequence[int], count: int, name: str) -> list[int]:
    members = [int(i) for i in who]
    if not members or len(set(members)) != len(members) or not all(0 <= i < count for i in members):
        raise ValueError(f"{name}: different faces from 0 to {count - 1}, at least one; got {members}")
    return members
