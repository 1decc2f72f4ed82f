"""Figures for dark pages: what is exchanged, what stays, and that everything is put back."""

import io
from base64 import b64decode
from hashlib import sha256

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from book.builder import dark as pages
from book.figures.dark import GROUND, TWIN, contrast, dark_colour, dark_twin, in_the_dark
from ferlib import plots
from ferlib.style import EMOTION_COLOURS, INK, KEY, QUERY, VALUE

FACE = np.linspace(0, 1, 48 * 48).reshape(1, 48, 48)


def png(fig, **how) -> bytes:
    data = io.BytesIO()
    fig.savefig(data, dpi=100, **how)
    return data.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGBA"))


@pytest.fixture
def figure():
    """A face with its name and a mark on it beside bars with numbers in them, under the book's style."""
    with plt.style.context("default"):
        plots.use_style()
        fig, (left, right) = plt.subplots(1, 2, figsize=(5, 2.4))
        plots.show_face(left, FACE, "fear")
        left.text(24, 24, "on it", color=INK)
        left.axhline(15.5, color="white")
        right.barh([0, 1, 2], [3, 2, 1], color=[QUERY, "#7F7F7F", "none"], edgecolor="#555555")
        right.text(1, 0, "3", color="white")
        right.text(1, 1, "2", color="white")
        right.axvline(1.5, color=INK)
        right.set_xlabel("votes")
        yield fig
        plt.close(fig)


def test_shapes_are_seen_words_are_read_and_the_palette_stays_itself() -> None:
    assert contrast("#767676", "white") == pytest.approx(
        4.54, abs=0.01
    )  # the guidelines' lightest grey for text
    assert contrast(dark_colour("#9a9a9a", text=True)[:3], GROUND) >= 4.49, "too faint to be read"
    for colour in (*EMOTION_COLOURS.values(), QUERY, KEY, VALUE):
        assert contrast(dark_colour(colour)[:3], GROUND) >= 2.99
        assert contrast(dark_colour(colour, text=True)[:3], GROUND) >= 4.49
    for grey in (INK, "#555555", "#888888", "#d3d3d3", "white"):  # stands out as it did from white
        there = min(contrast(grey, "white"), 12)
        assert contrast(dark_colour(grey)[:3], GROUND) == pytest.approx(there, rel=0.02)
    kept = [colour for name, colour in EMOTION_COLOURS.items() if name != "neutral"]  # which is a grey
    assert [to_hex(dark_colour(colour)) for colour in kept] == [colour.lower() for colour in kept]
    assert dark_colour((0, 0, 0, 0.25))[3] == 0.25
    with pytest.raises(ValueError):
        dark_colour("no colour")


def test_ink_is_light_and_what_lies_upon_a_picture_or_a_colour_stays(figure) -> None:
    left, right = figure.axes
    on_blue, on_grey = right.texts
    with in_the_dark(figure):
        for text in (left.title, right.xaxis.label, *right.get_xticklabels()):
            assert contrast(to_rgb(text.get_color()), GROUND) >= 4.49
        assert contrast(right.spines["left"].get_edgecolor()[:3], GROUND) > 9
        assert left.texts[0].get_color() == INK and left.lines[0].get_color() == "white"
        assert on_blue.get_color() == "white", "a label was chosen for its bar"
        assert contrast(to_rgb(on_grey.get_color()), right.patches[1].get_facecolor()[:3]) > 3.9
        assert to_hex(right.patches[0].get_facecolor()) == QUERY.lower()
        assert right.patches[2].get_facecolor()[3] == 0, "an empty bar was filled"
        assert to_hex(figure.get_facecolor()) == GROUND
        assert right.lines[0].get_path_effects(), "an ink line across a bar has no dark rim"


def test_everything_is_put_back_also_after_an_error(figure) -> None:
    before = png(figure)
    _, data = dark_twin(figure)
    assert to_hex(pixels(b64decode(data[TWIN]))[0, 0, :3] / 255) == GROUND
    assert png(figure) == before
    with pytest.raises(RuntimeError), in_the_dark(figure):
        raise RuntimeError
    assert png(figure) == before


def test_a_twin_keeps_size_and_picture_and_wears_them_through_its_holes(figure) -> None:
    light = png(figure, transparent=True)
    with in_the_dark(figure):
        dark = png(figure, transparent=False, facecolor=GROUND)
    coat = pixels(pages.coat(light, dark))
    below, wanted = pixels(light), pixels(dark)
    assert (wanted[..., 3] == 255).all() and to_hex(wanted[0, 0, :3] / 255) == GROUND
    together = np.where(coat[..., 3:] == 0, below, coat)
    assert (together == wanted).all(), "coat and light figure do not make the dark one"
    box = figure.axes[0].images[0].get_window_extent()
    assert (coat[..., 3] == 0).sum() > 0.95 * box.width * box.height, "the face is stored a second time"
    with pytest.raises(ValueError, match="differ in size"):
        pages.coat(light, png(figure, pad_inches=1))


def mesh(ax) -> QuadMesh | None:
    return next((shape for shape in ax.collections if isinstance(shape, QuadMesh)), None)


def test_a_map_with_a_white_middle_gets_a_dark_one_and_keeps_its_hues() -> None:
    fig = plots.matrix([[-2, -1, 0, 1, 2]], cmap="RdBu_r", vmin=-2, vmax=2, fmt="+.0f")
    (ax,) = fig.axes
    before = png(fig)
    with in_the_dark(fig):
        cells = [mesh(ax).cmap(mesh(ax).norm(value))[:3] for value in range(-2, 3)]
        far = [contrast(cell, GROUND) for cell in cells]
        assert far[2] < 1.2 < far[1] < far[0] and far[2] < far[3] < far[4], "farther from zero is lighter"
        assert all(cell[2] > cell[0] for cell in cells[:2]) and all(c[0] > c[2] for c in cells[3:])
        for text, cell in zip(ax.texts, cells, strict=True):
            assert contrast(to_rgb(text.get_color()), cell) >= 4
    assert png(fig) == before
    sure = plots.confusion(np.eye(2), ["a", "b"])
    with in_the_dark(sure):
        assert mesh(sure.axes[0]).cmap.name == "viridis", "a map without a white middle has changed"
    plt.close("all")


def test_a_page_shows_one_picture_with_two_looks() -> None:
    there, lost = (sha256(word).hexdigest() for word in (b"there", b"lost"))
    page = "".join(
        f'<a><img alt="A face" src="../_images/{name}.webp" style="width: 9px" /></a>'
        for name in (there, lost)
    )
    soup = BeautifulSoup(page, "html.parser")
    dressed, plain = soup.find_all("a")
    before = str(plain)
    pages.dress(soup, {there})
    assert len(soup.select("[alt]")) == 2, "a picture is announced twice"
    twin = dressed.select_one(".two-themes > .in-the-dark")
    assert twin["style"] == f"background-image: url(../_images/{there}_dark.webp)"
    assert str(plain) == before, "a figure without a twin has changed"
