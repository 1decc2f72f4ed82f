"""Score every map of every network of chapter 8 against the regions that the renderer knows.

    python -m book.experiments.attention_scores            # all networks of runs/attention, then the record

Method x model x score with 95 % intervals over faces: pointing, energy, AUC against the region that makes the
expression; deletion and insertion; the same maps on random weights; turned and occluded faces. Then the
effect of attention on the prediction: every attention is made uniform, or its weights are shuffled. The
networks come from ``attention_models.py``; what was measured of one is kept beside its weights, so a stopped
study goes on. Writes ``book/results/attention_scores.json``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from book.experiments import attention_models, script
from book.experiments.perturbation import deletion_insertion
from book.figures.maps import BASELINES, METHODS, attention_map
from ferlib import data
from ferlib.data import render_faces
from ferlib.evaluation import ResultRecord, mean_interval
from ferlib.explain import attention_score
from ferlib.weights import CheckpointError

NAME = "attention_scores"
MODELS = ("swin-drawn", "vit-drawn", "btn-drawn")
SEED, FACES, TURN = 4_000_003, 203, 30.0  # 29 faces of each expression but neutral; degrees
STEPS, QUICK = 8, 32  # of deletion and insertion: steps, faces
COVERS = ("glasses", "hand", "mask", "scarf")
KINDS = {"levels": "levels", "vit": "vit", "backbone": "backbone"}


def plain_faces(count: int = FACES) -> dict[str, Tensor]:
    """Faces of seven expressions, from the front and turned to a side, with their true regions."""
    faces = data.SyntheticFaces(
        count, size=48, seed=SEED, framing="ferplus", masks=True, expression=data.EMOTIONS_FERPLUS[1:]
    )
    front = faces.parameters(range(count))
    pose = front.pose.clone()
    pose[:, 0] = TURN * (1 - 2 * (torch.arange(count) % 2)) + pose[:, 0] / 3
    found = {"label": faces.labels}
    for name, parameters in (("", front), ("turned ", front.replace(pose=pose))):
        drawn = render_faces(parameters, 48, 1, masks=True)
        found |= {f"{name}image": drawn.image, f"{name}truth": drawn.masks["expression"]}
    clear = torch.stack([found[key].flatten(1).amax(1) >= 0.5 for key in ("truth", "turned truth")]).all(0)
    return {key: value[clear] for key, value in found.items()}


def covered_faces(count: int = 24) -> dict[str, Tensor]:
    """Faces behind sunglasses, hand, mask and scarf, ``count`` of each, with the place of the occluder."""
    parts = []
    for number, cover in enumerate(COVERS):
        faces = data.SyntheticFaces(
            count,
            size=48,
            seed=SEED + 1 + number,
            framing="ferplus",
            masks=True,
            occlusion=cover,
            expression=data.EMOTIONS_FERPLUS[1:],
        ).batch(range(count))
        parts.append((faces["image"], faces["label"], faces["masks"]["occluded"]))
    image, label, cover = (torch.cat(part) for part in zip(*parts, strict=True))
    kind = torch.arange(len(COVERS)).repeat_interleave(count)
    seen = cover.flatten(1).amax(1) >= 0.5
    return {"image": image[seen], "label": label[seen], "cover": cover[seen], "kind": kind[seen]}


def maps_of(model: nn.Module, method: str, images: Tensor, labels: Tensor, size: int) -> Tensor:
    """Maps of all faces for their true class, in parts that fit into memory: (N, S, S)."""
    return torch.cat(
        [
            attention_map(model, data.model_input(some, size=size), which, method=method).detach()
            for some, which in zip(images.split(16), labels.split(16), strict=True)
        ]
    )


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Rank correlation of two stacks of maps, on a 12 x 12 grid: (N, H, W) twice -> (N,)."""
    ranks = []
    for maps in (first, second):
        small = nn.functional.adaptive_avg_pool2d(maps[:, None].float(), 12).flatten(1)
        small = small + 1e-9 * torch.arange(small.shape[1])  # ties in one order
        rank = small.argsort(1).argsort(1).float()
        ranks.append((rank - rank.mean(1, keepdim=True)) / rank.std(1, keepdim=True, correction=0))
    return (ranks[0] * ranks[1]).mean(1)


