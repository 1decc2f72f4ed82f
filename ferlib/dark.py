"""Figures for dark pages: the same drawing, light ink on a dark ground, data colours and pictures kept.

A figure of this book is dark ink on nothing. On a dark page its greys are exchanged: each stands out from the
dark ground as much as it did from white. Colours keep their hue and are mixed with white only where the
ground would swallow them. Pictures, heat maps and what is drawn upon them stay as they are. An ink line that
crosses a coloured shape is light now, as many colours are: it gets a thin dark rim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, QuadMesh
from matplotlib.colors import to_rgb, to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.transforms import Bbox

__all__ = ["GROUND", "TWIN", "contrast", "dark_colour", "dark_twin", "in_the_dark"]

#: The ground of the book's dark pages.
GROUND = "#121212"
#: The MIME type under which a cell's output also holds its figure for dark pages, a PNG in base64.
TWIN = "image/x-dark-png"
FOR_TEXT, FOR_SHAPES = 4.5, 3.0  # the least contrasts of WCAG 2.1, criteria 1.4.3 and 1.4.11
MOST = 12.0  # the contrast of the page's own text: ink that stands out further glares
GREY = 16 / 255  # a colour whose parts differ by no more is a grey
COVERS = 0.5  # what is drawn at least so opaque is a ground for the text on it
STANDS_OUT = 2.0  # the contrast from which a shape takes away from the light line that crosses it
RIM = 1.0  # points of dark on either side of a light line across a colour
RGB = tuple[float, float, float]


def _luminance(rgb: RGB) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str | RGB, other: str | RGB) -> float:
    """How far two colours stand apart, from 1 (not at all) to 21 (black and white).

    (L1 + 0.05) / (L2 + 0.05), with the relative luminances L1 >= L2 of WCAG 2.1.
    Shape: two colours in, a number out.
    """
    light, dark = sorted((_luminance(to_rgb(one)), _luminance(to_rgb(other))), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _is_grey(rgb: RGB) -> bool:
    return max(rgb) - min(rgb) <= GREY


@cache
def _lifted(rgb: RGB, least: float) -> RGB:
    """A colour with as much white in it as it needs to stand out from the ground by ``least``."""
    low, high = 0.0, 1.0
    if contrast(rgb, GROUND) >= least:
        return rgb
    while high - low > 1e-3:
        half = (low + high) / 2
        enough = contrast(tuple(part + half * (1 - part) for part in rgb), GROUND) >= least
        low, high = (low, half) if enough else (half, high)
    return tuple(part + high * (1 - part) for part in rgb)


def dark_colour(colour: str | tuple, *, text: bool = False) -> tuple[float, float, float, float]:
    """The counterpart of a colour on a dark ground; its opacity stays.

    A grey stands out from ``GROUND`` as much as it did from white, at most by 12; a colour is mixed with
    white until it stands out by 3. ``text`` asks both for 4.5. Shape: any matplotlib colour in, RGBA in
    [0, 1] out. Raises ``ValueError`` for what is no colour.
    """
    *rgb, opacity = to_rgba(colour)
    if _is_grey(rgb):
        against_white = contrast(rgb, "white")
        return *_lifted(to_rgb(GROUND), min(max(against_white, FOR_TEXT * text), MOST)), opacity
    return *_lifted(tuple(rgb), FOR_TEXT if text else FOR_SHAPES), opacity


@contextmanager
def in_the_dark(fig: Figure) -> Iterator[Figure]:
    """While inside, a figure has the colours for dark pages; afterwards it is as it was.

    ``with in_the_dark(fig): fig.savefig("slide.png", facecolor=GROUND, transparent=False)``

    Left alone are pictures and heat maps, what is drawn upon them, and labels upon coloured shapes: they were
    chosen for what lies beneath. Shape: a Figure in, the same out.
    """
    fig.draw_without_rendering()  # puts every tick and label in its place
    artists = [artist for artist in fig.findobj(_has_colours) if artist is not fig.patch]
    texts = [artist for artist in artists if isinstance(artist, Text)]
    artists += [part for text in texts for part in (text.get_bbox_patch(), _arrow(text)) if part is not None]
    grounds: dict[Axes, list[Bbox]] = {}
    changed = [(a, _shape_under(a)) for a in artists if not _upon_a_picture(a, grounds)]
    changed = [(artist, shape) for artist, shape in changed if shape is None or _is_grey(shape[:3])]
    rimmed = [artist for artist, _ in changed if _crosses_a_shape(artist)]
    before = [(artist, vars(artist).copy()) for artist in (fig.patch, *(artist for artist, _ in changed))]
    try:
        fig.patch.set(facecolor=GROUND, alpha=1)
        for artist, shape in changed:
            _exchange(artist, shape)
        for line in rimmed:
            width = float(np.max(line.get_linewidth())) + 2 * RIM
            line.set_path_effects([withStroke(linewidth=width, foreground=GROUND)])
        yield fig
    finally:
        for artist, state in before:
            vars(artist).update(state)
        fig.stale = True


def _has_colours(artist: Artist) -> bool:
    return isinstance(artist, (Text, Line2D, Patch, Collection))


def _arrow(text: Text) -> Patch | None:
    return getattr(text, "arrow_patch", None)


def _middle(artist: Artist) -> np.ndarray | None:
    """The middle of what an artist covers, in pixels; None where it covers nothing."""
    box = artist.get_window_extent()
    middle = np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2
    return middle if np.isfinite(middle).all() else None


def _upon_a_picture(artist: Artist, grounds: dict[Axes, list[Bbox]]) -> bool:
    ax = artist.axes
    if ax is None or artist is ax.patch or isinstance(artist, Spine):
        return False
    if ax not in grounds:
        meshes = [c for c in ax.collections if isinstance(c, QuadMesh)]
        grounds[ax] = [picture.get_window_extent() for picture in (*ax.images, *meshes)]
    middle = _middle(artist) if grounds[ax] and artist.get_visible() else None
    return middle is not None and any(box.contains(*middle) for box in grounds[ax])


def _covering(ax: Axes | None) -> list[Patch]:
    return [] if ax is None else [shape for shape in ax.patches if shape.get_facecolor()[3] >= COVERS]


def _shape_under(artist: Artist) -> RGB | None:
    """The colour of the shape in whose middle a text stands; None for the figure's own ground."""
    shapes = _covering(artist.axes) if isinstance(artist, Text) and artist.get_text() else []
    middle = _middle(artist) if shapes else None
    under = [s for s in shapes if middle is not None and s.contains_point(middle)]
    return max(under, key=Artist.get_zorder).get_facecolor()[:3] if under else None


