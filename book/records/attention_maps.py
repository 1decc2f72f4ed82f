"""Keep the attention of trained networks on a few drawn faces, for the live figures of chapter 8.

    python book/records/attention_maps.py

Five pictures of one drawn person go through the networks of ``attention_models.py``. Attention weights are
kept as bytes: a row's square roots as shares of its largest, so that squares divided by their sum give the
row again. Heat maps are kept as bytes on a grid of 24 x 24.

Writes ``book/results/attention_small_networks.json``
(Swin and ViT behind the Neural Resizer) and ``book/results/attention_poster_v2.json`` (POSTER V2's levels,
multi-level attention, its transformer, class batch attention, at the real size).
"""

from __future__ import annotations

import argparse
import base64
import zlib
from pathlib import Path

import attention_models
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib import data, explain
from ferlib.data.synthetic.named import named_parameters
from ferlib.data.synthetic.render import render_faces
from ferlib.evaluation import ResultRecord

SIZE, SIDE = 48, 24  # pixels of a face; places of a heat map
SMALL = {"Swin": "swin-drawn", "ViT": "vit-drawn"}
LARGE = "poster-drawn"
COMPANY = (1, 3, 4, 5, 7)  # the expressions that keep the three named faces company in a batch


def hard_faces() -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Name -> image uint8 (1, 48, 48), the region that makes the expression, and what covers the face."""
    hard = named_parameters("the hard face", framing="ferplus")
    turned = hard.pose.clone()
    turned[:, 0] = 30.0
    pictures = {"the hard face": hard}
    for name in ("the easy twin", "the false friend"):
        pictures[name] = named_parameters(name, framing="ferplus")
    pictures["the hard face, turned"] = hard.replace(pose=turned)
    pictures["the hard face, in sunglasses"] = hard.replace(occlusion=torch.tensor([1]))
    found = {}
    for name, parameters in pictures.items():
        drawn = render_faces(parameters, SIZE, 1, masks=True)
        found[name] = drawn.image[0], drawn.masks["expression"][0], drawn.masks["occluded"][0]
    return found


def pack(values: Tensor) -> dict[str, object]:
    """Bytes that JSON can hold: {"shape", "data"}; ``data`` is base64 of zlib of uint8."""
    found = np.ascontiguousarray(values.to(torch.uint8).numpy())
    text = base64.b64encode(zlib.compress(found.tobytes(), 9)).decode()
    return {"shape": list(found.shape), "data": text}


def rows(weights: Tensor) -> dict[str, object]:
    """Rows that sum to one, as bytes: round(255 sqrt(w / max w)). Shape: (..., K) -> packed."""
    return pack((255 * (weights / weights.amax(-1, keepdim=True)).sqrt()).round())


def heat(maps: Tensor) -> dict[str, object]:
    """Maps in [0, 1] as bytes on 24 x 24 places. Shape: (F, H, W) -> packed."""
    small = F.adaptive_avg_pool2d(maps[:, None].float(), SIDE)[:, 0]
    return pack((255 * small / small.amax((1, 2), keepdim=True).clamp(min=1e-9)).round())


def coarse(weights: Tensor, grid: int = 7) -> Tensor:
    """Attention between places of two square grids, between grid x grid cells: askers are averaged, shares of
    the asked are added. Shape: (..., Q, K) -> (..., grid^2, grid^2).
    """
    for axis, together in ((-1, torch.sum), (-2, torch.mean)):
        rows = weights.movedim(axis, -1)
        side = round(rows.shape[-1] ** 0.5)
        cells = rows.unflatten(-1, (grid, side // grid, grid, side // grid))
        weights = together(cells, (-3, -1)).flatten(-2).movedim(-1, axis)
    return weights


def all_maps(model: nn.Module, inputs: Tensor, classes: Tensor) -> dict[str, object]:
    """Every method's map of every face, for the class that the face shows."""
    found = {}
    for method in explain.METHODS:
        try:
            found[method] = heat(explain.attention_map(model, inputs, classes, method=method).detach())
        except ValueError as error:
            print(f"no {method}: {error}")
    return found


def record_of(name: str, what: str, pictures: dict) -> ResultRecord:
    """A record that begins with the faces themselves and their true regions."""
    images, regions, covers = (torch.stack(part) for part in zip(*pictures.values(), strict=True))
    record = ResultRecord(name, what, classes=list(data.EMOTIONS_FERPLUS))
    record.data = {"name": "drawn faces", "faces": list(pictures), "size": SIZE}
    record.extra = {
        "images": pack(images), "regions": pack((255 * regions).round()),
        "covers": pack((255 * covers).round()),
    }  # fmt: skip
    record.command = f"python book/records/{Path(__file__).name}"
    return record


