"""What the theme leaves out for readers with a screen reader or a keyboard alone, put into the built pages.

* A wide table, which scrolls in its place, can be reached and scrolled by keyboard.
* The works cited are a list whose items are items (Sphinx gives them a role that was retired).
* A record's name may be folded at its underscores, where a telephone shows it in a table.
"""

from __future__ import annotations

from bs4 import BeautifulSoup  # sphinx-book-theme brings it


def mend(page: BeautifulSoup) -> None:
    """Put into one page what was missing."""
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
