"""Pictures of one's own: find the faces, frame them as FER+ does, read them with the shipped model."""

from ferlib.pictures.boxes import Box
from ferlib.pictures.classifier import Answer, FaceReader, ModelError, shipped_model
from ferlib.pictures.detector import Found, find_faces
from ferlib.pictures.framing import frame, to_grey

__all__ = [
    "Answer",
    "Box",
    "FaceReader",
    "Found",
    "ModelError",
    "find_faces",
    "frame",
    "shipped_model",
    "to_grey",
]
