"""A run's log for TensorBoard, on request: ``tensorboard --logdir runs``. Chapter 6."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ferlib.training.progress import Progress
from ferlib.training.step import TrainingError

FOLDER = "tensorboard"


class TensorBoardProgress(Progress):
    """Writes the loss of every step, and every number of every epoch, as TensorBoard reads them.

    A resumed run goes on in the same folder: what was logged after its checkpoint is struck out.

    Shape: as ``Progress``. Raises ``TrainingError`` where the package ``tensorboard`` is not installed.
    Chapter 6.
    """

    def __init__(self, run_dir: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(
                f"logging for TensorBoard needs its package ({error}): pip install tensorboard"
            ) from error
        self.open, self.folder = SummaryWriter, Path(run_dir) / FOLDER

    def start(self, steps: int, epochs: int, history: list[dict[str, Any]]) -> None:
        super().start(steps, epochs, history)
        behind = steps * len(history) + self.first
        # steps are struck out from the first that is done again; an epoch's numbers stand at its last step
        self.writer = self.open(str(self.folder), purge_step=behind + 1 if behind else None)

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.writer.add_scalar("step/train_loss", loss, (epoch - 1) * self.steps + step)

    def epoch(self, record: dict[str, Any]) -> None:
        super().epoch(record)
        for key, value in record.items():
            if key != "epoch" and isinstance(value, int | float):
                self.writer.add_scalar(f"epoch/{key}", value, record["epoch"] * self.steps)
        self.writer.flush()

    def close(self, message: str = "") -> None:
        self.writer.close()
