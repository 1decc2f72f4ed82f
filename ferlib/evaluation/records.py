"""Result records: what was measured, on what, with what, when. The book's numbers come from these files."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ferlib
from ferlib.data.base import FaceDataset, fingerprint
from ferlib.data.faces import SomeFaces
from ferlib.errors import FerlibError
from ferlib.evaluation.intervals import Interval
from ferlib.files import write_text
from ferlib.training.environment import commit

_FORMAT = "ferlib-result-2"


class RecordError(FerlibError):
    """A result record that is not there or cannot be read; the message names the file and what to do."""


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
    def place(self) -> str:
        """The arm and the condition, in words."""
        return ", ".join(filter(None, (self.arm, self.condition)))

    @property
    def label(self) -> str:
        """What it is of, in words."""
        return ", ".join(filter(None, (self.place, self.metric)))


@dataclass(frozen=True, kw_only=True)
class Difference(Number):
    """A difference of two arms: the first of ``contrast`` minus the second. It has no ``arm`` of its own.

    Attributes:
        contrast: The two arms.
        p: The p-value, where the record has one.
        detectable: The smallest difference that the experiment could detect.
        equivalence: The ends of the interval that is compared with the margin of equivalence.
        margin: That margin.
    """

    contrast: tuple[str, str]
    p: float | None = None
    detectable: float | None = None
    equivalence: tuple[float, float] | None = None
    margin: float | None = None

    @property
    def place(self) -> str:
        """The contrast and the condition, in words."""
        return ", ".join(filter(None, (" minus ".join(self.contrast), self.condition)))


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
        return self._one(self.numbers, over, metric=metric, arm=arm, condition=condition)

    def difference(
        self,
        a: str,
        b: str,
        metric: str = "accuracy",
        condition: str | None = None,
        over: str | None = None,
    ) -> Difference:
        """Arm a minus arm b, read as :meth:`get` reads a number."""
        return self._one(self.differences, over, contrast=(a, b), metric=metric, condition=condition)

    def intervals(
        self, a: str, b: str, metric: str = "accuracy", condition: str | None = None
    ) -> dict[str | None, Difference]:
        """Arm a minus arm b with each of its intervals, by what the interval is over.

        Raises:
            RecordError: There is no such difference; the message says which there are.
        """
        label = self.difference(a, b, metric, condition).label
        return {one.over: one for one in self.differences if one.label == label}

    def _one(self, held: list[Any], over: str | None, **wanted: Any) -> Any:
        """The first of the numbers or differences with these attributes."""

        def fits(one: Number) -> int:
            return sum(getattr(one, name) == value for name, value in wanted.items())

        for one in held:
            if fits(one) == len(wanted) and over in (None, one.over):
                return one
        near = sorted(held, key=fits, reverse=True)[:12]
        there = "; ".join(f"{one.label}, over {one.over}" for one in near) or "none"
        raise RecordError(f"record '{self.name}' has no number of {wanted}, over {over!r}; it has: {there}")

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
        places = [Path(name_or_path), *(folder / f"{name_or_path}.json" for folder in folders())]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise RecordError(
                f"no record '{name_or_path}' in {' or '.join(str(folder) for folder in folders())}: "
                "give a path, or make the record with its script in book/experiments"
            )
        try:
            return cls(**_checked(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
            reason = str(error)[:200] or type(error).__name__
            raise RecordError(f"{path} is not a whole result record ({reason}): make it again") from error

    def table(self) -> str:
        """Numbers and differences as text: metrics down, or across where there are several conditions."""
        import pandas as pd  # takes half a second, and only printing needs it

        places: dict[str, dict[str, str]] = {}
        for one in (*self.numbers, *self.differences):
            places.setdefault(one.place, {}).setdefault(one.metric, one.percent())
        table = pd.DataFrame.from_dict(places, orient="index").fillna("")
        return table.to_string() if len(places) > 1 else table.T.to_string(header=False)


def _json(value: Any) -> str:
    """A part of a record; of numbers and differences each has a line of its own."""
    if isinstance(value, list) and value and isinstance(value[0], Interval):
        lines = (json.dumps(entry(one), ensure_ascii=False) for one in value)
        return "[\n  " + ",\n  ".join(lines) + "\n ]"
    return json.dumps(value, indent=1, ensure_ascii=False).replace("\n", "\n ")


def entry(found: Number) -> dict[str, Any]:
    """A number as JSON has it: what it is of first, nothing that is not there."""
    values = {part.name: getattr(found, part.name) for part in fields(found)}
    ends = {name: values.pop(name) for name in ("value", "low", "high")}
    said = {name: value for name, value in values.items() if value not in (None, ())}
    return said | {name: end for name, end in ends.items() if name == "value" or not math.isnan(end)}


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record from what its file holds, each of the kind it has in a new record."""
    if (found := values.pop("format")) != _FORMAT:
        raise ValueError(f"it has format {found!r}, expected {_FORMAT!r}")
    values = {"commit": "", **values}  # where there is none: not the commit of whoever reads it
    for name, value in vars(ResultRecord("", "")).items():
        if name in values and name != "seconds" and type(values[name]) is not type(value):
            raise TypeError(f"{name} is {str(values[name])[:40]!r}, expected a {type(value).__name__}")
    for name, kind in (("numbers", Number), ("differences", Difference)):
        values[name] = [kind(**_tuples(entry)) for entry in values[name]]
    return values


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    for end in ("value", "low", "high"):
        if type(entry.get(end, 0.0)) not in (int, float):
            raise TypeError(
                f"{end} of {entry.get('metric')!r} is {str(entry[end])[:40]!r}, expected a number"
            )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


def folders() -> list[Path]:
    """Where records are looked for: ``$FERLIB_RESULTS``, the repository's ``book/results``, and the copy that
    an installed ``ferlib`` has of it. Chapter 7.
    """
    chosen = [Path(os.environ["FERLIB_RESULTS"])] if os.environ.get("FERLIB_RESULTS") else []
    package = Path(ferlib.__file__).resolve().parent
    return [*chosen, package.parent / "book" / "results", package / "results"]


def about(data: FaceDataset, split: str = "") -> dict[str, Any]:
    """What a record says of its data: name, split, faces, faces per class, what was left out, fingerprint.

    The name is that of the data set itself, whatever it is wrapped in. Chapter 7.
    """
    inner, _ = origin(data)
    counts = np.bincount(np.asarray(data.labels), minlength=len(data.classes))
    left_out = Counter(one.reason for one in getattr(inner, "skipped", ()))
    return {
        "name": type(inner).__name__,
        "split": split or getattr(data, "split", "") or getattr(inner, "split", ""),
        "faces": len(data),
        "per class": counts.tolist(),
        "fingerprint": fingerprint(data),
    } | ({"left out": dict(left_out.most_common(20))} if left_out else {})


def origin(data: FaceDataset) -> tuple[FaceDataset, torch.Tensor]:
    """The data set itself, without what it is wrapped in, and which of its rows (n,) are meant."""
    rows = torch.arange(len(data))
    while isinstance(inner := getattr(data, "faces", None), FaceDataset):
        if isinstance(data, SomeFaces):
            rows = data.rows[rows]
        data = inner
    return data, rows
