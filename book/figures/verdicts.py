"""What a record of differences allows to say of a claim: shown, shown the other way, not shown, not run yet.

A verdict is computed from the record each time it is read, never written by hand, and there is no verdict *no
difference*: an interval that holds zero does not show that nothing is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ferlib.evaluation import Interval, RecordError, ResultRecord

__all__ = ["Claim", "Effect", "effect", "highest"]

NOT_RUN = "not run yet"
SHOWN, OTHER_WAY, NOT_SHOWN = "shown", "shown the other way", "not shown"


@dataclass(frozen=True)
class Effect:
    """One difference that a claim hangs on, as its record has it.

    Attributes:
        label: Its words in a figure or table.
        record: The record that holds it.
        expected: The sign that the claim asks for: 1 above zero, -1 below zero, 0 either.
        over_seeds: The value with Student's interval over seeds; None where one run each was compared.
        over_faces: The same value with the interval of the paired bootstrap over faces, where there is one.
        joint: The value with one interval over runs and faces, as the experiments of the plan have it.
    """

    label: str
    record: str
    expected: int = 1
    over_seeds: Interval | None = None
    over_faces: Interval | None = None
    joint: Interval | None = None

    @property
    def intervals(self) -> dict[str, Interval]:
        """The intervals that are there, by what they are over."""
        named = {"runs and faces": self.joint, "seeds": self.over_seeds, "faces": self.over_faces}
        return {over: number for over, number in named.items() if number}

    @property
    def value(self) -> float | None:
        """The difference itself, a share; None where the record is missing."""
        return next((number.value for number in self.intervals.values()), None)

    @property
    def shown(self) -> bool:
        """Whether there are intervals and all of them leave out zero."""
        found = self.intervals.values()
        return bool(found) and all(number.low > 0 or number.high < 0 for number in found)

    @property
    def verdict(self) -> str:
        """One of the four verdicts."""
        if self.value is None:
            return NOT_RUN
        if not self.shown:
            return NOT_SHOWN
        return OTHER_WAY if self.value * self.expected < 0 else SHOWN

    @property
    def number(self) -> str:
        """The difference in percentage points with its intervals; nothing where the record is missing."""
        if self.value is None:
            return ""
        found = self.intervals.items()
        ends = [f"{100 * n.low:+.1f} to {100 * n.high:+.1f} over {what}" for what, n in found]
        return f"{100 * self.value:+.1f} points ({', '.join(ends)})"

    def __str__(self) -> str:
        """The label, the verdict, and the number, if there is one."""
        return f"{self.label}: {', '.join(filter(None, (self.verdict, self.number)))}"


def effect(
    label: str,
    record: str,
    a: str,
    b: str,
    *,
    metric: str = "accuracy",
    condition: str | None = None,
    expected: int = 1,
) -> Effect:
    """The difference a minus b of a record; without a number where nobody has made the record yet.

    Raises:
        ValueError: ``expected`` is not -1, 0 or 1.
        RecordError: The record is damaged or has no such difference.
    """
    if expected not in (-1, 0, 1):
        raise ValueError(f"expected is {expected!r}: 1 for above zero, -1 for below, 0 for either")
    if (found := _record(record)) is None:
        return Effect(label, record, expected)
    by = found.intervals(a, b, metric, condition)
    return Effect(label, record, expected, by.get("seeds"), by.get("faces"), by.get("joint"))


def highest(record: str, arms: Sequence[str], metric: str = "accuracy") -> str:
    """Which of some arms has the highest mean of a metric; the first one where the record is missing."""
    found = _record(record)
    return max(arms, key=lambda arm: found.get(metric, arm).value) if found else arms[0]


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, or about its code, how it was tested, and the differences that decide.

    ``needs`` is ``"all"`` or ``"any"``: whether the claim asks for every difference or for one of them.

    Raises:
        ValueError: There is no difference, or ``needs`` is neither.
    """

    claim: str
    tested: str
    differences: tuple[Effect, ...]
    needs: str = "all"

    def __post_init__(self) -> None:
        if not self.differences:
            raise ValueError(f"the claim '{self.claim}' has no difference that could decide it")
        if self.needs not in ("all", "any"):
            raise ValueError(f"needs is {self.needs!r}, expected 'all' or 'any'")

    @property
    def verdict(self) -> str:
        """The verdict on the whole claim, as soon as the records that are there decide it.

        A claim that needs all is shown when all are, and lost with the first that is not; one that needs any
        is won with the first, and lost when none is left. It is *shown the other way* when it is lost and all
        of its differences that count are.
        """
        said = [difference.verdict for difference in self.differences]
        run = [verdict for verdict in said if verdict != NOT_RUN]
        decided = any(v == SHOWN for v in run) if self.needs == "any" else any(v != SHOWN for v in run)
        if len(run) < len(said) and not decided:
            return NOT_RUN if not run else f"open: {len(said) - len(run)} of {len(said)} not run yet"
        if (any if self.needs == "any" else all)(v == SHOWN for v in run):
            return SHOWN
        return OTHER_WAY if all(v == OTHER_WAY for v in run) else NOT_SHOWN

    def row(self) -> str:
        """A row of a Markdown table: claim, tested how, verdict with every number that it rests on."""
        if self.verdict == NOT_RUN:
            return f"| {self.claim} | {self.tested} | **{NOT_RUN}** |"
        groups: dict[str, list[str]] = {}
        for one in self.differences:
            groups.setdefault(one.verdict, []).append(f"{one.label} {one.number}".strip())
        if list(groups) == [self.verdict]:
            found = "; ".join(groups[self.verdict])
        else:
            found = ". ".join(
                f"*{verdict.capitalize()}:* {'; '.join(some)}" for verdict, some in groups.items()
            )
        return f"| {self.claim} | {self.tested} | **{self.verdict}**. {found} |"


def _record(name: str) -> ResultRecord | None:
    try:
        return ResultRecord.load(name)
    except RecordError as error:
        if str(error).startswith(f"no record '{name}'"):
            return None
        raise
