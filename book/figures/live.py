"""A training run in a notebook: its progress and its curves, while it runs. Chapter 6."""

from __future__ import annotations

import io
from typing import Any

from IPython.display import display
from matplotlib import rc_context
from matplotlib.figure import Figure

from ferlib.training.progress import BarProgress

TRAIN, VALID, INK = "#2F86C9", "#D55E00", "#6B6B6B"  # of middle lightness: seen on white and on black


class LiveCurves(BarProgress):
    """A bar and two live curves (loss, accuracy) in a notebook's output cell: ``fit(progress=LiveCurves())``.

    The curves are one SVG, replaced in place through a display handle. It needs no widget, so the last state
    stays readable in a built page.
    """

    def __init__(self) -> None:
        super().__init__(file=io.StringIO())

    def start(self, *facts: Any) -> None:
        super().start(*facts)
        self.curves = display(self._curves(), raw=True, display_id=True)
        self.text = display({"text/plain": str(self.bar)}, raw=True, display_id=True)

    def step(self, epoch: int, step: int, loss: float) -> None:
        drawn = self.bar.last_print_n
        super().step(epoch, step, loss)
        if self.bar.last_print_n != drawn:
            self.text.update({"text/plain": str(self.bar)}, raw=True)

    def epoch(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self.curves.update(self._curves(), raw=True)

    def close(self, message: str = "") -> None:
        lines = [str(self.bar), *map(self._line, self.history[-1:]), message]
        self.text.update({"text/plain": "\n".join(lines)}, raw=True)

    def _curves(self) -> dict[str, str]:
        return {"image/svg+xml": curves_svg(self.history, self.epochs, self.valid_name)}


def curves_svg(history: list[dict[str, Any]], epochs: int, valid_name: str) -> str:
    """Loss and accuracy over the epochs, for training and validation, as SVG for light and dark pages."""
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    with rc_context({**dict.fromkeys(inked, INK), "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 2.8))
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.18, top=0.97, wspace=0.22)
        times = [record["epoch"] for record in history]
        for ax, measure, unit, scale in zip(
            figure.subplots(1, 2), ("loss", "accuracy"), ("", ", %"), (1, 100), strict=True
        ):
            for split, name, color in (("train", "training", TRAIN), ("valid", valid_name, VALID)):
                values = [scale * record[f"{split}_{measure}"] for record in history]
                ax.plot(times, values, ".-", color=color, label=name)
            ax.set(xlabel="epoch", ylabel=measure + unit, xlim=(0, epochs))
            ax.legend(frameon=False, labelcolor="linecolor")
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()
