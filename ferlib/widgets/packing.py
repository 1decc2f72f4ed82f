"""Arrays into the page: few bytes, no library to read them; ``unpack`` in ``static/ui.js`` is the inverse."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ferlib.style import EMOTION_COLOURS

__all__ = ["MAX_BYTES", "as_array", "as_image", "class_colours", "pack", "script_safe"]

MAX_BYTES = 600_000  # of one figure in a page: data, code and fallback together


def as_array(values: ArrayLike, name: str, ndim: int | None = None, *, masked: bool = False) -> np.ndarray:
    """Anything ``np.asarray`` takes, also a tensor that requires gradients, as a finite array of any shape.

    Raises ``ValueError`` naming the argument when it has another number of
    dimensions than ``ndim``, or a value that is not finite (``masked`` allows minus infinity).
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # numpy has no such type
            values = values.float()
    array = np.asarray(values)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has {ndim} dimensions, got shape {array.shape}")
    if not (np.isfinite(array) | (masked & np.isneginf(array))).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def as_image(values: ArrayLike, name: str) -> np.ndarray:
    """A picture as uint8: (H, W) where it is grey, (H, W, 3) where it has colour.

    Shape: (H, W), (H, W, 1 or 3) or (1 or 3, H, W); uint8, or floats in [0, 1], which are clipped.
    Raises ``ValueError`` for other shapes.
    """
    array = as_array(values, name)
    if array.ndim == 3 and array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"{name} is a picture (H, W), (H, W, 3) or (3, H, W), got shape {array.shape}")
    if array.dtype != np.uint8:
        array = (np.clip(array.astype(np.float64), 0, 1) * 255).round().astype(np.uint8)
    if array.ndim == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    return array


def pack(array: ArrayLike, dtype: str = "uint8") -> dict[str, object]:
    """An array as JSON: type, shape, and bytes (little-endian) in base64, deflated where that helps.

    ``float16`` halves what ``float32`` needs and keeps 3 digits. Arrays are of any shape.
    Raises ``ValueError`` for another type than uint8, float16, float32, or a value too large for it.
    """
    if dtype not in ("uint8", "float16", "float32"):
        raise ValueError(f"dtype is uint8, float16 or float32, got {dtype!r}")
    values = np.asarray(array)
    with np.errstate(over="ignore"):
        packed = np.ascontiguousarray(values.astype(np.dtype(dtype).newbyteorder("<")))
    if not np.isfinite(packed).all():
        raise ValueError(f"a value as large as {np.abs(values).max():.4g} does not fit into {dtype}")
    raw = packed.tobytes()
    small = zlib.compress(raw, 9)
    deflated = len(small) < 0.9 * len(raw)
    return {
        "type": dtype,
        "shape": list(values.shape),
        "deflated": deflated,
        "data": base64.b64encode(small if deflated else raw).decode("ascii"),
    }


def script_safe(value: object) -> str:
    """JSON that may stand inside a script element. Shape: any value JSON knows in, text out."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).replace(
        "<", "\\u003c"
    )


def class_colours(classes: Sequence[str]) -> list[str]:
    """The book's colour of each class; classes it has no colour for get those that are left, in order.

    Shape: (K,) names in, (K,) hex colours out.
    """
    left = [colour for name, colour in EMOTION_COLOURS.items() if name not in classes] or ["#7F7F7F"]
    colours = []
    for name in classes:
        colours.append(EMOTION_COLOURS.get(name) or left[0])
        if name not in EMOTION_COLOURS:
            left = [*left[1:], left[0]]
    return colours
