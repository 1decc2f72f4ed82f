"""Hidden, small, dark, noisy and turned faces: two small networks at five severities each.

    python -m book.experiments.robustness --data /path/to/FERPlus

Real faces are occluded, reduced, darkened and made noisy, always the same way
(``ferlib.evaluation.CorruptedFaces``). Faces that turn are drawn, because only the renderer can turn the same
face: the networks, trained on photographs, are shown drawn people framed as FER+ frames faces. Writes
``book/results/robustness_ferplus.json``: accuracy and mean class accuracy, their change against the
untouched faces (paired by face), and the difference between the two networks on the same altered faces
(paired as well).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch import nn

from book.experiments import small_models as small
from ferlib.data import SyntheticFaces
from ferlib.data.base import FaceDataset
from ferlib.data.faces import KeptFaces
from ferlib.evaluation import (
    CorruptedFaces,
    ResultRecord,
    Scores,
    describe_corruption,
    predict,
    resampled_scores,
)

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
        yield from ((f"{kind} {s}", "real", CorruptedFaces(real, kind, s)) for s in SEVERITIES)
    yield from ((f"pose {s}", "drawn", KeptFaces(CorruptedFaces(drawn, "pose", s))) for s in SEVERITIES)


def measure(
    networks: dict[str, nn.Module], real: FaceDataset, drawn: FaceDataset, record: ResultRecord
) -> None:
    """Add all numbers to the record; a metric's "change" is its difference to the untouched faces."""
    found: dict[tuple[str, str], Scores] = {}
    for case, clean, data in altered(real, drawn):
        place = {"condition": case, "over": "faces"}
        for name in NETWORKS:
            logits, labels = predict(networks[name], data, batch_size=small.BATCH_SIZE, shuffle=0)
            own = resampled_scores(labels, logits, data.classes, resamples=small.RESAMPLES)
            found[name, case] = own
            for metric in METRICS:
                record.add(metric, own.interval(metric), name, **place)
                if clean:
                    change = own.minus(found[name, clean], metric)
                    record.add(f"{metric} change", change, name, **place)
        first, second = (found[name, case] for name in NETWORKS)
        for metric in METRICS:
            record.add_difference(*NETWORKS, first.minus(second, metric), metric, **place)
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
        extra={"severities": {kind: [describe_corruption(kind, s) for s in SEVERITIES] for kind in KINDS}},
        settings={"severities": SEVERITIES, "drawn": {"faces": len(drawn), "seed": 7}},
    )
    measure(small.models(options), KeptFaces(valid), drawn, record)
    record.seconds = time.process_time() - began
    print(record.save())


if __name__ == "__main__":
    main()
