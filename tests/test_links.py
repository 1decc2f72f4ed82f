"""The check of inner links finds what is broken and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.links import broken


@pytest.fixture
def book(tmp_path: Path) -> Path:
    (tmp_path / "a b.html").write_text('<h1 id="top">A</h1><img src="picture.png">')
    (tmp_path / "picture.png").write_bytes(b"")
    return tmp_path


GOOD = ["a%20b.html", "a%20b.html#top", "picture.png", "#here", "https://x.org/y", "mailto:a@b.org", "data:,"]
BAD = ["c.html", "a%20b.html#end", "#there", "../outside.html", "/absolute.html"]


@pytest.mark.parametrize("link", GOOD + BAD)
def test_broken_links_are_told_from_good_ones(book: Path, link: str) -> None:
    start = book / "start.html"
    start.write_text(f'<p id="here"><a href="{link}">x</a></p>')
    assert bool(broken(start, book)) == (link in BAD)


def test_pictures_and_scripts_are_links_too(book: Path) -> None:
    start = book / "start.html"
    start.write_text(
        '<img src="none.png"><script src="none.js"></script><img srcset="picture.png 2x, no.png 3x">'
    )
    assert len(broken(start, book)) == 3
