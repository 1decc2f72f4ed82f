"""The renderer behind the synthetic faces of ``ferlib.data``, driven by facial action units. Chapter 1."""

from ferlib.synthetic.expressions import ACTION_UNITS, EXPRESSIONS
from ferlib.synthetic.identity import FaceParameters
from ferlib.synthetic.render import Rendering, render_faces

__all__ = ["ACTION_UNITS", "EXPRESSIONS", "FaceParameters", "Rendering", "render_faces"]
