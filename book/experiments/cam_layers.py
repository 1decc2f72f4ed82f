"""Which layer should Grad-CAM look at? The candidates of each network, scored against the true regions.

    python -m book.experiments.attention_models swin-drawn      # and vit-drawn, btn-drawn: the networks
    python -m book.experiments.cam_layers

A reader of the grad-cam package finds advice for Swin that names ``norm1`` and advice that names ``norm2``.
Here every layer that could be meant is tried on networks of synthetic faces, by Grad-CAM and by HiResCAM,
about the true class of faces the networks have not seen: pointing, energy and AUC against the region that
makes the expression, deletion and insertion, and how alike the maps of random weights are (rank correlation).
95 % bootstrap intervals over faces; differences to ``norm1`` of the last block are paired by face. Writes
``book/results/cam_layers.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from book.experiments import attention_models, script
from book.experiments.perturbation import deletion_insertion
from book.figures.maps import rank_correlation
from ferlib import data, explain
from ferlib.evaluation import ResultRecord, mean_interval

MODELS = ("swin-drawn", "vit-drawn", "btn-drawn")
METHODS = ("grad-cam", "hires-cam")
FACES, SOME, SEED = 84, 7, 5_000_011  # SOME: faces of deletion, insertion and random weights
REFERENCE = "last block, norm1"
Candidates = dict[str, tuple[nn.Module, Callable[[Tensor], Tensor] | None]]


def candidates(model: nn.Module) -> Candidates:
    """Layers that could be meant, each with its reshape."""
    last = explain.channels_last_to_map
    if hasattr(getattr(model, "backbone", None), "layers"):  # Swin: norm2 alone gives (B, places, channels)
        stages = model.backbone.layers
        block = stages[-1].blocks[-1]
        return {
            "stage before, last block, norm1": (stages[-2].blocks[-1].norm1, last),
            "stage before, output": (stages[-2], last),
            REFERENCE: (block.norm1, last),
            "last block, norm2": (block.norm2, explain.tokens_to_map(0)),
            "last block, output": (block, last),
            "final norm": (model.backbone.norm, last),
        }
    if hasattr(model, "backbone"):  # ViT without class token
        blocks, tokens = model.backbone.blocks, explain.tokens_to_map(0)
        return {
            "block before, norm1": (blocks[-2].norm1, tokens),
            "block before, output": (blocks[-2], tokens),
            REFERENCE: (blocks[-1].norm1, tokens),
            "last block, norm2": (blocks[-1].norm2, tokens),
            "last block, output": (blocks[-1], tokens),
        }
    blocks, tokens = model.vit.blocks, explain.tokens_to_map(1, levels=3)  # class token, three levels
    return {
        "encoder, 28 x 28": (model.encoder.stages[0], None),
        "encoder, 14 x 14": (model.encoder.stages[1], None),
        "encoder, 7 x 7": (model.encoder.stages[2], None),
        "block before, norm1": (blocks[-2].norm1, tokens),
        REFERENCE: (blocks[-1].norm1, tokens),
        "last block, norm2": (blocks[-1].norm2, tokens),
        "last block, output": (blocks[-1], tokens),
    }


def faces(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, labels and true regions of synthetic faces whose expression shows."""
    drawn = data.SyntheticFaces(
        count, size=48, seed=seed, framing="ferplus", masks=True, expression=data.EMOTIONS_FERPLUS[1:]
    ).batch(range(count))
    truth = drawn["masks"]["expression"]
    shows = truth.flatten(1).amax(1) >= 0.5
    return drawn["image"][shows], drawn["label"][shows], truth[shows]


def measure(
    model: nn.Module, fresh: nn.Module, inputs: Tensor, labels: Tensor, truth: Tensor, some: int
) -> dict[tuple[str, str], dict[str, Tensor]]:
    """Scores of every face, by layer and method."""
    scores: dict[tuple[str, str], dict[str, Tensor]] = {}
    random = candidates(fresh)
    for name, (layer, reshape) in candidates(model).items():
        for method in METHODS:
            options = dict(method=method, reshape=reshape)
            maps = explain.grad_cam(model, inputs, labels, layer=layer, **options)
            found = explain.attention_score(maps, truth)
            found |= deletion_insertion(model, inputs[:some], maps[:some], labels[:some], steps=8)
            others = explain.grad_cam(fresh, inputs[:some], labels[:some], layer=random[name][0], **options)
            found["likeness to random weights"] = rank_correlation(maps[:some], others)
            scores[name, method] = found
            shown = "  ".join(f"{part} {found[part].mean():.3f}" for part in ("pointing", "energy", "auc"))
            print(f"  {name:32s} {method:12s} {shown}", flush=True)
    return scores


def note(record: ResultRecord, name: str, scores: dict[tuple[str, str], dict[str, Tensor]]) -> None:
    """Add one network's means and their differences to the reference layer."""
    place = {"condition": name, "over": "faces"}
    for (layer, method), found in scores.items():
        for part in ("pointing", "energy", "auc", "deletion", "insertion", "likeness to random weights"):
            record.add(f"{method} {part}", mean_interval(found[part]), layer, **place)
    for (layer, method), found in scores.items():
        for part in ("energy", "auc") if layer != REFERENCE else ():
            gap = mean_interval(found[part] - scores[REFERENCE, method][part])
            record.add_difference(layer, REFERENCE, gap, f"{method} {part}", **place)
    record.add("area", mean_interval(scores[REFERENCE, "grad-cam"]["area"]), **place)


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--runs", type=Path, default=attention_models.RUNS)
    options = parser.parse_args()
    start = time.perf_counter()
    images, labels, truth = faces(FACES, SEED)
    record = ResultRecord(
        name="cam_layers",
        what="Grad-CAM and HiResCAM of three networks, by the layer they look at, against the true regions "
        "of drawn faces, 95 % over faces",
        data={"name": "SyntheticFaces", "seed": SEED, "faces": len(images)},
        classes=list(data.EMOTIONS_FERPLUS),
        settings={"class asked about": "the true one", "steps of deletion": 8, "some faces": SOME},
        command="python -m book.experiments.cam_layers",
    )
    for name in MODELS:
        model, _ = attention_models.load(name, runs=options.runs)
        recipe = attention_models.recipes()[name]
        fresh = attention_models.build(recipe.replace(seed=5)).eval()
        inputs = data.model_input(images, size=recipe.image_size or 48)
        with torch.no_grad():
            right = (explain.output_logits(model, inputs).argmax(1) == labels).float()
        print(name, f"accuracy {right.mean():.3f}", flush=True)
        note(record, name, measure(model, fresh, inputs, labels, truth, SOME))
        record.extra[name] = {
            "accuracy on these faces": float(right.mean()),
        }
    record.extra["minutes"] = (time.perf_counter() - start) / 60
    print(record.save())


if __name__ == "__main__":
    main()