def small_networks(runs: Path, pictures: dict, classes: Tensor) -> ResultRecord:
    """Swin and ViT behind the Neural Resizer: attention of every layer on the whole grid, rollout, maps."""
    record = record_of("attention_small_networks", "attention of a small Swin and a small ViT", pictures)
    images = torch.stack([image for image, _, _ in pictures.values()])
    for title, name in SMALL.items():
        model, note = attention_models.load(name, runs=runs)
        inputs = data.model_input(images, size=attention_models.recipes()[name].image_size)
        with torch.no_grad(), explain.AttentionRecorder(model) as recorder:
            probabilities = model(inputs).softmax(1)
        layers, rolled = recorder.records, explain.rollout_layers(recorder.records)
        record.extra[title] = {
            "layers": {f"layer {n + 1}": rows(r.on_grid()) for n, r in enumerate(layers)},
            "rollout": {f"layer {n + 1}": rows(coarse(r)) for n, r in enumerate(rolled)},
            "maps": all_maps(model, inputs, classes), "probabilities": probabilities.tolist(),
            "training": training_of(note), "straightened by": straightened(model, inputs),
        }  # fmt: skip
    return record


@torch.no_grad()
def straightened(model: nn.Module, inputs: Tensor) -> list[float]:
    """How far the spatial transformer moves the picture's corners, in shares of its side, face by face."""
    theta = model.spatial_transformer.theta(inputs)  # (F, 2, 3)
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)]).T
    return ((theta @ corners - corners[:2]).norm(dim=1).mean(1) / 2).tolist()


def training_of(note: dict) -> dict[str, object]:
    """What the checkpoint knows of its training."""
    return {key: note[key] for key in ("valid", "faces", "processor minutes", "history") if key in note}


def large_network(runs: Path, pictures: dict, classes: Tensor) -> ResultRecord:
    """The Batch Transformer Network at its real size: four kinds of attention, mean over heads."""
    record = record_of(
        "attention_poster_v2", "attention of POSTER V2 and the Batch Transformer Network", pictures
    )
    model, note = attention_models.load(LARGE, runs=runs)
    images = torch.stack([image for image, _, _ in pictures.values()])
    inputs = data.model_input(images, size=attention_models.LARGE_SIZE)
    with torch.no_grad(), explain.AttentionRecorder(model) as recorder:
        output = model.outputs(inputs)
    found = {
        kind: [r.weights for r in recorder.records if r.kind == kind]
        for kind in ("window-cross", "levels", "tokens")
    }
    record.extra |= {
        "cross": {
            f"level {side}": rows(coarse(weights).mean(1, keepdim=True))
            for side, weights in zip((28, 14, 7), found["window-cross"], strict=True)
        },
        "levels": rows(found["levels"][0].mean(1, keepdim=True)),
        "vit": {f"block {n + 1}": rows(w.mean(1, keepdim=True)) for n, w in enumerate(found["tokens"])},
        "maps": all_maps(model, inputs, classes), "probabilities": output.vit.softmax(1).tolist(),
        "training": training_of(note), "gain": [f.gain1.abs().mean().item() for f in model.encoder.fusion],
    }  # fmt: skip
    record.extra["batch"] = batch_of(model, pictures)
    return record


def batch_of(model: nn.Module, pictures: dict) -> dict[str, object]:
    """Class batch attention of the three named faces among five others: queries, keys and values."""
    drawn = data.SyntheticFaces(
        len(COMPANY), size=SIZE, seed=4_000_003, framing="ferplus",
        expression=[data.EMOTIONS_FERPLUS[k] for k in COMPANY],
    )  # fmt: skip
    others = drawn.batch(range(len(COMPANY)))
    images = torch.cat([torch.stack([pictures[name][0] for name in list(pictures)[:3]]), others["image"]])
    found = explain.batch_attention(model, data.model_input(images, size=attention_models.LARGE_SIZE))
    names = [
        *list(pictures)[:3],
        *(f"a face of {data.EMOTIONS_FERPLUS[k]}" for k in others["label"].tolist()),
    ]
    numbers = {
        key: {"shape": list(tensor.shape), "values": [round(v, 4) for v in tensor.flatten().tolist()]}
        for key, tensor in (("query", found.query), ("key", found.key), ("value", found.value))
    }
    return {"names": names, "images": pack(images), "scale": found.scale, **numbers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=Path, default=attention_models.RUNS)
    parser.add_argument("--results", type=Path, help="folder for the records (default: book/results)")
    options = parser.parse_args()
    pictures = hard_faces()
    fear, surprise = (data.EMOTIONS_FERPLUS.index(name) for name in ("fear", "surprise"))
    classes = torch.tensor([surprise if "friend" in name else fear for name in pictures])
    for make in (small_networks, large_network):
        record = make(options.runs, pictures, classes)
        path = record.save(options.results / f"{record.name}.json" if options.results else None)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
