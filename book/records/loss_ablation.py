"""Six losses, two kinds of label, several seeds: accuracy and calibration of a small classifier.

    python book/records/loss_ablation.py                                # drawn faces
    FERLIB_DATA=/path/to/FERPlus python book/records/loss_ablation.py   # real faces

The classifier reads faces at 24 pixels and is trained either with the majority label or with the vote of one
annotator, drawn at random once per face (what a cheaply labelled data set has). It is measured against the
majority label of the validation faces after the last epoch; no epoch is picked. ``votes`` is cross-entropy
with all ten votes, for comparison. Calibration error: mean distance between confidence and accuracy over 15
bins. Writes ``book/results/loss_ablation_<synthetic|ferplus>.json``: means over seeds with 95 %
t-intervals, and the differences to cross-entropy, paired by seed.
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
from ferlib.losses import CompensatedFocalPDLSLoss, FocalPDLSLoss, LabelSmoothingLoss, PDLSLoss
from ferlib.models import FixedResizer

LOSSES = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "label smoothing": LabelSmoothingLoss(0.9),
    "PDLS": PDLSLoss(0.5),
    "F-PDLS": FocalPDLSLoss(0.8, 2.0),
    "compensated F-PDLS": CompensatedFocalPDLSLoss(0.5),
    "votes": nn.CrossEntropyLoss(),
}


def classifier(classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 48)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(432, classes))


def load(faces: FaceDataset) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = faces.batch(range(len(faces)))
    x = to_float(batch["image"])
    x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
    shares = batch["votes"][:, : len(faces.classes)].float()
    return FixedResizer(24, "antialiased")(x), batch["label"], shares / shares.sum(1, keepdim=True)


def calibration_error(p: torch.Tensor, labels: torch.Tensor, bins: int = 15) -> float:
    confidence, predicted = p.max(1)
    right = (predicted == labels).float()
    which = (confidence * bins).long().clamp_max(bins - 1)
    gaps = torch.zeros(bins).index_add_(0, which, right - confidence)
    return float(gaps.abs().sum() / len(p))


def train_and_measure(criterion: nn.Module, x, target, valid, seed: int, epochs: int) -> dict[str, float]:
    torch.manual_seed(seed)
    vx, vy, shares = valid
    model = classifier(shares.shape[1])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.01)
    steps = epochs * -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            flip = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
            loss = criterion(model(torch.where(flip, x[rows].flip(3), x[rows])), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in vx.split(256)])
    p = logits.softmax(1)
    right = (p.argmax(1) == vy).float()
    present = [c for c in range(shares.shape[1]) if (vy == c).any()]
    return {
        "accuracy": right.mean().item(),
        "mean class accuracy": sum(right[vy == c].mean().item() for c in present) / len(present),
        "calibration error": calibration_error(p, vy),
        "cross-entropy to the votes": F.cross_entropy(logits, shares).item(),
    }


def interval(values: list[float]) -> Interval:
    t = torch.tensor(values, dtype=torch.float64)
    half = float(stats.t.ppf(0.975, len(t) - 1) * t.std() / len(t) ** 0.5) if len(t) > 1 else float("nan")
    return Interval(float(t.mean()), float(t.mean()) - half, float(t.mean()) + half)


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--faces", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    start = time.perf_counter()
    data = {"train": open_faces("train", length=options.faces), "valid": open_faces("valid")}
    (x, y, shares), valid = (load(faces) for faces in data.values())
    one_vote = torch.multinomial(shares, 1, generator=torch.Generator().manual_seed(0))[:, 0]
    labels = {"majority": y, "one annotator": one_vote}
    scores: dict[str, list[float]] = {}
    for kind, hard in labels.items():
        for name, criterion in LOSSES.items():
            if name == "votes" and kind != "majority":
                continue
            target = shares if name == "votes" else hard
            for seed in range(options.seeds):
                found = train_and_measure(criterion, x, target, valid, seed, options.epochs)
                for metric, value in found.items():
                    scores.setdefault(f"{kind} | {name} | {metric}", []).append(value)
            mean = sum(scores[f"{kind} | {name} | accuracy"]) / options.seeds
            print(f"{kind:14s} {name:20s} {100 * mean:.2f} %", flush=True)
    numbers = {key: interval(values) for key, values in scores.items()}
    for key, values in scores.items():
        kind, name, metric = key.split(" | ")
        if name not in ("cross-entropy", "votes"):
            base = scores[f"{kind} | cross-entropy | {metric}"]
            numbers[f"{key} | difference"] = interval([a - b for a, b in zip(values, base, strict=True)])
    kind = "ferplus" if os.environ.get("FERLIB_DATA") else "synthetic"
    record = ResultRecord(
        name=f"loss_ablation_{kind}",
        what="A small classifier under six losses and two kinds of label: means over seeds, 95 % t-intervals",
        numbers=numbers,
        data={
            "name": "FER+" if kind == "ferplus" else "SyntheticFaces, framed as FER+",
            "split": "valid",
            "faces": len(valid[1]),
            "train_faces": len(y),
            "fingerprint": fingerprint(data["valid"]),
        },
        classes=list(data["train"].classes),
        settings=vars(options) | {"optimizer": "AdamW 4e-3, one cycle, batch 64, flips", "face_size": 24},
        extra={
            "minutes": (time.perf_counter() - start) / 60,
            "wrong_labels": {name: float((hard != y).float().mean()) for name, hard in labels.items()},
            "scores": scores,
        },
        versions={"python": platform.python_version(), "torch": torch.__version__},
        command="python book/records/loss_ablation.py",
    )
    print(record.save())


if __name__ == "__main__":
    main()
