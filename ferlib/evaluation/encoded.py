"""Faces that can be put into many batches quickly: everything up to the batch's say is computed once.

In the Batch Transformer Network only the last step looks at the other images. So a face is encoded once, and
a thousand batches cost a thousand small attentions. Any other network answers each batch as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.data.transforms import model_input
from ferlib.evaluation.evaluate import device_of
from ferlib.models import BatchTransformerNetwork, evaluating
from ferlib.training.loop import logits_of


class Encoded(Protocol):
    """Faces of which any set can be answered as one batch.

    Shape: ``labels`` (N,); ``answer(rows (n,))`` -> logits (n, K) on the CPU. Chapter 7.
    """

    labels: Tensor

    def answer(self, rows: Tensor) -> Tensor: ...


@dataclass
class EncodedFaces:
    """Class maps and scores of N faces, and the network that lets a batch of them have its say.

    Shape: ``query`` and ``key`` (N, C, 49), ``value`` (N, C), ``labels`` (N,). Chapter 7.
    """

    model: BatchTransformerNetwork
    query: Tensor
    key: Tensor
    value: Tensor
    labels: Tensor

    def answer(self, rows: Tensor) -> Tensor:
        """The network's answer to these faces as one batch: rows (n,) -> logits (n, K)."""
        rows = rows.to(self.value.device)
        value = self.value[rows]
        if self.model.inference == "vit":
            return value.cpu()
        with torch.no_grad(), evaluating(self.model):
            cba, bt = self.model.batch_transformer(self.query[rows], self.key[rows], value)
        return (bt if self.model.inference == "bt" else cba).float().cpu()


@dataclass
class WholePasses:
    """N faces and a network that is asked anew for every batch. Shape: ``labels`` (N,). Chapter 7."""

    model: nn.Module
    faces: FaceDataset
    image_size: int | None = None
    interpolation: str = "bicubic"
    device: torch.device | None = None

    @property
    def labels(self) -> Tensor:
        """The faces' labels (N,)."""
        return torch.as_tensor(self.faces.labels)

    def answer(self, rows: Tensor) -> Tensor:
        """The network's answer to these faces as one batch: rows (n,) -> logits (n, K)."""
        images = self.faces.batch(rows)["image"].to(self.device or device_of(self.model))
        with torch.no_grad(), evaluating(self.model):
            return logits_of(self.model(model_input(images, self.image_size, self.interpolation))).cpu()


def encode(
    model: nn.Module,
    data: FaceDataset,
    *,
    batch_size: int = 64,
    image_size: int | None = None,
    interpolation: str = "bicubic",
    device: str | torch.device | None = None,
    whole: bool = False,
) -> EncodedFaces | WholePasses:
    """Prepare faces for many batches: encoded once, ``batch_size`` at a time, where the network allows it.

    ``whole``: ask the network anew for each batch in any case. Both ways give the same answers up to
    rounding.

    Shape: N faces -> something whose ``answer(rows (n,))`` gives logits (n, K). Raises ``ValueError`` for an
    empty data set. Chapter 7.
    """
    if len(data) == 0:
        raise ValueError("the data set is empty: there is nothing to encode")
    device = torch.device(device) if device else device_of(model)
    if whole or not isinstance(model, BatchTransformerNetwork):
        return WholePasses(model, data, image_size, interpolation, device)
    parts = []
    with torch.no_grad(), evaluating(model):
        for rows in torch.arange(len(data)).split(batch_size):
            images = model_input(data.batch(rows)["image"].to(device), image_size, interpolation)
            tokens, query, key = model.encode(images)
            parts.append((query, key, model.vit(tokens)))
    query, key, value = (torch.cat(part) for part in zip(*parts, strict=True))
    return EncodedFaces(model, query, key, value, torch.as_tensor(data.labels))


def answers(faces: Encoded, batches: list[Tensor]) -> Tensor:
    """The answers to all faces, given how they are put together; every face is in one batch.

    Shape: batches of rows, N in all -> logits (N, K) in the order of the faces. Chapter 7.
    """
    logits = torch.cat([faces.answer(rows) for rows in batches])
    return logits[torch.cat(batches).argsort()]
