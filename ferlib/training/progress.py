"""Progress of a run: a tqdm bar in a terminal, a bar and curves in a notebook, a line per epoch in a log.

The notebook's curves are one SVG, replaced in place through a display handle. It needs no widget (which
``tqdm.auto`` would bring), so the last state stays readable in a built page. Chapter 6.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from tqdm import tqdm

TRAIN, VALID, INK = "#2F86C9", "#D55E00", "#6B6B6B"  # of middle lightness: seen on white and on black


class Progress:
    """Shows nothing. Override ``start``, ``step``, ``epoch`` and ``close`` to watch a run of ``fit``."""

    def start(
        self,
        steps: int,
        epochs: int,
        history: list[dict[str, Any]],
        first: int = 0,
        valid_name: str = "validation",
    ) -> None:
        """The run begins or goes on.

        Args:
            steps: Optimizer steps of an epoch.
            epochs: Epochs of the whole run.
            history: Records of finished epochs.
            first: Finished steps of the epoch under way.
            valid_name: The name of the split that each epoch is validated on.
        """
        self.steps, self.epochs, self.history, self.valid_name = steps, epochs, list(history), valid_name
        self.done = steps * len(history) + first

    def step(self, epoch: int, step: int, loss: float) -> None:
        """One optimizer step is done; ``epoch`` and ``step`` count from 1."""

    def epoch(self, record: dict[str, Any]) -> None:
        """One epoch and its validation are done."""
        self.history.append(record)

    def close(self, message: str = "") -> None:
        """The run has ended, was stopped or has failed."""

    def _line(self, record: dict[str, Any]) -> str:
        measured = "; ".join(
            f"{name} loss {record[f'{split}_loss']:.3f}, accuracy {100 * record[f'{split}_accuracy']:5.1f} %"
            for split, name in (("train", "training"), ("valid", self.valid_name))
        )
        return f"epoch {record['epoch']:3d} of {self.epochs}: {measured}; {record['seconds']:.0f} s"


class BarProgress(Progress):
    """A tqdm bar over all steps with the current loss on standard error; a line for each epoch stays."""

    def __init__(self, **options: Any) -> None:
        self.options = options  # of tqdm

    def start(self, *facts: Any) -> None:
        super().start(*facts)
        total = self.steps * self.epochs
        self.bar = tqdm(total=total, initial=self.done, unit="step", dynamic_ncols=True, **self.options)

    def step(self, epoch: int, step: int, loss: float) -> bool | None:
        self.bar.set_postfix_str(f"epoch {epoch}/{self.epochs}, loss {loss:.3f}", refresh=False)
        return self.bar.update()  # whether tqdm drew

    def epoch(self, record: dict[str, Any]) -> None:
        super().epoch(record)
        self.bar.write(self._line(record))

    def close(self, message: str = "") -> None:
        self.bar.close()
        print(message, flush=True)


class NotebookProgress(BarProgress):
    """A bar and two live curves (loss, accuracy) in a notebook's output cell."""

    def start(self, *facts: Any) -> None:
        from IPython.display import display

        super().start(*facts)
        self.curves = display(self._curves(), raw=True, display_id=True)
        self.text = display({"text/plain": str(self.bar)}, raw=True, display_id=True)

    def step(self, epoch: int, step: int, loss: float) -> None:
        if super().step(epoch, step, loss):
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


def make_progress(kind: str | Progress | None = "auto") -> Progress:
    """How a run is shown.

    Args:
        kind: "auto" takes the curves in a notebook, the bar in a terminal, lines elsewhere; "notebook",
            "terminal", "log" and None (silent) choose by hand; a ``Progress`` object is used as it is.

    Raises:
        ValueError: For another kind.
    """
    if isinstance(kind, Progress):
        return kind
    if kind == "auto":
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        in_notebook = hasattr(shell, "kernel")  # IPython in a terminal has none
        kind = "notebook" if in_notebook else "terminal" if sys.stderr.isatty() else "log"
    if kind is None:
        return Progress()
    if kind == "notebook":
        return NotebookProgress(file=io.StringIO())
    if kind not in ("terminal", "log"):
        raise ValueError(f"progress is {kind!r}, expected 'auto', 'notebook', 'terminal', 'log' or None")
    return BarProgress(disable=kind == "log")
