"""What surrounds the steps of a run, and what its processes have to agree on. Chapter 6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lightning_fabric import Fabric
from torch import nn

from ferlib.training.batches import Batch, FaultyDataError
from ferlib.training.interrupt import Interrupt
from ferlib.training.processes import total
from ferlib.training.progress import Progress
from ferlib.training.runs import RunFolder

ELSEWHERE = "another process cannot read its faces, and says which"


class Run(NamedTuple):
    """Processes, the network as they share it, the folder, Ctrl-C and progress of one call of ``fit``.

    Shape: five objects. Chapter 6.
    """

    fabric: Fabric
    network: nn.Module
    folder: RunFolder
    stop: Interrupt
    watch: Progress


def share_of_step(parts: list[Batch], fabric: Fabric) -> list[float]:
    """Each batch's weight in the step's gradient, by its faces; all processes stop where one has to.

    Shape: M batches -> M numbers whose sum, meant over the processes, is 1. Raises ``FaultyDataError``.
    """
    problem = next((part.problem for part in parts if part.problem), "")
    bad, faces = total(fabric, bool(problem), sum(len(part.names) for part in parts))
    if bad:
        raise FaultyDataError(problem or ELSEWHERE)
    return [len(part.names) * fabric.world_size / faces for part in parts]


def some(names: Sequence[str], shown: int = 4) -> str:
    """The first few names. Shape: names -> text."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"faces {', '.join(names[:shown])}{more}"
