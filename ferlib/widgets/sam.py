"""Two ways down a loss surface: along the gradient here, or that of the worst point nearby. Chapter 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from ferlib.style import as_array
from ferlib.widgets.base import FOLDER, Explorer, module, table

__all__ = ["METHODS", "SAMExplorer", "surface_loss"]

METHODS = ("gradient descent", "SAM", "both")
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
        start: (x, y) inside ``view``.
        view: Left, right, bottom, top.
        rho: In [0.01, 1].
        lr: In [0.01, 0.5].
        method: One of ``METHODS``.
        steps: From 1 to 1000; shown from the last one back.
        marks: Places to be named: (x, y, text).

    Raises:
        ValueError: For wells of another shape or without width, too few or many steps, a start outside the
            view.
        traitlets.TraitError: For ``rho``, ``lr`` or ``method`` out of range.

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
        view: Sequence[float] = (-1.7, 1.9, -0.9, 0.9),
        rho: float = 0.5,
        lr: float = 0.05,
        method: str = "both",
        steps: int = 250,
        marks: Sequence[tuple[float, float, str]] = (),
    ) -> None:
        surfaces = {"a crack and a valley": CRACK_AND_VALLEY} if surfaces is None else surfaces
        if not surfaces:
            raise ValueError("give at least one surface, a list of wells (x, y, depth, width)")
        wells = {str(name): _wells(value, str(name)) for name, value in surfaces.items()}
        left, right, bottom, top = (float(v) for v in view)
        if not (left < right and bottom < top):
            raise ValueError(f"view is left, right, bottom, top, got {tuple(view)}")
        x, y = (float(v) for v in as_array(start, "start", 1))
        if not (left <= x <= right and bottom <= y <= top):
            raise ValueError(f"the start ({x}, {y}) lies outside the view {tuple(view)}")
        if not 1 <= steps <= 1000:
            raise ValueError(f"steps={steps}; expected 1 to 1000")
        data = {
            "surfaces": [[name, value.tolist()] for name, value in wells.items()],
            "view": [left, right, bottom, top],
            "steps": int(steps),
            "marks": [[float(a), float(b), str(text)] for a, b, text in marks],
        }
        super().__init__(data, start=[x, y], rho=float(rho), lr=float(lr), method=method, step=int(steps))

    def fallback(self) -> str:
        """Where both walks end, and the worst loss around there, as a table."""
        name, wells = self.data["surfaces"][self.surface]
        rows = []
        for words, rho in (("gradient descent", 0.0), ("SAM", self.rho)):
            w = _walk(np.array(wells), np.array(self.start), rho, self.lr, self.data["steps"])
            around = surface_loss(wells, _disc(w, self.rho)).max()
            rows.append(
                [words, f"({w[0]:.2f}, {w[1]:.2f})", f"{surface_loss(wells, w):.2f}", f"{around:.2f}"]
            )
        head = ["walk", "ends at", "loss there", f"worst within {self.rho:g}"]
        return table(f"{name}: {self.data['steps']} steps with learning rate {self.lr:g}", head, rows)


def surface_loss(wells: ArrayLike, points: ArrayLike) -> np.ndarray:
    r"""The loss :math:`L(w) = -\sum_k d_k \exp(-\lVert w - c_k \rVert^2 / s_k)` of an explorer's surface.

    Args:
        wells: (W, 4), x, y, depth and width of each.
        points: (..., 2).

    Returns:
        The loss of each point, (...).
    """
    return -_depths(np.asarray(wells, dtype=np.float64), np.asarray(points, dtype=np.float64)).sum(-1)


def _depths(wells: np.ndarray, points: np.ndarray) -> np.ndarray:
    """What each well takes from the loss of points (..., 2): (..., W)."""
    distance = ((points[..., None, :] - wells[:, :2]) ** 2).sum(-1)
    return wells[:, 2] * np.exp(-distance / wells[:, 3])


def _slope(wells: np.ndarray, w: np.ndarray) -> np.ndarray:
    return (2 * (w - wells[:, :2]) * (_depths(wells, w) / wells[:, 3])[:, None]).sum(0)


def _walk(wells: np.ndarray, w: np.ndarray, rho: float, lr: float, steps: int) -> np.ndarray:
    """Where ``steps`` steps lead; with rho 0 it is gradient descent. (2,) in, (2,) out."""
    for _ in range(steps):
        slope = _slope(wells, w)
        if rho:
            slope = _slope(wells, w + rho * slope / (np.linalg.norm(slope) + 1e-12))
        w = w - lr * slope
    return w


def _disc(center: np.ndarray, radius: float) -> np.ndarray:
    """Points on 16 rings around a center, and the center: (1025, 2)."""
    angle = 2 * np.pi * np.arange(64) / 64
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    rings = radius * np.arange(1, 17)[:, None, None] / 16 * ring
    return np.concatenate([center[None], center + rings.reshape(-1, 2)])


def _wells(value: ArrayLike, name: str) -> np.ndarray:
    wells = as_array(value, f"surface {name!r}", 2).astype(np.float64)
    if not len(wells) or wells.shape[1] != 4 or (wells[:, 3] <= 0).any():
        raise ValueError(f"surface {name!r}: wells are (x, y, depth, width > 0), got shape {wells.shape}")
    return wells
