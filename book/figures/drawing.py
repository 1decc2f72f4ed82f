"""Diagrams of networks: boxes with names and shapes, arrows between them, at reading size.

A caller gives boxes by name, in inches, and pairs of names; where the lines run is found here. Chapter 5
draws the Batch Transformer Network with it, with shapes and costs that come from the network itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from ferlib.style import INK

__all__ = ["Box", "diagram"]

MARGIN = 0.12  # inches around the outermost boxes
ROUNDING = 0.06
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """One box of a diagram.

    Attributes:
        x, y: Its center, to the right and downwards, in inches.
        text: The first line is the name, the following ones (shapes, costs) are smaller.
        colour: Of its outline and of the arrows that leave it.
        width, height: In inches.
        dashed: Marks what is a reconstruction.
    """

    x: float
    y: float
    text: str
    colour: str = "#7F7F7F"
    width: float = 1.5
    height: float = 0.56
    dashed: bool = False

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2


def diagram(
    boxes: Mapping[str, Box],
    arrows: Sequence[tuple[str, ...]],
    *,
    notes: Sequence[tuple[float, float, str]] = (),
    fontsize: float = 10,
) -> Figure:
    """Draw boxes and the arrows between them; the figure is as large as the boxes need.

    An arrow runs straight down where its boxes stand above each other, straight across where they stand side
    by side, around the right of what stands in its way, and slanted otherwise. It has the colour of the box
    that it leaves.

    Args:
        boxes: Name -> :class:`Box`, in inches, y downwards.
        arrows: Pairs of names, from and to; a third word "left" sends a line around the left instead.
        notes: (x, y, text), written from x to the right, in the middle of y.
        fontsize: Of names and notes, in points.

    Raises:
        ValueError: There are no boxes, or an arrow goes to a box that is not there.
    """
    if not boxes:
        raise ValueError("a diagram needs at least one box")
    lost = sorted({name for arrow in arrows for name in arrow[:2]} - set(boxes))
    if lost:
        raise ValueError(f"arrows to boxes that are not there: {', '.join(lost)}; known: {', '.join(boxes)}")
    left = min(*(box.left for box in boxes.values()), *(x for x, _, _ in notes), 1e9) - 2 * MARGIN
    right = max(box.right for box in boxes.values()) + 2 * MARGIN
    top = min(*(box.top for box in boxes.values()), *(y - 0.12 for _, y, _ in notes), 1e9) - MARGIN
    bottom = max(box.bottom for box in boxes.values()) + MARGIN
    fig = plt.figure(figsize=(right - left, bottom - top))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.axis("off")
    for start, end, *side in arrows:
        _arrow(ax, route(boxes, start, end, *side), boxes[start].colour)
    for box in boxes.values():
        _box(ax, box, fontsize)
    for x, y, text in notes:
        ax.text(x, y, text, fontsize=fontsize - 1, va="center", color=INK)
    return fig


def route(boxes: Mapping[str, Box], start: str, end: str, side: str = "right") -> list[Point]:
    """The corners of the line from one box to another, two or four points (x, y) in inches.

    Args:
        boxes: All boxes.
        start, end: Names of two of them.
        side: "right" or "left", where the line goes around what stands in its way.

    Raises:
        ValueError: There is no such side.
    """
    if side not in ("right", "left"):
        raise ValueError(f"a line goes around the 'right' or the 'left', got {side!r}")
    a, b = boxes[start], boxes[end]
    if min(a.bottom, b.bottom) > max(a.top, b.top):  # side by side
        y = (max(a.top, b.top) + min(a.bottom, b.bottom)) / 2
        return [(a.right, y), (b.left, y)] if a.x < b.x else [(a.left, y), (b.right, y)]
    down = a.y < b.y
    edges = (a.bottom, b.top) if down else (a.top, b.bottom)
    low, high = max(a.left, b.left), min(a.right, b.right)
    if low >= high:
        return [(a.x, edges[0]), (b.x, edges[1])]
    x = (low + high) / 2
    others = (box for name, box in boxes.items() if name not in (start, end))
    between = [c for c in others if c.left < x < c.right and min(edges) <= c.y <= max(edges)]
    if not between:
        return [(x, edges[0]), (x, edges[1])]
    if side == "left":
        around = min(c.left for c in (a, b, *between)) - MARGIN
        return [(a.left, a.y), (around, a.y), (around, b.y), (b.left, b.y)]
    around = max(c.right for c in (a, b, *between)) + MARGIN
    return [(a.right, a.y), (around, a.y), (around, b.y), (b.right, b.y)]


def _arrow(ax: Axes, points: list[Point], colour: str) -> None:
    path = Path(points)
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "color": colour, "linewidth": 1.4}
    ax.add_patch(FancyArrowPatch(path=path, zorder=1, joinstyle="round", **style))


def _box(ax: Axes, box: Box, fontsize: float) -> None:
    # the outline is grown by its rounding, so it starts from a smaller one
    corner = box.left + ROUNDING, box.top + ROUNDING
    size = box.width - 2 * ROUNDING, box.height - 2 * ROUNDING
    look = {"facecolor": "white", "edgecolor": box.colour, "linestyle": "--" if box.dashed else "-"}
    style = f"round,pad={ROUNDING}"
    outline = FancyBboxPatch(corner, *size, boxstyle=style, linewidth=2, zorder=2, **look)
    ax.add_patch(outline)
    name, *rest = box.text.split("\n")
    step = 1.25 * fontsize / 72  # inches from line to line
    y = box.y - step * len(rest) / 2
    middle = {"ha": "center", "va": "center", "zorder": 3, "color": INK}
    ax.text(box.x, y, name, fontsize=fontsize, **middle)
    for number, line in enumerate(rest, 1):
        ax.text(box.x, y + number * step, line, fontsize=fontsize - 1, **middle)
