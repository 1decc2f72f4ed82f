"""The built book, read in a real browser with the network cut off, wide and narrow, in light and in dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from book.builder import __main__ as builder
from book.builder import mathjax, notebooks
from tests.reader import Reader

HTML = notebooks.ROOT / "_build" / "html"
pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]' brings Playwright")


def pages() -> list[str]:
    """The pages the table of contents names, without ending."""
    toc = (notebooks.ROOT / "_toc.yml").read_text(encoding="utf-8")
    return re.findall(r"(?:file|root): (\S+)", toc)


@pytest.fixture(scope="session")
def html() -> Path:
    """The built book; building it fails on any warning and on any failing cell."""
    offline_equations = mathjax.bring()
    notebooks.execute_all()
    assert builder.build_html() == 0, "jupyter-book reported warnings or errors (see above)"
    if not offline_equations:
        pytest.skip("MathJax could not be fetched, so the pages are not the offline ones checked here")
    return HTML


@pytest.mark.parametrize("name", pages())
def test_page_reads_offline(html: Path, browser, name: str) -> None:
    with Reader(browser, (html / f"{name}.html").as_uri()) as reader:
        page = reader.page
        if page.locator("span.math, div.math").count():
            page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
            page.evaluate("MathJax.startup.promise")
            assert page.locator("mjx-container").count() > 0, "equations are not set"
            assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0, "an equation is broken"
            wide = page.evaluate(
                "[...document.querySelectorAll('div.math')].filter(e => e.querySelector('mjx-math')"
                "?.getBoundingClientRect().width > e.clientWidth - 40 * !!e.querySelector('.eqno'))"
                ".map(e => e.id)"
            )
            assert wide == [], "equations run out of the column or into their numbers"
        assert reader.outside == [], "the page asks the network"
        assert reader.errors == []
        dead = page.evaluate(
            "[...document.images].filter(i => i.loading !== 'lazy' && (!i.complete || !i.naturalWidth))"
            ".map(i => i.src)"
        )
        assert dead == []
        nameless = page.evaluate(
            "[...document.querySelectorAll('.bd-article img')]"
            ".filter(i => !i.alt || /^[._/]*images\\/|[0-9a-f]{32}/.test(i.alt)).map(i => i.src)"
        )
        assert nameless == [], "pictures without alternative text"
        assert reader.squeezed() == [], "pictures that have lost their proportions"
        text = page.locator(".bd-article").inner_text()
        assert "Traceback (most recent call last)" not in text
        assert len(text.split()) > 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", pages())
def test_page_fits_a_phone(html: Path, browser, name: str, scheme: str) -> None:
    with Reader(browser, (html / f"{name}.html").as_uri(), width=380, scheme=scheme) as reader:
        overflow = reader.overflow()
        assert overflow <= 1, f"the page is {overflow} px wider than a phone"
        assert scheme == "dark" or reader.squeezed() == [], "pictures that have lost their proportions"
        assert reader.page.evaluate("document.documentElement.dataset.theme") == scheme


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
        page.wait_for_timeout(600)
        assert said.text_content() != before, "an arrow key on the first choice changes nothing"
        ground = figure.evaluate("e => getComputedStyle(e.closest('.text_html')).backgroundColor")
        assert ground in ("rgba(0, 0, 0, 0)", "transparent"), "the theme puts a box behind the figure"
        assert reader.overflow() <= 1
        assert reader.outside == [] and reader.errors == []
        assert "AnyModel" not in page_file.read_text(encoding="utf-8"), "the figure is in the page twice"


def test_every_inner_link_leads_somewhere(html: Path) -> None:
    broken = []
    for name in pages():
        page = html / f"{name}.html"
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'href="([^"#:?]+\.html)(?:#[^"]*)?"', text):
            if not (page.parent / link).resolve().exists():
                broken.append(f"{name}: {link}")
    assert not broken


def test_the_book_can_be_searched_offline(html: Path, browser) -> None:
    with Reader(browser, (html / "search.html").as_uri() + "?q=resizer") as reader:
        reader.page.wait_for_selector("#search-results li a", timeout=10_000)
        assert reader.page.locator("#search-results li").count() >= 2
        assert reader.outside == []


def test_chapters_open_in_colab_at_the_address_of_the_configuration(html: Path) -> None:
    config = (notebooks.ROOT / "_config.yml").read_text(encoding="utf-8")
    owner = re.search(r"^  url: https://github\.com/(\S+)$", config, re.M)[1]
    for path in notebooks.chapters():
        text = (html / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert f"colab.research.google.com/github/{owner}/blob/main/notebooks/{path.name}" in text


def test_the_three_voices_are_heard(html: Path) -> None:
    text = "".join(p.read_text(encoding="utf-8") for p in (html / "notebooks").glob("*.html"))
    for voice in ("paper", "released-code", "measured"):
        assert f"{voice} admonition" in text or f"admonition-{voice}" in text or f"admonition {voice}" in text
