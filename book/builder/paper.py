"""`python -m book.builder.paper`: the built book as one PDF, made by Chromium, with a bookmark for each page.

Interactive figures are printed as they stand when the page is opened. The network is not used.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from book.builder.notebooks import ROOT

HTML = ROOT / "_build" / "html"
PDF = ROOT / "_build" / "book.pdf"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
PAGE = {
    "format": "A4",
    "print_background": True,
    "scale": 0.8,
    "margin": {"top": "16mm", "bottom": "16mm", "left": "14mm", "right": "14mm"},
}
# Equations are set and explorers drawn; what is folded (set-up, solutions) is left out by book.css.
READY = """async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    const until = Date.now() + 20000;
    const explorers = [...document.querySelectorAll('.fer-host')];
    const waits = () => explorers.some((e) => e.dataset.ready === 'loading');
    document.querySelectorAll('img').forEach((i) => { i.loading = 'eager'; });
    while ((waits() || [...document.images].some((i) => !i.complete)) && Date.now() < until)
        await new Promise((go) => setTimeout(go, 50));
}"""


def pages() -> list[str]:
    """The pages of the book in reading order, without ending."""
    return re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))


def chromium() -> str | None:
    """The Chromium to print with: the one that $CHROMIUM names, or the first that is found."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextmanager
def _browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def print_page(browser, page: Path, pdf: Path) -> str:
    """Print one page of the built book and return its title."""
    context = browser.new_context(
        color_scheme="light", offline=True, viewport={"width": 1000, "height": 1200}
    )
    sheet = context.new_page()
    sheet.goto(page.as_uri(), wait_until="load")
    sheet.evaluate(READY)
    sheet.pdf(path=str(pdf), **PAGE)
    title = sheet.locator("article h1").first.evaluate("h => h.firstChild.textContent")
    context.close()
    return " ".join(title.split())


def make(names: list[str], pdf: Path = PDF, html: Path = HTML) -> list[str]:
    """Print pages of the built book into one PDF; return their titles, which are its bookmarks.

    Raises ``FileNotFoundError`` for a page that is not built.
    """
    from pypdf import PdfWriter

    book, titles = PdfWriter(), []
    with tempfile.TemporaryDirectory() as folder, _browser() as browser:
        for n, name in enumerate(names):
            page, part = html / f"{name}.html", Path(folder) / f"{n}.pdf"
            if not page.is_file():
                raise FileNotFoundError(2, "not built", str(page))
            titles.append(print_page(browser, page, part))
            book.append(str(part), outline_item=titles[-1])
    with pdf.open("wb") as file:
        book.write(file)
    return titles


def main() -> int:
    """Print the whole book and say where the PDF is."""
    if chromium() is None:
        print(
            "Printing needs Chromium or Chrome: install it, or name it in the environment variable CHROMIUM."
        )
        return 1
    try:
        titles = make(pages())
    except FileNotFoundError as error:
        print(f"{error.filename} is not there: `make book` builds it first.")
        return 1
    print(f"{len(titles)} pages of the book are printed, {PDF.stat().st_size / 1e6:.0f} MB:\n  {PDF}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
