"""The look of the book: one palette, one matplotlib style, each figure shown once."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ferlib.dark import dark_twin

__all__ = ["EMOTION_COLOURS", "KEY", "QUERY", "VALUE", "use_style"]

#: Okabe-Ito: eight colours that colour-blind readers can tell apart, one for each expression.
EMOTION_COLOURS = {
    "neutral": "#636363",  # a lighter grey is the green of disgust to some readers
    "happiness": "#E69F00",
    "surprise": "#56B4E9",
    "sadness": "#0072B2",
    "anger": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "contempt": "#F0E442",
}
#: Who asks, who answers, what is passed on: the colours of attention.
QUERY, KEY, VALUE = "#0072B2", "#E69F00", "#009E73"
INK = "#1f1f1f"
_STYLE = Path(__file__).with_name("book.mplstyle")


def use_style() -> None:
    """Use the book's figure style, and show a returned Figure once, at twice the resolution.

    Shape: nothing in, nothing out. In a notebook an open figure would be shown a second time at the end of
    its cell, so open figures are closed after each cell. While the book is built (``FERLIB_STATIC=1``) each
    figure is also drawn for dark pages. Used by the set-up cell of every chapter.
    """
    plt.style.use(_STYLE)
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return
    shell.run_line_magic("matplotlib", "inline")
    shell.run_line_magic("config", "InlineBackend.figure_formats = ['retina']")
    shell.run_line_magic("config", "InlineBackend.close_figures = False")
    plt.style.use(_STYLE)  # the inline backend brings settings of its own: ours come last
    hooks = [h for h in shell.events.callbacks["post_execute"] if getattr(h, "__name__", "") == "_close_all"]
    for hook in hooks:
        shell.events.unregister("post_execute", hook)
    for hook in list(shell.events.callbacks["post_execute"]):
        if getattr(hook, "__name__", "") == "flush_figures":
            shell.events.unregister("post_execute", hook)
    shell.events.register("post_execute", _close_all)
    if os.environ.get("FERLIB_STATIC") == "1":
        shell.display_formatter.mimebundle_formatter.for_type(Figure, dark_twin)


def _close_all() -> None:
    plt.close("all")
