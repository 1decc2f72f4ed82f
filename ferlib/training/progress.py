"""Progress of a run: a tqdm bar in a terminal, a line per epoch elsewhere. Chapter 6."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from ferlib.errors import choose


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

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.bar.set_postfix_str(f"epoch {epoch}/{self.epochs}, loss {loss:.3f}", refresh=False)
        self.bar.update()

    def epoch(self, record: dict[str, Any]) -> None:
        super().epoch(record)
        self.bar.write(self._line(record))

    def close(self, message: str = "") -> None:
        self.bar.close()
        print(message, flush=True)


def make_progress(kind: str | Progress | None = "auto") -> Progress:
    """How a run is shown.

    Args:
        kind: "auto" takes the bar in a terminal, lines elsewhere; None is silent; a ``Progress`` object is
            used as it is.

    Raises:
        ValueError: For another kind.
    """
    if isinstance(kind, Progress):
        return kind
    if kind is None:
        return Progress()
    choose("progress", kind, ("auto",))
    return BarProgress(disable=not sys.stderr.isatty())
