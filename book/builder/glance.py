"""The results at a glance, one line each: the front page prints them, and README.md carries the same table.

To add a result add one line to :data:`ROWS`, then run `python -m book.builder.glance`, which writes the table
into README.md. Numbers come from the records in `book/results`, words of a verdict from their intervals.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ferlib.evaluation import Interval, ResultRecord

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "results"
README = ROOT / "README.md"
START, END = "<!-- written by `python -m book.builder.glance` -->\n", "<!-- end of what it writes -->\n"
Shown = Callable[[ResultRecord], str]


@cache
def record(name: str) -> ResultRecord:
    """One record of `book/results`."""
    return ResultRecord.load(RESULTS / f"{name}.json")


def _signed(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def share(metric: str, arm: str | None = None, condition: str | None = None) -> Shown:
    """A share with its interval: 80.9 % (79.5–82.2)."""

    def text(record: ResultRecord) -> str:
        number = record.get(metric, arm, condition)
        low, high = 100 * number.low, 100 * number.high
        return f"{100 * number.value:.1f} % ({low:.1f}–{high:.1f})"

    return text


def points(a: str, b: str, metric: str = "accuracy", condition: str | None = None) -> Shown:
    """A difference of two shares with its interval, and whether all its intervals leave out zero."""

    def text(record: ResultRecord) -> str:
        found = list(record.intervals(a, b, metric, condition).values())
        return _points(found[0], shown=all(one.low > 0 or one.high < 0 for one in found))

    return text


def _points(number: Interval, shown: bool) -> str:
    sign = "+" if number.value > 0 else ""
    ends = f"({_signed(number.low)} to {_signed(number.high)})"
    return f"{sign}{_signed(number.value)} points {ends}{'' if shown else ', not distinguishable from zero'}"


def recalls(record: ResultRecord) -> str:
    """The share of all faces labeled as intended, with its interval, and that of every class."""
    each = [f"{name} {100 * record.get(f'recall {name}').value:.0f}" for name in record.classes]
    return f"{share('accuracy')(record)}: {', '.join(each)}"


def between(low: str, high: str) -> Shown:
    """From one number to another: 89.7 to 94.7 %."""
    return lambda r: f"{100 * r.get(low).value:.1f} to {100 * r.get(high).value:.1f} %"


def tested(name: str) -> Shown:
    """A kept network's test figure, while the file is the one that was measured; else that of validation."""

    def text(found: ResultRecord) -> str:
        measured = found.extra["files"][name]
        if hashlib.sha256((ROOT / measured["file"]).read_bytes()).hexdigest() == measured["sha256"]:
            return share("accuracy", name)(found)
        return f"{share('accuracy')(record(f'checkpoint_{name}'))} on validation; test pending"

    return text


class Row(NamedTuple):
    """One line of the table: what was measured, the record that holds it, how to print it."""

    what: str
    name: str
    number: Shown


ROWS = (
    Row(
        "Our best network, trained on FER+'s faces alone: FER+ test",
        "test_ferplus",
        tested("best_alone_ferplus"),
    ),
    Row(
        "The network of *Try it*, 1.4 million parameters: FER+ test", "test_ferplus", tested("pocket_ferplus")
    ),
    Row(
        "The best accuracy that FER+'s labels allow, from pictures that were labeled twice",
        "twins_ferplus",
        between("best accuracy, at least", "best accuracy, at most"),
    ),
    Row(
        "The network of *Try it* on synthetic faces, read as intended",
        "real_to_synthetic",
        recalls,
    ),
    Row(
        "Experiment 3: the loss F-PDLS minus cross-entropy, frozen maps, 20 pairs of runs",
        "experiment_losses",
        points("F-PDLS", "cross-entropy", condition="clean"),
    ),
    Row(
        "Pilot: learned resizer minus bilinear interpolation, small transformer, 3 seeds",
        "study_resizers_vit_upright",
        points("neural", "bilinear"),
    ),
    Row(
        "Pilot: multi-level attention and batch transformer minus neither, 3 seeds",
        "study_btn_structure_pretrained",
        points("MLA + BT, bt", "baseline"),
    ),
    Row(
        "What batches sorted by class, instead of shuffled, add to the accuracy of batch attention",
        "batch_dependence_ferplus",
        points("sorted by class", "shuffled", condition="batches of 144"),
    ),
)


def findings() -> str:
    """Three findings in plain words, with the intervals of their records."""
    order = ROWS[-1].number(record("batch_dependence_ferplus"))
    low, high = (record("twins_ferplus").get(f"best accuracy, at {end}").value for end in ("least", "most"))
    faces = record("papers_in_faces").get("faces gained", "RAF-DB").value
    loss = points("F-PDLS", "cross-entropy", condition="clean")(record("experiment_losses"))
    bounds = f"{100 * low:.0f} to {100 * high:.0f} %"
    found = (
        "**Labels bound every accuracy.** Two panels of annotators disagree about one face in ten, so "
        f"no network can be right on more than {bounds} of FER+'s faces.",
        "**A batch leaks its labels.** Sorting the test files by class changes the accuracy of batch "
        f"attention by {order}. The gain that its paper claims on RAF-DB is {faces:.0f} faces.",
        f"**F-PDLS does not help here.** F-PDLS minus cross-entropy is {loss} in 20 pairs of runs on frozen "
        "maps, with a positive control ([chapter 3](../notebooks/03_f_pdls)). Two more experiments are "
        "planned in [](study_design).",
    )
    return "\n".join(f"- {one}" for one in found)


def table(folder: str) -> str:
    """The table as Markdown; `folder` is the way from the page to the records."""
    lines = ["| what | measured | record |", "| --- | --- | --- |"]
    for row in ROWS:
        number = row.number(record(row.name))
        lines.append(f"| {row.what} | {number} | [{row.name}]({folder}/{row.name}.json) |")
    return "\n".join(lines) + "\n"


def in_readme(text: str) -> str:
    """README's text with the table as it should be."""
    before, rest = text.split(START)
    return before + START + "\n" + table("book/results") + "\n" + END + rest.split(END)[1]


def main() -> int:
    """Write the table into README.md where it is not the one there."""
    text = README.read_text(encoding="utf-8")
    new = in_readme(text)
    if new != text:
        README.write_text(new, encoding="utf-8")
        print("README.md: results at a glance written anew")
    return 0


if __name__ == "__main__":
    sys.exit(main())
