"""The label and pixel files of FER2013 and FER+: Microsoft's two vote tables, Kaggle's rows of pixels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ferlib.data.base import DataError
from ferlib.data.images import read_pixels, refusal
from ferlib.data.labels import VOTE_COLUMNS
from ferlib.data.listing import Skip, read_table

NO_VOTES = "votes sum to zero"
BAD_NUMBERS = "votes are not numbers"
BAD_RANGE = "votes are negative or not finite"


def _votes(cells: Sequence[str]) -> list[float] | str:
    """Ten votes, or the reason why they cannot be used."""
    try:
        votes = [float(cell) for cell in cells]
    except ValueError:
        return BAD_NUMBERS
    if not all(0 <= v < float("inf") for v in votes):
        return BAD_RANGE
    return votes if sum(votes) > 0 else NO_VOTES


def _table(rows: list[tuple[str, list[float]]]) -> tuple[list[str], torch.Tensor]:
    return [name for name, _ in rows], torch.tensor([v for _, v in rows]).reshape(-1, len(VOTE_COLUMNS))


def read_label_csv(path: str | Path) -> tuple[list[str], torch.Tensor, list[Skip]]:
    """Microsoft's ``label.csv``: rows of name, box, ten votes, with no header (one is tolerated).

    Shape: returns N names, float32 votes ``(N, 10)`` and the rows that were left out with reasons. Raises
    DataError if the file is missing, empty, or its first row has not 12 columns. Chapter 1.
    """
    path = Path(path)
    table = read_table(path)
    wide = 2 + len(VOTE_COLUMNS)
    if len(table[0]) != wide:
        raise DataError(
            f"{path}: the first row has {len(table[0])} columns; expected {wide}: "
            f"name, box, {', '.join(VOTE_COLUMNS)}. Take label.csv from Microsoft's FERPlus repository"
        )
    if table[0][2].lower() == "neutral":
        table = table[1:]
    rows, skipped = [], []
    for row in table:
        votes = _votes(row[2:]) if len(row) == wide else f"row has not {wide} columns"
        if isinstance(votes, str):
            skipped.append(Skip(row[0], votes))
        else:
            rows.append((row[0], votes))
    return *_table(rows), skipped


def read_fer2013new(path: str | Path) -> tuple[list[str], list[str], torch.Tensor]:
    """Microsoft's ``fer2013new.csv``, row by row as Kaggle's csv has its pictures.

    Shape: returns N usages ("Training", "PublicTest", "PrivateTest"), N image names ("" where FER+ removed
    the picture) and float32 votes ``(N, 10)``. Raises DataError if columns are missing or a row is
    damaged. Chapter 1.
    """
    path = Path(path)
    header, *table = read_table(path)
    expected = ["Usage", "Image name", *VOTE_COLUMNS]
    if [cell.lower() for cell in header] != [cell.lower() for cell in expected]:
        raise DataError(f"{path}: columns are {', '.join(header)}; expected {', '.join(expected)}")
    for number, row in enumerate(table, start=2):
        if len(row) != len(expected) or _votes(row[2:]) in (BAD_NUMBERS, BAD_RANGE):
            # rows are matched to Kaggle's by position, so one damaged row makes all after it doubtful
            raise DataError(f"{path}: line {number} is damaged ({','.join(row)[:60]}); take the file anew")
    votes = torch.tensor([[float(cell) for cell in row[2:]] for row in table])
    return [row[0] for row in table], [row[1] for row in table], votes


class PixelRows:
    """Faces of Kaggle's csv by the byte where their line starts. Shape: index -> uint8 ``(1, 48, 48)``."""

    def __init__(self, path: Path, starts: list[int], column: int, names: list[str]):
        self.path, self.starts, self.column, self.names = path, starts, column, names

    def __call__(self, index: int) -> np.ndarray:
        try:
            with self.path.open("rb") as file:
                file.seek(self.starts[index])
                line = file.readline()
            row = next(csv.reader([line.decode("utf-8")]))
            return read_pixels(row[self.column])
        except (DataError, UnicodeDecodeError, IndexError, csv.Error, OSError) as error:
            reason = "the row is cut short" if isinstance(error, IndexError) else str(error)
        raise refusal(f"{self.path} ({self.names[index]})", reason)

    def content(self) -> list[int]:
        """What can be told without reading the pixels: the file's size. Shape: -> one int."""
        return [self.path.stat().st_size]


def scan_lines(path: Path) -> tuple[list[str], list[int], list[bytes]]:
    """Where each row of a pixel csv starts, without keeping its pixels.

    Shape: returns the header's cells; for each of N further lines the place of its first byte, and its two
    ends.
    """
    starts, ends = [], []
    try:
        with path.open("rb") as file:
            header = [cell.strip().strip('"') for cell in file.readline().decode("utf-8-sig").split(",")]
            place = file.tell()
            for line in file:
                if line.strip():
                    starts.append(place)
                    ends.append(line[:24] + b" | " + line[-24:])
                place += len(line)
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8: take the csv anew") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return header, starts, ends
