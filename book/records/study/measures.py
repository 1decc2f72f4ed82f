"""What a run leaves behind: small enough for two hundred runs, enough for paired bootstraps over faces."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.data.transforms import model_input, normalise, resize, to_float, to_rgb
from ferlib.training.build import build_augment
from ferlib.training.recipes import Recipe

BINS = 15


def pack(right: Tensor | np.ndarray) -> str:
    """Which faces are right, one bit a face, as text: (N,) -> base64 of zlib of the bits."""
    bits = np.packbits(np.asarray(right, dtype=bool))
    return base64.b64encode(zlib.compress(bits.tobytes(), 9)).decode()


def unpack(text: str, faces: int) -> np.ndarray:
    """The bits of :func:`pack`: bool (N,)."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    return np.unpackbits(bits)[:faces].astype(bool)


def bins(logits: Tensor, labels: Tensor) -> list[list[float]]:
    """Faces by confidence in equal bins: how many, summed confidence, how many right. (N, K) -> (15, 3)."""
    confidence, predicted = logits.softmax(1).double().max(1)
    which = (confidence * BINS).long().clamp_max(BINS - 1)
    columns = torch.stack([torch.ones_like(confidence), confidence, (predicted == labels).double()], 1)
    table = torch.zeros(BINS, 3, dtype=torch.float64).index_add_(0, which, columns)
    return [[int(count), round(summed, 2), int(right)] for count, summed, right in table.tolist()]


def final(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """One view of validation after the last epoch: bits of what is right, bins of confidence."""
    right = logits.argmax(1) == labels
    return {
        "accuracy": round(right.double().mean().item(), 6),
        "right": pack(right),
        "bins": bins(logits, labels),
    }


@torch.no_grad()
def answers(model: nn.Module, faces: FaceDataset, recipe: Recipe) -> Tensor:
    """Logits of every face as it is, in 32 bits: N faces -> (N, K). The model is left in evaluation mode."""
    model.eval()
    parts = torch.arange(len(faces)).split(256)
    return torch.cat(
        [
            model(model_input(faces.batch(rows)["image"], recipe.image_size, recipe.interpolation)).float()
            for rows in parts
        ]
    )


@torch.no_grad()
def as_released(
    model: nn.Module, faces: FaceDataset, criterion: nn.Module, recipe: Recipe, epoch: int
) -> dict[str, float]:
    """Loss and accuracy as the released code takes them: faces shuffled and augmented as in training.

    ``accuracy`` and ``loss`` are means of batch means; ``by faces`` is the accuracy of the same answers as a
    mean over faces. Source: Neural Resizer, utils/dataloaders.py:33-59, utils/train_model.py:45-82.
    """
    model.eval()
    generator = torch.Generator().manual_seed(1_000_003 * recipe.seed + 500_009 + epoch)
    augment = build_augment(recipe)
    losses, accuracies, right = [], [], 0
    for rows in torch.randperm(len(faces), generator=generator).split(recipe.batch_size):
        batch = faces.batch(rows)
        images = to_float(batch["image"])
        if recipe.image_size is not None:
            images = resize(images, recipe.image_size, recipe.interpolation)
        logits = model(normalise(to_rgb(augment(images, generator)))).float()
        losses.append(criterion(logits, batch["label"]).item())
        hits = int((logits.argmax(1) == batch["label"]).sum())
        accuracies.append(hits / len(rows))
        right += hits
    return {
        "loss": round(sum(losses) / len(losses), 5),
        "accuracy": round(sum(accuracies) / len(accuracies), 6),
        "by faces": round(right / len(faces), 6),
    }
