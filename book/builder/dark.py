"""Figures of the chapters in the colours of the reader's theme, without storing a face twice.

While the chapters run, each figure is drawn for light pages and for dark ones (``book.figures.dark``). On the
page the dark twin lies upon the light figure as the ground of an empty element that only the dark theme
shows: one picture for a screen reader, one number, one caption, and nothing more to load for who reads in the
light. The twin has holes where both are equal, in faces above all, and the light figure shows through. A
figure without a twin stands in a light panel.
"""

from __future__ import annotations

import io
import re
from base64 import b64decode
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import nbformat
import numpy as np
from bs4 import BeautifulSoup, Tag
from PIL import Image

from book.builder import notebooks
from book.builder.pictures import kept, webp
from book.figures.dark import TWIN

ENDING = "_dark.webp"
FIGURE = re.compile(r"(.*_images/)([0-9a-f]{64})\.webp")


def drawn() -> Iterator[tuple[bytes, bytes]]:
    """The figures of the executed chapters, each as two PNG files: for light pages, for dark ones."""
    cache = notebooks.open_cache()
    for path in notebooks.chapters():
        try:
            record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            continue
        for cell in cache.get_cache_bundle(record.pk).nb.cells:
            for output in cell.get("outputs", ()):
                light, dark = output.get("data", {}).get("image/png"), output.get("metadata", {}).get(TWIN)
                if light and dark:
                    yield b64decode(light), b64decode(dark)


def coat(light: bytes, dark: bytes) -> bytes:
    """What lies upon a figure in the dark: its dark twin, with holes where the light one is the same.

    Shape: two PNG files in, a WebP file without loss out. Raises ``ValueError`` where their sizes differ.
    """
    below, above = (np.array(Image.open(io.BytesIO(png)).convert("RGBA")) for png in (light, dark))
    if below.shape != above.shape:
        raise ValueError(f"a figure and its dark twin differ in size: {below.shape} and {above.shape}")
    same = (below[..., 3] == 255) & (below == above).all(-1)
    above[same] = 0
    return webp(Image.fromarray(above), lossless=True, quality=100)


def figures(page: BeautifulSoup) -> list[tuple[Tag, str, str]]:
    """The figures that cells drew on a page: each picture, its folder and its digest."""
    found = ((img, FIGURE.fullmatch(img["src"])) for img in page.select("img[src]"))
    return [(img, *match.groups()) for img, match in found if match]


def dress(page: BeautifulSoup, twins: set[str]) -> None:
    """Give each figure of a page whose digest is among ``twins`` its dark twin."""
    for img, folder, digest in figures(page):
        if digest in twins:
            img.wrap(page.new_tag("span", attrs={"class": "two-themes"}))
            style = f"background-image: url({folder}{digest}{ENDING})"
            img.insert_after(page.new_tag("span", attrs={"class": "in-the-dark", "style": style}))


def draw_twins(pages: Path) -> set[str]:
    """Write the dark twins of the figures of the built pages in a folder; return the figures' digests."""
    images, twins = pages / "_images", set()
    for light, dark in drawn():
        digest = sha256(light).hexdigest()  # MyST-NB names the light figure so
        if not (images / f"{digest}.webp").exists():
            continue
        name = f"{digest[:32]}_{sha256(dark).hexdigest()[:32]}{ENDING}"
        (images / f"{digest}{ENDING}").write_bytes(kept(name, partial(coat, light, dark)))
        twins.add(digest)
    return twins
