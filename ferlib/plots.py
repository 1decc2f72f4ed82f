"""The figures of the book: arrays in, a matplotlib Figure out, one look throughout.

Eight expressions have eight colours (Okabe-Ito, safe for colour-blind readers), the same in every figure.
Faces are drawn at integer multiples of their pixels and never smoothed. Figures are transparent with dark
ink; the book's build also draws each for dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ferlib.style import EMOTION_COLOURS, INK, KEY, QUERY, VALUE, as_image

__all__ = [
    "EMOTION_COLOURS",
    "KEY",
    "QUERY",
    "VALUE",
    "bars",
    "confusion",
    "curves",
    "faces",
    "matrix",
    "overlay",
    "show_face",
    "use_style",
    "votes",
]


def use_style() -> None:
    """Use the book's figure style, and show a returned Figure once, at twice the resolution.

    In a notebook an open figure would be shown a second time at the end of its cell, so open figures are
    closed after each cell. The set-up cell of every chapter calls this.
    """
    style = Path(__file__).with_name("book.mplstyle")
    plt.style.use(style)
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return
    shell.run_line_magic("matplotlib", "inline")
    shell.run_line_magic("config", "InlineBackend.figure_formats = ['retina']")
    shell.run_line_magic("config", "InlineBackend.close_figures = False")
    plt.style.use(style)  # the inline backend brings settings of its own: ours come last
    for hook in list(shell.events.callbacks["post_execute"]):
        if getattr(hook, "__name__", "") in ("_close_all", "flush_figures"):
            shell.events.unregister("post_execute", hook)
    shell.events.register("post_execute", _close_all)


def _close_all() -> None:
    plt.close("all")


def _array(values: ArrayLike) -> np.ndarray:
    """As floats; NaNs, which are gaps in a curve, stay as they are."""
    values = values.detach().cpu() if hasattr(values, "detach") else values
    return np.asarray(values).astype(float)


def show_face(ax: Axes, image: ArrayLike, title: str = "", edge: str | None = None) -> Axes:
    """Draw one face on an axis, pixel for pixel, with an optional coloured edge.

    Args:
        ax: Where it is drawn.
        image: (C, H, W) or (H, W), uint8 or float in [0, 1].
        title: Above the face.
        edge: The edge's colour.
    """
    array = as_image(image)
    ax.imshow(array, cmap="gray" if array.ndim == 2 else None, vmin=0, vmax=255, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(edge is not None)
        if edge is not None:
            side.set_color(edge)
            side.set_linewidth(2.5)
    if title:
        ax.set_title(title, fontsize=9, loc="center", pad=3)
    return ax


def faces(
    images: ArrayLike | Sequence[ArrayLike],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 8,
    scale: int = 2,
    edges: Sequence[str | None] | None = None,
    rows: Sequence[str] | None = None,
) -> Figure:
    """A sheet of faces at an integer multiple of their pixels.

    Args:
        images: (N, C, H, W), or N images of (C, H, W); uint8 or float in [0, 1].
        titles: Above the N faces.
        columns: Faces in a row.
        scale: Pixels of the sheet for one of a face.
        edges: N colours or None.
        rows: Left of each row.
    """
    pictures = [as_image(image) for image in images]
    if not pictures:
        raise ValueError("no faces to draw: images is empty")
    columns = min(columns, len(pictures))
    count = -(-len(pictures) // columns)
    side = max(p.shape[0] for p in pictures) * scale / 100
    pad = 0.28 if titles else 0.06
    size = columns * (side + 0.06), count * (side + pad)
    fig, axes = plt.subplots(count, columns, squeeze=False, figsize=size)
    fig.subplots_adjust(0, 0, 1, 1, wspace=0.06 / side, hspace=pad / side)
    for i, ax in enumerate(axes.flat):
        if i >= len(pictures):
            ax.axis("off")
            continue
        show_face(ax, pictures[i], titles[i] if titles else "", edges[i] if edges else None)
        if rows and i % columns == 0:
            ax.set_ylabel(rows[i // columns], rotation=0, ha="right", va="center", fontsize=10)
    return fig


def matrix(
    values: ArrayLike,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    fmt: str = ".2f",
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
) -> Figure:
    """A matrix as coloured cells with its numbers written in them.

    Args:
        values: (R, K).
        rows: R names.
        columns: K names.
        xlabel, ylabel, title: Words around it.
        fmt: Of the numbers.
        vmin, vmax, cmap: The colours, as matplotlib takes them.
        ax: Where it is drawn; None makes a figure.
    """
    array = _array(values)
    rows, columns = list(rows), list(columns)
    size = max(3.0, 0.62 * array.shape[1] + 1.6), max(2.4, 0.45 * array.shape[0] + 1.2)
    ax = ax or plt.subplots(figsize=size)[1]
    from seaborn import heatmap  # here, for it brings pandas, and most figures have no matrix

    names = {"xticklabels": columns or "auto", "yticklabels": rows or "auto"}
    colors = {"cmap": cmap, "vmin": vmin, "vmax": vmax, "cbar": False}
    heatmap(array, ax=ax, annot=True, fmt=fmt, annot_kws={"fontsize": 8.5}, **names, **colors)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if columns:
        ax.set_xticks(ax.get_xticks(), columns, rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.tick_params(axis="y", labelrotation=0)
    return ax.figure


def confusion(
    counts: ArrayLike, classes: Sequence[str], *, title: str = "", ax: Axes | None = None
) -> Figure:
    """A confusion matrix in per cent of each true class, rows true, columns predicted.

    Args:
        counts: (K, K), not negative; empty rows stay zero.
        classes: K names.
        title, ax: As in :func:`matrix`.
    """
    array = _array(counts)
    share = 100 * array / np.maximum(array.sum(1, keepdims=True), 1)
    names = [f"{name} ({int(n)})" for name, n in zip(classes, array.sum(1), strict=True)]
    words = {"rows": names, "columns": classes, "xlabel": "predicted", "ylabel": "true (faces)"}
    return matrix(share, **words, title=title, fmt=".0f", vmin=0, vmax=100, ax=ax)


def votes(counts: ArrayLike, classes: Sequence[str], *, ax: Axes | None = None) -> Figure:
    """Votes or probabilities (K,) of one face as horizontal bars in the expressions' colours."""
    ax = ax or plt.subplots(figsize=(3.6, 0.26 * len(classes) + 0.5))[1]
    colours = [EMOTION_COLOURS.get(name, "#7F7F7F") for name in classes]
    ax.barh(range(len(classes)), _array(counts), color=colours, edgecolor="#555555", linewidth=0.5)
    return _named_rows(ax, classes)


