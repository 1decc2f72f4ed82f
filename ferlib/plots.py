"""The figures of the book: arrays in, a matplotlib Figure out, one look throughout.

Eight expressions have eight colours (Okabe-Ito, safe for colour-blind readers), the same in every figure.
Faces are drawn at integer multiples of their pixels and never smoothed. Figures are transparent with dark
ink, so that they read in light and in dark pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ferlib.style import EMOTION_COLOURS, INK, KEY, QUERY, VALUE, use_style

__all__ = [
    "EMOTION_COLOURS", "KEY", "QUERY", "VALUE",
    "bars", "confusion", "curves", "faces", "matrix", "overlay", "reliability",
    "show_face", "use_style", "votes",
]  # fmt: skip


def _array(values: ArrayLike) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)


def _picture(image: ArrayLike) -> np.ndarray:
    """(C, H, W) or (H, W), uint8 or float in [0, 1] -> (H, W) or (H, W, 3) uint8."""
    array = _array(image)
    if array.ndim == 3 and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3):
        raise ValueError(f"an image has shape (C, H, W) or (H, W) with C 1 or 3, not {array.shape}")
    if array.dtype != np.uint8:
        array = (np.clip(array.astype(np.float64), 0, 1) * 255).round().astype(np.uint8)
    return array


def show_face(ax: Axes, image: ArrayLike, title: str = "", edge: str | None = None) -> Axes:
    """Draw one face on an axis, pixel for pixel, with an optional coloured edge.

    Shape: ``image`` (C, H, W) or (H, W), uint8 or float in [0, 1].
    """
    array = _picture(image)
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

    Shape: ``images`` (N, C, H, W), or N images of (C, H, W); uint8 or float in [0, 1].
    ``titles`` stand above the faces, ``rows`` left of each row, ``edges`` are N colours or None.
    """
    pictures = [_picture(image) for image in images]
    if not pictures:
        raise ValueError("no faces to draw: images is empty")
    columns = min(columns, len(pictures))
    count = -(-len(pictures) // columns)
    side = max(p.shape[0] for p in pictures) * scale / 100
    pad = 0.28 if titles else 0.06
    fig, axes = plt.subplots(
        count, columns, squeeze=False, figsize=(columns * (side + 0.06), count * (side + pad)),
        gridspec_kw={"wspace": 0.06 / side, "hspace": pad / side,
                     "left": 0, "right": 1, "top": 1, "bottom": 0},
    )  # fmt: skip
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
    fmt: str | None = ".2f",
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
) -> Figure:
    """A matrix as coloured cells with its numbers written in them (``fmt=None`` leaves them out).

    Shape: ``values`` (R, K); ``rows`` R names, ``columns`` K names.
    """
    array = _array(values).astype(float)
    if array.ndim != 2:
        raise ValueError(f"a matrix has two axes, not {array.ndim} (shape {array.shape})")
    if ax is None:
        width = max(3.0, 0.62 * array.shape[1] + 1.6) if fmt else 4.2
        height = max(2.4, 0.45 * array.shape[0] + 1.2) if fmt else 3.6
        _, ax = plt.subplots(figsize=(width, height))
    from seaborn import heatmap  # here, for it brings pandas, and most figures have no matrix

    heatmap(
        array, ax=ax, cmap=cmap, vmin=vmin, vmax=vmax, square=not fmt, cbar=False, annot=bool(fmt),
        fmt=fmt or "", annot_kws={"fontsize": 8.5}, xticklabels=list(columns) or "auto",
        yticklabels=list(rows) or "auto",
    )  # fmt: skip
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if len(columns):
        ax.set_xticks(ax.get_xticks(), columns, rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0, axis="both")
    ax.tick_params(axis="y", labelrotation=0)
    return ax.figure


def confusion(
    counts: ArrayLike, classes: Sequence[str], *, title: str = "", ax: Axes | None = None
) -> Figure:
    """A confusion matrix in per cent of each true class, rows true, columns predicted.

    Shape: ``counts`` (K, K) non-negative counts, ``classes`` K names. Empty rows stay zero.
    """
    array = _array(counts).astype(float)
    share = 100 * array / np.maximum(array.sum(1, keepdims=True), 1)
    names = [f"{name} ({int(n)})" for name, n in zip(classes, array.sum(1), strict=True)]
    return matrix(
        share, rows=names, columns=classes, xlabel="predicted", ylabel="true (faces)", title=title,
        fmt=".0f", vmin=0, vmax=100, ax=ax,
    )  # fmt: skip


