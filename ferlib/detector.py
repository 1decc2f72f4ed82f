"""Where the faces of a picture are: BlazeFace, a network of 135,000 parameters, and FER+'s frame around each.

The detector is Google's (Bazarevsky et al. 2019, Apache-2.0; the model for pictures of 256 pixels), which the
npm package ``@vladmandic/human`` carries. It is not ours to redistribute: ``make book`` brings it, and
``ferlib convert`` makes it from a reader's own copy. It is an ONNX file of 0.3 MB, of convolutions only, so
it takes a picture of any size at once. The page "Try it" runs the same file with the same rules.

Where the file is not there, scikit-image's frontal-face cascade (local binary patterns, OpenCV's file) looks
for faces instead. It needs no download, is slower, and misses small and turned faces: the record
``face_detector`` compares the two.
"""

from __future__ import annotations

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

__all__ = ["Box", "detector_file", "find_faces", "to_gray"]

FILE = "face_detector.onnx"
#: The longer side, in pixels, at which a picture is searched; where it shows no face, the next.
SEARCHED = (640, 1280, 2560)
STRIDES = (16, 32)  # pixels from one cell of the detector's maps to the next
SURE = 0.6  # the least confidence of a face
SAME = 0.4  # overlap above which two boxes mean the same face
#: FER+'s frame around a box of the detector: its side, and how far its center is below, in sides of the box.
#: FER+'s own frames are 1.15 times as large as these boxes; the rest keeps every mouth inside.
FRAME, BELOW = 1.2, -0.06

CASCADE_SEARCHED = (400, 800, 1600)
CASCADE_SCALE = 1.1  # from one size of window to the next
CASCADE_SMALLEST = 24  # pixels of the searched picture: the cascade's own window
CASCADE_HITS = 6  # windows that must agree on a face


@dataclass(frozen=True)
class Box:
    """A square of a picture, in pixels from its top left corner; it may stick out of the picture.

    Attributes:
        left: Where it begins.
        top: Where it begins.
        side: Its width and height.
        confidence: The detector's, 0 to 1; None for a given box and for one of the cascade, which has none.
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


def find_faces(picture: NDArray[np.uint8], *, cascade: bool | None = None) -> list[Box]:
    """FER+'s frames around all faces of a picture, the surest first.

    A picture is searched at 640 pixels of its longer side, where most faces of 48 pixels and more are found
    (the record ``face_detector``); where it shows none, at 1,280 and at 2,560.

    Args:
        picture: uint8 (C, H, W), C = 1 or 3.
        cascade: Whether the cascade searches; None where the detector's file is not there.

    Raises:
        DataError: The detector's file is damaged.

    Chapter 8.
    """
    if cascade is None:
        cascade = not detector_file().is_file()
    if cascade:
        whole, search, sizes = Image.fromarray(to_gray(picture)), _search_cascade, CASCADE_SEARCHED
    else:
        colors = np.moveaxis(np.broadcast_to(picture, (3, *picture.shape[1:])), 0, 2)
        whole, search, sizes = Image.fromarray(np.ascontiguousarray(colors)), _search, SEARCHED
    faces, scale = [], 1.0
    for longest in sizes:
        scale = min(1.0, longest / max(whole.size))
        size = [max(1, round(length * scale)) for length in whole.size]
        faces = search(np.asarray(whole.resize(size, Image.Resampling.BICUBIC) if scale < 1 else whole))
        if faces or scale == 1:
            break
    return [Box(box.left / scale, box.top / scale, box.side / scale, box.confidence) for box in faces]


# The detector


def _search(picture: NDArray[np.uint8]) -> list[Box]:
    """Faces of (H, W, 3). The maps' cells lie where they should only on whole multiples of their stride."""
    path = detector_file()
    coarsest = STRIDES[-1]
    size = [-(-length // coarsest) * coarsest for length in picture.shape[:2]]
    padded = np.zeros((*size, 3), np.uint8)
    padded[: picture.shape[0], : picture.shape[1]] = picture
    try:
        maps = _session(path).run(_outputs(), {"picture": padded})
    except Exception as error:  # onnxruntime's kinds of errors have other names in each version
        raise DataError(
            f"the face detector does not run ({error}): remove it, make it again", path
        ) from error
    boxes = []
    for stride, scores, values in zip(STRIDES, maps[::2], maps[1::2], strict=True):
        for anchor, row, column in np.argwhere(scores > SURE):
            across, down, side = map(float, values[anchor, :3, row, column])
            left = (column + 0.5) * stride + across - side / 2
            top = (row + 0.5) * stride + down - side / 2
            boxes.append(Box(float(left), float(top), side, float(scores[anchor, row, column])))
    return [_framed(box) for box in merge(boxes)]


def _outputs() -> list[str]:
    return [f"{what}{stride}" for stride in STRIDES for what in ("scores", "boxes")]


@cache
def _session(path: Path) -> Any:
    return open_session(path)


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


# The cascade


def _search_cascade(gray: NDArray[np.uint8]) -> list[Box]:
    """Faces of (H, W). Its windows lie in FER+'s faces as FER+'s own frames do."""
    if min(gray.shape) <= CASCADE_SMALLEST:
        return []
    hits = _cascade().detect_multi_scale(
        np.ascontiguousarray(gray),
        scale_factor=CASCADE_SCALE,
        step_ratio=1,
        min_size=(CASCADE_SMALLEST, CASCADE_SMALLEST),
        max_size=(min(gray.shape), min(gray.shape)),
        min_neighbor_number=1,
        intersection_score_threshold=1.1,  # no two windows overlap by more than 1: each is given by itself
    )
    boxes = sorted((hit["width"], hit["r"], hit["c"]) for hit in hits)
    return group([Box(left, top, side) for side, top, left in boxes])


def group(windows: Sequence[Box]) -> list[Box]:
    """Windows that overlap are one face, at their mean; few windows are none, nor is a face in a face."""
    groups: list[list[Box]] = []
    for window in windows:
        near = max(groups, key=lambda members: _mean(members).overlap(window), default=None)
        if near is not None and _mean(near).overlap(window) > SAME:
            near.append(window)
        else:
            groups.append([window])
    faces: list[Box] = []
    for members in sorted(groups, key=len, reverse=True):
        box = _mean(members)
        if len(members) >= CASCADE_HITS and not any(box.within(face) for face in faces):
            faces.append(box)
    return faces


@cache
def _cascade() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())
