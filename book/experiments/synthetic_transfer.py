"""Are synthetic expressions read as meant? Train on real faces, test on synthetic ones, and the other way.

    python -m book.experiments.synthetic_transfer --data /path/to/FERPlus

Real to synthetic: the kept networks, trained on FER+ alone, label synthetic faces framed as FER+'s own. The
record's numbers are those of the network of the page *Try it*; beside them stand the recalls of the others,
and what every network reaches on FER+'s validation faces. Synthetic to real: a small network trained on
synthetic faces alone labels FER+'s validation faces. Writes ``book/results/real_to_synthetic.json`` and
``book/results/synthetic_to_real.json``, both with the confusion matrix.
"""

from __future__ import annotations

from pathlib import Path

import torch

from book.experiments import script
from ferlib.commands.networks import Network
from ferlib.data import FERPlus, SyntheticFaces
from ferlib.data.base import FaceDataset
from ferlib.data.faces import KeptFaces
from ferlib.data.synthetic import FERPLUS_FREQUENCIES
from ferlib.evaluation import ResultRecord, evaluate, predict
from ferlib.training import build_criterion, build_model, fit, load_recipe

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
MAIN, OTHERS = "pocket_ferplus", ("best_alone_ferplus",)
FACES = 1024


def synthetic(length: int, seed: int, **options: object) -> KeptFaces:
    return KeptFaces(SyntheticFaces(length, 48, seed, framing="ferplus", **options))


def recalls(network: Network, faces: FaceDataset) -> dict[str, dict[str, float]]:
    """Share of each expression labelled as intended: by the network, and as if classes were equally likely.

    The second reading divides the probabilities by each class's share of FER+'s training faces.
    """
    logits, labels = predict(network.build(len(faces.classes)), faces, **network.inputs())
    prior = torch.tensor(FERPLUS_FREQUENCIES)
    found = {}
    for how, scores in (("as it is", logits), ("classes equally likely", logits - prior.log())):
        right = scores.argmax(1) == labels
        rows = {name: right[labels == k].double().mean() for k, name in enumerate(faces.classes)}
        found[how] = {name: round(float(share), 4) for name, share in rows.items()}
    return found


def real_to_synthetic(valid: FERPlus) -> ResultRecord:
    faces = synthetic(FACES, 101)
    network = Network.find(str(CHECKPOINTS / f"{MAIN}.safetensors"))
    what = "the network of the page Try it, trained on FER+ alone, shown synthetic faces framed as FER+'s"
    model = network.build(len(faces.classes))
    record = evaluate(
        model, faces, name="real_to_synthetic", split="synthetic", what=what, **network.inputs()
    )
    kept = {name: Network.find(str(CHECKPOINTS / f"{name}.safetensors")) for name in (MAIN, *OTHERS)}
    record.extra["recall of synthetic faces"] = {name: recalls(one, faces) for name, one in kept.items()}
    record.extra["recall of validation faces"] = {name: recalls(one, valid) for name, one in kept.items()}
    return record


def synthetic_to_real(valid: FERPlus, faces: int = 3200, epochs: int = 5) -> ResultRecord:
    recipe = load_recipe("btn-small-synthetic").replace(epochs=epochs, batch_size=64)
    model = build_model(recipe)
    # the share of each expression is FER+'s; everything else is as varied as the renderer makes it
    varied = dict(variation=1.2, intensity=(0.5, 1.1), occlusion=0.05, resolution=(24, 48))
    train = synthetic(faces, 7, frequencies="ferplus", **varied)
    history = fit(model, build_criterion(recipe), train, synthetic(512, 8), recipe)
    record = evaluate(
        model,
        valid,
        name="synthetic_to_real",
        split="valid",
        shuffle=0,
        what="btn_small trained on synthetic faces alone, measured on FER+ validation faces",
        settings={"faces": faces, "frequencies": "ferplus", "recipe": recipe.name, "epochs": epochs},
    )
    record.curves = history
    return record


def main() -> None:
    parser = script.parser(__doc__, data=True)
    valid = FERPlus(parser.parse_args().data, "valid")
    for make in (real_to_synthetic, synthetic_to_real):
        record = make(valid)
        record.command = f"python -m book.experiments.{Path(__file__).stem} --data FERPlus"
        print(f"{record.table()}\n{record.save()} written", flush=True)


if __name__ == "__main__":
    main()
