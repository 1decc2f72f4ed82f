"""Where the faces of a picture are: BlazeFace, a network of 135,000 parameters, and FER+'s frame around each.

The detector is Google's (Bazarevsky et al. 2019, Apache-2.0; the model for pictures of 256 pixels), which the
npm package ``@vladmandic/human`` carries. It does not come with ferlib: ``make book`` brings it and writes it
as an ONNX file of 0.3 MB, of convolutions only, so it takes a picture of any size at once. The page "Try it"
runs the same file with the same rules. How many faces it finds, and what it takes for a face, stands in the
record ``face_detector``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferlib.errors import DataError
from ferlib.files import cache_root
from ferlib.runtime import open_session

__all__ = ["Box", "detector_file", "find_faces", "load_detector", "searched_down_to", "to_gray"]

FILE = "face_detector.onnx"
MISSING = "the face detector is not there: `make book` brings it; --box and --whole need none"
#: The longer side, in pixels, at which a picture is searched, one after the other; it is at most doubled. The
#: first is enough for a portrait, the last is for large pictures in which the others find no face.
SEARCHED = (256, 640, 1280, 2560)
DOUBLED = 2.0
PORTRAIT = 0.35  # of the longer side: a face as large is the picture's subject
SMALLEST = 48  # pixels of the searched picture: nearly all faces of that side are found
MAYBE = 0.4  # the least confidence with which a place is looked at once more
CLOSER, CLOSE = 2, 128  # as a square of so many sides of the box, at so many pixels
STRIDES = (16, 32)  # pixels from one cell of the detector's maps to the next
SURE = 0.6  # the least confidence of a face, the mean of both looks
SAME = 0.4  # overlap above which two boxes mean the same face
#: FER+'s frame around a box of the detector: its side, and how far its center is below, in sides of the box.
#: FER+'s own frames are 1.15 times as large as these boxes; the rest keeps every mouth inside.
FRAME, BELOW = 1.2, -0.06


@dataclass(frozen=True)
class Box:
    """A square of a picture, in pixels from its top left corner; it may stick out of the picture.

    Attributes:
        left: Where it begins.
        top: Where it begins.
        side: Its width and height.
        confidence: The detector's, 0 to 1; None for a given box.
    """

    left: float
    top: float
    side: float
    confidence: float | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, text: str) -> Box:
        """A box as typed, ``"x,y,w,h"``; what is not square becomes the square of its longer side.

        Raises:
            DataError: For anything else.
        """
        try:
            x, y, width, height = map(float, text.split(","))
        except ValueError:
            raise DataError(f"box {text}: expected four numbers x,y,w,h such as 40,60,120,120") from None
        if not min(width, height) >= 1:
            raise DataError(f"box {text}: expected a width and height of at least 1 pixel")
        side = max(width, height)
        return cls(x + (width - side) / 2, y + (height - side) / 2, side)

    @classmethod
    def middle(cls, width: int, height: int) -> Box:
        """The largest square in the middle of a picture."""
        side = min(width, height)
        return cls((width - side) // 2, (height - side) // 2, side)

    def shared(self, other: Box) -> float:
        """The area that lies in both."""
        across = min(self.left + self.side, other.left + other.side) - max(self.left, other.left)
        down = min(self.top + self.side, other.top + other.side) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)

    def overlap(self, other: Box) -> float:
        """Shared area over joint area, 0 to 1."""
        return self.shared(other) / (self.side**2 + other.side**2 - self.shared(other))

    def within(self, other: Box) -> bool:
        """Whether more than half of the smaller of the two lies in both."""
        return self.shared(other) > 0.5 * min(self.side, other.side) ** 2


def to_gray(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance 0.299 R + 0.587 G + 0.114 B: uint8 (C, H, W), C = 1 or 3, to (H, W)."""
    if len(picture) == 1:
        return picture[0]
    return np.asarray(Image.fromarray(np.moveaxis(picture, 0, 2)).convert("L"))


def detector_file() -> Path:
    """Where the detector is looked for: in ``$FERLIB_CACHE``, or else in ``~/.cache/ferlib``."""
    return cache_root() / FILE


@cache
def load_detector() -> Any:
    """The detector's session, opened once.

    Raises:
        DataError: The detector's file is missing or damaged.
    """
    path = detector_file()
    if not path.is_file():
        raise DataError(MISSING, path)
    return open_session(path)


