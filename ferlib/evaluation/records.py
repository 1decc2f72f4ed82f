"""Result records: what was measured, on what, with what, when. The book's numbers come from these files."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import ferlib
from ferlib.data.base import FaceDataset, fingerprint
from ferlib.errors import FerlibError
from ferlib.evaluation.intervals import Interval
from ferlib.files import write_text
from ferlib.training.environment import commit

_FORMAT = "ferlib-result-2"


class RecordError(FerlibError):
    """A result record that is not there or cannot be read; the message names the file and what to do.

    Shape: takes one message string. Chapter 7.
    """


@dataclass(frozen=True, kw_only=True)
class Number(Interval):
    """A measured number: of what, under which condition, with its interval.

    Attributes:
        metric: What is measured, such as "accuracy". "accuracy change" is the accuracy under the condition
            minus that under the condition that the record compares with.
        arm: The network, loss or method that it was measured of; None where the record has only one.
        condition: Under which it was measured, such as "darkness 3"; None for the plain one.
        over: What the interval speaks of: "faces", "seeds" or "joint" for both.
        by_seed: The values that ``value`` is the mean of.
    """

    metric: str
    arm: str | None = None
    condition: str | None = None
    over: str | None = None
    by_seed: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """Arm, condition and metric in words."""
        return ", ".join(filter(None, (self.arm, self.condition, self.metric)))


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """A difference of two arms: the first of ``contrast`` minus the second.

    Attributes:
        metric, condition, over, by_seed: As in :class:`Number`.
        contrast: The two arms.
        p: The p-value, where the record has one.
        detectable: The smallest difference that the experiment could detect.
        equivalence: The ends of the interval that is compared with the margin of equivalence.
        margin: That margin.
    """

    metric: str
    contrast: tuple[str, str]
    condition: str | None = None
    over: str | None = None
    by_seed: tuple[float, ...] = ()
    p: float | None = None
    detectable: float | None = None
    equivalence: tuple[float, float] | None = None
    margin: float | None = None

    @property
    def label(self) -> str:
        """The contrast, its condition and metric in words."""
        return ", ".join(filter(None, (" minus ".join(self.contrast), self.condition, self.metric)))


@dataclass
class ResultRecord:
    """One measurement, complete enough to be judged and repeated.

    Attributes:
        name: What the record is called; ``<name>.json`` in ``book/results``.
        what: One sentence that says what was measured.
        numbers: The measured numbers; :meth:`get` finds one.
        differences: Differences of two arms; :meth:`difference` finds one.
        data: Name of the data set, split, number of faces, fingerprint.
        classes: The K class names.
        confusion: K x K counts, rows labels, columns predictions.
        settings: Everything chosen (recipe, batch size, which output).
        curves: History of the run, one entry per epoch.
        extra: Measured numbers without an interval (minutes, parameters).
        seed, versions, date: What repeats it; the date is UTC, ISO 8601.
        command: What was typed to get it.
        commit: The source that computed it (:func:`ferlib.training.environment.commit`).
        seconds: How long it took.
    """

    name: str
    what: str
    numbers: list[Number] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
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

    def add(self, metric: str, found: Interval, arm: str | None = None, **fields: Any) -> Number:
        """Append a number; ``fields`` are the other attributes of :class:`Number`."""
        number = Number(found.value, found.low, found.high, metric=metric, arm=arm, **fields)
        self.numbers.append(number)
        return number

    def add_difference(
        self, a: str, b: str, found: Interval, metric: str = "accuracy", **fields: Any
    ) -> Difference:
        """Append a difference, a minus b; ``fields`` are the other attributes of :class:`Difference`."""
        ends = (found.value, found.low, found.high)
        self.differences.append(Difference(*ends, metric=metric, contrast=(a, b), **fields))
        return self.differences[-1]

    def get(
        self, metric: str, arm: str | None = None, condition: str | None = None, over: str | None = None
    ) -> Number:
        """The number of this metric, arm and condition; None asks for a number that has none.

        Of several intervals it is the first, or the one ``over`` "faces", "seeds" or "joint".

        Raises:
            RecordError: There is no such number; the message says which there are.
        """
        for one in self.numbers:
            if (one.metric, one.arm, one.condition) == (metric, arm, condition) and over in (None, one.over):
                return one
        asked = f"number of metric {metric!r}, arm {arm!r}, condition {condition!r}, over {over!r}"
        near = [n for n in self.numbers if n.metric == metric]
        there = [repr((n.metric, n.arm, n.condition, n.over)) for n in near or self.numbers]
        raise RecordError(self._lacks(asked, there))

    def difference(
        self,
        a: str,
        b: str,
        metric: str = "accuracy",
        condition: str | None = None,
        over: str | None = None,
    ) -> Difference:
        """Arm a minus arm b, read as :meth:`get` reads a number."""
        found = self.intervals(a, b, metric, condition)
        if over is not None and over not in found:
            asked = f"interval over {over!r} of {a!r} minus {b!r}, metric {metric!r}, condition {condition!r}"
            raise RecordError(self._lacks(asked, [repr(one) for one in found]))
        return found[over] if over is not None else next(iter(found.values()))

    def intervals(
        self, a: str, b: str, metric: str = "accuracy", condition: str | None = None
    ) -> dict[str | None, Difference]:
        """Arm a minus arm b with each of its intervals, by what the interval is over.

        Raises:
            RecordError: There is no such difference; the message says which there are.
        """
        asked = ((a, b), metric, condition)
        found = {d.over: d for d in self.differences if (d.contrast, d.metric, d.condition) == asked}
        if not found:
            near = [d for d in self.differences if {a, b} & set(d.contrast)]
            there = [repr((*d.contrast, d.metric, d.condition)) for d in near or self.differences]
            text = f"difference {a!r} minus {b!r} of metric {metric!r}, condition {condition!r}"
            raise RecordError(self._lacks(text, there))
        return found

    def _lacks(self, asked: str, there: list[str]) -> str:
        some = ", ".join(there[:12]) + (f" and {len(there) - 12} more" if len(there) > 12 else "")
        return f"record '{self.name}' has no {asked}; it has {some or 'none'}"

    def save(self, path: str | Path | None = None) -> Path:
        """Write as JSON in one move; without a path to ``book/results/<name>.json`` of the repository.

        Raises:
            RecordError: The file cannot be written.
        """
        path = Path(path) if path is not None else folders()[0] / f"{self.name}.json"
        values = {"format": _FORMAT} | {part.name: getattr(self, part.name) for part in fields(self)}
        parts = [f" {json.dumps(key)}: {_json(value)}" for key, value in values.items()]
        try:
            return write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error}; is the folder writable?") from error

    @classmethod
    def load(cls, name_or_path: str | Path) -> ResultRecord:
        """Read a record by its name (``"small_model_ferplus"``) or its path.

        Raises:
            RecordError: The file is not there, is damaged or was written in another format.
        """
        path = Path(name_or_path)
        if not path.is_file():
            places = [folder / f"{name_or_path}.json" for folder in folders()]
            path = next((place for place in places if place.is_file()), path)
        if not path.is_file():
            raise RecordError(
                f"no record '{name_or_path}' in {' or '.join(str(folder) for folder in folders())}: "
                "give a path, or make the record with its script in book/experiments"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if (found := values.pop("format")) != _FORMAT:
                raise RecordError(f"{path.name} has format {found!r}, expected {_FORMAT!r}: make it again")
            for part, kind in (("numbers", Number), ("differences", Difference)):
                values[part] = [kind(**_tuples(entry)) for entry in values[part]]
            return cls(**{"commit": "", **values})  # not the commit of whoever reads it
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"{path.name} is not a whole result record ({error}): make it again") from error

    def table(self) -> str:
        """Numbers and differences as text, one a line."""
        rows = [*self.numbers, *self.differences]
        width = max((len(row.label) for row in rows), default=0)
        return "\n".join(f"{row.label:{width}s}  {row.percent()}" for row in rows)


def _json(value: Any) -> str:
    """A part of a record; of numbers and differences each has a line of its own."""
    if isinstance(value, list) and value and isinstance(value[0], Interval):
        lines = (json.dumps(_entry(one), ensure_ascii=False) for one in value)
        return "[\n  " + ",\n  ".join(lines) + "\n ]"
    return json.dumps(value, indent=1, ensure_ascii=False).replace("\n", "\n ")


def _entry(found: Number | Difference) -> dict[str, Any]:
    """A number as JSON has it: what it is of first, nothing that is not there."""
    values = {part.name: getattr(found, part.name) for part in fields(found)}
    ends = {name: values.pop(name) for name in ("value", "low", "high")}
    said = {name: value for name, value in values.items() if value not in (None, ())}
    return said | {name: end for name, end in ends.items() if name == "value" or not math.isnan(end)}


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


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
