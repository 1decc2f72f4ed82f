"""Progress that can be watched: a bar in a terminal, a live curve in a notebook, a line per epoch in a log.

The notebook's picture is one HTML fragment (an SVG and a line of text), replaced in place through a display
handle. It needs no widget, so the last state stays readable in the built page. Chapter 6.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ferlib.training.picture import progress_html


class Progress:
    """Says nothing: the silent progress, and what every progress can be told.

    Shape: ``start(steps, epochs, first)``, ``step(epoch, step, loss)`` with scalars, ``epoch(record)`` with
    one line of the history, ``close(message)``. Chapter 6.
    """

    judged_by = "validation"
    first = 0  # steps of the epoch under way that a resumed run has behind it

    def begin(
        self,
        steps: int,
        epochs: int,
        history: list[dict[str, Any]],
        first: int = 0,
        judged_by: str = "validation",
    ) -> None:
        """What ``fit`` calls: notes where in an epoch the run goes on, then ``start``."""
        self.first, self.judged_by = first, judged_by
        self.start(steps, epochs, history)

    def start(self, steps: int, epochs: int, history: list[dict[str, Any]]) -> None:
        """The run begins: steps per epoch, number of epochs, what a resumed run has behind it."""
        self.steps, self.epochs, self.history = steps, epochs, list(history)
        self.began = time.monotonic()

    def step(self, epoch: int, step: int, loss: float) -> None:
        """One optimiser step is done; ``epoch`` and ``step`` count from 1."""

    def epoch(self, record: dict[str, Any]) -> None:
        """One epoch and its validation are done."""
        self.history.append(record)

    def close(self, message: str = "") -> None:
        """The run has ended, was stopped or has failed."""


def _line(record: dict[str, Any], epochs: int, judged_by: str) -> str:
    return (
        f"epoch {record['epoch']:3d} of {epochs}: train loss {record['train_loss']:.3f}, "
        f"accuracy {100 * record['train_accuracy']:5.1f} %; {judged_by} loss {record['valid_loss']:.3f}, "
        f"accuracy {100 * record['valid_accuracy']:5.1f} %; {record['seconds']:.0f} s"
    )


class LogProgress(Progress):
    """One line per epoch on standard output, for log files. Shape: as ``Progress``. Chapter 6."""

    def epoch(self, record: dict[str, Any]) -> None:
        super().epoch(record)
        print(_line(record, self.epochs, self.judged_by), flush=True)

    def close(self, message: str = "") -> None:
        if message:
            print(message, flush=True)


class TerminalProgress(Progress):
    """A tqdm bar over all steps with the current loss; one line stays for each epoch.

    Shape: as ``Progress``. Chapter 6.
    """

    def start(self, steps: int, epochs: int, history: list[dict[str, Any]]) -> None:
        from tqdm import tqdm

        super().start(steps, epochs, history)
        self.bar = tqdm(
            total=steps * epochs, initial=steps * len(history) + self.first, unit="step", dynamic_ncols=True
        )

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.bar.update()
        self.bar.set_postfix_str(f"epoch {epoch}/{self.epochs}, loss {loss:.3f}", refresh=False)

    def epoch(self, record: dict[str, Any]) -> None:
        super().epoch(record)
        self.bar.write(_line(record, self.epochs, self.judged_by))

    def close(self, message: str = "") -> None:
        self.bar.close()
        if message:
            print(message, file=sys.stderr)


class NotebookProgress(Progress):
    """A bar and two live curves (loss, accuracy) in a notebook's output cell.

    ``refresh`` is the shortest time between two pictures in seconds. Shape: as ``Progress``. Chapter 6.
    """

    def __init__(self, refresh: float = 0.5) -> None:
        self.refresh = refresh

    def start(self, steps: int, epochs: int, history: list[dict[str, Any]]) -> None:
        from IPython.display import display

        super().start(steps, epochs, history)
        self.losses: list[tuple[float, float]] = []
        self.done, self.message, self.drawn = steps * len(history) + self.first, "", 0.0
        self.handle = display(self._bundle(), raw=True, display_id=True)

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.done = (epoch - 1) * self.steps + step
        self.losses.append((self.done / self.steps, loss))
        if time.monotonic() - self.drawn >= self.refresh:
            self._draw()

    def epoch(self, record: dict[str, Any]) -> None:
        super().epoch(record)
        self._draw()

    def close(self, message: str = "") -> None:
        self.message = message
        self._draw()

    def _draw(self) -> None:
        self.handle.update(self._bundle(), raw=True)
        self.drawn = time.monotonic()

    def _bundle(self) -> dict[str, str]:
        seconds = time.monotonic() - self.began
        html, text = progress_html(
            self.done / self.steps, self.epochs, self.losses, self.history, seconds, self.message
        )
        return {"text/html": html, "text/plain": text}


class Several(Progress):
    """More than one progress at once. Shape: as ``Progress``. Chapter 6."""

    def __init__(self, *parts: Progress) -> None:
        self.parts = parts

    def begin(self, *facts: Any) -> None:
        for part in self.parts:
            part.begin(*facts)

    def step(self, epoch: int, step: int, loss: float) -> None:
        for part in self.parts:
            part.step(epoch, step, loss)

    def epoch(self, record: dict[str, Any]) -> None:
        for part in self.parts:
            part.epoch(record)

    def close(self, message: str = "") -> None:
        for part in self.parts:
            part.close(message)


def make_progress(kind: str | Progress | None = "auto", *, tensorboard: Path | None = None) -> Progress:
    """Choose how progress is shown.

    ``"auto"`` takes the notebook's picture in a notebook, the bar in a terminal, lines elsewhere;
    ``"notebook"``, ``"terminal"``, ``"log"`` and ``None`` (silent) choose by hand; a ``Progress`` object is
    used as it is. ``tensorboard``: a run's folder, to log for TensorBoard there, too.

    Shape: a word in, a ``Progress`` out. Raises ``ValueError`` for another word. Chapter 6.
    """
    if tensorboard:
        from ferlib.training.tensorboard import TensorBoardProgress

        return Several(make_progress(kind), TensorBoardProgress(tensorboard))
    if isinstance(kind, Progress):
        return kind
    if kind == "auto":
        kind = "notebook" if _in_notebook() else "terminal" if sys.stderr.isatty() else "log"
    makers = {"notebook": NotebookProgress, "terminal": TerminalProgress, "log": LogProgress, None: Progress}
    if kind not in makers:
        raise ValueError(f"progress is {kind!r}, expected 'auto', 'notebook', 'terminal', 'log' or None")
    return makers[kind]()


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return hasattr(shell, "kernel")  # ipykernel and Colab have one, IPython in a terminal has none
