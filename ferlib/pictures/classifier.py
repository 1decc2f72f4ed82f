"""The shipped model, run by onnxruntime: faces in, probabilities and where they come from out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferlib.data.base import DataError
from ferlib.export.onnx_file import KEY

FOLDER = Path(__file__).resolve().parent.parent / "pretrained"
SHIPPED = "pocket_ferplus"


class ModelError(DataError):
    """A model file that is missing, damaged or not one of ours; the message says what to do.

    Shape: takes one message string.
    """


@dataclass(frozen=True)
class Answer:
    """What the model says of one face.

    Shape: ``probabilities`` (K,) sum to 1; ``evidence`` (K, G, G), in the unit of the logits, whose means are
    the logits; None for models without it. Chapter 8.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    evidence: NDArray[np.float32] | None

    @property
    def expression(self) -> str:
        """The likeliest class."""
        return self.classes[int(self.probabilities.argmax())]

    def ranked(self) -> list[tuple[str, float]]:
        """Classes with their probabilities, the likeliest first. Shape: K pairs."""
        order = np.argsort(-self.probabilities, kind="stable")
        return [(self.classes[i], float(self.probabilities[i])) for i in order]


def shipped_model() -> tuple[Path, dict[str, Any]]:
    """The model file of this package and the data of its card.

    Shape: -> path and facts. Raises ``ModelError`` where a file is missing or its SHA-256 is not the card's.
    """
    path, card = FOLDER / f"{SHIPPED}.onnx", FOLDER / f"{SHIPPED}.json"
    try:
        facts = json.loads(card.read_text(encoding="utf-8"))
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"the model that ferlib ships is not whole ({error}): install it again") from error
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise ModelError(f"{path} is not the file its card describes (SHA-256 differs): install ferlib again")
    return path, facts


class FaceReader:
    """A classifier in an ONNX file that ``ferlib export`` wrote; by default the shipped one.

    Shape: :meth:`read` takes grey faces (N, S, S) uint8 and gives N :class:`Answer`. Raises ``ModelError``
    for another file. Chapter 8.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else shipped_model()[0]
        try:
            import onnxruntime
        except ImportError:
            raise ModelError("reading faces needs onnxruntime: pip install onnxruntime") from None
        if not self.path.is_file():
            raise ModelError(f"no model {self.path}: give a file that `ferlib export` wrote")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a face takes milliseconds: threads would cost more than they give
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
            self.facts = json.loads(self._session.get_modelmeta().custom_metadata_map[KEY])
            self.classes, self.face_size = tuple(self.facts["classes"]), int(self.facts["face_size"])
        except Exception as error:  # onnxruntime has its own kinds, which its versions name differently
            raise ModelError(f"{self.path.name} is no model that `ferlib export` wrote: {error}") from error

    def read(self, faces: NDArray[np.uint8]) -> list[Answer]:
        """Probabilities and evidence of each face: (N, S, S) uint8 -> N answers."""
        faces = np.asarray(faces)
        wanted = (self.face_size, self.face_size)
        if faces.ndim != 3 or faces.shape[1:] != wanted or faces.dtype != np.uint8:
            raise ModelError(
                f"faces are {faces.dtype} of shape {faces.shape}, expected uint8 (N, {self.face_size}, "
                f"{self.face_size})"
            )
        names = [output.name for output in self._session.get_outputs()]
        pixels = faces[:, None].astype(np.float32) / np.float32(255)
        found = dict(zip(names, self._session.run(names, {"face": pixels}), strict=True))
        evidence = found.get("evidence")
        return [
            Answer(self.classes, p, None if evidence is None else evidence[i])
            for i, p in enumerate(found["probabilities"])
        ]
