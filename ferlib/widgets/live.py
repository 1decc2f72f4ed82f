"""The reader's own picture, and sliders over a model, with a kernel; a figure and a word without one."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ferlib.widgets.base import STATIC

__all__ = ["LiveSliders", "OwnPicture"]


class _Panel:
    """Controls with an answer below them; without a kernel a placeholder, and a sentence that says so."""

    missing = ""

    def __init__(self, placeholder: Any) -> None:
        self._placeholder = placeholder

    def _open(self, controls: Callable[[Any], list[Any]]) -> None:
        """Make the controls of ipywidgets and, below them, room for an answer."""
        try:
            import ipywidgets
        except ImportError as error:
            raise ImportError(f"{type(self).__name__} needs ipywidgets: pip install ipywidgets") from error
        self._html, self.controls = ipywidgets.HTML, controls(ipywidgets)
        self.box = ipywidgets.VBox([*self.controls, self._shown(self._placeholder)])

    def _show(self, answer: Any) -> None:
        self.box.children = (*self.controls, self._shown(answer))

    def _shown(self, answer: Any) -> Any:
        """An answer as a widget: a widget is one already."""
        return answer if hasattr(answer, "comm") else self._html(_page(answer))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: lives where a kernel is>"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if STATIC:
            word = f"{self.missing} needs a running kernel: open this chapter in JupyterLab or Colab."
            page = f"<p class='fer-note'>{escape(word)} Until then:</p>\n{_page(self._placeholder)}"
            return {"text/plain": repr(self), "text/html": page}, {}
        return self.box._repr_mimebundle_(**kwargs)


class OwnPicture(_Panel):
    """Choose a picture of a face, and see what a function makes of it.

    With a kernel this is ipywidgets' upload button, with the answer below it; what is chosen stays in the
    kernel. In the built book (``FERLIB_STATIC=1``) ``placeholder`` stands there instead, with a sentence that
    says what is missing. Whatever goes wrong, with the file or in ``explain``, becomes one sentence.

    Parameters
    ----------
    explain: gets the picture, turned as its camera noted, its centre square resized; gives a matplotlib
        figure, an explorer or other widget, text (HTML), or anything with ``_repr_html_``.
    placeholder: the same kinds of answer, shown where there is no kernel.
    size: pixels per side of the picture that ``explain`` gets.
    decode: reads a file, given its path, as uint8 (3, size, size); the library's own reader by default.
    prompt: what stands on the button.

    Shape: ``explain`` gets uint8 (3, size, size). Raises ``ImportError`` where ipywidgets is missing with a
    kernel. Chapter 8.

    Example::

        from ferlib.widgets import OwnPicture

        OwnPicture(draw_maps, placeholder=draw_maps(hard_face))   # last line of a cell
    """

    missing = "Your own picture"

    def __init__(
        self,
        explain: Callable[[np.ndarray], Any],
        *,
        placeholder: Any,
        size: int = 96,
        decode: Callable[[Path], np.ndarray] | None = None,
        prompt: str = "choose a picture of a face",
    ) -> None:
        super().__init__(placeholder)
        self._explain, self._size, self._decode = explain, size, decode or self._read
        if not STATIC:
            self._open(lambda kit: [kit.FileUpload(accept="image/*", multiple=False, description=prompt,
                                                   layout={"width": "auto"})])  # fmt: skip
            self.upload = self.controls[0]
            self.upload.observe(self._chosen, "value")

    def answer(self, name: str, content: bytes) -> Any:
        """What is shown for one file: what ``explain`` gives, or the sentence that says why not.

        Shape: a file's name and bytes in; anything that can be shown out.
        """
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "picture"
                path.write_bytes(content)
                picture = self._decode(path)
        except Exception as error:  # whatever a stranger's file does to a decoder
            return _sentence(f"{name} cannot be used: {getattr(error, 'reason', None) or error}")
        try:
            return self._explain(picture)
        except Exception as error:  # an answer to the reader, who sees no traceback of a callback
            return _sentence(f"{name} was read, but explaining it failed: {type(error).__name__}: {error}")

    def _read(self, path: Path) -> np.ndarray:
        from ferlib.data.images import read_image  # brings torch: only when a picture is really chosen

        return read_image(path, mode="RGB", size=self._size)

    def _chosen(self, event: Any) -> None:
        if not event["new"]:
            return
        file = event["new"][0]
        self._show(_sentence(f"Looking at {file['name']} ..."))
        self._show(self.answer(file["name"], bytes(file["content"])))
        self.upload.value = ()  # so that the same file can be chosen again


class LiveSliders(_Panel):
    """Sliders over a model: what a function makes of their values is shown as they are let go.

    With a kernel these are ipywidgets' sliders, with the answer below them. In the built book
    (``FERLIB_STATIC=1``) what the function makes of the starting values stands there instead, with a sentence
    that says what is missing. An error of the function becomes one sentence.

    Shape: ``sliders`` maps a name to (least, most, step, start), four numbers; ``draw`` gets the values by
    name and gives an answer as in :class:`OwnPicture`. Raises ``ValueError`` for a start outside its range,
    ``ImportError`` where ipywidgets is missing with a kernel. Chapter 8.

    Example::

        from ferlib.widgets import LiveSliders

        LiveSliders(lambda hidden: draw_maps(covered(face, hidden)), {"hidden": (0, 1, 0.05, 0.3)})
    """

    missing = "Moving the sliders"

    def __init__(
        self, draw: Callable[..., Any], sliders: Mapping[str, tuple[float, float, float, float]]
    ) -> None:
        for name, (least, most, step, start) in sliders.items():
            if not least <= start <= most or step <= 0:
                raise ValueError(f"{name}: expected least <= start <= most and a step above 0, got "
                                 f"{(least, most, step, start)}")  # fmt: skip
        self._draw, self._values = draw, {name: four[3] for name, four in sliders.items()}
        super().__init__(draw(**self._values))
        if STATIC:
            return
        self._open(lambda kit: [
            kit.FloatSlider(start, min=least, max=most, step=step, description=name, continuous_update=False)
            for name, (least, most, step, start) in sliders.items()
        ])  # fmt: skip
        for control in self.controls:
            control.observe(self._moved, "value")

    def _moved(self, event: Any) -> None:
        self._values[event["owner"].description] = event["new"]
        try:
            answer = self._draw(**self._values)
        except Exception as error:  # an answer to the reader, who sees no traceback of a callback
            answer = _sentence(f"That failed: {type(error).__name__}: {error}")
        self._show(answer)


def _sentence(text: str) -> str:
    return f"<p role='status'>{escape(' '.join(text.split()))}</p>"


def _page(answer: Any) -> str:
    """HTML of a figure, an explorer, text, or what has ``_repr_html_``."""
    if hasattr(answer, "savefig"):
        stream = io.BytesIO()
        answer.savefig(stream, format="png", dpi=150, bbox_inches="tight")
        code = base64.b64encode(stream.getvalue()).decode("ascii")
        alt = escape(answer.get_label() or "what the network makes of the picture")
        return f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{code}">'
    for name in ("html", "_repr_html_"):
        if callable(getattr(answer, name, None)) and (text := getattr(answer, name)()):
            return text
    return answer if isinstance(answer, str) else f"<pre>{escape(str(answer))}</pre>"
