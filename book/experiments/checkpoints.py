"""The kept checkpoints, measured: which recipes and seeds made each of them, and their scores on FER+.

    FERLIB_DATA=/path/to/FERPlus python -m book.experiments.checkpoints

Writes ``book/results/checkpoint_<name>.json`` for every file of ``book/checkpoints``: scores on FER+'s
validation split, of one network also those of the mean over face and mirror image, SHA-256, and the commands
that train it again. Where validation chose the epoch its scores are slightly kind; ``best_classifiers`` has
scores of faces that chose nothing. FER+'s test split is left to the reader.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch

from ferlib.commands.networks import Network
from ferlib.data import FERPlus
from ferlib.data.faces import KeptFaces
from ferlib.evaluation import evaluate, predict, scores
from ferlib.models import Ensemble

FOLDER = Path(__file__).parents[1] / "checkpoints"


def main() -> None:
    torch.set_num_threads(1)
    valid = KeptFaces(FERPlus(os.environ["FERLIB_DATA"], "valid"))
    for path in sorted(FOLDER.glob("*.safetensors")):
        network = Network.find(str(path))
        recipe, made = network.recipe, network.stored["made of"]
        model = network.build(len(valid.classes))
        logits, labels = predict(model, valid, shuffle=0, **network.inputs())
        record = evaluate(model, valid, predictions=(logits, labels), split="valid", shuffle=0)
        if recipe.model != "Ensemble":  # which averages over the mirror image anyway
            member = {"model": recipe.model, "model_options": recipe.model_options}
            both = Ensemble(len(valid.classes), members=[member])
            both.members[0].load_state_dict(model.state_dict())
            twice, _ = predict(both, valid, shuffle=0, **network.inputs())
            for name, number in scores(labels, twice, list(valid.classes), resamples=1000).items():
                record.add(name, number, "with its mirror image", over="faces")
        record.name = f"checkpoint_{path.stem}"
        record.what = f"{path.name}, a kept checkpoint, on FER+ validation faces"
        record.settings |= {"recipe": network.stored["recipe"], "seed": recipe.seed, **network.inputs()}
        record.extra |= {
            "file": f"book/checkpoints/{path.name}",
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "parameters": sum(p.numel() for p in model.parameters()),
            "made of": made,
            "make it again": [
                f"ferlib train --recipe {m['recipe']} --seed {m['seed']} --data FERPlus" for m in made
            ],
        }
        record.command = "FERLIB_DATA=/path/to/FERPlus python -m book.experiments.checkpoints"
        print(record.save(), record.get("accuracy").percent())


if __name__ == "__main__":
    main()
