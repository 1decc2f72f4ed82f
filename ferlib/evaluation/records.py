"""Result records: what was measured, on what, with what, when. The book's numbers come from these files."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import ferlib
from ferlib.data.base import FaceDataset
from ferlib.data.fingerprint import fingerprint
from ferlib.evaluation.intervals import Interval
from ferlib.files import write_text
from ferlib.training.provenance import commit

_FORMAT = "ferlib-result-1"


class RecordError(ValueError):
    """A result record that is not there or cannot be read; the message names the file and what to do.

    Shape: takes one message string. Chapter 7.
    """


@dataclass
class ResultRecord:
    """One measurement, complete enough to be judged and repeated.

    Attributes
    ----------
    name: what the record is called; ``<name>.json`` in ``book/results``.
    what: one sentence that says what was measured.
    numbers: measured numbers by name, each with its interval.
    data: name of the data set, split, number of faces, fingerprint.
    classes: the K class names.
    confusion: K x K counts, rows labels, columns predictions.
    settings: everything chosen (recipe, batch size, which output).
    curves: history of the run, one record per epoch.
    extra: measured numbers without an interval (minutes, parameters).
    seed, versions, date: what repeats it; the date is UTC, ISO 8601.
    command: what was typed to get it.
    commit: the source that computed it (:func:`ferlib.training.provenance.commit`).
    seconds: how long it took.

    Shape: K classes; ``confusion`` (K, K). Chapters 6 and 7.
    """

    name: str
    what: str
    numbers: dict[str, Interval] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    command: str = ""
    commit: str = field(default_factory=commit)
    seconds: float | None = None

    def save(self, path: str | Path | None = None) -> Path:
        """Write as JSON in one move; without a path to ``book/results/<name>.json`` of the repository.

        Shape: a path in, the path out. Raises ``RecordError`` where it cannot be written.
        """
        path = Path(path) if path is not None else folders()[0] / f"{self.name}.json"
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"
        try:
            return write_text(path, text)
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error}; is the folder writable?") from error

    @classmethod
    def load(cls, name_or_path: str | Path) -> ResultRecord:
        """Read a record by its name (``"small_model_ferplus"``) or its path.

        Shape: a name or path in, a record out. Raises ``RecordError`` for a file that is not there, is
        damaged or was written in another format.
        """
        path = Path(name_or_path)
        if not path.is_file():
            places = [folder / f"{name_or_path}.json" for folder in folders()]
            path = next((place for place in places if place.is_file()), path)
        if not path.is_file():
            raise RecordError(
                f"no record '{name_or_path}' in {' or '.join(str(folder) for folder in folders())}: "
                "give a path, or make the record with its script in book/records"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != _FORMAT:
                raise RecordError(f"{path.name} is not a record of format {_FORMAT}: make it again")
            values["numbers"] = {key: Interval(**number) for key, number in values["numbers"].items()}
            return cls(**{"commit": "", **values})  # not the commit of whoever reads it
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"{path.name} is not a whole result record ({error}): make it again") from error

    def table(self) -> str:
        """The numbers as text, one a line. Shape: returns a string."""
        width = max((len(key) for key in self.numbers), default=0)
        return "\n".join(f"{key:{width}s}  {number.percent()}" for key, number in self.numbers.items())


def folders() -> list[Path]:
    """Where records are looked for: ``$FERLIB_RESULTS``, the repository's ``book/results``, and the copy that
    an installed ``ferlib`` has of it.

    Shape: a list of paths. Chapter 7.
    """
    chosen = [Path(os.environ["FERLIB_RESULTS"])] if os.environ.get("FERLIB_RESULTS") else []
    package = Path(ferlib.__file__).resolve().parent
    return [*chosen, package.parent / "book" / "results", package / "results"]


def about(data: FaceDataset, split: str = "") -> dict[str, Any]:
    """What a record says of its data: name, split, number of faces, faces per class, fingerprint.

    The name is that of the data set itself, whatever it is wrapped in.

    Shape: N faces of K classes in, words and counts out. Chapter 7.
    """
    inner = innermost(data)
    counts = np.bincount(np.asarray(data.labels), minlength=len(data.classes))
    return {
        "name": type(inner).__name__,
        "split": split or getattr(data, "split", "") or getattr(inner, "split", ""),
        "faces": len(data),
        "per class": counts.tolist(),
        "fingerprint": fingerprint(data),
    }


def innermost(data: FaceDataset) -> FaceDataset:
    """The data set itself, without what it is wrapped in. Shape: N faces in, M out. Chapter 7."""
    while isinstance(inner := getattr(data, "faces", None), FaceDataset):
        data = inner
    return data
