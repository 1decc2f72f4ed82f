"""Which numbers of a page look measured, and whether a record holds them.

The rule, as CONTRIBUTING tells it. A number *looks measured* where it is written as measurements are: with a
decimal point; with per cent, points, times, or a unit of time, memory, cost or count behind it; as a count in
thousands (12,083); as one count of another (17 of 60). The block it stands in (paragraph, list item, table
row, admonition, cell) then has to name a record that holds it, to the digits that are printed. Left out are

(a) other voices: admonitions of class ``paper`` and ``released-code``, sentences and table rows that cite,
    table columns headed by a paper, a README or released code;
(b) equations, code and addresses inside the text, and what is only numbered (section 2.3, Python 3.11);
(c) definitions and settings, one by one in ``numbers_allowed.txt``, each with its reason.

Code cells are pages, too (:mod:`tests.page_blocks`): strings and comments are read as prose, captions and
alternative texts as well, and numbers are looked at that are assigned or stand together in a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.page_blocks import GAP, Block, blocks

NOT_MEASURED = {"settings", "versions", "seed", "date", "command", "format", "classes", "device", "commit"}

_NUMBER = re.compile(r"(?<![\w.,/:#^-])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w/]*\d)")
_UNIT = re.compile(
    r"\s?(%|‰)|[\s-]?(per ?cent\w*|points?|times|fold|x(?!\s?\d)|×(?!\s?\d)"
    r"|milliseconds?|seconds?|s|ms|minutes?|min|hours?|h|days?|[kMGT]i?B|[kMGT]?FLOPs?|GMACs?|G|M"
    r"|million|billion|thousand|parameters|multiply-adds|euros?|dollars?)(?!\w)"
)
_OF = re.compile(r"\s(?:out of|of)\s(?:the |these |all )?\d")
_NUMBERED = re.compile(
    r"(?:sections?|chapters?|exercises?|figures?|tables?|lines?|pages?|versions?|python|torch|timm)\s"
    r"(?:[\d.]+(?:,| and| or| to)\s)*$",
    re.IGNORECASE,
)
_WORD = (
    r"(?:half an?|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty"
    r"|fifty|sixty|seventy|eighty|ninety)(?:-\w+)?"
)
_SPELLED = re.compile(rf"\b({_WORD})\s(per ?cent|percent\w*|percentage points?)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """A number that looks measured, and what is missing."""

    place: str
    number: str
    sentence: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.number} {self.reason}\n    {self.sentence}"


class Records:
    """The measured numbers of a folder of records, by record; settings, seeds and versions are none."""

    def __init__(self, folder: Path) -> None:
        self.numbers = {
            path.stem: list(_numbers(json.loads(path.read_text(encoding="utf-8"))))
            for path in sorted(folder.glob("*.json"))
        }

    def named(self, text: str) -> frozenset[str]:
        """The records whose names stand in a text: in an address, in code, in a call."""
        return frozenset(name for name in self.numbers if re.search(rf"(?<![\w-]){name}(?![\w-])", text))

    def hold(self, names: frozenset[str], printed: str, unit: str = "") -> bool:
        """Whether one of these records holds a number that prints so: as it is, or as a share in per cent."""
        value = float(printed.replace(",", ""))
        half = 0.5 * 10.0 ** -len(printed.partition(".")[2]) * (1 + 1e-9)
        more = {"million": 1e-6, "M": 1e-6, "billion": 1e-9, "G": 1e-9, "thousand": 1e-3, "ms": 1e3}
        scales = (1.0, more[unit]) if unit in more else (1.0, 100.0)
        found = (abs(number) * scale for name in names for number in self.numbers[name] for scale in scales)
        return any(abs(number - value) <= half for number in found)


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        yield from (n for key, entry in value.items() if key not in NOT_MEASURED for n in _numbers(entry))
    elif isinstance(value, list):
        yield from (n for entry in value for n in _numbers(entry))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


@dataclass(frozen=True)
class Allowed:
    """A line of ``numbers_allowed.txt``: a page (or ``*``), words around a number, why it may stand there."""

    page: str
    words: str
    reason: str

    def covers(self, block: Block, sentence: str, start: int, end: int) -> bool:
        if self.page != "*" and not block.place.startswith(self.page):
            return False
        at = sentence.find(self.words)
        while at >= 0:
            if at <= start and end <= at + len(self.words):
                return True
            at = sentence.find(self.words, at + 1)
        return False


def read_allowed(path: Path) -> list[Allowed]:
    """The lines ``page | words | reason``; ``#`` a comment. ``ValueError`` without a reason."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            parts = [part.strip() for part in line.split(" | ")]
            if len(parts) != 3 or len(parts[2].split()) < 2 or not re.search(r"\w", parts[1]):
                raise ValueError(f"{path.name}:{number}: expected `page | words | reason`, found {line!r}")
            found.append(Allowed(*parts))
    return found


def check(
    path: Path, records: Records, allowed: list[Allowed], used: set[Allowed] | None = None
) -> list[Finding]:
    """What looks measured on a page and is held by no record it names; ``used`` collects what allowed it."""
    findings = []
    for block in blocks(path, records.named):
        for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z*_\[({" + GAP + "])", block.text):
            if "{cite" in sentence:
                continue
            for start, end, number, unit in measured(sentence):
                findings += _judge(block, sentence, (start, end), number, unit, records, allowed, used)
        for literal, line in block.literals:
            span = line.find(literal), line.find(literal) + len(literal)
            findings += _judge(block, line, span, literal, "", records, allowed, used)
    return findings


def _judge(block, sentence, span, number, unit, records, allowed, used) -> list[Finding]:
    for entry in allowed:
        if entry.covers(block, sentence, *span):
            if used is not None:
                used.add(entry)
            return []
    if number and records.hold(block.records, number, unit):
        return []
    reason = (
        f"is in none of {', '.join(sorted(block.records))}" if block.records else "names no record beside it"
    )
    return [Finding(block.place, sentence[slice(*span)].strip(), " ".join(sentence.split())[:200], reason)]


def measured(sentence: str) -> Iterator[tuple[int, int, str, str]]:
    """Start, end, digits and unit of each number that looks measured (no digits: it is spelled)."""
    for match in _NUMBER.finditer(sentence):
        digits, rest = match[0], sentence[match.end() :]
        if _NUMBERED.search(sentence[: match.start()]):
            continue
        unit = _UNIT.match(rest)
        if unit or _OF.match(rest) or "." in digits or "," in digits:
            end = match.end() + (unit.end() if unit else 0)
            yield match.start(), end, digits, (unit[1] or unit[2]) if unit else ""
    for match in _SPELLED.finditer(sentence):
        yield match.start(), match.end(), "", match[2]