@contextmanager
def swapped(model: nn.Module, part: str, how: str) -> Iterator[int]:
    """While it lasts, attention in the modules whose name contains ``part`` is "uniform" over the keys that
    it had, or "shuffled"; gives how many attentions there are.
    """
    draw = torch.Generator().manual_seed(0)

    def change(weights: Tensor) -> Tensor:
        open_keys = (weights > 1e-12).to(weights.dtype)
        if how == "uniform":
            return open_keys / open_keys.sum(-1, keepdim=True)
        return weights[..., torch.randperm(weights.shape[-1], generator=draw)]

    undo, count = [], 0
    for name, module in model.named_modules():
        if part not in name:
            continue
        if hasattr(module, "listeners"):
            module.listeners.append(lambda weights: weights.copy_(change(weights)))
            undo.append(module.listeners.pop)
        elif hasattr(module, "fused_attn") and hasattr(module, "attn_drop"):
            fused, module.fused_attn = module.fused_attn, False
            hook = module.attn_drop.register_forward_hook(lambda _, __, weights: change(weights))
            undo += [hook.remove, lambda module=module, fused=fused: setattr(module, "fused_attn", fused)]
        else:
            continue
        count += 1
    try:
        yield count
    finally:
        for step in undo:
            step()


@torch.no_grad()
def answers(model: nn.Module, images: Tensor, size: int) -> Tensor:
    """Class probabilities (N, K) of each image alone."""
    found = []
    for some in images.split(32):
        inputs = data.model_input(some, size=size)
        out = model.outputs(inputs).vit if hasattr(model, "outputs") else model(inputs)
        found.append(out.softmax(1))
    return torch.cat(found)


