"""Pictures of your own: find the faces, frame them as FER+ does, classify them with the shipped model.

Faces are found by scikit-image's frontal-face cascade (local binary patterns, OpenCV's file), which is part
of that package, so nothing is downloaded. It finds frontal faces in fair light, misses profiles, and now and
then takes a texture for a face. scikit-image's own grouping of its hits keeps no count of them, so it is
done here; the page "Try it" runs the same cascade with the same rules.

FER+'s faces were cut out by a detector of this family. Searched with ours, they fill its window (the record
``pocket_ferplus`` holds how its windows lie in them), so the window is the frame. The network is an ONNX
file, run by onnxruntime; resizing to what it takes is inside the file. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferlib.errors import DataError, class_names
from ferlib.runtime import open_session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Box",
    "FaceReader",
    "Prediction",
    "draw",
    "find_faces",
    "frame",
    "shipped_model",
    "to_gray",
]

FOLDER = Path(__file__).with_name("pretrained")
SHIPPED = "pocket_ferplus"
SEARCHED = 400  # the longer side, in pixels, at which a picture is searched: time grows with its square
LARGER = (800, 1600)  # where it shows no face at that, it is searched once more at these
SCALE = 1.1  # from one size of window to the next
SMALLEST = 24  # pixels of the searched picture: the cascade's own window
HITS = 6  # windows that must agree on a face
SAME = 0.4  # overlap above which two windows mean the same face


@dataclass(frozen=True)
class Box:
    """A square of a picture, in pixels from its top left corner; it may stick out of the picture.

    Attributes:
        left: Where it begins.
        top: Where it begins.
        side: Its width and height.
        hits: How many windows of the detector agree on it, which is its confidence; None for a given box.
    """

    left: float
    top: float
    side: float
    hits: int | None = field(default=None, compare=False)

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


def to_gray(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance 0.299 R + 0.587 G + 0.114 B: uint8 (C, H, W), C = 1 or 3, to (H, W)."""
    if len(picture) == 1:
        return picture[0]
    return np.asarray(Image.fromarray(np.moveaxis(picture, 0, 2)).convert("L"))


def find_faces(gray: NDArray[np.uint8]) -> list[Box]:
    """All frontal faces of a gray picture (H, W), those that most windows agree on first.

    A picture is searched at 400 pixels of its longer side, so the smallest face found has 6 % of it; where
    there is none, at 800 and at 1,600 (1.5 %), which takes seconds.

    Source: Viola and Jones 2001; Zhang et al. 2007 for the patterns.
    """
    for longest in (SEARCHED, *LARGER):
        scale = min(1.0, longest / max(gray.shape))
        faces = _search(gray, scale)
        if faces or scale == 1:
            break
    return [Box(box.left / scale, box.top / scale, box.side / scale, box.hits) for box in faces]


def searched_down_to(longest: int) -> int:
    """The side in pixels of the smallest face that is found beside a larger one in a picture of that size."""
    return math.ceil(SMALLEST * max(1, longest / SEARCHED))


