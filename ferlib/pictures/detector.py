"""Where the faces are: scikit-image's bundled frontal-face cascade, and what makes a face of its hits.

The cascade (local binary patterns, OpenCV's file) is part of the package, so nothing is downloaded. It sees
frontal faces in fair light; it misses profiles, and now and then takes a texture for a face. The page "Try
it" runs the same cascade with the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferlib.pictures.boxes import Box

SIDE = 400  # the longer side, in pixels, at which a picture is searched: time grows with its square
SCALE = 1.1  # from one size of window to the next
SMALLEST = 24  # pixels of the searched picture: the cascade's own window
HITS = 6  # windows that must agree on a face
SAME = 0.4  # overlap above which two windows mean the same face


@dataclass(frozen=True)
class Found:
    """A face and how many windows agreed on it. Shape: a box in pixels and a count."""

    box: Box
    hits: int


def find_faces(grey: NDArray[np.uint8]) -> list[Found]:
    """All frontal faces of a picture, the surest first.

    Shape: grey pixels (H, W) uint8 -> list of :class:`Found`, empty where there is none. Viola and Jones
    2001; Zhang et al. 2007 for the patterns.
    """
    height, width = grey.shape
    shrink = min(1.0, SIDE / max(height, width))
    if shrink < 1:
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        grey = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC))
    if min(grey.shape) <= SMALLEST:
        return []
    hits = _cascade().detect_multi_scale(
        np.ascontiguousarray(grey),
        scale_factor=SCALE,
        step_ratio=1,
        min_size=(SMALLEST, SMALLEST),
        max_size=(min(grey.shape), min(grey.shape)),
        min_neighbor_number=1,
        intersection_score_threshold=1.1,
    )  # fmt: skip  (no two windows overlap by more than 1, so the library gives each one by itself)
    boxes = sorted((hit["width"], hit["r"], hit["c"]) for hit in hits)
    faces = group([Box(left, top, side) for side, top, left in boxes])
    return [Found(Box(f.box.left / shrink, f.box.top / shrink, f.box.side / shrink), f.hits) for f in faces]


def group(windows: list[Box]) -> list[Found]:
    """Windows that overlap are one face, at their mean; few windows are none, nor is a face in a face.

    Shape: list of boxes -> list of :class:`Found`, the surest first.
    """
    groups: list[list[Box]] = []
    for window in windows:
        near = max(groups, key=lambda g: _mean(g).overlap(window), default=None)
        if near is not None and _mean(near).overlap(window) > SAME:
            near.append(window)
        else:
            groups.append([window])
    kept: list[Found] = []
    for some in sorted(groups, key=len, reverse=True):
        box = _mean(some)
        inside = any(max(box.covered(k.box), k.box.covered(box)) > 0.5 for k in kept)
        if len(some) >= HITS and not inside:
            kept.append(Found(box, len(some)))
    return kept


def _mean(boxes: list[Box]) -> Box:
    n = len(boxes)
    return Box(sum(b.left for b in boxes) / n, sum(b.top for b in boxes) / n, sum(b.side for b in boxes) / n)


@cache
def _cascade() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())
