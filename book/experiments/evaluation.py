"""How good the small networks are on real faces, how sure we are, how calibrated, and which is better.

    python -m book.experiments.evaluation --data /path/to/FERPlus

Writes ``book/results/evaluation_ferplus.json``: every score with its bootstrap interval for the three
outputs of :mod:`small_models`; their differences, paired by face, with McNemar's counts; calibration before
and after a temperature that was fitted on one half of the faces and is measured on the other.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import numpy as np
from torch import Tensor

from book.experiments import small_models as small
from ferlib.evaluation import (
    compare,
    confusion_matrix,
    fit_temperature,
    predict,
    reliability,
    scores,
    split_faces,
)

METRICS = ("accuracy", "mean class accuracy", "macro F1", "expected calibration error")
PAIRS = (("batch", "alone"), ("batch", "own"))


def calibration(labels: Tensor, logits: Tensor, classes: tuple[str, ...]) -> tuple[dict, dict]:
    """Numbers with intervals and the rest, before and after the temperature, on faces that did not fit it."""
    fitted, judged = split_faces(labels, 0.5, seed=0)
    temperature = fit_temperature(logits[fitted], labels[fitted])
    numbers, extra = {}, {"temperature": temperature, "faces": [len(fitted), len(judged)]}
    for when, scale in (("before", 1.0), ("after", temperature)):
        y, z = labels[judged], logits[judged] / scale
        found = scores(y, z, classes, resamples=small.RESAMPLES)
        numbers[when] = found["expected calibration error"]
        extra[when] = {
            "mean confidence": float(z.softmax(1).max(1).values.mean()),
            "reliability": [asdict(b) for b in reliability(y, z, resamples=small.RESAMPLES)],
        }
    return numbers, extra


def main() -> None:
    options, began = small.arguments(__doc__), time.process_time()
    valid = small.faces(options)
    record = small.record(
        "evaluation_ferplus",
        "Small networks with and without the batch on FER+: scores, paired differences, calibration",
        valid,
        settings={"temperature": "fitted on one half of each class, judged on the other"},
    )
    extra, logits = {"calibration": {}, "confusion": {}, "mcnemar": []}, {}
    for name, model in small.models(options).items():
        logits[name], labels = predict(model, valid, batch_size=small.BATCH_SIZE, shuffle=0)
        found = scores(labels, logits[name], valid.classes, resamples=small.RESAMPLES)
        errors, extra["calibration"][name] = calibration(labels, logits[name], valid.classes)
        found |= {f"calibration error {when} temperature": number for when, number in errors.items()}
        for metric, number in found.items():
            record.add(metric, number, name, over="faces")
        guesses = logits[name].argmax(1)
        extra["confusion"][name] = confusion_matrix(labels, guesses, len(valid.classes)).tolist()
    for first, second in PAIRS:
        for metric in METRICS:
            found = compare(
                labels, logits[first], logits[second], valid.classes, metric=metric, resamples=small.RESAMPLES
            )
            p = found.p_value if metric == "accuracy" else None
            record.add_difference(first, second, found.difference, metric, over="faces", p=p)
        counts = {"only first right": found.only_first, "only second right": found.only_second}
        extra["mcnemar"].append({"contrast": [first, second], **counts, "p": found.p_value})
    extra["wrong and sure"] = {
        name: float(np.mean([(z.softmax(0).max() > 0.9).item() for z in some[some.argmax(1) != labels]]))
        for name, some in logits.items()
    }
    history = options.alone.with_name("metrics.jsonl").read_text(encoding="utf-8").splitlines()
    record.confusion = extra["confusion"]["batch"]
    record.curves = [json.loads(line) for line in history]  # the twin's training
    record.extra = extra
    record.seconds = time.process_time() - began
    print(record.save())
    print(record.table())


if __name__ == "__main__":
    main()
