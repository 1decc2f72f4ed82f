"""Figures for dark pages: the same drawing, light ink on a dark ground, data colours and pictures kept.

A figure of this book is dark ink on nothing. On a dark page its greys are exchanged: each stands out from the
dark ground as much as it did from white. Colours keep their hue and are mixed with white only where the
ground would swallow them. Pictures, heat maps and what is drawn upon them stay as they are, but a map whose
middle is white gets a dark middle. An ink line that crosses a coloured shape is light now, as many colours
are: it gets a thin dark rim.
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
from matplotlib.colors import Colormap, ListedColormap, to_rgb, to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.transforms import Bbox

__all__ = ["GROUND", "TWIN", "contrast", "dark_colour", "dark_twin", "draw_twins", "in_the_dark"]

#: The ground of the book's dark pages.
GROUND = "#121212"
#: The name in the metadata of a cell's output that holds its figure for dark pages, a PNG in base64.
TWIN = "dark_png"
FOR_TEXT, FOR_SHAPES = 4.5, 3.0  # the least contrasts of WCAG 2.1, criteria 1.4.3 and 1.4.11
MOST = 12.0  # the contrast of the page's own text: ink that stands out further glares
MOST_OF_MAPS = 6.0  # the same for the ends of a map that has a white middle
GREY = 16 / 255  # a colour whose parts differ by no more is a grey
COVERS = 0.5  # what is drawn at least so opaque is a ground for the text on it
STANDS_OUT = 2.0  # the contrast from which a shape takes away from the light line that crosses it
RIM = 1.0  # points of dark on either side of a light line across a colour
RGB = tuple[float, float, float]


def _luminance(rgb: RGB) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str | RGB, other: str | RGB) -> float:
    r"""How far two colours stand apart, from 1 (not at all) to 21 (black and white).

    .. math:: (L_1 + 0.05) / (L_2 + 0.05)

    with the relative luminances :math:`L_1 \ge L_2` of WCAG 2.1.
    """
    light, dark = sorted((_luminance(to_rgb(one)), _luminance(to_rgb(other))), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _is_grey(rgb: RGB) -> bool:
    return max(rgb) - min(rgb) <= GREY


@cache
def _lifted(rgb: RGB, least: float, towards: str | RGB = "white") -> RGB:
    """A colour with as much of a lighter one in it as it needs to stand out from the ground by ``least``."""
    low, high = 0.0, 1.0
    if contrast(rgb, GROUND) >= least:
        return rgb
    start, end = np.array(rgb), np.array(to_rgb(towards))
    while high - low > 1e-3:
        half = (low + high) / 2
        enough = contrast(tuple(start + half * (end - start)), GROUND) >= least
        low, high = (low, half) if enough else (half, high)
    return tuple(float(part) for part in start + high * (end - start))


def dark_colour(colour: str | tuple, *, text: bool = False) -> tuple[float, float, float, float]:
    """The counterpart of a colour on a dark ground; its opacity stays.

    A grey stands out from ``GROUND`` as much as it did from white, at most by 12; a colour is mixed with
    white until it stands out by 3.

    Args:
        colour: Any colour of matplotlib.
        text: Both stand out by 4.5.

    Returns:
        RGBA in [0, 1].

    Raises:
        ValueError: It is no colour.
    """
    *rgb, opacity = to_rgba(colour)
    if _is_grey(rgb):
        against_white = contrast(rgb, "white")
        return *_lifted(to_rgb(GROUND), min(max(against_white, FOR_TEXT * text), MOST)), opacity
    return *_lifted(tuple(rgb), FOR_TEXT if text else FOR_SHAPES), opacity


def _in_its_hue(rgb: RGB) -> RGB:
    """A colour of a map with a white middle: as far from the ground as it was from white, in its own hue."""
    far = min(contrast(rgb, "white"), MOST_OF_MAPS)
    if _is_grey(rgb):
        return _lifted(to_rgb(GROUND), far)
    pure = tuple(float(part) for part in (np.array(rgb) - min(rgb)) / (max(rgb) - min(rgb)))
    return _lifted(pure, far) if contrast(pure, GROUND) < far else _lifted(to_rgb(GROUND), far, pure)


def _has_white_middle(mesh: QuadMesh) -> bool:
    if mesh.get_array() is None:
        return False
    low, middle, high = (contrast(tuple(mesh.cmap(place)[:3]), "white") for place in (0.0, 0.5, 1.0))
    return middle < 1.3 and min(low, high) >= FOR_SHAPES


def _dark_map(cmap: Colormap) -> Colormap:
    return ListedColormap(
        [_in_its_hue(tuple(map(float, rgb))) for rgb in cmap(np.linspace(0, 1, 256))[:, :3]]
    )


@contextmanager
def in_the_dark(fig: Figure) -> Iterator[Figure]:
    """While inside, a figure has the colours for dark pages; afterwards it is as it was.

    ``with in_the_dark(fig): fig.savefig("slide.png", facecolor=GROUND, transparent=False)``

    Left alone are pictures and heat maps, what is drawn upon them, and labels upon coloured shapes: they were
    chosen for what lies beneath.
    """
    fig.draw_without_rendering()  # puts every tick and label in its place
    artists = [artist for artist in fig.findobj(_has_colours) if artist is not fig.patch]
    texts = [artist for artist in artists if isinstance(artist, Text)]
    artists += [part for text in texts for part in (text.get_bbox_patch(), _arrow(text)) if part is not None]
    grounds: dict[Axes, list[Bbox]] = {}
    changed = [artist for artist in artists if not _upon_a_picture(artist, grounds)]
    words = {text: _fills_under(text) for text in changed if isinstance(text, Text) and text.get_text()}
    rimmed = [artist for artist in changed if _crosses_a_shape(artist)]
    before = [(artist, vars(artist).copy()) for artist in (fig.patch, *changed)]
    maps = [(mesh, mesh.cmap) for mesh in fig.findobj(QuadMesh) if _has_white_middle(mesh)]
    try:
        for mesh, cmap in maps:
            mesh.set_cmap(_dark_map(cmap))
        fig.patch.set(facecolor=GROUND, alpha=1)
        for artist in changed:
            _exchange(artist)
        for text, fills in words.items():
            text.set_color(_ink(text.get_color(), fills))
        for line in rimmed:
            width = float(np.max(line.get_linewidth())) + 2 * RIM
            line.set_path_effects([withStroke(linewidth=width, foreground=GROUND)])
        yield fig
    finally:
        for artist, state in before:
            vars(artist).update(state)
        for mesh, cmap in maps:
            mesh.set_cmap(cmap)
        fig.stale = True


def _has_colours(artist: Artist) -> bool:
    return isinstance(artist, (Text, Line2D, Patch, Collection))


def _arrow(text: Text) -> Patch | None:
    return getattr(text, "arrow_patch", None)


def _middle(artist: Artist) -> np.ndarray | None:
    """The middle of what an artist covers, in pixels; None where it covers nothing."""
    box = artist.get_window_extent()
    return box.corners().mean(0) if np.isfinite(box.extents).all() else None


def _meshes(ax: Axes | None) -> list[QuadMesh]:
    return [] if ax is None else [shape for shape in ax.collections if isinstance(shape, QuadMesh)]


def _upon_a_picture(artist: Artist, grounds: dict[Axes, list[Bbox]]) -> bool:
    ax = artist.axes
    if ax is None or artist is ax.patch or isinstance(artist, Spine):
        return False
    if ax not in grounds:
        meshes = [mesh for mesh in _meshes(ax) if not _has_white_middle(mesh)]
        grounds[ax] = [picture.get_window_extent() for picture in (*ax.images, *meshes)]
    middle = _middle(artist) if grounds[ax] and artist.get_visible() else None
    return middle is not None and any(box.contains(*middle) for box in grounds[ax])


def _covering(ax: Axes | None) -> list[Patch]:
    return [] if ax is None else [shape for shape in ax.patches if shape.get_facecolor()[3] >= COVERS]


def _fills_under(text: Text) -> tuple[RGB, RGB] | None:
    """What lies under the middle of a text, on a light page and on a dark one; None for the page itself."""
    shapes = _covering(text.axes)
    meshes = [mesh for mesh in _meshes(text.axes) if _has_white_middle(mesh)]
    middle = _middle(text) if shapes or meshes else None
    if middle is None:
        return None
    under = [shape for shape in shapes if shape.contains_point(middle)]
    if under:
        shape = max(under, key=Artist.get_zorder)
        return shape.get_facecolor()[:3], _fill(shape)
    for mesh in meshes:
        edges = mesh.get_coordinates()
        place = text.axes.transData.inverted().transform(middle)
        column, row = (
            np.searchsorted(edges[0, :, 0], place[0]) - 1,
            np.searchsorted(edges[:, 0, 1], place[1]) - 1,
        )
        values = mesh.get_array().reshape(edges.shape[0] - 1, edges.shape[1] - 1)
        if 0 <= row < values.shape[0] and 0 <= column < values.shape[1]:
            light = tuple(mesh.cmap(mesh.norm(values[row, column]))[:3])
            return light, _in_its_hue(light)
    return None


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


def _exchange(artist: Artist) -> None:
    """Give one artist that is no text the colours for dark pages."""
    if isinstance(artist, Text):
        return
    if isinstance(artist, Line2D):
        fill, edge = artist.get_markerfacecolor(), artist.get_markeredgecolor()
        _give(artist.get_color(), artist.set_color)
        _give(fill, artist.set_markerfacecolor)
        _give(edge, artist.set_markeredgecolor)
    elif isinstance(artist, Patch) or artist.get_array() is None:
        fill, edge = artist.get_facecolor(), artist.get_edgecolor()
        _give(fill, artist.set_facecolor)
        _give(edge, artist.set_edgecolor)


def _ink(colour: str | tuple, fills: tuple[RGB, RGB] | None) -> str | tuple:
    """The colour of a text: upon a shape its own, as long as it can be read there as well as before."""
    ink = dark_colour(colour, text=True)
    if fills is None:
        return ink
    light, dark = fills
    if contrast(to_rgb(colour), dark) >= min(contrast(to_rgb(colour), light), FOR_TEXT):
        return colour
    return max((ink, to_rgba(GROUND)), key=lambda one: contrast(one[:3], dark))


def _give(colours: str | tuple | np.ndarray, setter: Callable[[Any], object]) -> None:
    """Set one colour, or one a row, exchanged; what is not drawn stays so."""
    given = to_rgba_array(colours)
    if given[:, 3].any():
        dark = [dark_colour(tuple(colour)) for colour in given]
        setter(dark[0] if len(dark) == 1 else dark)


def draw_twins() -> None:
    """From now on the IPython shell that calls this draws each figure for dark pages, too."""
    from IPython import get_ipython

    get_ipython().display_formatter.mimebundle_formatter.for_type(Figure, dark_twin)


def dark_twin(fig: Figure) -> tuple[dict, dict[str, str]]:
    """A figure for dark pages, as IPython draws things: at twice the resolution, as large as the light one.

    It is metadata of the output and no output of its own, which Jupyter and MyST-NB would try to show.

    Returns:
        ``({}, {TWIN: PNG in base64})``; ``({}, {})`` for a figure without axes.
    """
    from IPython.core.pylabtools import print_figure

    with in_the_dark(fig):
        data = print_figure(fig, fmt="retina", base64=True)
    return {}, {TWIN: data} if data else {}
