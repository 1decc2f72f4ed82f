"""What the two ablation records share: faces, two small networks, one training loop, intervals by seed.

Every comparison is paired: run ``seed`` of each variant starts from the same weights where the parts are the
same, and sees the same faces in the same order. No epoch is picked; the last one counts.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ferlib.data import FaceDataset
from ferlib.data.base import fingerprint
from ferlib.data.transforms import to_float
from ferlib.evaluation import Interval, mean_class_accuracy, summarize
from ferlib.models import warp

GRID = 4  # tokens per side of the small transformer


def load(faces: FaceDataset) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Grey faces of mean 0 and deviation 1, labels, shares of the votes: (N, 1, n, n), (N,), (N, K)."""
    batch = faces.batch(range(len(faces)))
    x = to_float(batch["image"])
    x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
    shares = batch["votes"][:, : len(faces.classes)].float()
    return x, batch["label"], shares / shares.sum(1, keepdim=True)


class SmallCNN(nn.Module):
    """Three convolutions with stride 2 and one linear layer, for 28 pixels: (B, 1, 28, 28) -> (B, K)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 48)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(48 * 16, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class SmallTransformer(nn.Module):
    """A transformer that reads faces of exactly 28 pixels: (B, 1, 28, 28) -> (B, K).

    Three convolutions with stride 2 make 4 x 4 tokens (plain patches need far more faces to learn from); each
    gets the vector of its position; pre-norm layers; the mean token decides. In this it is to 28 pixels what
    the paper's Swin is to 224: its positions are learned for one grid.
    """

    def __init__(self, classes: int, dim: int = 64, depth: int = 2) -> None:
        super().__init__()
        stem: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, dim)):
            stem += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.stem = nn.Sequential(*stem)
        self.position = nn.Parameter(0.02 * torch.randn(1, GRID * GRID, dim))
        layer = nn.TransformerEncoderLayer(
            dim, 4, 2 * dim, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).mT + self.position
        return self.head(self.norm(self.layers(tokens)).mean(1))


def turned(faces: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Each face turned in its plane by its own angle: (B, C, n, n), (B,) -> (B, C, n, n)."""
    a = torch.deg2rad(degrees)
    zero = torch.zeros_like(a)
    theta = torch.stack([a.cos(), -a.sin(), zero, a.sin(), a.cos(), zero], 1).view(-1, 2, 3)
    return warp(faces, theta)


def train(
    model: nn.Module,
    x: torch.Tensor,
    target: torch.Tensor,
    criterion: nn.Module,
    *,
    seed: int,
    epochs: int,
    rate: float | list[dict],
    tilt: float = 0.0,
) -> nn.Module:
    """AdamW, one cycle, batches of 64, flips; ``tilt``: turned by up to so many degrees either way."""
    torch.manual_seed(seed)  # dropout
    generator = torch.Generator().manual_seed(seed)
    groups = [{"params": model.parameters(), "lr": rate}] if isinstance(rate, float) else rate
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    peaks = [group["lr"] for group in optimizer.param_groups]
    steps = epochs * -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            flip = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
            batch = torch.where(flip, x[rows].flip(3), x[rows])
            if tilt:
                batch = turned(batch, tilt * (2 * torch.rand(len(rows), generator=generator) - 1))
            loss = criterion(model(batch), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The network's logits, 256 faces at a time: (N, 1, n, n) -> (N, K)."""
    return torch.cat([model(part) for part in x.split(256)])


def reliability(
    p: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor, bins: int = 15
) -> list[list[float]]:
    """Faces by confidence in equal bins: how many, summed confidence, how many right, votes that agree.

    (N, K), (N,), (N, K) -> (bins, 4). The distance of the third column to the second, per face, is the
    calibration error; that of the fourth says the same of ten annotators in place of their majority.
    """
    confidence, predicted = p.double().max(1)
    which = (confidence * bins).long().clamp_max(bins - 1)
    agree = shares.double().gather(1, predicted[:, None])[:, 0]
    columns = [torch.ones_like(confidence), confidence, (predicted == labels).double(), agree]
    table = torch.zeros(bins, 4, dtype=torch.float64)
    return table.index_add_(0, which, torch.stack(columns, 1)).tolist()


def judged(answers: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor) -> dict[str, float]:
    """Accuracy, mean class accuracy, two calibration errors, cross-entropy to the votes of (N, K) logits."""
    p = answers.softmax(1)
    found = torch.tensor(reliability(p, labels, shares))
    predicted = p.argmax(1)
    return {
        "accuracy": (predicted == labels).double().mean().item(),
        "mean class accuracy": mean_class_accuracy(labels, predicted, answers.shape[1]),
        "calibration error": float((found[:, 2] - found[:, 1]).abs().sum() / len(p)),
        "calibration error to the votes": float((found[:, 3] - found[:, 1]).abs().sum() / len(p)),
        "cross-entropy to the votes": F.cross_entropy(answers, shares).item(),
    }


def difference(one: list[float], other: list[float]) -> Interval:
    """Mean over seeds of the differences of pairs, with its 95 % t-interval."""
    return summarize([a - b for a, b in zip(one, other, strict=True)])


def source() -> str:
    """Which faces these are, as the record's name ends: ``ferplus`` or ``synthetic``."""
    return "ferplus" if os.environ.get("FERLIB_DATA") else "synthetic"


def about(train_faces: int, valid: FaceDataset) -> dict[str, object]:
    """What a record says of its data."""
    return {
        "name": "FER+" if source() == "ferplus" else "SyntheticFaces, framed as FER+",
        "split": "valid",
        "faces": len(valid),
        "train_faces": train_faces,
        "fingerprint": fingerprint(valid),
    }


def versions() -> dict[str, str]:
    """What a record says of its program."""
    return {"python": platform.python_version(), "torch": torch.__version__}


def command() -> str:
    """What was typed, as a reader types it."""
    data = ["FERLIB_DATA=/path/to/FERPlus"] if source() == "ferplus" else []
    return " ".join([*data, "python", "-m", f"book.experiments.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
