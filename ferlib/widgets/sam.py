"""Two ways down a loss surface: along the gradient here, or that of the worst point nearby. Chapter 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from ferlib.style import as_array
from ferlib.widgets.base import FOLDER, Explorer, module, table

__all__ = ["METHODS", "SAMExplorer"]

METHODS = ("gradient descent", "SAM", "both")
VIEW = (-1.7, 1.9, -0.9, 0.9)  # left, right, bottom, top
CRACK_AND_VALLEY = ((-0.9, 0.0, 1.15, 0.06), (0.9, 0.0, 1.0, 1.6))  # x, y, depth, width of each well


class SAMExplorer(Explorer):
    r"""Gradient descent and SAM from one start on one surface: drag the start, choose rho and rate, step.

    A surface is made of wells, each a center, a depth and a width:

    .. math:: L(w) = -\sum_k d_k \exp\bigl(-\lVert w - c_k \rVert^2 / s_k\bigr)

    and the page takes the steps of ``ferlib.training.SAM`` around plain gradient descent on it. It draws the
    climb :math:`\hat\epsilon`, the gradient found up there and the step made of it, and shows for both walks
    the loss and the worst loss within rho. The traits ``surface``, ``start``, ``rho``, ``lr``, ``method`` and
    ``step`` follow the reader's hand when a kernel is there. Source: Foret et al. 2021,
    algorithm 1. Chapter 6.

    Args:
        surfaces: Name -> wells (W, 4): x, y, depth, width > 0 (default: a narrow crack and a wide valley).
        start: (x, y) inside ``VIEW``.
        rho: In [0.01, 1].
        steps: From 1 to 1000; shown from the last one back.
        marks: Places to be named: (x, y, text).

    Raises:
        ValueError: For wells of another shape or without width, too few or many steps, a start outside the
            view.
        traitlets.TraitError: For ``rho`` out of range.

    Example::

        from ferlib.widgets import SAMExplorer

        SAMExplorer({"a crack": [(-0.9, 0, 1.15, 0.06)]}, rho=0.3)   # last line of a cell
    """

    _source = module("sam.js")
    _css = Explorer._css + (FOLDER / "sam.css").read_text(encoding="utf-8")
    surface = traitlets.Int(0).tag(sync=True)
    start = traitlets.List(traitlets.Float()).tag(sync=True)
    rho = traitlets.Float(0.5, min=0.01, max=1).tag(sync=True)
    lr = traitlets.Float(0.05, min=0.01, max=0.5).tag(sync=True)
    method = traitlets.Enum(METHODS, "both").tag(sync=True)
    step = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        surfaces: Mapping[str, ArrayLike] | None = None,
        *,
        start: Sequence[float] = (-1.05, 0.25),
        rho: float = 0.5,
        steps: int = 250,
        marks: Sequence[tuple[float, float, str]] = (),
    ) -> None:
        surfaces = {"a crack and a valley": CRACK_AND_VALLEY} if surfaces is None else surfaces
        if not surfaces:
            raise ValueError("give at least one surface, a list of wells (x, y, depth, width)")
        wells = {str(name): _wells(value, str(name)) for name, value in surfaces.items()}
        left, right, bottom, top = VIEW
        x, y = (float(v) for v in as_array(start, "start", 1))
        if not (left <= x <= right and bottom <= y <= top):
            raise ValueError(f"the start ({x}, {y}) lies outside the view {VIEW}")
        if not 1 <= steps <= 1000:
            raise ValueError(f"steps={steps}; expected 1 to 1000")
        data = {
            "surfaces": [[name, value.tolist()] for name, value in wells.items()],
            "view": list(VIEW),
            "steps": int(steps),
            "marks": [[float(a), float(b), str(text)] for a, b, text in marks],
        }
        super().__init__(data, start=[x, y], rho=float(rho), step=int(steps))

    def fallback(self) -> str:
        """The wells of the surface as a table."""
        name, wells = self.data["surfaces"][self.surface]
        return table(f"The loss surface {name!r}", ["x", "y", "depth", "width"], wells)


def _wells(value: ArrayLike, name: str) -> np.ndarray:
    wells = as_array(value, f"surface {name!r}", 2).astype(np.float64)
    if not len(wells) or wells.shape[1] != 4 or (wells[:, 3] <= 0).any():
        raise ValueError(f"surface {name!r}: wells are (x, y, depth, width > 0), got shape {wells.shape}")
    return wells
