"""From a square of a picture to a face as FER+ has it: grey, 48 pixels, filled from brows to chin.

FER+'s own faces were cut out by a detector of this family. Searched with ours, they fill its window: the
record ``pocket_ferplus`` holds how its windows lie in them (side and centre, as shares of the face's side),
so the window is the frame. Enlarging to what the network sees is inside the model file.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferlib.pictures.boxes import Box


def to_grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance 0.299 R + 0.587 G + 0.114 B. Shape: (C, H, W) uint8, C = 1 or 3 -> (H, W) uint8."""
    if len(picture) == 1:
        return picture[0]
    return np.asarray(Image.fromarray(np.moveaxis(picture, 0, 2)).convert("L"))


def frame(grey: NDArray[np.uint8], box: Box, size: int = 48) -> NDArray[np.uint8]:
    """The box at ``size`` pixels: bicubic, antialiased where it shrinks; a box of that size stays as it is.

    Where the box sticks out of the picture, the picture's edge is continued.

    Shape: (H, W) uint8 and a box -> (size, size) uint8.
    """
    left, top = math.floor(box.left), math.floor(box.top)
    right, bottom = math.ceil(box.left + box.side), math.ceil(box.top + box.side)
    rows = np.arange(top, bottom).clip(0, grey.shape[0] - 1)
    columns = np.arange(left, right).clip(0, grey.shape[1] - 1)
    region = Image.fromarray(np.ascontiguousarray(grey[rows[:, None], columns]))
    x, y = box.left - left, box.top - top
    inner = (x, y, x + box.side, y + box.side)
    return np.asarray(region.resize((size, size), Image.Resampling.BICUBIC, box=inner))
