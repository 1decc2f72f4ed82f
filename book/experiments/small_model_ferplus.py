"""Train the small Batch Transformer Network on real FER+ and write what it reached.

    python -m book.experiments.small_model_ferplus --data /path/to/FERPlus

Trains on the training split with the bundled recipe, chooses the epoch on the validation split and measures
on the same validation split; the test split is not touched. Writes
``book/results/small_model_ferplus.json``. The run's folder (weights, metrics) goes to ``--runs``. A stopped
run goes on with ``--resume``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from ferlib.data import FERPlus
from ferlib.evaluation import accuracy_interval, evaluate, predict
from ferlib.training import build_criterion, build_model, fit, load_recipe
from ferlib.weights import checkpoints

NAME = "small_model_ferplus"


def answers(model: torch.nn.Module, data: FERPlus) -> dict[str, list[float]]:
    """Accuracy with interval of every output and of several batch sizes; batches drawn at random."""
    found = {}
    cases = [("vit", 64), ("cba", 64), ("bt", 1), ("bt", 2), ("bt", 8), ("bt", 64), ("bt", 256)]
    for output, size in cases:
        model.inference = output
        logits, labels = predict(model, data, batch_size=size, shuffle=0)
        interval = accuracy_interval(labels, logits.argmax(1))
        found[f"{output}, batch {size}"] = [interval.value, interval.low, interval.high]
    model.inference = "bt"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="FER+ in any layout that ferlib reads")
    parser.add_argument("--recipe", default="btn-small-ferplus")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--runs", type=Path, default=Path("runs") / NAME)
    parser.add_argument("--results", type=Path, help="folder for the record (default: book/results)")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()

    recipe = load_recipe(options.recipe)
    if options.epochs:
        recipe = recipe.replace(epochs=options.epochs)
    train, valid = FERPlus(options.data, "train"), FERPlus(options.data, "valid")
    model = build_model(recipe, num_classes=len(train.classes))
    history = fit(
        model, build_criterion(recipe), train, valid, recipe, run_dir=options.runs, resume=options.resume
    )
    processor = time.process_time()  # of this process: what a resumed run did before is not in it
    best = checkpoints.load(options.runs / "best.safetensors", model)
    record = evaluate(
        model,
        valid,
        name=NAME,
        what="btn_small trained from scratch on FER+ (train), measured on FER+ validation, "
        "the split that also chose the epoch",
        split="valid",
        shuffle=0,
        settings={"recipe": best["recipe"], "chosen epoch": best["epoch"], "train faces": len(train)},
    )
    seconds = sum(epoch["seconds"] for epoch in history)
    record.curves = history
    record.seed = recipe.seed
    record.extra |= {
        "training minutes": seconds / 60,
        "processor minutes": processor / 60,
        "epochs": recipe.epochs,
        "by output": answers(model, valid),
    }
    record.command = f"python -m book.experiments.{Path(__file__).stem} --data FERPlus"
    path = record.save(options.results / f"{NAME}.json" if options.results else None)
    print(record.table())
    print(f"{path} written at {time.strftime('%H:%M')} after {seconds / 60:.1f} minutes of training")


if __name__ == "__main__":
    main()
