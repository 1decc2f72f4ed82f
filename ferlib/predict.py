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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "Box",
    "FaceReader",
    "PredictError",
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
SCALE = 1.1  # from one size of window to the next
SMALLEST = 24  # pixels of the searched picture: the cascade's own window
HITS = 6  # windows that must agree on a face
SAME = 0.4  # overlap above which two windows mean the same face
LARGEST = 1600  # pixels of the longer side of what is drawn
ROW, BAR, MARGIN = 22, 120, 14


class PredictError(ValueError):
    """A model file, a box or an array of faces that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Box:
    """A square of a picture, in pixels from its top left corner; it may stick out of the picture."""

    left: float
    top: float
    side: float

    @classmethod
    def parse(cls, text: str) -> Box:
        """A box as typed, ``"x,y,w,h"``; what is not square becomes the square of its longer side.

        Raises:
            PredictError: For anything else.
        """
        try:
            x, y, width, height = (float(word) for word in text.split(","))
        except ValueError:
            raise PredictError(f"box {text}: expected four numbers x,y,w,h such as 40,60,120,120") from None
        if not (min(width, height) >= 1 and max(map(abs, (x, y, width, height))) < 1e6):
            raise PredictError(f"box {text}: expected a width and height of at least 1 pixel")
        side = max(width, height)
        return cls(x + (width - side) / 2, y + (height - side) / 2, side)

    @classmethod
    def middle(cls, width: int, height: int) -> Box:
        """The largest square in the middle of a picture."""
        side = min(width, height)
        return cls((width - side) // 2, (height - side) // 2, side)

    @classmethod
    def mean(cls, boxes: Sequence[Box]) -> Box:
        """The mean of several boxes."""
        corners = zip(*((box.left, box.top, box.side) for box in boxes), strict=True)
        return cls(*(sum(values) / len(boxes) for values in corners))

    def overlap(self, other: Box) -> float:
        """Shared area over joint area, 0 to 1."""
        return self._shared(other) / (self.side**2 + other.side**2 - self._shared(other))

    def covered(self, other: Box) -> float:
        """The share of this box that lies in the other."""
        return self._shared(other) / self.side**2

    def meets(self, width: int, height: int) -> bool:
        """Whether any of it lies in a picture of this size."""
        across = self.left < width and self.left + self.side > 0
        return across and self.top < height and self.top + self.side > 0

    def _shared(self, other: Box) -> float:
        across = min(self.left + self.side, other.left + other.side) - max(self.left, other.left)
        down = min(self.top + self.side, other.top + other.side) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)


def to_gray(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance 0.299 R + 0.587 G + 0.114 B: uint8 (C, H, W), C = 1 or 3, to (H, W)."""
    if len(picture) == 1:
        return picture[0]
    return np.asarray(Image.fromarray(np.moveaxis(picture, 0, 2)).convert("L"))


def find_faces(gray: NDArray[np.uint8]) -> list[Box]:
    """All frontal faces of a gray picture (H, W), the surest first.

    Source: Viola and Jones 2001; Zhang et al. 2007 for the patterns.
    """
    height, width = gray.shape
    shrink = min(1.0, SEARCHED / max(height, width))
    if shrink < 1:
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
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
    faces = group([Box(left, top, side) for side, top, left in boxes])
    return [Box(face.left / shrink, face.top / shrink, face.side / shrink) for face in faces]


