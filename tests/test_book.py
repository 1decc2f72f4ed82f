"""The built book, read in a real browser with the network cut off, wide and narrow, in light and in dark."""

from __future__ import annotations

import io
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import to_rgb
from PIL import Image

from book.builder import dark, handouts, notebooks, paper
from book.figures.dark import GROUND
from tests.links import broken
from tests.page_visit import visit
from tests.reader import Reader

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]' brings Playwright")


@pytest.fixture(scope="module")
def axe():
    """axe-core, which finds what shuts out readers with other eyes, ears and hands."""
    found = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install -e '.[dev]'")
    return found.Axe()


@pytest.mark.parametrize("name", [*paper.pages(), "genindex", "search"])
def test_nothing_is_wrong_with_a_page_offline(html: Path, browser, axe, name: str) -> None:
    wrong = visit(browser, html / f"{name}.html", axe)
    assert wrong == {}, "\n".join(f"{kind}: {found}" for kind, found in wrong.items())


def test_a_visit_finds_what_is_wrong(browser, axe, tmp_path: Path) -> None:
    """The visit is put on a page with one fault of each kind, so that its silence means something."""
    page = tmp_path / "page.html"
    script = "document.documentElement.dataset.theme = matchMedia('(prefers-color-scheme: dark)')"
    page.write_text(
        "<title>x</title><article class='bd-article'><p style='width: 2000px; color: #ccc'>Faint $x^2$</p>"
        "<img src='gone.png'><p id='a'></p><p id='a'></p><button></button><span class='math'></span>"
        "<script src='https://example.org/x.js'></script><mjx-merror>\\frac</mjx-merror></article>"
        f"<script>(() => {{ const told = () => {{ {script}.matches ? 'dark' : 'light'; }};"
        "matchMedia('(prefers-color-scheme: dark)').onchange = told; told(); })()</script>"
        + "<!-- weight -->"
        * 110_000,
        encoding="utf-8",
    )
    kinds = {
        "equations not set",
        "broken equations",
        "raw equations",
        "dead figures",
        "ids used twice",
        "pictures without alternative text",
        "axe-core, wide and light",
        "axe-core, phone and dark",
        "pixels wider than the window",
        "asked of the network",
        "console errors",
        "too heavy",
    }
    assert kinds <= set(visit(browser, page, axe))


