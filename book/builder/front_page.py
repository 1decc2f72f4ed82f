"""What the front page borrows from the built chapters: a thumbnail for each card, and an interactive figure.

Both stand in the chapters already, so the front page cannot show anything that the chapters do not.
"""

from __future__ import annotations

from pathlib import Path

from bs4 import BeautifulSoup, Tag
from PIL import Image

from book.builder.pictures import webp

WIDTH, HEIGHT = 520, 300  # pixels of a thumbnail: twice what a card shows


def borrow(page: BeautifulSoup, pages: Path) -> None:
    """Fill the empty places of one page, ``img.thumbnail`` and ``div.borrowed``, each with ``data-chapter``.

    Args:
        page: A built page, changed in place; it lies in a folder next to that of the chapters.
        pages: The folder of the built pages.
    """
    for place in page.select("img.thumbnail[data-chapter], div.borrowed[data-chapter]"):
        chapter = (pages / "notebooks" / f"{place['data-chapter']}.html").read_text(encoding="utf-8")
        chapter = BeautifulSoup(chapter, "html.parser")
        if place.name == "img":
            _thumbnail(place, chapter, pages)
        elif figure := chapter.select_one("div.cell_output div.text_html:has(div.fer-host)"):
            place.append(figure)
            del place["data-chapter"]


def _thumbnail(place: Tag, chapter: BeautifulSoup, pages: Path) -> None:
    """The chapter's figure with the tag ``thumbnail``, or its first one, made small."""
    figure = chapter.select_one(".tag_thumbnail img") or chapter.select_one(".cell_output img")
    if figure is None:  # a chapter of tables
        place.decompose()
        return
    path = pages / "_images" / figure["src"].rsplit("/", 1)[-1]
    with Image.open(path) as picture:
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture.convert("RGBA"))
    ground.thumbnail((WIDTH, HEIGHT))
    name = f"thumbnail_{place['data-chapter']}.webp"
    (pages / "_images" / name).write_bytes(webp(ground.convert("RGB"), quality=80))
    place["src"], place["alt"] = f"../_images/{name}", figure.get("alt", "")
    place["width"], place["height"] = map(str, ground.size)
    del place["data-chapter"]
