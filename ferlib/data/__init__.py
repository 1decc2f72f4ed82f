"""Faces with labels: data sets people download, faces the book renders, and the way from files to tensors."""

from ferlib.data.base import DataError, FaceDataset
from ferlib.data.faces import open_faces
from ferlib.data.ferplus import FERPlus
from ferlib.data.folders import RAFDB, AffectNet
from ferlib.data.labels import (
    EMOTIONS_AFFECTNET,
    EMOTIONS_FERPLUS,
    EMOTIONS_RAFDB,
    class_mapping,
    confusion_prior,
    majority_label,
)
from ferlib.data.prepare import upscale
from ferlib.data.synthetic import (
    SyntheticFaces,
    named_parameters,
    the_easy_twin,
    the_false_friend,
    the_hard_face,
)
from ferlib.data.transforms import Augment, model_input
from ferlib.data.twins import Twins, find_twins
from ferlib.synthetic import FaceParameters, render_faces

__all__ = [
    "EMOTIONS_AFFECTNET",
    "EMOTIONS_FERPLUS",
    "EMOTIONS_RAFDB",
    "RAFDB",
    "AffectNet",
    "Augment",
    "DataError",
    "FERPlus",
    "FaceDataset",
    "FaceParameters",
    "SyntheticFaces",
    "Twins",
    "class_mapping",
    "confusion_prior",
    "find_twins",
    "majority_label",
    "model_input",
    "named_parameters",
    "open_faces",
    "render_faces",
    "the_easy_twin",
    "the_false_friend",
    "the_hard_face",
    "upscale",
]
