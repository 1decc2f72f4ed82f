"""The book's own Sphinx extension: what must hold however the build is started.

* A cached output never hides a change of the library, also when `jupyter-book build .` is called by hand.
* Interactive figures are the ones that need no kernel.
* MathJax is served by the book itself where it has been brought in.
* Pictures that cells drew are served light, each figure in the colours of the reader's theme.
* What the theme leaves out for screen readers is put in.
* The front page shows a thumbnail of each chapter and one of their interactive figures.
* The page "Try it" has its model, its detector and its samples.
* The pages on the library, the results and the build itself are made from what is there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from book.builder import api, dark, expected, front_page, mathjax, notebooks, pages, pictures, try_it


def _use_local_mathjax(app: Sphinx, config: Config) -> None:
    if (mathjax.FOLDER / mathjax.SCRIPT).exists():
        config.mathjax_path = f"mathjax/{mathjax.SCRIPT}"


def _drop_stale(app: Sphinx) -> None:
    notebooks.drop_stale_records()


def _make_try_it(app: Sphinx) -> None:
    if app.builder.format == "html":
        try_it.make()


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    pictures.lighten(folder)
    twins = dark.draw_twins(folder)
    for path in sorted(folder.rglob("*.html"), key=lambda path: path.stem == "intro"):  # it reads the others
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        pictures.rename(page)
        dark.dress(page, twins)
        mend(page)
        if path.stem == "intro":
            front_page.borrow(page, folder)
        path.write_text(str(page), encoding="utf-8")


def mend(page: BeautifulSoup) -> None:
    """Put into one page what the theme leaves out for readers with a screen reader or a keyboard alone.

    A wide table, which scrolls in its place, can be reached and scrolled by keyboard. The works cited are a
    list whose items are items (Sphinx gives them a role that was retired). A record's name may be broken at
    its underscores, where a telephone shows it in a table.
    """
    for table in page.select("table[class]"):
        table["tabindex"] = "0"
    for work in page.select("[role=doc-biblioentry]"):
        work["role"] = "listitem"
    for name in page.select("span.xref.download.myst"):
        first, *rest = name.get_text().split("_")
        name.clear()
        name.append(first)
        for part in rest:
            name.extend(["_", page.new_tag("wbr"), part])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register them with Sphinx."""
    os.environ.update(notebooks.STATIC)
    app.connect("config-inited", _use_local_mathjax)
    app.connect("builder-inited", _drop_stale)
    app.connect("builder-inited", _make_try_it)
    app.connect("build-finished", _finish)
    api.setup(app)
    expected.setup(app)
    pages.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
