"""A data set and a network so small that tests can train them: four kinds of bright spot, one convolution."""

from typing import Any

import torch
from torch import Tensor, nn

from ferlib.data.base import FaceDataset


class Spots(FaceDataset):
    """Grey pictures (1, 16, 16) with one bright quarter; the label is the quarter."""

    classes = ("upper left", "upper right", "lower left", "lower right")

    def __init__(self, length: int = 64, seed: int = 0, noise: float = 40.0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, 4, (length,), generator=draw)
        images = torch.rand(length, 1, 16, 16, generator=draw) * noise + 60
        for i, label in enumerate(self.labels.tolist()):
            images[i, :, 8 * (label // 2) :, :][:, :8, 8 * (label % 2) :][..., :8] += 100
        self.images = images.clamp(0, 255).to(torch.uint8)
        self.votes = nn.functional.one_hot(self.labels, 4).float() * 7 + 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": self.images[index],
            "label": int(self.labels[index]),
            "votes": self.votes[index],
            "name": f"spot{index}",
        }


class Net(nn.Module):
    """Convolution, batch norm, dropout, linear: everything that a resumed run has to put back."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, padding=2)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8 * 16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(images)))
        return self.head(self.drop(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)))


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def train_words(length: int, *more: str) -> list[str]:
    """What one types to train the small network on a few drawn faces, without a test at the end."""
    few = ["--recipe", "btn-small-synthetic", "--data", "synthetic", "--length", str(length)]
    return ["train", *few, "--no-test", *more]
