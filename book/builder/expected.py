"""What a full run should give and cost: the papers' figures, the interval of their test sets, GPU hours."""

from __future__ import annotations

from typing import NamedTuple

from sphinx.application import Sphinx

from book.builder.generated import Generated
from book.builder.glance import record
from ferlib.evaluation.intervals import wilson_interval

DEVICES = ("A100", "T4")


class Run(NamedTuple):
    """One full run: its recipe, the network and the faces, the paper's per cent, how many faces test it."""

    recipe: str
    network: str
    faces: str
    paper: float
    tested: int


RUNS = (
    Run("vt-nr-ferplus", "VT with Neural Resizer", "FER+", 89.50, 3137),
    Run("poster-v2-rafdb", "POSTER V2", "RAF-DB", 92.21, 3068),
    Run("btn-rafdb", "BTN", "RAF-DB", 92.54, 3068),
    Run("poster-v2-affectnet7", "POSTER V2", "AffectNet, 7 classes", 67.49, 3500),
    Run("btn-affectnet7", "BTN", "AffectNet, 7 classes", 67.60, 3500),
    Run("poster-v2-affectnet8", "POSTER V2", "AffectNet, 8 classes", 63.77, 4000),
    Run("btn-affectnet8", "BTN", "AffectNet, 8 classes", 64.29, 4000),
)


def tolerance(run: Run) -> tuple[float, float]:
    """Per cent between which as good a network scores on 95 of 100 test sets of this size (Wilson)."""
    found = wilson_interval(round(run.paper / 100 * run.tested), run.tested)
    return 100 * found.low, 100 * found.high


def hours(recipe: str, device: str) -> str:
    """Estimated hours of a recipe's whole training on a device, least to most, from record training_cost."""
    rows = {row["recipe"]: row for row in record("training_cost").extra["rows"]}
    low, high = next(d["hours"] for d in rows[recipe]["devices"] if d["device"] == device)
    digits = 1 if low < 10 else 0
    return f"{low:.{digits}f}–{high:.{digits}f} h"


class Expected(Generated):
    """``{expected-figures}``: recipe, the paper's figure, its interval, hours of a GPU."""

    def markdown(self) -> str:
        lines = [
            "| recipe | network | faces | Paper | 95 % interval | " + " | ".join(DEVICES) + " |",
            "| --- " * (5 + len(DEVICES)) + "|",
        ]
        for run in RUNS:
            low, high = tolerance(run)
            cells = [
                f"`{run.recipe}`",
                run.network,
                run.faces,
                f"{run.paper:.2f} %",
                f"{low:.1f}–{high:.1f} %",
            ]
            cells += [hours(run.recipe, device) for device in DEVICES]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("expected-figures", Expected)
