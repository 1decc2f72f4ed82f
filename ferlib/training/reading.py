"""Reading batches, here or in worker processes, and what happens when a file is gone in mid-epoch.

A :class:`Ticket` says which faces are wanted and with which seed; whoever reads it gives the same batch. A
face that cannot be read does not end the reading: the batch comes without it, with its name. Chapter 6.
"""

from __future__ import annotations

import signal
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from ferlib.data.base import DataError, FaceDataset
from ferlib.training.seeds import drawing


class Ticket(NamedTuple):
    """An order for one batch: rows of the data set, and a seed for a data set that draws itself.

    ``first`` and ``count``: which part of a batch that is shared between processes this is. Shape: n rows.
    """

    rows: list[int]
    seed: int
    first: int
    count: int


class Reading(NamedTuple):
    """What came of a ticket: the batch of the rows at ``kept`` (or None), and ``lost`` (row, reason) pairs.

    Shape: as many kept and lost rows as the ticket had.
    """

    ticket: Ticket
    batch: dict[str, Any] | None
    kept: list[int]
    lost: list[tuple[int, str]]


class Reader(Dataset):
    """A data set of whole batches: ``reader[ticket]`` is a :class:`Reading`.

    Only what a data set says about its files (``DataError``, ``OSError``) counts as a fault; any other error
    is a defect and is raised. Shape: N faces; a ticket in, a reading out. Chapter 6.
    """

    def __init__(self, data: FaceDataset) -> None:
        self.data = data

    def __getitem__(self, ticket: Ticket) -> Reading:
        with drawing(ticket.seed):
            places = list(range(len(ticket.rows)))
            try:
                return Reading(ticket, self.data.__getitems__(ticket.rows), places, [])
            except (DataError, OSError):
                lost = {place: why for place in places if (why := self._why_not(ticket.rows[place]))}
            kept = [place for place in places if place not in lost]
        with drawing(ticket.seed):
            batch = self.data.__getitems__([ticket.rows[place] for place in kept]) if kept else None
        return Reading(ticket, batch, kept, [(ticket.rows[place], why) for place, why in lost.items()])

    def _why_not(self, row: int) -> str:
        try:
            self.data.__getitems__([row])
        except (DataError, OSError) as error:
            return f"face {row}: {error or type(error).__name__}"
        return ""


def start_worker(number: int) -> None:
    """Ctrl-C is the main process's business. Shape: a worker's number in."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
