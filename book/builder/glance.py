"""The results at a glance, one line each: the front page prints them, and README.md carries the same table.

To add a result add one line to :data:`ROWS`, then run `python -m book.builder.glance`, which writes the table
into README.md. Numbers come from the records in `book/results`, words of a verdict from their intervals.
"""

from __future__ import annotations

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
    return f"{sign}{_signed(number.value)} points {ends}{'' if shown else ': not distinguishable from zero'}"


def recalls(record: ResultRecord) -> str:
    """The share of all faces labelled as intended, with its interval, and that of every class."""
    each = [f"{name} {100 * record.get(f'recall {name}').value:.0f}" for name in record.classes]
    return f"{share('accuracy')(record)}: {', '.join(each)}"


def chosen(kind: str) -> Shown:
    """The best classifier of a kind, by the half of validation that chose nothing."""
    return lambda record: share("accuracy", record.extra["chosen"][kind], "second half")(record)


class Row(NamedTuple):
    """One line of the table: what was measured, the record that holds it, how to print it."""

    what: str
    name: str
    number: Shown


ROWS = (
    Row("the best classifier from FER+'s faces alone, on the half of FER+ validation that chose nothing",
        "best_classifiers", chosen("from these faces alone")),
    Row("the best classifier with two pretrained branches, on the same faces",
        "best_classifiers", chosen("with two pretrained branches")),
    Row("the network of the page *Try it*, trained from scratch on FER+ on one CPU core, on FER+ validation",
        "pocket_ferplus", share("accuracy")),
    Row("the small network, trained from scratch on FER+ on two CPU cores, on FER+ validation",
        "small_model_ferplus", share("accuracy")),
    Row("its twin, trained without the batch, on the same faces: with the batch minus alone",
        "evaluation_ferplus", points("batch", "alone")),
    Row("batches of 144 of the same faces sorted by class instead of shuffled: what the order alone adds",
        "batch_dependence_ferplus", points("sorted by class", "shuffled", condition="batches of 144")),
    Row("the network of *Try it* shown synthetic faces, every expression equally often: labelled as intended",
        "real_to_synthetic", recalls),
    Row("landmarks of a network trained on photographs against the renderer's own: normalised mean error",
        "landmark_error", share("landmark error, 68 points", condition="portrait")),
    Row("the study, a small network, three seeds: F-PDLS minus cross-entropy, labels as they are",
        "study_losses_0", points("F-PDLS", "cross-entropy")),
    Row("the study, a small transformer, three seeds: Neural Resizer minus bilinear, 96 to 56 pixels",
        "study_resizers_vit_upright", points("neural", "bilinear")),
    Row("the study, two fifths of the labels wrong: what they cost F-PDLS minus what they cost cross-entropy",
        "study_noise", points("F-PDLS", "cross-entropy", "accuracy change", "40 % wrong")),
    Row("the study, a small residual network, three seeds: accuracy in the released way minus the honest",
        "study_protocol_residual_small", points("released", "honest")),
    Row("the same, a small transformer", "study_protocol_vit",
        points("released", "honest")),
    Row("second part, frozen pretrained branches, three seeds: MLA and batch transformer minus neither",
        "study_btn_structure_pretrained", points("MLA + BT, bt", "baseline")),
    Row("the same trained from scratch, in an eighth of the light", "study_btn_hard_darkness_small",
        points("MLA + BT, bt", "baseline", condition="darkness 3")),
    Row("frozen branches, both parts, in test batches of 64 faces of one class: BT output minus ViT output",
        "study_btn_company_bt_pretrained", points("bt", "own", condition="one class only 64")),
)  # fmt: skip


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