# Which chapter lets the reader touch what.
TOUCH = {
    "02_neural_resizer": "resizer",
    "03_f_pdls": "loss",
    "04_batch_attention": "batch",
    "06_training": "sam",
    "08_attention_maps": "attention",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", TOUCH)
def test_interactive_figures_live_without_a_kernel(html: Path, browser, name: str, scheme: str) -> None:
    page_file = html / "notebooks" / f"{name}.html"
    with Reader(browser, page_file, width=380, scheme=scheme) as reader:
        page = reader.page
        assert page.locator(".fer-host").count() >= 1, "the chapter has no interactive figure"
        page.wait_for_function(
            "[...document.querySelectorAll('.fer-host')].every(e => e.dataset.ready === 'yes')"
        )
        assert page.locator(f".fer-{TOUCH[name]}").count() >= 1, "the explorer is not in its chapter"
        figure = page.locator(f".fer-{TOUCH[name]}").first
        said = figure.locator("[role=status]")
        page.wait_for_function("e => e.textContent.length > 20", arg=said.element_handle())
        before = said.text_content()
        figure.locator("input[type=radio]:checked:enabled").first.focus()
        page.keyboard.press("ArrowRight")
        sync_api.expect(said, "an arrow key on the first choice changes nothing").not_to_have_text(before)
        ground = figure.evaluate("e => getComputedStyle(e.closest('.text_html')).backgroundColor")
        assert ground in ("rgba(0, 0, 0, 0)", "transparent"), "the theme puts a box behind the figure"
        assert reader.overflow() <= 1
        assert reader.outside == [] and reader.errors == []
        assert "AnyModel" not in page_file.read_text(encoding="utf-8"), "the figure is in the page twice"


GROUND_RGB = tuple(round(255 * part) for part in to_rgb(GROUND))


@pytest.mark.parametrize("name", [path.stem for path in notebooks.chapters()])
def test_every_figure_of_a_chapter_has_a_dark_twin(html: Path, name: str) -> None:
    page = (html / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
    figures = dark.figures(BeautifulSoup(page, "html.parser"))
    assert figures
    for _, _, digest in figures:
        with Image.open(html / "_images" / f"{digest}.webp") as light:
            size = light.size
        with Image.open(html / "_images" / f"{digest}{dark.ENDING}") as twin:
            assert twin.size == size
            assert twin.convert("RGBA").getpixel((0, 0)) == (*GROUND_RGB, 255)


# Loads the twins as the page does, and says which are not shown exactly upon their figures.
TWINS_ASTRAY = """async () => {
    const astray = [];
    for (const twin of document.querySelectorAll('.in-the-dark')) {
        const picture = new Image(), figure = twin.previousElementSibling;
        picture.src = getComputedStyle(twin).backgroundImage.slice(5, -2);
        await picture.decode();
        const [a, b] = [twin, figure].map((e) => e.getBoundingClientRect());
        const apart = Math.max(...['x', 'y', 'width', 'height'].map((k) => Math.abs(a[k] - b[k])));
        if (apart > 1 || !twin.checkVisibility() || picture.naturalWidth !== figure.naturalWidth)
            astray.push(figure.alt);
    }
    return astray;
}"""


@pytest.mark.parametrize("width", [1280, 380])
def test_figures_take_the_colours_of_the_theme(html: Path, browser, width: int) -> None:
    with Reader(browser, html / "notebooks" / "04_batch_attention.html", width=width) as reader:
        page, twins = reader.page, reader.page.locator(".in-the-dark")
        assert twins.count() == page.locator(".cell_output img[src*='_images/']").count() >= 5
        assert not twins.first.is_visible() and not any(dark.ENDING in url for url in reader.inside)
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        assert page.evaluate(TWINS_ASTRAY) == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb({}, {}, {})".format(*GROUND_RGB), "figures have another ground than pages"
        for n in range(twins.count()):
            with Image.open(io.BytesIO(twins.nth(n).screenshot())) as seen:
                assert seen.convert("RGB").getpixel((2, 2)) == pytest.approx(GROUND_RGB, abs=2)
        page.emulate_media(media="print")
        assert not twins.first.is_visible(), "a dark figure would be printed"
        assert reader.errors == []


def test_every_inner_link_leads_somewhere(html: Path) -> None:
    files = (page for page in sorted(html.rglob("*.html")) if not {"_static", "handouts"} & {*page.parts})
    found = [word for page in files for word in broken(page, html)]
    assert not found, "\n".join(found)


def test_the_status_page_speaks_of_this_build(html: Path) -> None:
    text = (html / "book" / "status.html").read_text(encoding="utf-8")
    assert f"<p>{version('torch')}</p>" in text
    assert "not measured" not in text, "a chapter's time is missing"
    for path in notebooks.chapters():
        assert f'href="../notebooks/{path.stem}.html"' in text


def test_every_chapter_gives_handouts(html: Path) -> None:
    written = handouts.make(html)
    assert len(written) == 2 * len(notebooks.chapters())
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert text.count("<figure") >= 1 and "Exercises" in text
        assert dark.ENDING not in text, f"{path.name} prints dark figures"
        dead = [s for s in re.findall(r'<img[^>]*src="([^":]+)"', text) if not (path.parent / s).exists()]
        assert dead == [], f"{path.name} shows pictures that are not there"


def test_the_book_can_be_searched_offline(html: Path, browser) -> None:
    with Reader(browser, (html / "search.html").as_uri() + "?q=resizer") as reader:
        reader.page.wait_for_selector("#search-results li a", timeout=10_000)
        assert reader.page.locator("#search-results li").count() >= 2
        assert reader.outside == []


def test_tables_and_fences_are_not_shown_as_they_are_typed(html: Path) -> None:
    typed = re.compile(r"<p>\s*(\|[^<]*\||```|:::)")
    files = (html / f"{name}.html" for name in paper.pages())
    assert not [path.name for path in files if typed.search(path.read_text(encoding="utf-8"))]
