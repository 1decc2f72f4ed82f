"""Lighter pictures: what the cells drew as PNG is served as WebP, which every browser reads.

A PNG of drawn faces at the resolution of today's screens weighs up to a megabyte. WebP without loss is half
of that; only what is still large is coded with a loss too small to see. The coded pictures are kept beside
the cache of executed chapters, by the digest that is already their name, so that each is coded once.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bs4 import BeautifulSoup
from PIL import Image

from book.builder.notebooks import CACHE

WITHOUT_LOSS = 100_000  # bytes up to which a picture stays as it is to the last bit
QUALITY = 92
HEAVY = 130_000  # bytes above which a sheet of a hundred faces, four dots to a pixel, can spare some more
QUALITY_OF_HEAVY = 76
KEPT = CACHE / f"pictures_{QUALITY}_{HEAVY}_{QUALITY_OF_HEAVY}"
NAMES = re.compile(r"(_images/[0-9a-f]{64})\.png$")


def coded(path: Path) -> bytes:
    """A PNG file as WebP: without loss where that is small, else nearly so; transparency is kept."""
    with Image.open(path) as picture:
        exact = webp(picture, lossless=True)
        if len(exact) <= WITHOUT_LOSS:
            return exact
        near = min(exact, webp(picture, quality=QUALITY), key=len)
        return near if len(near) <= HEAVY else webp(picture, quality=QUALITY_OF_HEAVY)


def webp(picture: Image.Image, **how) -> bytes:
    """A picture as the bytes of a WebP file; ``how`` goes to Pillow."""
    data = io.BytesIO()
    picture.save(data, "WEBP", **how)
    return data.getvalue()


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """The bytes of a coded picture, made where the cache does not have them yet."""
    path = KEPT / name
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(make())
        part.replace(path)
    return path.read_bytes()


def lighten(pages: Path) -> None:
    """Code each picture that a cell drew, in the built pages of a folder."""
    for path in sorted((pages / "_images").glob("*.png")):
        if re.fullmatch("[0-9a-f]{64}", path.stem):  # not an author's file
            path.with_suffix(".webp").write_bytes(kept(f"{path.stem}.webp", partial(coded, path)))
            path.unlink()


def rename(page: BeautifulSoup) -> None:
    """Name the coded pictures in one page."""
    for attribute in ("src", "href"):
        for element in page.find_all(attrs={attribute: NAMES}):
            element[attribute] = NAMES.sub(r"\1.webp", element[attribute])
