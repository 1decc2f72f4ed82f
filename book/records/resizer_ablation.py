"""Six ways to bring a 48 pixel face to a network that reads 24 pixels, each with several seeds.

    python book/records/resizer_ablation.py                              # drawn faces
    FERLIB_DATA=/path/to/FERPlus python book/records/resizer_ablation.py # real faces

A small convolutional classifier is trained from nothing behind each front end, with the same faces in the
same order for the same number of epochs, and measured on the validation faces after the last epoch (no
epoch is picked). ``resizer at 24`` is the Neural Resizer applied after bilinear halving: as many
parameters, but it never sees the 48 pixels, so it shows what mere depth is worth. ``48 px`` gives the
classifier the face unreduced. Writes ``book/results/resizer_ablation_<synthetic|ferplus>.json``: mean
accuracy over seeds with the 95 % t-interval, and differences, paired by seed.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from ferlib.data import FaceDataset, open_faces
from ferlib.data.transforms import to_float
from ferlib.evaluation import Interval, ResultRecord, fingerprint
from ferlib.models import FixedResizer, NeuralResizer

FRONTS = {
    "nearest": lambda: FixedResizer(24, "nearest"),
    "bilinear": lambda: FixedResizer(24, "bilinear"),
    "antialiased": lambda: FixedResizer(24, "antialiased"),
    "resizer at 24": lambda: nn.Sequential(FixedResizer(24, "bilinear"), resizer(24)),
    "neural resizer": lambda: resizer(48),
    "48 px": nn.Identity,
}


def resizer(in_size: int) -> NeuralResizer:
    return NeuralResizer(in_size, 24, channels=6, in_channels=1, start_bilinear=True)


def classifier(classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 48)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(0.3), nn.Linear(432, classes)
    )


def load(faces: FaceDataset) -> tuple[torch.Tensor, torch.Tensor]:
    batch = faces.batch(range(len(faces)))
    x = to_float(batch["image"])
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(1e-3), batch[
        "label"
    ]


def train_and_measure(front: nn.Module, train, valid, seed: int, epochs: int, classes: int) -> float:
    torch.manual_seed(seed)
    model = nn.Sequential(front, classifier(classes))
    (x, y), (vx, vy) = train, valid
    if not list(front.parameters()):  # a fixed rule needs to be applied once
        x, vx, model = front(x), front(vx), model[1]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.01)
    steps = epochs * -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            flip = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
            faces = torch.where(flip, x[rows].flip(3), x[rows])
            loss = F.cross_entropy(model(faces), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in vx.split(256)])
    return (predicted == vy).float().mean().item()


def interval(values: list[float]) -> Interval:
    t = torch.tensor(values, dtype=torch.float64)
    half = float(stats.t.ppf(0.975, len(t) - 1) * t.std() / len(t) ** 0.5) if len(t) > 1 else float("nan")
    return Interval(float(t.mean()), float(t.mean()) - half, float(t.mean()) + half)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    start = time.perf_counter()
    data = {"train": open_faces("train", length=options.faces), "valid": open_faces("valid")}
    train, valid = (load(faces) for faces in data.values())
    classes = data["train"].classes
    found: dict[str, list[float]] = {}
    for name, make in FRONTS.items():
        found[name] = []
        for seed in range(options.seeds):
            torch.manual_seed(1000 + seed)
            score = train_and_measure(make(), train, valid, seed, options.epochs, len(classes))
            found[name].append(score)
            print(f"{name:15s} seed {seed}: {100 * score:.2f} %", flush=True)
    numbers = {name: interval(scores) for name, scores in found.items()}
    pairs = [(name, "bilinear") for name in found if name != "bilinear"]
    for one, other in [*pairs, ("neural resizer", "resizer at 24")]:
        differences = [a - b for a, b in zip(found[one], found[other], strict=True)]
        numbers[f"{one} - {other}"] = interval(differences)
    kind = "ferplus" if os.environ.get("FERLIB_DATA") else "synthetic"
    record = ResultRecord(
        name=f"resizer_ablation_{kind}",
        what="Accuracy of a small classifier behind six front ends: mean over seeds, 95 % t-interval",
        numbers=numbers,
        data={
            "name": "FER+" if kind == "ferplus" else "SyntheticFaces, framed as FER+",
            "split": "valid",
            "faces": len(valid[1]),
            "train_faces": len(train[1]),
            "fingerprint": fingerprint(data["valid"]),
        },
        classes=list(classes),
        settings=vars(options)
        | {"optimizer": "AdamW 4e-3, one cycle, batch 64, flips", "seeds_scores": found},
        extra={
            "minutes": (time.perf_counter() - start) / 60,
            "parameters": {
                name: sum(p.numel() for p in make().parameters()) for name, make in FRONTS.items()
            },
        },
        versions={"python": platform.python_version(), "torch": torch.__version__},
        command="python book/records/resizer_ablation.py",
    )
    print(record.save())
    for name, value in record.numbers.items():
        print(f"{name:28s} {100 * value.value:6.2f} % [{100 * value.low:.2f}, {100 * value.high:.2f}]")


if __name__ == "__main__":
    main()
