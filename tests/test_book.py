"""The built book, read in a real browser with the network cut off, wide and narrow, in light and in dark."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from book.builder import __main__ as builder
from book.builder import mathjax, notebooks

HTML = notebooks.ROOT / "_build" / "html"
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]' brings Playwright")


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


@pytest.fixture(scope="session")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium found: install it, or name it in the environment variable CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
                 "--disable-component-update", "--no-first-run"]  # fmt: skip
        chromium = playwright.chromium.launch(executable_path=path, args=flags)
        yield chromium
        chromium.close()


class Reader:
    """A page opened offline that remembers what went wrong."""

    def __init__(self, browser, url: str, *, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.page.route("**/*", self._route)
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        self.page.goto(url, wait_until="load")
        self.page.wait_for_timeout(300)

    def _route(self, route) -> None:
        url = route.request.url
        if url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(url)
            route.abort()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.parametrize("name", pages())
def test_page_reads_offline(html: Path, browser, name: str) -> None:
    with Reader(browser, (html / f"{name}.html").as_uri()) as reader:
        page = reader.page
        if page.locator("span.math, div.math").count():
            page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
            page.evaluate("MathJax.startup.promise")
            assert page.locator("mjx-container").count() > 0, "equations are not set"
            assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0, "an equation is broken"
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
        text = page.locator(".bd-article").inner_text()
        assert "Traceback (most recent call last)" not in text
        assert len(text.split()) > 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", pages())
def test_page_fits_a_phone(html: Path, browser, name: str, scheme: str) -> None:
    with Reader(browser, (html / f"{name}.html").as_uri(), width=380, scheme=scheme) as reader:
        overflow = reader.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 1, f"the page is {overflow} px wider than a phone"
        assert reader.page.evaluate("document.documentElement.dataset.theme") == scheme


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
