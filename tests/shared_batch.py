"""A small run of a batch-attention network: what each process of ``test_processes`` does.

torchrun --nproc-per-node 2 -m tests.shared_batch FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.losses import BatchTransformerLoss
from ferlib.training import Recipe, fit
from ferlib.training.device import leave_group
from ferlib.weights import checkpoints
from tests.test_across_devices import CLASSES, network

RECIPE = Recipe(
    name="shared",
    loss="cross-entropy",
    epochs=2,
    batch_size=6,
    accumulate=2,
    lr=1e-3,
    warmup=0.5,
    ema=0.9,
    sam_rho=0.05,
    clip=1.0,
    augment="flip-erase",
    balance=True,
    channels_last=False,
)


class Wide(FaceDataset):
    """Noise of 28 x 84 pixels, which the test's network cuts into 147 patches."""

    classes = tuple("abcde")

    def __init__(self, count: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (count, 1, 28, 84), generator=draw, dtype=torch.uint8)
        self.labels = torch.arange(count) % CLASSES

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self.labels[index])}


class Exact(nn.Module):
    """The network in 64 bits, where the order of additions does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, images: Tensor) -> Any:
        return self.net(images.double())


def train(folder: Path) -> tuple[Exact, list[dict[str, Any]]]:
    """The run, in however many processes there are; batches of 5 + 5 + ... faces of 27, judged in three."""
    torch.set_num_threads(1)
    model = Exact()
    criterion = BatchTransformerLoss(nn.CrossEntropyLoss())
    options = {"run_dir": folder, "progress": None, "device": "cpu"}
    return model, fit(model, criterion, Wide(27, 1), Wide(14, 2), RECIPE, **options)


if __name__ == "__main__":
    import os

    rank, root = os.environ["RANK"], Path(sys.argv[1])
    model, history = train(root / "run")
    checkpoints.save(root / f"rank{rank}.safetensors", model, {"history": history})
    leave_group()