def votes(counts: ArrayLike, classes: Sequence[str], *, title: str = "", ax: Axes | None = None) -> Figure:
    """Votes or probabilities of one face as horizontal bars in the expressions' colours.

    Shape: ``counts`` (K,), ``classes`` K names.
    """
    array = _array(counts).astype(float)
    if ax is None:
        _, ax = plt.subplots(figsize=(3.6, 0.26 * len(classes) + 0.5))
    colours = [EMOTION_COLOURS.get(name, "#7F7F7F") for name in classes]
    ax.barh(range(len(classes)), array, color=colours, edgecolor="#555555", linewidth=0.5)
    ax.set_yticks(range(len(classes)), classes)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    if title:
        ax.set_title(title)
    return ax.figure


def bars(
    values: ArrayLike,
    names: Sequence[str],
    *,
    errors: ArrayLike | None = None,
    colours: Sequence[str] | None = None,
    xlabel: str = "",
    title: str = "",
    fmt: str = ".1f",
    ax: Axes | None = None,
) -> Figure:
    """Named values as horizontal bars with the number at the end of each, and optional error bars.

    Shape: ``values`` (N,), ``names`` N, ``errors`` (N,) half-widths or (2, N) below and above.
    """
    array = _array(values).astype(float)
    if ax is None:
        _, ax = plt.subplots(figsize=(5.2, 0.34 * len(array) + 0.9))
    ax.barh(
        range(len(array)), array, color=colours or "#6f8fb5", height=0.66,
        xerr=None if errors is None else _array(errors), error_kw={"ecolor": INK, "capsize": 3, "lw": 1},
    )  # fmt: skip
    ends = array if errors is None else array + np.atleast_2d(_array(errors))[-1]
    span = np.nanmax(np.abs(ends)) or 1.0
    for i, (value, end) in enumerate(zip(array, ends, strict=True)):
        ax.text(max(end, 0) + 0.015 * span, i, format(value, fmt), va="center", fontsize=9)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel=xlabel, title=title)
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

    Shape: ``x`` (T,), each line (T,). NaNs are gaps.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(5.6, 3.2))
    x = _array(x).astype(float)
    cycle = [QUERY, KEY, VALUE, "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F"]
    ends = []
    for (name, y), default in zip(lines.items(), cycle * 9, strict=False):
        y = _array(y).astype(float)
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
        ax.annotate(name, (at, level), xytext=(6, 0), textcoords="offset points", va="center", color=dark,
                    fontsize=9.5, annotation_clip=False)  # fmt: skip
    return ax.figure


def reliability(bins: Sequence[Any], *, title: str = "", ax: Axes | None = None) -> Figure:
    """A reliability diagram: how often the network is right (points, 95 % intervals) when it is so sure, and
    what share of the faces that is (bars). On the dashed diagonal it is exactly as sure as it is right.

    Shape: the bins of :func:`ferlib.evaluation.reliability`, or of a record's ``extra["reliability"]``.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(3.6, 3.6))
    table = [b if isinstance(b, Mapping) else asdict(b) for b in bins]
    total = max(sum(b["faces"] for b in table), 1)
    ax.bar([b["low"] for b in table], [b["faces"] / total for b in table], align="edge", color="#d3d3d3",
           width=[b["high"] - b["low"] for b in table], edgecolor="white")  # fmt: skip
    ax.plot([0, 1], [0, 1], linestyle="--", color=INK, linewidth=1)
    full = [b for b in table if b["faces"]]
    right = (
        np.array([[b["accuracy"][key] for key in ("value", "low", "high")] for b in full]).reshape(-1, 3).T
    )
    ends = np.abs(right[1:] - right[0])
    ax.errorbar(
        [b["confidence"] for b in full], right[0], ends, fmt="o", color=QUERY, capsize=2, markersize=4
    )
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share right (bars: share of faces)",
           title=title, aspect="equal")  # fmt: skip
    return ax.figure


def overlay(
    image: ArrayLike, heat: ArrayLike, *, title: str = "", alpha: float = 0.55, ax: Axes | None = None
) -> Figure:
    """A heat map laid over a face: the map is stretched to the face, from its own minimum to its maximum.

    Shape: ``image`` (C, H, W) or (H, W); ``heat`` (h, w) of any size, any range.
    """
    picture = _picture(image)
    if ax is None:
        side = max(1.4, picture.shape[0] * 2 / 100)
        _, ax = plt.subplots(figsize=(side, side + (0.25 if title else 0)))
    show_face(ax, picture, title)
    height, width = picture.shape[:2]
    ax.imshow(
        _array(heat).astype(float), cmap="viridis", alpha=alpha, interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )  # fmt: skip
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return ax.figure