def group(windows: Sequence[Box]) -> list[Box]:
    """Windows that overlap are one face, at their mean; few windows are none, nor is a face in a face."""
    groups: list[list[Box]] = []
    for window in windows:
        near = max(groups, key=lambda g: Box.mean(g).overlap(window), default=None)
        if near is not None and Box.mean(near).overlap(window) > SAME:
            near.append(window)
        else:
            groups.append([window])
    faces: list[Box] = []
    for members in sorted(groups, key=len, reverse=True):
        box = Box.mean(members)
        nested = any(max(box.covered(face), face.covered(box)) > 0.5 for face in faces)
        if len(members) >= HITS and not nested:
            faces.append(box)
    return faces


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
        PredictError: Where a file is missing or its SHA-256 is not the card's.
    """
    path, card = FOLDER / f"{SHIPPED}.onnx", FOLDER / f"{SHIPPED}.json"
    try:
        facts = json.loads(card.read_text(encoding="utf-8"))
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise PredictError(f"the model that ferlib ships is damaged ({error}): install it again") from error
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise PredictError(f"{path} is not the file its card describes (SHA-256 differs): install it again")
    return path, facts


class FaceReader:
    """Reads expressions with an ONNX file that ``ferlib export`` wrote, by default the shipped one.

    Example::

        for face in FaceReader().read_picture(picture):     # uint8 (3, H, W)
            print(face.box, face.expression, face.ranked())

    Args:
        path: The model file.

    Raises:
        PredictError: For a file that is missing, damaged or of another kind, and without onnxruntime.

    Chapter 8.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else shipped_model()[0]
        try:
            import onnxruntime
        except ImportError:
            raise PredictError("reading faces needs onnxruntime: pip install onnxruntime") from None
        if not self.path.is_file():
            raise PredictError(f"no model {self.path}: give a file that `ferlib export` wrote")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a face takes milliseconds: threads would cost more than they give
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
            self.facts = json.loads(self._session.get_modelmeta().custom_metadata_map["ferlib"])
            self.classes, self.face_size = tuple(self.facts["classes"]), int(self.facts["face_size"])
        except Exception as error:  # onnxruntime has its own kinds, which its versions name differently
            name = self.path.name
            raise PredictError(f"{name} is no model that `ferlib export` wrote: {error}") from error

    def read(self, faces: NDArray[np.uint8]) -> list[Prediction]:
        """Classify gray faces that are cut out already.

        Args:
            faces: uint8 (N, S, S), S = ``face_size``.

        Raises:
            PredictError: For another type or shape.
        """
        return self._predict(np.asarray(faces), [None] * len(faces))

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
        return self._predict(np.stack([frame(gray, box, self.face_size) for box in boxes]), boxes)

    def _predict(self, faces: NDArray[np.uint8], boxes: Sequence[Box | None]) -> list[Prediction]:
        side = self.face_size
        if faces.shape[1:] != (side, side) or faces.dtype != np.uint8:
            raise PredictError(
                f"faces are {faces.dtype} of shape {faces.shape}, expected uint8 (N, {side}, {side})"
            )
        names = [output.name for output in self._session.get_outputs()]
        pixels = faces[:, None].astype(np.float32) / np.float32(255)
        found = dict(zip(names, self._session.run(names, {"face": pixels}), strict=True))
        evidence = found.get("evidence", [None] * len(faces))
        return [
            Prediction(self.classes, *parts)
            for parts in zip(found["probabilities"], evidence, faces, boxes, strict=True)
        ]


def draw(picture: NDArray[np.uint8], faces: Sequence[Prediction]) -> Image.Image:
    """A picture (3, H, W) with a numbered box around each face and, at its right, all probabilities as bars.

    The picture is drawn at most 1,600 pixels wide and high.
    """
    from ferlib.style import EMOTION_COLOURS, INK  # brings matplotlib

    image = Image.fromarray(np.moveaxis(picture, 0, 2))
    shrink = min(1.0, LARGEST / max(image.size))
    if shrink < 1:
        image = image.resize((max(1, round(image.width * shrink)), max(1, round(image.height * shrink))))
    rows = sum(len(face.classes) + 2 for face in faces)
    width = 110 + BAR + 60 + 2 * MARGIN if faces else 0
    sheet = Image.new("RGB", (image.width + width, max(image.height, rows * ROW + MARGIN)), "white")
    sheet.paste(image, (0, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    y = MARGIN
    for number, face in enumerate(faces, 1):
        color, box = EMOTION_COLOURS.get(face.expression, INK), face.box
        ends = [c * shrink for c in (box.left, box.top, box.left + box.side, box.top + box.side)]
        pen.rectangle(ends, outline="white", width=5)
        pen.rectangle(ends, outline=color, width=3)
        pen.rectangle((ends[0], ends[1], ends[0] + 22, ends[1] + 20), fill="white")
        pen.text((ends[0] + 6, ends[1] + 1), str(number), fill=INK, font=font)
        x = image.width + MARGIN
        pen.text((x, y), f"{number}  {face.expression}", fill=INK, font=font)
        for name, share in zip(face.classes, face.probabilities, strict=True):
            y += ROW
            pen.text((x, y), name, fill=INK, font=font)
            end = x + 90 + BAR * float(share)
            pen.rectangle((x + 90, y + 3, x + 90 + BAR, y + 15), fill="#eceef1")
            pen.rectangle((x + 90, y + 3, end, y + 15), fill=EMOTION_COLOURS.get(name, INK))
            pen.text((x + 98 + BAR, y), f"{100 * float(share):.0f} %", fill=INK, font=font)
        y += 2 * ROW
    return sheet
