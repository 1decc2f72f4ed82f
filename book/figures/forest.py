"""Forest plots: differences with both their intervals, one below the other, around a line at zero.

The same look wherever this book compares arms of an experiment; the report, chapter 9, is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book.figures.verdicts import Effect
from ferlib.evaluation import Interval
from ferlib.style import INK, KEY, QUERY

__all__ = ["forest"]

GREY = "#6b6b6b"
ROW = 0.36  # inches


def forest(
    rows: Sequence[Effect | str],
    *,
    xlabel: str = "difference, percentage points",
    title: str = "",
    names: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Differences, one a row; a string among them is a heading.

    The dot is the mean difference, filled where its intervals leave out zero. The thick blue line is
    Student's interval over seeds, or the joint one over runs and faces; the thin orange one below it is the
    paired bootstrap over faces. A difference
    whose record is missing has its row, and the words *not run yet*. ``names`` is False in the further panels
    of a figure that all have the same rows: no names, no legend.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("no differences to draw: rows is empty")
    if ax is None:
        _, ax = plt.subplots(figsize=(7, ROW * len(rows) + 1.0))
    lines = {}
    for place, row in enumerate(rows):
        if isinstance(row, str):
            continue
        if row.value is None:
            ax.text(0, place, " not run yet", color=GREY, fontsize=9, style="italic", va="center")
            continue
        level, colour = (place - 0.1, QUERY)
        if (one := row.joint or row.over_seeds) is not None:
            lines["over runs and faces" if row.joint else "over seeds"] = _line(ax, one, level, QUERY, 3.2)
        if row.over_faces is not None:
            lines["over faces"] = _line(ax, row.over_faces, place + 0.17, KEY, 1.6)
            if one is None:
                level, colour = place + 0.17, KEY
        ax.plot(
            100 * row.value,
            level,
            "o",
            color=colour,
            markersize=7,
            zorder=3,
            markerfacecolor=colour if row.shown else "white",
        )
    ax.axvline(0, color=INK, linewidth=0.9, zorder=0)
    _names(ax, rows if names else [""] * len(rows))
    low, high = ax.get_xlim() if lines else (-1.0, 1.0)
    ax.set(xlim=(min(low, -0.3), max(high, 0.3)), ylim=(len(rows) - 0.4, -0.6), xlabel=xlabel, title=title)
    if not lines:
        ax.set_xticks([0])  # a scale would promise numbers
    if lines and names:
        ax.legend(
            lines.values(),
            lines,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=2,
            frameon=False,
            fontsize=9,
            borderaxespad=0.1,
        )
    return ax.figure


def _line(ax: Axes, number: Interval, place: float, colour: str, width: float):
    (line,) = ax.plot(
        [100 * number.low, 100 * number.high],
        [place, place],
        color=colour,
        linewidth=width,
        solid_capstyle="butt",
    )
    return line


def _names(ax: Axes, rows: Sequence[Effect | str]) -> None:
    """Labels left of the rows, headings in bold."""
    ax.set_yticks(range(len(rows)), [row if isinstance(row, str) else row.label for row in rows])
    for tick, row in zip(ax.get_yticklabels(), rows, strict=True):
        if isinstance(row, str):
            tick.set_fontweight("bold")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
