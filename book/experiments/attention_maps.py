"""Keep the attention of trained networks on a few synthetic faces, for the explorers of chapter 8.

    python -m book.experiments.attention_maps

Five pictures of one synthetic person go through the networks of ``attention_models``. Attention and maps
(on a grid of 24 x 24) are kept as ``ferlib.widgets`` codes them, and the explorers show them from there.

Writes ``book/results/attention_small_networks.json``
(Swin and ViT behind the Neural Resizer) and ``book/results/attention_poster_v2.json`` (POSTER V2's levels,
multi-level attention, its transformer, class batch attention, at the real size).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from book.experiments import attention_models, script
from book.figures.maps import METHODS, attention_map, rollout_rows
from book.figures.token_attention import TokenAttention
from ferlib import data, explain
from ferlib.data import named_parameters, render_faces
from ferlib.evaluation import ResultRecord
from ferlib.models.batch_transformer import ClassBatchAttention
from ferlib.models.common import evaluating
from ferlib.widgets import pack, pack_maps

SIZE, SIDE = 48, 24  # pixels of a face; places of a heat map
SMALL = {"Swin": "swin-drawn", "ViT": "vit-drawn"}
LARGE = "poster-drawn"
LEVELS = ("fine", "middle", "coarse")
OTHERS = (1, 3, 4, 5, 7)  # the expressions of the other faces in the batch


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


def heat(maps: Tensor) -> dict[str, object]:
    """Maps (F, H, W) as :func:`pack_maps` packs them, on 24 x 24 places."""
    return pack_maps(F.adaptive_avg_pool2d(maps[:, None].float(), SIDE)[:, 0])


def all_maps(model: nn.Module, inputs: Tensor, classes: Tensor) -> dict[str, object]:
    """Every method's map of every face, for the class that the face shows."""
    found = {}
    for method in METHODS:
        try:
            found[method] = heat(attention_map(model, inputs, classes, method=method).detach())
        except ValueError as error:
            print(f"no {method}: {error}")
    return found


def record_of(name: str, what: str, pictures: dict) -> ResultRecord:
    """A record that begins with the faces themselves and their true regions."""
    images, regions, covers = (torch.stack(part) for part in zip(*pictures.values(), strict=True))
    record = ResultRecord(name, what, classes=list(data.EMOTIONS_FERPLUS))
    record.data = {"name": "drawn faces", "faces": list(pictures), "size": SIZE}
    record.extra = {
        "images": pack(images),
        "regions": pack((255 * regions).round()),
        "covers": pack((255 * covers).round()),
    }
    record.command = f"python -m book.experiments.{Path(__file__).stem}"
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
        names = [f"layer {n + 1}" for n in range(len(recorder.records))]
        kept = names[-1:] if title == "Swin" else names  # a page of 600 kB holds the last one
        rolled = {name: rolled_up_to(recorder.records[: names.index(name) + 1]) for name in kept}
        attention = TokenAttention.of(recorder.records, names, rollout=rolled, grid=7)
        record.extra[title] = {
            "attention": attention.packed,
            "beside the mouth": [pack_maps(beside_the_mouth(one)) for one in recorder.records],
            "maps": all_maps(model, inputs, classes),
            "probabilities": probabilities.tolist(),
            "training": training_of(note),
            "straightened by": straightened(model, inputs),
        }
    return record


def rolled_up_to(records: list[explain.Attention]) -> Tensor:
    """What each token of the last layer is made of, in tokens of the first: (F, N last, N first)."""
    every = torch.eye(records[-1].layout.tokens)
    return rollout_rows(records, every.expand(len(records[-1].on_grid()), -1, -1))


def beside_the_mouth(attention: explain.Attention) -> Tensor:
    """What the place at 10/14 of the height and 5/14 of the width attends to: (F, rows, columns)."""
    maps = attention.to_image().mean(1)  # (F, queries, rows, columns)
    rows, columns = maps.shape[2:]
    return maps[:, attention.layout.prefix + 10 * rows // 14 * columns + 5 * columns // 14]


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
    with torch.no_grad(), explain.AttentionRecorder(model, heads="mean") as recorder:
        output = model.outputs(inputs)
    found = {
        title: TokenAttention.of([r for r in recorder.records if r.kind == kind], names, **options).packed
        for title, kind, names, options in (
            ("transformer", "tokens", ["block 1", "block 2"], {"levels": LEVELS}),
            ("multi-level attention", "levels", ["all levels"], {"levels": LEVELS}),
            ("cross-attention", "window-cross", ["level 28", "level 14", "level 7"], {"grid": 7}),
        )
    }
    record.extra |= {
        "attention": found,
        "maps": all_maps(model, inputs, classes),
        "probabilities": output.vit.softmax(1).tolist(),
        "training": training_of(note),
        "gain": [f.gain1.abs().mean().item() for f in model.encoder.fusion],
    }
    record.extra["batch"] = batch_of(model, pictures)
    return record


def read_by_the_batch(model: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Queries and keys (B, C, 49), with the channel encoding, and values (B, C) of class batch attention."""
    (part,) = [module for module in model.modules() if isinstance(module, ClassBatchAttention)]
    kept: list[tuple[Tensor, ...]] = []
    hook = part.register_forward_pre_hook(lambda _, inputs: kept.append(inputs))
    with evaluating(model), torch.no_grad():
        model.outputs(images)
    hook.remove()
    return kept[0]


def batch_of(model: nn.Module, pictures: dict) -> dict[str, object]:
    """Class batch attention of the three named faces among five others: queries, keys and values."""
    drawn = data.SyntheticFaces(
        len(OTHERS),
        size=SIZE,
        seed=4_000_003,
        framing="ferplus",
        expression=[data.EMOTIONS_FERPLUS[k] for k in OTHERS],
    )
    others = drawn.batch(range(len(OTHERS)))
    images = torch.cat([torch.stack([pictures[name][0] for name in list(pictures)[:3]]), others["image"]])
    query, key, value = read_by_the_batch(model, data.model_input(images, size=attention_models.LARGE_SIZE))
    names = [
        *list(pictures)[:3],
        *(f"a face of {data.EMOTIONS_FERPLUS[k]}" for k in others["label"].tolist()),
    ]
    numbers = {
        part: {"shape": list(tensor.shape), "values": [round(v, 4) for v in tensor.flatten().tolist()]}
        for part, tensor in (("query", query), ("key", key), ("value", value))
    }
    return {"names": names, "images": pack(images), "scale": query.shape[1] ** -0.5, **numbers}


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--runs", type=Path, default=attention_models.RUNS)
    options = parser.parse_args()
    pictures = hard_faces()
    fear, surprise = (data.EMOTIONS_FERPLUS.index(name) for name in ("fear", "surprise"))
    classes = torch.tensor([surprise if "friend" in name else fear for name in pictures])
    for make in (small_networks, large_network):
        record = make(options.runs, pictures, classes)
        path = record.save()
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
