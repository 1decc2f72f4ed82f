"""Hidden, small, dark, noisy and turned faces: two small networks at five severities each.

    python book/records/robustness.py --data /path/to/FERPlus

Real faces are occluded, reduced, darkened and made noisy, always the same way
(``ferlib.evaluation.Altered``). Faces that turn are drawn, because only the renderer can turn the same
face: the networks, trained on photographs, are shown drawn people framed as FER+ frames faces. Writes
``book/results/robustness_ferplus.json``: accuracy and mean class accuracy, their change against the
untouched faces (paired by face), and the difference between the two networks on the same altered faces
(paired as well).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import small_models as small
from numpy.typing import NDArray
from torch import nn

from ferlib.data import SyntheticFaces
from ferlib.data.base import FaceDataset
from ferlib.data.faces import KeptFaces
from ferlib.evaluation import Altered, Interval, ResultRecord, describe, draw_scores, point_scores, predict
from ferlib.evaluation.intervals import percentiles

METRICS = ("accuracy", "mean class accuracy")
KINDS = ("occlusion", "resolution", "darkness", "noise", "pose")
SEVERITIES = (1, 2, 3, 4, 5)
NETWORKS = ("batch", "alone")
DRAWN = 512


def altered(real: FaceDataset, drawn: FaceDataset) -> Iterator[tuple[str, str, FaceDataset]]:
    """Name of the case, name of what it is compared with, and its faces; the untouched come first."""
    yield "real", "", real
    yield "drawn", "", drawn
    for kind in KINDS[:-1]:
        yield from ((f"{kind} {s}", "real", Altered(real, kind, s)) for s in SEVERITIES)
    yield from ((f"pose {s}", "drawn", KeptFaces(Altered(drawn, "pose", s))) for s in SEVERITIES)


class Judged(NamedTuple):
    """Scores of one network on one set of faces, and those of all resamples (R,) by metric."""

    points: dict[str, float]
    resampled: dict[str, NDArray]

    @classmethod
    def of(cls, network: nn.Module, data: FaceDataset) -> Judged:
        logits, labels = predict(network, data, batch_size=small.BATCH_SIZE, shuffle=0)
        resampled = draw_scores(labels, logits, data.classes, resamples=small.RESAMPLES)
        return cls(point_scores(labels, logits, data.classes), resampled)

    def numbers(self) -> dict[str, Interval]:
        return {m: Interval(self.points[m], *percentiles(self.resampled[m])) for m in METRICS}

    def minus(self, other: Judged) -> dict[str, Interval]:
        """Differences to another on the same faces; the resamples are the same, so they are paired."""
        gaps = {m: self.resampled[m] - other.resampled[m] for m in METRICS}
        return {m: Interval(self.points[m] - other.points[m], *percentiles(gaps[m])) for m in METRICS}


def measure(
    networks: dict[str, nn.Module], real: FaceDataset, drawn: FaceDataset, record: ResultRecord
) -> None:
    """Add all numbers to the record; a metric's "change" is its difference to the untouched faces."""
    found: dict[tuple[str, str], Judged] = {}
    for case, clean, data in altered(real, drawn):
        for name in NETWORKS:
            found[name, case] = judged = Judged.of(networks[name], data)
            for metric, number in judged.numbers().items():
                record.add(metric, number, name, condition=case, over="faces")
            if clean:
                for metric, number in judged.minus(found[name, clean]).items():
                    record.add(f"{metric} change", number, name, condition=case, over="faces")
        for metric, number in found[NETWORKS[0], case].minus(found[NETWORKS[1], case]).items():
            record.add_difference(*NETWORKS, number, metric, condition=case, over="faces")
        print(case, *(record.get("accuracy", name, case).percent() for name in NETWORKS), flush=True)


def main() -> None:
    options, began = small.arguments(__doc__), time.process_time()
    valid = small.faces(options)
    drawn = SyntheticFaces(DRAWN, size=48, seed=7, channels=1, framing="ferplus")
    drawn = KeptFaces(drawn)
    record = small.record(
        "robustness_ferplus",
        "Small networks on hidden, small, dark and noisy FER+ faces and on turned drawn ones",
        valid,
        extra={"severities": {kind: [describe(kind, s) for s in SEVERITIES] for kind in KINDS}},
        settings={"severities": SEVERITIES, "drawn": {"faces": len(drawn), "seed": 7}},
    )
    measure(small.models(options), KeptFaces(valid), drawn, record)
    record.seconds = time.process_time() - began
    print(record.save())


if __name__ == "__main__":
    main()
