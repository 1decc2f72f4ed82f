"""Drawn faces: a parametric renderer driven by facial action units (chapter 1)."""

from ferlib.data.synthetic.dataset import SyntheticFaces
from ferlib.data.synthetic.expressions import ACTION_UNITS
from ferlib.data.synthetic.identity import FaceParameters
from ferlib.data.synthetic.named import named_parameters, the_easy_twin, the_false_friend, the_hard_face
from ferlib.data.synthetic.render import Rendering, render_faces

__all__ = [
    "ACTION_UNITS",
    "FaceParameters",
    "Rendering",
    "SyntheticFaces",
    "named_parameters",
    "render_faces",
    "the_easy_twin",
    "the_false_friend",
    "the_hard_face",
]
