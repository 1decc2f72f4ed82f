"""Train the small Batch Transformer Network on real FER+ and write what it reached; or train its twin.

    python -m book.experiments.small_model_ferplus --data /path/to/FERPlus
    python -m book.experiments.small_model_ferplus --data /path/to/FERPlus --alone

Trains on the training split with the bundled recipe, chooses the epoch on the validation split and measures
on the same validation split; the test split is not touched. Writes
``book/results/small_model_ferplus.json``. ``--alone``: the same recipe, seed and first weights, but the only
loss is that of the image's own output, lambda L_VIT. What differs between the two networks is therefore the
effect of the batch's two losses. The twin has no record; ``evaluation`` compares both. The run's folder
(weights, metrics) lies in ``--runs``; a stopped run is continued with ``--resume``.
"""

from __future__ import annotations

import time
from pathlib import Path

from torch import Tensor, nn

from book.experiments import script
from ferlib.data import FERPlus
from ferlib.evaluation import accuracy_interval, evaluate, predict
from ferlib.losses import BatchTransformerLoss
from ferlib.training import build_criterion, build_model, fit, load_recipe
from ferlib.weights import checkpoints

NAME = "small_model_ferplus"


class OwnLoss(nn.Module):
    """lambda L_VIT of a network with three outputs: what is left of its loss without the batch."""

    def __init__(self, whole: BatchTransformerLoss) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, output: Tensor | tuple, target: Tensor) -> Tensor:
        if isinstance(output, Tensor):
            return self.whole(output, target)
        return self.whole.vit_weight * self.whole.criterion(output.vit, target)


def answers(model: nn.Module, data: FERPlus) -> dict[str, list[float]]:
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
    parser = script.parser(__doc__, data=True)
    parser.add_argument("--alone", action="store_true", help="train the twin without the batch's losses")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()

    recipe = load_recipe("btn-small-ferplus")
    criterion, folder = build_criterion(recipe), options.runs / NAME
    if options.alone:
        own = {**recipe.model_options, "inference": "vit"}
        recipe = recipe.replace(name=f"{recipe.name}-alone", model_options=own)
        criterion, folder = OwnLoss(criterion), options.runs / "small_model_alone"
    train, valid = FERPlus(options.data, "train"), FERPlus(options.data, "valid")
    model = build_model(recipe, num_classes=len(train.classes))
    history = fit(model, criterion, train, valid, recipe, run_dir=folder, resume=options.resume)
    if options.alone:
        return
    processor = time.process_time()  # of this process: what a resumed run did before is not in it
    best = checkpoints.load(folder / "best.safetensors", model)
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
    path = record.save()
    print(record.table())
    print(f"{path} written at {time.strftime('%H:%M')} after {seconds / 60:.1f} minutes of training")


if __name__ == "__main__":
    main()
