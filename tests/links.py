"""The links of a built book, followed without a network: files that exist, anchors that are there."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LEADS = {"href", "src", "data-src", "poster"}


class _Page(HTMLParser):
    """What a page can be reached by, and where it leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if value and (name == "id" or (tag == "a" and name == "name")):
                self.anchors.add(value)
            elif value and name in LEADS:
                self.links.append(value)
            elif value and name == "srcset":
                self.links += [part.split()[0] for part in value.split(",") if part.strip()]


@cache
def page(path: Path) -> _Page:
    """A page, read once."""
    return _Page(path.read_text(encoding="utf-8"))


def broken(path: Path, root: Path) -> list[str]:
    """Links of a page that lead nowhere inside the book in ``root``, or out of it without saying so."""
    found = []
    for link in page(path).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir():
            target = target / "index.html"
        if not target.is_relative_to(root.resolve()) or not target.is_file():
            found.append(f"{path.name}: {link}: no such file in the book")
        elif (
            target.suffix == ".html"
            and parts.fragment
            and unquote(parts.fragment) not in page(target).anchors
        ):
            found.append(f"{path.name}: {link}: no such place on that page")
    return found
