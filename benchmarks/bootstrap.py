"""Intervals of all scores of one network: one matrix product against resampling score by score.

Both draw the same number of sets of N faces with replacement and take the middle 95 % of accuracy, mean
class accuracy and macro F1. ``naive`` measures each set anew by scikit-learn, as ``bootstrap_interval`` does
for any statistic; ``scores`` sums the faces' features over all sets at once, and gives recalls and the
calibration error besides. Prints seconds and the ratio; asserts that the intervals agree, and no time::

    python benchmarks/bootstrap.py [--faces 3191] [--resamples 1000]
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
from sklearn.metrics import f1_score

from ferlib.data import EMOTIONS_FERPLUS
from ferlib.evaluation import accuracy, bootstrap_interval, mean_class_accuracy, scores

STATISTICS = {
    "accuracy": accuracy,
    "mean class accuracy": partial(mean_class_accuracy, classes=8),
    "macro F1": partial(f1_score, average="macro"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--faces", type=int, default=3191, help="as many as FER+ has for validation")
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(options.faces, 8, generator=draw)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    scores(labels, logits, EMOTIONS_FERPLUS, resamples=2)  # what is imported is not timed

    start = time.perf_counter()
    quick = scores(labels, logits, EMOTIONS_FERPLUS, resamples=options.resamples)
    between = time.perf_counter()
    guess = logits.argmax(1)
    naive = {
        name: bootstrap_interval(statistic, labels, guess, resamples=options.resamples)
        for name, statistic in STATISTICS.items()
    }
    end = time.perf_counter()
    for name, found in naive.items():
        width = found.high - found.low
        assert abs(quick[name].value - found.value) < 1e-9, name
        assert abs(quick[name].low - found.low) < 0.2 * width, name  # other resamples, the same interval
        assert abs(quick[name].high - found.high) < 0.2 * width, name
        print(f"{name:20s} naive {found.percent():22s} scores {quick[name].percent()}")
    print(f"{options.faces} faces, {options.resamples} resamples, {torch.get_num_threads()} thread(s)")
    print(f"scores: {between - start:.2f} s for {len(quick)} intervals; naive: {end - between:.2f} s for 3")
    print(f"naive / scores: {(end - between) / (between - start):.1f}")


if __name__ == "__main__":
    main()
