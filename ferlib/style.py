"""What plots and explorers share: one palette, and any picture as an array. No matplotlib, no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["EMOTION_COLOURS", "KEY", "QUERY", "VALUE"]

#: Okabe-Ito: eight colours that colour-blind readers can tell apart, one for each expression.
EMOTION_COLOURS = {
    "neutral": "#636363",  # a lighter grey is the green of disgust to some readers
    "happiness": "#E69F00",
    "surprise": "#56B4E9",
    "sadness": "#0072B2",
    "anger": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "contempt": "#F0E442",
}
#: The colors of attention: query, key and value.
QUERY, KEY, VALUE = "#0072B2", "#E69F00", "#009E73"
INK = "#1f1f1f"


def as_array(values: ArrayLike, name: str, ndim: int | None = None) -> np.ndarray:
    """Anything ``np.asarray`` takes, also a tensor that requires gradients, as a finite array of any shape.

    Raises:
        ValueError: Naming the argument, where it has another number of dimensions than ``ndim``, or a value
            that is not finite.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # numpy has no such type
            values = values.float()
    array = np.asarray(values)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has {ndim} dimensions, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def as_image(values: ArrayLike, name: str = "image") -> np.ndarray:
    """A picture as uint8: (H, W) where it is gray, (H, W, 3) where it has color.

    Args:
        values: (H, W), (H, W, 1 or 3) or (1 or 3, H, W); uint8, or floats in [0, 1], which are clipped.
        name: What errors call it.

    Raises:
        ValueError: For other shapes.
    """
    array = as_array(values, name)
    if array.ndim == 3 and array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(f"{name} is a picture (H, W), (H, W, 3) or (3, H, W), got shape {array.shape}")
    if array.dtype != np.uint8:
        array = (np.clip(array.astype(np.float64), 0, 1) * 255).round().astype(np.uint8)
    return array[..., 0] if (array == array[..., :1]).all() else array