def bars(
    values: ArrayLike,
    names: Sequence[str],
    *,
    errors: ArrayLike | None = None,
    colours: Sequence[str] | None = None,
    xlabel: str = "",
    fmt: str = ".1f",
    ax: Axes | None = None,
) -> Figure:
    """Named values as horizontal bars with the number at the end of each, and optional error bars.

    Args:
        values: (N,).
        names: N names.
        errors: (N,) half-widths, or (2, N) below and above.
        colours: N colours.
        xlabel: Below the axis.
        fmt: Of the numbers.
        ax: Where they are drawn; None makes a figure.
    """
    array = _array(values)
    reach = np.zeros(1) if errors is None else _array(errors)
    ax = ax or plt.subplots(figsize=(5.2, 0.34 * len(array) + 0.9))[1]
    look = {"color": colours or "#6f8fb5", "height": 0.66}
    if errors is not None:
        look |= {"xerr": reach, "error_kw": {"ecolor": INK, "capsize": 3, "lw": 1}}
    ax.barh(range(len(array)), array, **look)
    ends = array + np.atleast_2d(reach)[-1]
    span = np.nanmax(np.abs(ends)) or 1.0
    for i, (value, end) in enumerate(zip(array, ends, strict=True)):
        ax.text(max(end, 0) + 0.015 * span, i, format(value, fmt), va="center", fontsize=9)
    ax.set_xlabel(xlabel)
    return _named_rows(ax, names)


def _named_rows(ax: Axes, names: Sequence[str]) -> Figure:
    """Names left of horizontal bars, the first one on top."""
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    return ax.figure


def curves(
    x: ArrayLike,
    lines: dict[str, ArrayLike],
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    colours: dict[str, str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Lines with their names written at their right ends instead of a legend.

    Args:
        x: (T,).
        lines: Name -> (T,); NaNs are gaps.
        xlabel, ylabel, title: Words around them.
        colours: Name -> colour.
        ax: Where they are drawn; None makes a figure.
    """
    ax = ax or plt.subplots(figsize=(5.6, 3.2))[1]
    x = _array(x)
    cycle = [QUERY, KEY, VALUE, "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F"]
    ends = []
    for (name, y), default in zip(lines.items(), cycle * 9, strict=False):
        y = _array(y)
        colour = (colours or {}).get(name, EMOTION_COLOURS.get(name, default))
        ax.plot(x, y, color=colour)
        good = np.flatnonzero(np.isfinite(y))
        if len(good):
            ends.append([y[good[-1]], x[good[-1]], name, colour])
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    low, high = ax.get_ylim()
    room = 0.055 * (high - low) * 3.2 / ax.figure.get_figheight()
    ends.sort(key=lambda end: end[0])
    level = -np.inf
    for y, at, name, colour in ends:  # nudge names apart so that none lies on another
        level = max(y, level + room)
        dark = tuple(0.75 * c for c in to_rgb(colour))
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 9.5}
        ax.annotate(name, (at, level), color=dark, annotation_clip=False, **beside)
    return ax.figure


def overlay(image: ArrayLike, heat: ArrayLike, *, ax: Axes | None = None) -> Figure:
    """A heat map laid over a face: the map is stretched to the face, from its own minimum to its maximum.

    Args:
        image: (C, H, W) or (H, W).
        heat: (h, w) of any size, any range.
        ax: Where it is drawn; None makes a figure.
    """
    picture = as_image(image)
    height, width = picture.shape[:2]
    if ax is None:
        side = max(1.4, height * 2 / 100)
        _, ax = plt.subplots(figsize=(side, side))
    show_face(ax, picture)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(_array(heat), cmap="viridis", alpha=0.55, interpolation="bilinear", extent=extent)
    ax.set(xlim=extent[:2], ylim=extent[2:])
    return ax.figure
