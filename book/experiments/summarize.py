"""From rows to records: one record for each experiment, which says how many of its runs are finished.

    python -m book.experiments summarize

Accuracy is compared face by face (``contrasts``). The other metrics, and the positive controls, are one
number a run; they are compared by Student's interval of the paired runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from book.experiments import batch_attention, downsizing, losses
from book.experiments.contrasts import Difference, cluster_difference, difference, holm
from book.experiments.faces import Faces, grouped_folds
from book.experiments.harness import Row, unpack
from ferlib.evaluation import ResultRecord
from ferlib.evaluation import records as result_records
from ferlib.evaluation import summarize as over_seeds

MARGIN = 0.005  # of accuracy
CONTROL = "control"


@dataclass(frozen=True)
class Output:
    """Which predictions of a row: an output of its network, on faces with a corruption or as they are."""

    name: str = ""
    corruption: str = ""

    def of(self, row: Row) -> dict[str, Any]:
        """``metrics`` and ``right`` of these predictions."""
        if not self.name:
            return row
        return row[self.corruption][self.name] if self.corruption else row["outputs"][self.name]

    def label(self, arm: str) -> str:
        """The arm with its output."""
        return ", ".join(filter(None, (arm, self.name)))


Held = Callable[[Row, Output], np.ndarray]  # the faces, by index, that a row was measured on


@dataclass(frozen=True)
class Contrast:
    """One arm minus another under a condition; ``outputs`` where a network has several."""

    first: str
    second: str
    condition: str
    outputs: tuple[Output, Output] = (Output(), Output())

    @property
    def under(self) -> str:
        """The condition in words."""
        return ", ".join(filter(None, (self.condition, self.outputs[0].corruption)))


def planned() -> dict[str, list[Contrast]]:
    """The contrasts of each experiment, the primary one first."""
    vit, bt = Output("vit"), Output("bt")
    attention = [
        Contrast("D", "A", "fer2013", (bt, vit)),
        Contrast("A again", "A", "fer2013", (vit, vit)),
        Contrast("B", "A", "fer2013", (vit, vit)),
        Contrast("D", "B", "fer2013", (bt, vit)),
        Contrast("C", "A", "fer2013", (bt, vit)),
        Contrast("D, lambda 1", "D", "fer2013", (bt, bt)),
        Contrast("D", "A", "ferplus", (bt, vit)),
        Contrast("B", "A", "ferplus", (vit, vit)),
        Contrast("D", "A", CONTROL, (bt, vit)),
    ]
    for name in ("bt", "cba", "bt, one class", "cba, one class", "bt, reference", "cba, reference"):
        attention.append(Contrast("D", "D", "fer2013", (Output(name), vit)))
    for kind in batch_attention.CORRUPTIONS:
        attention.append(Contrast("D", "A", "fer2013", (Output("bt", kind), Output("vit", kind))))
    sizing = [
        Contrast("learned", "antialiased", "ferplus"),
        *(Contrast(front, "antialiased", "ferplus") for front in downsizing.FRONTS[1:] if front != "learned"),
        Contrast("learned", "layers after antialiased", "ferplus"),
        Contrast("learned", "antialiased", CONTROL),
    ]
    plain = "cross-entropy"
    others = [loss for loss in losses.LOSSES if loss not in (plain, "F-PDLS")]
    by_loss = [
        Contrast("F-PDLS", plain, "clean"),
        Contrast(f"{plain} again", plain, "clean"),
        *(Contrast(loss, plain, "clean") for loss in others),
        *(Contrast(loss, plain, noise) for noise in losses.NOISES[1:] for loss in losses.LOSSES[1:]),
        *(Contrast("F-PDLS", "votes", noise) for noise in losses.NOISES),
        Contrast("PDLS", plain, CONTROL),
        *(Contrast(loss, plain, "pocket") for loss in losses.POCKET_LOSSES[1:]),
    ]
    return {batch_attention.NAME: attention, downsizing.NAME: sizing, losses.NAME: by_loss}


def pairs(rows: list[Row], contrast: Contrast) -> Iterator[tuple[Row, Row]]:
    """Runs of both arms that share fold and repeat, in order."""
    by_arm = [
        {(r["fold"], r["repeat"]): r for r in rows if (r["arm"], r["condition"]) == (arm, contrast.condition)}
        for arm in (contrast.first, contrast.second)
    ]
    for place in sorted(by_arm[0].keys() & by_arm[1].keys()):
        yield by_arm[0][place], by_arm[1][place]


def compare(
    rows: list[Row], contrast: Contrast, held: Held, groups: np.ndarray
) -> dict[tuple[str, str], Difference]:
    """A contrast in every metric that both arms have, by metric and what its interval is over.

    It is empty with fewer than two pairs of runs. Accuracy has a second interval where several runs share a
    pretraining (the repeat): each pretraining is then one cluster.
    """
    first, second = contrast.outputs
    both = [(one, first.of(one), second.of(two)) for one, two in pairs(rows, contrast)]
    if len(both) < 2:
        return {}
    found = {}
    for metric in sorted(both[0][1]["metrics"].keys() & both[0][2]["metrics"].keys()):
        values = [one["metrics"][metric] - two["metrics"][metric] for _, one, two in both]
        se = float(np.std(values, ddof=1) / np.sqrt(len(values)))
        found[metric, "runs"] = difference(float(np.mean(values)), se, len(values) - 1)
    if contrast.condition != CONTROL:
        d = [unpack(one["right"]) - unpack(two["right"]) for _, one, two in both]
        group = [groups[held(row, first)] for row, _, _ in both]
        run = [np.full(len(some), number) for number, some in enumerate(d)]
        found.pop(("accuracy", "runs"))
        found["accuracy", "joint"] = cluster_difference(*map(np.concatenate, (d, group, run)))
        if both[0][0]["experiment"] == downsizing.NAME and len({row["repeat"] for row, _, _ in both}) > 1:
            pretraining = [
                np.full(len(some), row["repeat"]) for some, (row, _, _) in zip(d, both, strict=True)
            ]
            found["accuracy", "pretrainings"] = cluster_difference(
                *map(np.concatenate, (d, group, pretraining))
            )
    return found


def held_faces(faces: Faces, groups: np.ndarray) -> Held:
    """Which faces a row was measured on, from its fold and repeat."""
    sizing = downsizing.Trainer(faces, groups, store=None)

    def held(row: Row, output: Output) -> np.ndarray:
        if row["experiment"] == downsizing.NAME:
            return sizing.rows[sizing.judge.numpy()]
        labels = faces.labels(row["labels"])
        rows = np.flatnonzero(~faces.pilot & (labels >= 0))
        rows = rows[grouped_folds(groups[rows], labels[rows], losses.FOLDS, row["repeat"]) == row["fold"]]
        if output.corruption:
            rows = np.intersect1d(rows, batch_attention.corrupted_rows(faces))
        return rows

    return held


def entry(contrast: Contrast, metric: str, over: str, found: Difference) -> result_records.Difference:
    """A contrast as records have it."""
    first, second = contrast.outputs
    return result_records.Difference(
        found.value,
        found.low,
        found.high,
        metric=metric,
        contrast=(first.label(contrast.first), second.label(contrast.second)),
        condition=contrast.under,
        over=over,
        p=found.p,
        detectable=found.detectable,
        equivalence=found.narrow,
        margin=MARGIN if metric == "accuracy" else None,
    )


def record(
    experiment: str, rows: list[Row], planned_runs: int, faces: Faces, groups: np.ndarray
) -> ResultRecord:
    """The record of one experiment from the rows that are finished."""
    held = held_faces(faces, groups)
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for output in [Output()] if "metrics" in row else map(Output, row["outputs"]):
            for metric, value in output.of(row)["metrics"].items():
                values.setdefault((metric, output.label(row["arm"]), row["condition"]), []).append(value)
    numbers = []
    for (metric, arm, condition), found in sorted(values.items()):
        if len(found) > 1:
            mean = over_seeds(found)
            ends = mean.value, mean.low, mean.high
            numbers.append(
                result_records.Number(*ends, metric=metric, arm=arm, condition=condition, over="runs")
            )
    differences = [
        entry(contrast, metric, over, found)
        for contrast in planned()[experiment]
        for (metric, over), found in compare(rows, contrast, held, groups).items()
    ]
    return ResultRecord(
        name=f"experiment_{experiment}",
        what=f"Contrasts of the plan, {experiment}: {len(rows)} of {planned_runs} runs",
        numbers=numbers,
        differences=differences,
        extra={
            "runs": len(rows),
            "planned runs": planned_runs,
            "core hours": round(sum(row["cpu_seconds"] for row in rows) / 3600, 2),
            "commits": sorted({row["source"]["commit"] for row in rows}),
        },
        date=max(row["date"] for row in rows),
        command="python -m book.experiments summarize",
    )


def corrected(found: list[ResultRecord]) -> dict[str, float]:
    """Holm's p values of the primary contrasts of finished experiments."""
    primary = {}
    for one in found:
        if one.extra["runs"] == one.extra["planned runs"]:
            first = next(d for d in one.differences if d.metric == "accuracy")
            primary[one.name] = first.p
    return holm(primary)