def find_faces(picture: NDArray[np.uint8]) -> list[Box]:
    """FER+'s frames around all faces of a picture, uint8 (C, H, W), C = 1 or 3, the surest first.

    The detector takes a face of 64 pixels best. A picture is therefore searched at several sizes, and each
    place that may be a face is looked at once more, cut out and resized. What only one of the two looks
    takes for a face is often a texture.

    Raises:
        DataError: The detector's file is missing or damaged.

    Chapter 8.
    """
    colors = np.moveaxis(np.broadcast_to(picture, (3, *picture.shape[1:])), 0, 2)
    whole, faces, done = Image.fromarray(np.ascontiguousarray(colors)), [], 0.0
    longest = max(whole.size)
    for searched in SEARCHED:
        scale = min(DOUBLED, searched / longest)
        if scale == done or (searched == SEARCHED[-1] and (faces or scale > 1)):
            break
        size = [max(1, round(length * scale)) for length in whole.size]
        for box in merge(_search(whole.resize(size, Image.Resampling.BICUBIC) if scale != 1 else whole)):
            place = Box(box.left / scale, box.top / scale, box.side / scale, box.confidence)
            faces += _looked_at(whole, place)
        done = scale
        if searched == SEARCHED[0] and any(face.side > PORTRAIT * longest for face in faces):
            break
    return [_framed(box) for box in merge(faces)]


def searched_down_to(longest: int, faces: Sequence[Box]) -> int:
    """The side in pixels of the smallest face that is found beside these in a picture of that size."""
    portrait = any(face.side > FRAME * PORTRAIT * longest for face in faces)
    return math.ceil(SMALLEST / min(DOUBLED, SEARCHED[0 if portrait else -2] / longest))


def _looked_at(whole: Image.Image, place: Box) -> list[Box]:
    """The face at a place of a picture, if a closer look finds it, too."""
    side = max(1, round(CLOSER * place.side))
    left, top = (round(start + (place.side - side) / 2) for start in (place.left, place.top))
    part = whole.crop((left, top, left + side, top + side)).resize((CLOSE, CLOSE), Image.Resampling.BICUBIC)
    scale = side / CLOSE
    found = [
        Box(left + b.left * scale, top + b.top * scale, b.side * scale, (b.confidence + place.confidence) / 2)
        for b in _search(part)
    ]
    best = max((box for box in found if box.overlap(place) > SAME), key=lambda b: b.confidence, default=None)
    return [best] if best and best.confidence > SURE else []


def _search(picture: Image.Image) -> list[Box]:
    """Places that may be faces. The maps' cells lie where they should only on whole multiples of a stride."""
    coarsest = STRIDES[-1]
    padded = np.zeros((*(-(-length // coarsest) * coarsest for length in picture.size[::-1]), 3), np.uint8)
    padded[: picture.height, : picture.width] = np.asarray(picture)
    try:
        maps = load_detector().run(_outputs(), {"picture": padded})
    except Exception as error:  # onnxruntime's kinds of errors have other names in each version
        path = detector_file()
        raise DataError(f"does not run ({error}): remove it, and `make book` again", path) from error
    boxes = []
    for stride, scores, values in zip(STRIDES, maps[::2], maps[1::2], strict=True):
        for anchor, row, column in np.argwhere(scores > MAYBE):
            across, down, side = map(float, values[anchor, :3, row, column])
            left = (column + 0.5) * stride + across - side / 2
            top = (row + 0.5) * stride + down - side / 2
            boxes.append(Box(float(left), float(top), side, float(scores[anchor, row, column])))
    return boxes


def _outputs() -> list[str]:
    return [f"{what}{stride}" for stride in STRIDES for what in ("scores", "boxes")]


def merge(boxes: Sequence[Box]) -> list[Box]:
    """One box for each face: the mean, by confidence, of the boxes that mean the same, the surest first.

    What lies within a surer box without meaning the same is left out.
    """
    left, faces = sorted(boxes, key=lambda box: -box.confidence), []
    while left:
        best = left[0]
        faces.append(_mean([box for box in left if box.overlap(best) > SAME], best.confidence))
        left = [box for box in left[1:] if not box.within(best)]
    return faces


def _mean(boxes: Sequence[Box], confidence: float | None = None) -> Box:
    weights = [box.confidence or 1 for box in boxes]
    corners = np.array([(box.left, box.top, box.side) for box in boxes])
    return Box(*np.average(corners, axis=0, weights=weights).tolist(), confidence)


def _framed(box: Box) -> Box:
    side, across, down = FRAME * box.side, box.left + box.side / 2, box.top + box.side / 2 + BELOW * box.side
    return Box(across - side / 2, down - side / 2, side, box.confidence)
