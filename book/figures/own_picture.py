"""The reader's own picture, with a kernel; a figure and a sentence without one."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ferlib.images import read_image
from ferlib.widgets.base import STATIC

__all__ = ["OwnPicture"]

MISSING = "Your own picture needs a running kernel: open this chapter in JupyterLab or Colab."


class OwnPicture:
    """Choose a picture of a face, and see what a function makes of it.

    With a kernel this is ipywidgets' upload button, with the result below it; what is chosen stays in the
    kernel. In the built book (``FERLIB_STATIC=1``) ``placeholder`` stands there instead, with a sentence that
    says what is missing. Whatever goes wrong, with the file or in ``explain``, becomes one sentence.
    Chapter 8.

    Args:
        explain: Takes the picture, uint8 (3, size, size), turned as its camera noted, its middle square
            resized; returns a matplotlib figure, an explorer or other widget, text (HTML), or anything with
            ``_repr_html_``.
        placeholder: The same kinds of result, shown where there is no kernel.
        size: Pixels per side of the picture.

    Raises:
        ImportError: Where a kernel is, but ipywidgets is missing.

    Example::

        from book.figures.own_picture import OwnPicture

        OwnPicture(draw_maps, placeholder=draw_maps(hard_face))   # last line of a cell
    """

    def __init__(self, explain: Callable[[np.ndarray], Any], *, placeholder: Any, size: int = 96) -> None:
        self._explain, self._placeholder, self._size = explain, placeholder, size
        if STATIC:
            return
        try:
            import ipywidgets
        except ImportError as error:
            raise ImportError("OwnPicture needs ipywidgets: pip install ipywidgets") from error
        self._html = ipywidgets.HTML
        self.upload = ipywidgets.FileUpload(
            accept="image/*",
            multiple=False,
            description="choose a picture of a face",
            layout={"width": "auto"},
        )
        self.upload.observe(self._chosen, "value")
        self.box = ipywidgets.VBox([self.upload, self._shown(placeholder)])

    def read(self, name: str, content: bytes) -> Any:
        """What is shown for one file: what ``explain`` returns, or the sentence that says why not."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "picture"
                path.write_bytes(content)
                picture = read_image(path, mode="RGB", size=self._size)
        except Exception as error:  # whatever a stranger's file does to a decoder
            return _sentence(f"{name} cannot be used: {str(error).removeprefix(f'{path}: ')}")
        try:
            return self._explain(picture)
        except Exception as error:  # the reader sees no traceback of a callback
            return _sentence(f"{name} was read, but explaining it failed: {type(error).__name__}: {error}")

    def _chosen(self, event: Any) -> None:
        if not event["new"]:
            return
        file = event["new"][0]
        self.box.children = (self.upload, self._shown(_sentence(f"Looking at {file['name']} ...")))
        result = self.read(file["name"], bytes(file["content"]))
        self.box.children = (self.upload, self._shown(result))
        self.upload.value = ()  # so that the same file can be chosen again

    def _shown(self, result: Any) -> Any:
        """A result as a widget: a widget is one already."""
        return result if hasattr(result, "comm") else self._html(_page(result))

    def __repr__(self) -> str:
        return "<OwnPicture: lives where a kernel is>"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if STATIC:
            page = f"<p class='fer-note'>{MISSING} Until then:</p>\n{_page(self._placeholder)}"
            return {"text/plain": repr(self), "text/html": page}, {}
        return self.box._repr_mimebundle_(**kwargs)


def _sentence(text: str) -> str:
    return f"<p role='status'>{escape(' '.join(text.split()))}</p>"


def _page(result: Any) -> str:
    """HTML of a figure, an explorer, text, or what has ``_repr_html_``."""
    if hasattr(result, "savefig"):
        stream = io.BytesIO()
        result.savefig(stream, format="png", dpi=150, bbox_inches="tight")
        code = base64.b64encode(stream.getvalue()).decode("ascii")
        alt = escape(result.get_label() or "what the network makes of the picture")
        return f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{code}">'
    for name in ("html", "_repr_html_"):
        if callable(getattr(result, name, None)) and (text := getattr(result, name)()):
            return text
    return result if isinstance(result, str) else f"<pre>{escape(str(result))}</pre>"