def measure(name: str, seed: int, runs: Path, quick: int) -> ResultRecord:
    """Everything that is measured of one network, as a record of its own."""
    record, place = ResultRecord(NAME, name), {"condition": name, "over": "faces"}
    model, note = attention_models.load(name, seed, runs)
    recipe = attention_models.recipes()[name]
    size = recipe.image_size or 48
    fresh = attention_models.build(recipe.replace(seed=5)).eval()
    faces, covered = plain_faces(), covered_faces()
    images, labels, truth = faces["image"], faces["label"], faces["truth"]
    some = slice(0, None, len(images) // quick)  # faces of deletion and insertion
    kept, area = {}, None
    for method in (*METHODS, *BASELINES):
        try:
            heat = maps_of(model, method, images, labels, size)
        except ValueError as error:
            print(f"{name}: no {method}: {error}", flush=True)
            continue
        kept[method] = heat
        score = attention_score(heat, truth)
        area = score["area"]

        def put(key: str, values: Tensor, method: str = method) -> None:
            record.add(key, mean_interval(values), method, **place)

        def minus(other: str, key: str, values: Tensor, method: str = method) -> None:
            record.add_difference(method, other, mean_interval(values), key, **place)

        for key in ("pointing", "energy", "auc"):
            put(key, score[key])
        minus("area", "pointing", score["pointing"] - area)
        minus("area", "energy", score["energy"] - area)
        side = maps_of(model, method, faces["turned image"], labels, size)
        turned = attention_score(side, faces["turned truth"])
        put("turned pointing", turned["pointing"])
        put("turned auc", turned["auc"])
        put("turned auc change", turned["auc"] - score["auc"])
        behind = maps_of(model, method, covered["image"], covered["label"], size)
        hidden = attention_score(behind, covered["cover"])
        put("occluder energy", hidden["energy"])
        minus("area", "occluder energy", hidden["energy"] - hidden["area"])
        put("occluder pointing", hidden["pointing"])
        put("occluder auc", hidden["auc"])
        for number, cover in enumerate(COVERS):
            put(f"occluder auc, {cover}", hidden["auc"][covered["kind"] == number])
        pictures = data.model_input(images[some], size=size)
        curves = deletion_insertion(model, pictures, heat[some], labels[some], steps=STEPS)
        put("deletion", curves["deletion"])
        put("insertion", curves["insertion"])
        if method in METHODS:
            random = maps_of(fresh, method, images, labels, size)
            score_random = attention_score(random, truth)
            put("random weights pointing", score_random["pointing"])
            put("random weights auc", score_random["auc"])
            minus("random weights", "auc", score["auc"] - score_random["auc"])
            put("rank correlation with random weights", correlation(heat, random))
        print(f"{name} {method}: auc {record.get('auc', method, name).value:.3f}", flush=True)
    for method in kept:
        edge = attention_score(kept[method], truth)
        for other in ("centre", "noise"):
            base = attention_score(kept[other], truth)
            for key in ("pointing", "auc"):
                record.add_difference(method, other, mean_interval(edge[key] - base[key]), key, **place)
    agreement = {a: {b: correlation(kept[a], kept[b]).mean().item() for b in kept} for a in kept}
    for arm, found in swaps(model, images, size).items():
        for metric, values in found.items():
            record.add(metric, mean_interval(values), arm, **place)
    right = answers(model, images, size).argmax(1) == labels
    record.add("accuracy", mean_interval(right.float()), **place)
    for key, pictures, true in (
        ("turned", faces["turned image"], labels),
        ("occluded", covered["image"], covered["label"]),
    ):
        found = (answers(model, pictures, size).argmax(1) == true).float()
        record.add(f"accuracy, {key}", mean_interval(found), **place)
    record.extra = {
        "faces": len(images),
        "faces of deletion": len(images[some]),
        "occluded faces": len(covered["image"]),
        "area": area.mean().item(),
        "occluder area": hidden["area"].mean().item(),
        "turned area": turned["area"].mean().item(),
        "agreement": agreement,
        "training": {key: note[key] for key in ("valid", "faces", "processor minutes") if key in note},
    }
    return record


def swaps(model: nn.Module, images: Tensor, size: int) -> dict[str, dict[str, Tensor]]:
    """How each prediction changes when one kind of attention is made uniform or shuffled: half the L1
    distance of the class probabilities, and whether the label changes.
    """
    found = {}
    for kind, part in KINDS.items():
        before = answers(model, images, size)
        for how in ("uniform", "shuffled"):
            with swapped(model, part, how) as count:
                after = answers(model, images, size) if count else None
            if after is not None:
                found[f"{kind} {how}"] = {
                    "distance": (after - before).abs().sum(1) / 2,
                    "labels changed": (after.argmax(1) != before.argmax(1)).float(),
                }
    return found


def two_seeds(name: str, runs: Path) -> ResultRecord | None:
    """Two networks that differ in their seed alone: how alike are their predictions, and their maps?"""
    try:
        pair = [attention_models.load(name, seed, runs)[0] for seed in (0, 1)]
    except CheckpointError:
        return None
    size, faces = attention_models.recipes()[name].image_size or 48, plain_faces()
    said = [answers(model, faces["image"], size) for model in pair]
    record, place = ResultRecord(NAME, name), {"condition": name, "over": "faces"}
    record.add(
        "same label of two seeds", mean_interval((said[0].argmax(1) == said[1].argmax(1)).float()), **place
    )
    record.add(
        "distance of the answers of two seeds", mean_interval((said[0] - said[1]).abs().sum(1) / 2), **place
    )
    for method in METHODS:
        try:
            maps = [maps_of(model, method, faces["image"], faces["label"], size) for model in pair]
        except ValueError:
            continue
        record.add("rank correlation of two seeds", mean_interval(correlation(*maps)), method, **place)
        for number, heat in enumerate(maps):
            auc = attention_score(heat, faces["truth"])["auc"]
            record.add(f"auc of seed {number}", mean_interval(auc), method, **place)
    return record


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--runs", type=Path, default=attention_models.RUNS)
    options = parser.parse_args()
    torch.manual_seed(0)
    began = time.process_time()
    for name in MODELS:
        for part, work in (
            ("scores", lambda n: measure(n, 0, options.runs, QUICK)),
            ("seeds", lambda n: two_seeds(n, options.runs)),
        ):
            path = attention_models.run_folder(name, 0, options.runs) / f"{part}.json"
            if not path.is_file() and (found := work(name)) is not None:
                found.save(path)
    record = ResultRecord(
        NAME, "maps of three networks against the true regions of drawn faces, 95 % over faces"
    )
    for name in MODELS:
        for part in ("scores", "seeds"):
            path = attention_models.run_folder(name, 0, options.runs) / f"{part}.json"
            if path.is_file():
                found = ResultRecord.load(path)
                record.numbers += found.numbers
                record.differences += found.differences
                if found.extra:
                    record.extra[name] = found.extra
    record.data = {"name": "SyntheticFaces", "seed": SEED, "turned by": TURN, "occluders": list(COVERS)}
    record.settings = {
        "class asked about": "the true one",
        "steps of deletion": STEPS,
        "faces of deletion": QUICK,
    }
    record.seed = 0
    record.extra["processor minutes of this call"] = (time.process_time() - began) / 60
    record.command = f"python -m book.experiments.{Path(__file__).stem}"
    print(record.save())


if __name__ == "__main__":
    main()
