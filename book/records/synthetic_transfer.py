"""Do drawn expressions read as expressions? Train on real faces, test on drawn ones, and the other way.

    python book/records/synthetic_transfer.py --data /path/to/FERPlus [--weights runs/.../best.safetensors]

Real to drawn: the small network trained on FER+ (``--weights``, or trained here with the bundled recipe)
labels drawn faces framed as FER+ frames them. Drawn to real: the same network trained on drawn faces alone
labels FER+'s validation faces. Writes ``book/results/real_to_synthetic.json`` and
``book/results/synthetic_to_real.json``, both with the confusion matrix.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ferlib.data import FERPlus, SyntheticFaces
from ferlib.data.faces import KeptFaces
from ferlib.evaluation import ResultRecord, evaluate
from ferlib.training import build_criterion, build_model, fit, load_recipe
from ferlib.weights import checkpoints

FIVE = ("neutral", "happiness", "surprise", "sadness", "anger")


def drawn(length: int, seed: int, **options: object) -> KeptFaces:
    return KeptFaces(SyntheticFaces(length, 48, seed, framing="ferplus", **options))


def five(record: ResultRecord) -> float:
    """Share of the five common expressions, equally often, that is labelled as intended."""
    rows = [record.confusion[record.classes.index(name)] for name in FIVE]
    return sum(row[record.classes.index(n)] / sum(row) for n, row in zip(FIVE, rows, strict=True)) / len(FIVE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="FER+ in any layout that ferlib reads")
    parser.add_argument("--weights", type=Path, help="btn_small trained on FER+; default: train it now")
    parser.add_argument("--faces", type=int, default=3200, help="drawn faces to train on")
    parser.add_argument("--epochs", type=int, default=5, help="epochs on drawn faces")
    parser.add_argument("--only", choices=["real-to-synthetic", "synthetic-to-real"])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, help="folder for the records (default: book/results)")
    options = parser.parse_args()
    valid = FERPlus(options.data, "valid")

    def keep(record: ResultRecord) -> None:
        record.extra["mean recall of the five common expressions"] = five(record)
        record.command = f"python book/records/{Path(__file__).name} --data FERPlus"
        path = record.save(options.results / f"{record.name}.json" if options.results else None)
        print(
            f"{record.table()}\nfive common expressions {100 * five(record):.1f} %\n{path} written",
            flush=True,
        )

    if options.only != "synthetic-to-real":
        recipe = load_recipe("btn-small-ferplus")
        model = build_model(recipe)
        if options.weights is None:
            run = options.runs / "small_model_ferplus"
            fit(model, build_criterion(recipe), FERPlus(options.data, "train"), valid, recipe, run_dir=run)
            options.weights = run / "best.safetensors"
        checkpoints.load(options.weights, model)
        keep(evaluate(
            model, drawn(1024, 101), name="real_to_synthetic", split="drawn", shuffle=0,
            what="btn_small trained on FER+ alone, shown drawn faces framed as FER+ frames them",
        ))  # fmt: skip
    if options.only != "real-to-synthetic":
        recipe = load_recipe("btn-small-synthetic").but(epochs=options.epochs, batch_size=64)
        model = build_model(recipe)
        # the share of each expression is FER+'s; everything else is as varied as the renderer makes it
        varied = dict(variation=1.2, intensity=(0.5, 1.1), occlusion=0.05, resolution=(24, 48))
        train = drawn(options.faces, 7, frequencies="ferplus", **varied)
        history = fit(model, build_criterion(recipe), train, drawn(512, 8), recipe)
        record = evaluate(
            model, valid, name="synthetic_to_real", split="valid", shuffle=0,
            what="btn_small trained on drawn faces alone, measured on FER+ validation faces",
            settings={"drawn faces": options.faces, "frequencies": "ferplus", "recipe": recipe.name,
                      "epochs": options.epochs},
        )  # fmt: skip
        record.curves = history
        keep(record)


if __name__ == "__main__":
    main()
