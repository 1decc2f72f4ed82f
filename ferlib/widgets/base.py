"""One front end for two places: a live widget where a kernel is, plain HTML where none will be.

An explorer is an ES module without dependencies (``static/*.js``), a style sheet and a state that JSON can
hold. With a kernel it is an anywidget: what the reader moves arrives in Python's traits and the other way
round. When the book is built (environment variable ``FERLIB_STATIC=1``) it is no widget at all: the same
module and state stand in the page, which then needs neither kernel nor network nor any library.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from PIL import Image

from ferlib.style import EMOTION_COLOURS

__all__ = ["STATIC", "Explorer", "module"]

# Decided once, on import: a widget announces itself to the kernel as soon as it is made, and the record of an
# executed notebook would keep its whole state a second time.
STATIC = os.environ.get("FERLIB_STATIC") == "1"
FOLDER = Path(__file__).with_name("static")
MAX_BYTES = 600_000  # of one figure in a page: data, code and fallback together
_numbers = itertools.count(1)


def _live_base() -> type:
    try:
        import anywidget
    except ImportError as error:
        raise ImportError(
            "interactive figures need anywidget: pip install anywidget "
            "(or set FERLIB_STATIC=1 before Python starts, for figures without a kernel)"
        ) from error
    return anywidget.AnyWidget


_Base: Any = traitlets.HasTraits if STATIC else _live_base()


def module(*names: str) -> str:
    """The source of one ES module made of files in ``static``, shared helpers first.

    Every figure's last file defines ``render({ model, el })``.
    """
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in ("ui.js", *names))


class Explorer(_Base):
    """Base of the interactive figures: a live anywidget, or HTML alone with ``FERLIB_STATIC=1``.

    Subclasses set ``_source`` (from :func:`module`), give ``data`` and traits tagged ``sync=True``, and write
    ``fallback``: plain HTML for readers without scripts and for previews.

    Args:
        data: What JSON can hold; arrays in it are packed by ``codec.pack``.
        state: Values of the traits.

    Raises:
        ValueError: Where a figure would add more than 600 kB to its page.
    """

    _source = ""
    _smaller = "show fewer or smaller pictures"  # what to do about a figure that is too large
    _css = (FOLDER / "widgets.css").read_text(encoding="utf-8")
    data = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "_source" in cls.__dict__:
            cls._esm = f"{cls._source}\nexport default {{ render }};\n"
        super().__init_subclass__(**kwargs)

    def __init__(self, data: Mapping[str, Any], **state: Any) -> None:
        super().__init__(data=dict(data), **state)
        size = len(self.html().encode())
        if size > MAX_BYTES:
            raise ValueError(
                f"{type(self).__name__} would add {size / 1000:.0f} kB to its page, more than the "
                f"{MAX_BYTES // 1000} kB a figure may: {self._smaller}"
            )

    def fallback(self) -> str:
        """What stands in the page until the module runs, and where it never does: plain HTML."""
        return "<p>This figure needs JavaScript.</p>"

    def state(self) -> dict[str, Any]:
        """The values the front end reads, by name."""
        return {
            name: getattr(self, name)
            for name, trait in self.traits(sync=True).items()
            if not name.startswith("_") and issubclass(trait.this_class, Explorer)
        }

    def html(self) -> str:
        """The whole figure as HTML that needs no kernel, no network and no library."""
        state = json.dumps(self.state(), separators=(",", ":"), allow_nan=False)
        state = state.replace("<", "\\u003c")  # it stands inside a script element
        # Unique in a page, also in one put together from the outputs of several kernels.
        name = f"ferlib-figure-{zlib.crc32(state.encode()):08x}-{next(_numbers)}"
        host = (FOLDER / "host.js").read_text(encoding="utf-8")
        return (
            f'<style>{self._css}</style>\n<div class="fer-host" id="{name}">{self.fallback()}\n'
            f'<script type="application/json">{state}</script></div>\n'
            f'<script type="module">\n{self._source}\nconst HOST_ID = {json.dumps(name)};\n{host}</script>'
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: an interactive figure>"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        page = {"text/plain": repr(self), "text/html": self.html()}
        if STATIC:
            return page, {}
        live, metadata = super()._repr_mimebundle_(**kwargs)
        return {**page, **live}, metadata


def picture(images: Sequence[np.ndarray], words: str) -> str:
    """Pictures (H, W) or (H, W, 3) in a row, as one small image with a description."""
    color = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images]
    address = data_address(np.concatenate(color, axis=1), quality=75, most=1000)
    return f'<img alt="{escape(words)}" style="max-width:100%" src="{address}">'


def data_address(image: np.ndarray, *, quality: int = 90, most: int = 512) -> str:
    """A picture uint8 (H, W) or (H, W, 3) as the ``data:`` address of a JPEG of ``most`` pixels a side."""
    small, stream = Image.fromarray(image), io.BytesIO()
    small.thumbnail((most, most))
    small.save(stream, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain HTML table: fallbacks are made of it."""
    cells = "".join(f"<th scope='col'>{escape(str(c))}</th>" for c in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return (
        f"<table class='fer-fallback'><caption>{escape(caption)}</caption>"
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
    )


def class_colors(classes: Sequence[str]) -> list[str]:
    """The book's color of each class; classes it has none for get those that are left, in order."""
    left = itertools.cycle([c for name, c in EMOTION_COLOURS.items() if name not in classes] or ["#7F7F7F"])
    return [EMOTION_COLOURS.get(name) or next(left) for name in classes]