def _search(gray: NDArray[np.uint8], scale: float) -> list[Box]:
    if scale < 1:
        size = [max(1, round(length * scale)) for length in gray.shape[::-1]]
        gray = np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BICUBIC))
    if min(gray.shape) <= SMALLEST:
        return []
    hits = _cascade().detect_multi_scale(
        np.ascontiguousarray(gray),
        scale_factor=SCALE,
        step_ratio=1,
        min_size=(SMALLEST, SMALLEST),
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
    for box in map(_mean, sorted(groups, key=len, reverse=True)):
        nested = any(box.shared(face) > 0.5 * min(box.side, face.side) ** 2 for face in faces)
        if box.hits >= HITS and not nested:
            faces.append(box)
    return faces


def _mean(boxes: Sequence[Box]) -> Box:
    corners = zip(*((box.left, box.top, box.side) for box in boxes), strict=True)
    return Box(*(sum(values) / len(boxes) for values in corners), hits=len(boxes))


@cache
def _cascade() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


def frame(gray: NDArray[np.uint8], box: Box, size: int = 48) -> NDArray[np.uint8]:
    """A box of a gray picture (H, W) as a face (size, size): bicubic, antialiased where it shrinks.

    A box of that size stays as it is; where a box sticks out of the picture, the picture's edge is continued.
    """
    left, top = math.floor(box.left), math.floor(box.top)
    right, bottom = math.ceil(box.left + box.side), math.ceil(box.top + box.side)
    rows = np.arange(top, bottom).clip(0, gray.shape[0] - 1)
    columns = np.arange(left, right).clip(0, gray.shape[1] - 1)
    region = Image.fromarray(np.ascontiguousarray(gray[rows[:, None], columns]))
    x, y = box.left - left, box.top - top
    inner = (x, y, x + box.side, y + box.side)
    return np.asarray(region.resize((size, size), Image.Resampling.BICUBIC, box=inner))


@dataclass(frozen=True)
class Prediction:
    """What the model predicts for one face. Chapter 8.

    Attributes:
        classes: Names of the K classes.
        probabilities: (K,), they sum to 1.
        evidence: (K, G, G) in the unit of the logits, which are its means; None for models without it.
        face: The face as the model saw it, uint8 (S, S).
        box: Where it lies in its picture; None for a face that was cut out already.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    evidence: NDArray[np.float32] | None
    face: NDArray[np.uint8]
    box: Box | None = None

    @property
    def expression(self) -> str:
        """The likeliest class."""
        return self.classes[int(self.probabilities.argmax())]

    def ranked(self) -> list[tuple[str, float]]:
        """Classes with their probabilities, the likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")
        return [(self.classes[i], float(self.probabilities[i])) for i in order]


def shipped_model() -> tuple[Path, dict[str, Any]]:
    """The model file of this package and the facts of its card.

    Raises:
        DataError: Where a file is missing or its SHA-256 is not the card's.
    """
    path = FOLDER / f"{SHIPPED}.onnx"
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise DataError(f"the model that ferlib ships is damaged ({error}): install it again") from error
    if found != facts["sha256"]:
        raise DataError("not the file that its card describes (SHA-256 differs): install ferlib again", path)
    return path, facts


class FaceReader:
    """Reads expressions with an ONNX file that ``ferlib export`` wrote, by default the shipped one.

    Example::

        for face in FaceReader().read_picture(picture):     # uint8 (3, H, W)
            print(face.box, face.expression, face.ranked())

    Args:
        path: The model file.

    Attributes:
        classes: Names of the classes.
        face_size: The side of the faces that the model takes.
        facts: What the file says of itself.

    Raises:
        DataError: For a file that is missing, damaged or of another kind, and without onnxruntime.

    Chapter 8.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else shipped_model()[0]
        if not self.path.is_file():
            raise DataError("no such file: give a model that `ferlib export` wrote", self.path)
        self._session = open_session(self.path)
        try:
            self.facts = json.loads(self._session.get_modelmeta().custom_metadata_map["ferlib"])
            self.face_size = int(self.facts["face_size"])
            self.classes = class_names(self.facts["classes"])
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(f"no model that `ferlib export` wrote ({error!r})", self.path) from error
        if not 8 <= self.face_size <= 512:
            raise DataError(f"takes faces of {self.face_size} pixels, expected 8 to 512", self.path)
        self.read(np.zeros((1, self.face_size, self.face_size), np.uint8))  # a wrong model fails here

    def read(self, faces: NDArray[np.uint8], boxes: Sequence[Box] | None = None) -> list[Prediction]:
        """Classify gray faces that are cut out already.

        Args:
            faces: uint8 (N, S, S), S = ``face_size``.
            boxes: Where they lie in their pictures.

        Raises:
            DataError: For another type or shape, and where the model gives no probabilities of its classes.
        """
        side = self.face_size
        if faces.shape[1:] != (side, side) or faces.dtype != np.uint8:
            raise DataError(
                f"faces are {faces.dtype} of shape {faces.shape}, expected uint8 (N, {side}, {side})"
            )
        names = [output.name for output in self._session.get_outputs()]
        pixels = faces[:, None].astype(np.float32) / np.float32(255)
        try:
            found = dict(zip(names, self._session.run(names, {"face": pixels}), strict=True))
            probabilities = found["probabilities"]
        except Exception as error:  # onnxruntime's kinds of errors have other names in each version
            raise DataError(f"does not run on faces ({error})", self.path) from error
        if probabilities.shape != (len(faces), len(self.classes)) or not np.isfinite(probabilities).all():
            raise DataError(f"gives no probabilities of its {len(self.classes)} classes", self.path)
        nothing = [None] * len(faces)
        parts = zip(probabilities, found.get("evidence", nothing), faces, boxes or nothing, strict=True)
        return [Prediction(self.classes, *part) for part in parts]

    def read_picture(
        self, picture: NDArray[np.uint8], boxes: Sequence[Box] | None = None
    ) -> list[Prediction]:
        """Find the faces of a picture and classify each.

        Args:
            picture: uint8 (C, H, W), C = 1 or 3.
            boxes: Where the faces are; None looks for them.

        Returns:
            One prediction a face: for given boxes in their order, else from left to right.
        """
        gray = to_gray(picture)
        if boxes is None:
            boxes = sorted(find_faces(gray), key=lambda box: (box.left, box.top))
        if not boxes:
            return []
        return self.read(np.stack([frame(gray, box, self.face_size) for box in boxes]), boxes)


def draw(picture: NDArray[np.uint8], faces: Sequence[Prediction]) -> Figure:
    """A picture (3, H, W) with a numbered box around each face, and all probabilities as bars beside it."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from ferlib.style import EMOTION_COLOURS, INK

    fig = Figure((12, max(7, 2 * len(faces))), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(3, 1))
    left.imshow(np.moveaxis(picture, 0, 2))
    left.axis("off")
    for number, face in enumerate(faces, 1):
        box, color = face.box, EMOTION_COLOURS.get(face.expression, INK)
        edge = Rectangle((box.left, box.top), box.side, box.side, fill=False, color=color, linewidth=2)
        left.add_patch(edge)
        left.text(box.left, box.top, number, color="white", backgroundcolor=color)
        bars = [f"{number} {name}" for name in face.classes]
        colors = [EMOTION_COLOURS.get(name, INK) for name in face.classes]
        right.bar_label(right.barh(bars, 100 * face.probabilities, color=colors), fmt="%.0f %%")
    right.invert_yaxis()
    right.set(xlim=(0, 120), xticks=[])
    return fig
