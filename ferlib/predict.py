"""Pictures of your own: find the faces, frame them as FER+ does, classify them with the shipped model.

:mod:`ferlib.detector` finds the faces and says where FER+'s frame lies around each. The network is an ONNX
file, run by onnxruntime; resizing to what it takes is inside the file. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferlib.detector import Box, find_faces, to_gray
from ferlib.errors import DataError, class_names
from ferlib.runtime import open_session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FaceReader",
    "Prediction",
    "draw",
    "frame",
    "shipped_model",
]

FOLDER = Path(__file__).with_name("pretrained")
SHIPPED = "pocket_ferplus"
SURE = 0.5  # below this probability the likeliest class is less likely than all others together


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

    @property
    def label(self) -> str:
        """The likeliest class, or "unsure" where it has less than half of the probability."""
        return self.expression if self.probabilities.max() >= SURE else "unsure"

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
            boxes = sorted(find_faces(picture), key=lambda box: (box.left, box.top))
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