def _fill(shape: Patch) -> RGB:
    """The colour of a shape on a dark page."""
    return dark_colour(shape.get_facecolor())[:3]


def _crosses_a_shape(artist: Artist) -> bool:
    """Whether an artist is an ink line whose surroundings overlap a shape that stands out from the ground."""
    if not isinstance(artist, (Line2D, LineCollection)) or not artist.get_visible():
        return False
    colours = to_rgba_array(artist.get_color())[:, :3]
    if not all(_is_grey(rgb) and contrast(rgb, "white") >= FOR_SHAPES for rgb in map(tuple, colours)):
        return False
    shapes = [shape for shape in _covering(artist.axes) if contrast(_fill(shape), GROUND) >= STANDS_OUT]
    boxes = [shape.get_window_extent() for shape in shapes]
    return bool(boxes) and artist.get_window_extent().count_overlaps(boxes) > 0


def _exchange(artist: Artist, shape: RGB | None) -> None:
    """Give one artist, which may stand on a grey shape, the colours for dark pages."""
    if isinstance(artist, Text):
        artist.set_color(_ink(artist.get_color(), shape))
    elif isinstance(artist, Line2D):
        fill, edge = artist.get_markerfacecolor(), artist.get_markeredgecolor()
        _give(artist.get_color(), artist.set_color)
        _give(fill, artist.set_markerfacecolor)
        _give(edge, artist.set_markeredgecolor)
    elif isinstance(artist, Patch) or artist.get_array() is None:
        fill, edge = artist.get_facecolor(), artist.get_edgecolor()
        _give(fill, artist.set_facecolor)
        _give(edge, artist.set_edgecolor)


def _ink(colour: str | tuple, shape: RGB | None) -> tuple:
    """The colour of a text: on a grey shape the ground's, where that is the one that can be read there."""
    ink = dark_colour(colour, text=True)
    fill = GROUND if shape is None else dark_colour(shape)[:3]
    return to_rgba(GROUND) if contrast(fill, GROUND) > contrast(fill, ink[:3]) else ink


def _give(colours: str | tuple | np.ndarray, setter: Callable[[Any], object]) -> None:
    """Set one colour, or one a row, exchanged; what is not drawn stays so."""
    given = to_rgba_array(colours)
    if given[:, 3].any():
        dark = [dark_colour(tuple(colour)) for colour in given]
        setter(dark[0] if len(dark) == 1 else dark)


def dark_twin(fig: Figure) -> tuple[dict[str, str], dict]:
    """A figure for dark pages as IPython shows things: at twice the resolution, as large as the light one.

    Shape: a Figure in, ``({TWIN: PNG in base64}, {})`` out, ``({}, {})`` for a figure without axes.
    """
    from IPython.core.pylabtools import print_figure

    with in_the_dark(fig):
        data = print_figure(fig, fmt="retina", base64=True)
    return ({TWIN: data}, {}) if data else ({}, {})
