"""The picture of a run: two curves as one SVG, in a notebook under a bar, in a run's folder as a file.

Ink is ``currentColor``, so it follows the page in light and in dark; the two curve colours are of middle
lightness and differ from each other for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

TRAIN, VALID = "#2F86C9", "#D55E00"  # of middle lightness: seen on white and on black
_WIDTH, _HEIGHT = 640, 200
_PANELS = ((44, 232), (384, 232))  # left edge and width of the loss and the accuracy panel
_TOP, _BOTTOM = 26, 168

Points = Sequence[tuple[float, float]]


def progress_html(
    done: float,
    epochs: int,
    losses: Points,
    history: Sequence[dict[str, Any]],
    seconds: float,
    message: str = "",
) -> tuple[str, str]:
    """Draw the state of a run.

    Shape: ``done`` in epochs (2.5 is half-way through the third), ``losses`` N pairs (time in epochs, loss),
    ``history`` one record per finished epoch; returns (HTML, plain text). Chapter 6.
    """
    share = min(1.0, done / epochs)
    parts = [f"epoch {min(epochs, int(done) + 1) if share < 1 else epochs} of {epochs}"]
    if losses:
        parts.append(f"loss {losses[-1][1]:.3f}")
    if history:
        best = max(history, key=lambda record: record["valid_accuracy"])
        parts.append(f"validation accuracy {100 * history[-1]['valid_accuracy']:.1f} %")
        parts.append(f"best {100 * best['valid_accuracy']:.1f} % in epoch {best['epoch']}")
    parts.append(f"{seconds:.0f} s")
    if message:
        parts.append(message)
    text = ", ".join(parts)
    bar = (
        f'<div role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{100 * share:.0f}" '
        f'aria-label="training progress" style="height:8px;border-radius:4px;border:1px solid {VALID};'
        f'max-width:{_WIDTH}px;overflow:hidden"><div style="height:100%;width:{100 * share:.1f}%;'
        f'background:{VALID}"></div></div>'
    )
    caption = f'<div style="font:13px/1.5 system-ui,sans-serif;max-width:{_WIDTH}px">{escape(text)}</div>'
    return f"<div>{bar}{caption}{_svg(epochs, losses, history, text)}</div>", text


def curves_svg(history: Sequence[dict[str, Any]], epochs: int, judged_by: str = "validation") -> str:
    """A run's curves as an SVG file that follows the reader's light or dark screen.

    Shape: one record per finished epoch in, text out. Chapter 6.
    """
    text = (
        f"{len(history)} of {epochs} epochs, {judged_by} accuracy {100 * history[-1]['valid_accuracy']:.1f} %"
    )
    dark = "@media(prefers-color-scheme:dark){:root{color:#ddd;background:#181818}}"
    ink = ":root{color:#222;background:#fff}" + dark
    svg = _svg(epochs, [], history, text, judged_by).replace(
        "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1
    )
    start = svg.index(">") + 1
    return f"{svg[:start]}<title>{escape(text)}</title><style>{ink}</style>{svg[start:]}\n"


def _svg(
    epochs: int, losses: Points, history: Sequence[dict[str, Any]], text: str, judged_by: str = "validation"
) -> str:
    train_loss = [(r["epoch"], r["train_loss"]) for r in history]
    valid_loss = [(r["epoch"], r["valid_loss"]) for r in history]
    thin = _thin(losses, 300)
    everything = [value for _, value in [*thin, *train_loss, *valid_loss]] or [1.0]
    top = max(everything) * 1.05
    low = min(0.0, min(everything))
    body = _panel(0, "loss", epochs, low, top, "{:.2g}")
    body += _path(0, thin, epochs, low, top, TRAIN, width=1, opacity=0.35)
    body += _series(0, train_loss, epochs, low, top, TRAIN, "train")
    body += _series(0, valid_loss, epochs, low, top, VALID, judged_by)
    body += _panel(1, "accuracy, %", epochs, 0, 100, "{:.0f}")
    body += _series(
        1, [(r["epoch"], 100 * r["train_accuracy"]) for r in history], epochs, 0, 100, TRAIN, "train"
    )
    body += _series(
        1, [(r["epoch"], 100 * r["valid_accuracy"]) for r in history], epochs, 0, 100, VALID, judged_by
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(text)}" '
        f'style="width:100%;max-width:{_WIDTH}px;height:auto;font:12px system-ui,sans-serif">{body}</svg>'
    )


def _x(panel: int, time: float, epochs: int) -> float:
    left, width = _PANELS[panel]
    return left + width * time / epochs


def _y(value: float, low: float, top: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * (value - low) / ((top - low) or 1.0)


def _panel(panel: int, title: str, epochs: int, low: float, top: float, style: str) -> str:
    left, width = _PANELS[panel]
    text = f'<text x="{left}" y="{_TOP - 10}" fill="currentColor">{title}</text>'
    for value in (low, (low + top) / 2, top):
        y = _y(value, low, top)
        text += (
            f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="currentColor" opacity="0.2"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="currentColor">'
            f"{style.format(value)}</text>"
        )
    for time in sorted({0, epochs // 2, epochs}):
        x = _x(panel, time, epochs)
        text += f'<text x="{x:.1f}" y="{_BOTTOM + 16}" text-anchor="middle" fill="currentColor">{time}</text>'
    x = left + width / 2
    return text + f'<text x="{x}" y="{_BOTTOM + 30}" text-anchor="middle" fill="currentColor">epoch</text>'


def _path(panel: int, points: Points, epochs: int, low: float, top: float, colour: str, width: float = 2,
          opacity: float = 1) -> str:  # fmt: skip
    if len(points) < 2:
        return ""
    line = " ".join(f"{_x(panel, time, epochs):.1f},{_y(value, low, top):.1f}" for time, value in points)
    return (
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}" opacity="{opacity}" '
        'stroke-linejoin="round"/>'
    )


def _series(panel: int, points: Points, epochs: int, low: float, top: float, colour: str, name: str) -> str:
    if not points:
        return ""
    time, value = points[-1]
    x, y = _x(panel, time, epochs), _y(value, low, top)
    text = _path(panel, points, epochs, low, top, colour)
    text += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    left, width = _PANELS[panel]
    row = _TOP + 14 if name == "train" else _TOP + 29
    row = row if panel == 0 else _BOTTOM - 6 - (15 if name == "train" else 0)
    return text + (
        f'<text x="{left + width - 4}" y="{row}" text-anchor="end" fill="{colour}" font-weight="600">'
        f"{name}</text>"
    )


def _thin(points: Points, most: int) -> Points:
    step = max(1, len(points) // most)
    return points[::step]
