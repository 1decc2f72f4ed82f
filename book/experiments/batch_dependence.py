"""How a batch transformer's predictions on real faces depend on the batch: its size, composition, chance.

    python -m book.experiments.batch_dependence --data /path/to/FERPlus

The small network predicts in batches of five sizes, drawn at random, sorted by class and of one class only.
144 in order of class is what POSTER V2's released test loader does with class folders (main.py: batch size
144, no shuffle). Writes ``book/results/batch_dependence_ferplus.json``: accuracies with intervals, sorted
minus shuffled (paired by face), accuracies of 100 shuffles, and the spread of single faces over them.
"""

from __future__ import annotations

import time

from book.experiments import small_models as small
from ferlib.data.faces import KeptFaces
from ferlib.evaluation import batch_dependence, batch_predictor, compare, compose

SIZES = (2, 8, 64, 144, 256)
SHUFFLES = 100


def main() -> None:
    options, began = small.arguments(__doc__), time.process_time()
    valid = KeptFaces(small.faces(options))
    model = small.models(options)["batch"]
    found = batch_dependence(
        model, valid, sizes=SIZES, rounds=SHUFFLES, batch_size=small.BATCH_SIZE, resamples=small.RESAMPLES
    )
    record = small.record(
        "batch_dependence_ferplus",
        "The small network on FER+ validation in other company: batch size, order, 100 random batches",
        valid,
        numbers=found.numbers,
        confusion=found.confusion,
        extra=found.extra,
        settings={"sizes": SIZES, "rounds": SHUFFLES},
    )
    predict_in = batch_predictor(model, valid)
    for size in SIZES:
        pair = [predict_in(compose(valid.labels, size, how)) for how in ("sorted by class", "shuffled")]
        for metric in ("accuracy", "mean class accuracy"):
            sorting = compare(valid.labels, *pair, valid.classes, metric=metric, resamples=small.RESAMPLES)
            place = {"condition": f"batches of {size}", "over": "faces"}
            record.add_difference("sorted by class", "shuffled", sorting.difference, metric, **place)
    record.seconds = time.process_time() - began
    print(record.save())
    print(record.table())


if __name__ == "__main__":
    main()
