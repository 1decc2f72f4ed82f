"""The links of a built book, followed without a network: files that exist, anchors that are there."""

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


GOOD = ["a%20b.html", "a%20b.html#top", "picture.png", "#here", "https://x.org/y", "mailto:a@b.org", "data:,"]
BAD = ["c.html", "a%20b.html#end", "#there", "../outside.html", "/absolute.html"]


def test_broken_links_are_told_from_good_ones(tmp_path: Path) -> None:
    (tmp_path / "a b.html").write_text('<h1 id="top">A</h1><img src="picture.png">')
    (tmp_path / "picture.png").write_bytes(b"")
    start = tmp_path / "start.html"
    links = "".join(f'<a href="{link}">x</a>' for link in GOOD + BAD)
    start.write_text(f'<p id="here">{links}</p><img src="none.png"><img srcset="picture.png 2x, no.png 3x">')
    found = [word.split(": ")[1] for word in broken(start, tmp_path)]
    assert found == [*BAD, "none.png", "no.png"]
