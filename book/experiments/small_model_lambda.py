"""The effect of the weight of the image's own output: the small network with three values of lambda.

    python -m book.experiments.small_model_lambda

The paper's loss is L = lambda L_VIT + L_BT + L_CBA and its lambda is not stated. Trains on the book's drawn
faces, everything else as in the recipe btn-small-synthetic. Writes ``book/results/small_model_lambda.json``.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ferlib.data import SyntheticFaces
from ferlib.data.base import fingerprint
from ferlib.data.faces import KeptFaces
from ferlib.evaluation import ResultRecord, accuracy_interval, predict
from ferlib.training import build_criterion, build_model, fit, load_recipe, versions

NAME = "small_model_lambda"
LAMBDAS, EPOCHS = (1.0, 2.0, 5.0), 4


def main() -> None:
    train, valid = (
        KeptFaces(SyntheticFaces(count, size=48, seed=seed, framing="ferplus"))
        for count, seed in ((1536, 0), (512, 1_000_003))
    )
    recipe = load_recipe("btn-small-synthetic").replace(epochs=EPOCHS)
    found, curves = {}, []
    for weight in LAMBDAS:
        chosen = recipe.replace(vit_weight=weight)
        model = build_model(chosen)
        history = fit(model, build_criterion(chosen), train, valid, chosen, progress="log")
        curves += [{"lambda": weight, **epoch} for epoch in history]
        logits, labels = predict(model, valid, shuffle=0)
        found[f"lambda {weight:g}"] = accuracy_interval(labels, logits.argmax(1))
    record = ResultRecord(
        name=NAME,
        what=f"btn_small after {EPOCHS} epochs on {len(train)} drawn faces, by the lambda of its "
        f"loss; accuracy on {len(valid)} other drawn faces, one run each",
        data={
            "name": "SyntheticFaces",
            "split": "valid",
            "faces": len(valid),
            "fingerprint": fingerprint(valid),
        },
        classes=list(valid.classes),
        settings={"recipe": asdict(recipe), "lambdas": list(LAMBDAS)},
        curves=curves,
        seed=recipe.seed,
        versions=versions(),
        command=f"python -m book.experiments.{Path(__file__).stem}",
    )
    for arm, number in found.items():
        record.add("accuracy", number, arm, over="faces")
    path = record.save()
    print(record.table(), f"\n{path} written")


if __name__ == "__main__":
    main()
