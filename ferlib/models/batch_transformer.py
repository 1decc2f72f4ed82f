"""The batch transformer: attention between the images of a batch, class by class.

Class batch attention is scaled dot-product attention with classes as heads and images as tokens. For class c,
the query map of image i is compared with the key map of image j, and the value is image j's score for class
c. Chapter 4 builds it by hand, chapter 8 looks at its weights. In distributed training each process sees only
its share of the batch, so keys and values of all processes are gathered first; otherwise the network would
change with the number of devices.

Source: Batch Transformer Network (arXiv 2407.04218), section on class batch attention, and its README.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from ferlib.errors import FerlibError, choose
from ferlib.models.common import expect

ENCODINGS = ("sinusoidal", "learned", "none")
EXPLICIT_BATCH = 512  # up to here the (C, B, B) weights are small and writing them down is fastest


def class_batch_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None, return_weights: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Correct each image's class scores by those of the images of its batch that resemble it.

    .. math:: A_c = \mathrm{softmax}(s\, Q_c K_c^\top) \in \mathbb{R}^{B \times B}, \qquad
        \mathrm{out}_{:,c} = A_c V_{:,c}

    for each class c. Without weights the memory grows with B, not with B squared, beyond 512 images.

    Args:
        query: (B, C, E), of the images whose scores are corrected.
        key: (M, C, E), of the images they attend to: the same B, or others.
        value: (M, C), the class scores of those.
        scale: s, by default 1 / sqrt(C): C is the number of classes, not the embedding size E (49 in the
            paper).
        return_weights: Whether the weights are returned, too.

    Returns:
        (B, C); with ``return_weights`` also A (C, B, M), whose rows sum to one.

    Raises:
        FerlibError: The three shapes do not fit together.

    Source: BTN README, ``ClassBatchAttention``; arXiv 2407.04218. Chapter 4.
    """
    if query.ndim != 3 or key.shape[1:] != query.shape[1:] or value.shape != key.shape[:2]:
        shapes = [tuple(tensor.shape) for tensor in (query, key, value)]
        raise FerlibError(f"expected query (B, C, E), key (M, C, E) and value (M, C), got {shapes}")
    batch, classes, _ = query.shape
    scale = 1 / math.sqrt(classes) if scale is None else scale
    heads = query.transpose(0, 1), key.transpose(0, 1), value.t().unsqueeze(-1)  # (C, B, E), ..., (C, B, 1)
    if max(batch, key.shape[0]) > EXPLICIT_BATCH and not return_weights:
        return _fused(*heads, scale).t()
    weights = torch.softmax(torch.bmm(heads[0] * scale, heads[1].transpose(1, 2)), dim=-1)
    mixed = torch.bmm(weights, heads[2]).squeeze(-1).t()
    return (mixed, weights) if return_weights else mixed


def _fused(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """(C, B, E), (C, B, E), (C, B, 1) -> (C, B) in memory that grows with B.

    Fused kernels want values as wide as keys, on GPUs in steps of 8: pad with zeros, which add nothing.
    """
    width = query.shape[-1] if query.device.type == "cpu" else -(-query.shape[-1] // 8) * 8
    padded = [F.pad(t, (0, width - t.shape[-1])).unsqueeze(0) for t in (query, key, value)]
    return F.scaled_dot_product_attention(*padded, scale=scale)[0, :, :, 0]


class ChannelPositionalEncoding(nn.Module):
    r"""Add to query and key (B, C, E) something that tells the classes (the channels) apart.

    .. math:: q' = q + P, \qquad k' = k + P, \qquad P \in \mathbb{R}^{C \times E}

    the same for every image. ``kind`` is "sinusoidal" (P[c, 2i] = sin(c / 10000^{2i/E}), P[c, 2i+1] = cos of
    the same; no parameters), "learned" (P starts as N(0, 0.02)) or "none".

    What it can do, by algebra: q'_i . k'_j = q_i . k_j + P . k_j + (terms that do not depend on j), and the
    softmax over j cancels the latter, so the key's encoding has no effect. The query's leaves P . k_j: for
    each class, some images get more weight from all queries.

    Raises:
        FerlibError: An unknown kind, or other shapes.

    Source: the BTN README calls it with the number of channels and does not show it; the default is ours.
    Chapter 4.
    """

    def __init__(self, channels: int, positions: int = 49, kind: str = "sinusoidal") -> None:
        super().__init__()
        self.kind = choose("encoding", kind, ENCODINGS)
        if kind == "learned":
            self.encoding = nn.Parameter(0.02 * torch.randn(channels, positions))
        elif kind == "sinusoidal":
            self.register_buffer("encoding", _sinusoids(channels, positions), persistent=False)

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "none":
            return query, key
        expect(query, *self.encoding.shape, of="queries")
        return query + self.encoding, key + self.encoding


def _sinusoids(channels: int, positions: int) -> Tensor:
    exponent = torch.arange(0, positions, 2, dtype=torch.float64) / positions
    angle = torch.arange(channels, dtype=torch.float64)[:, None] * 10000.0**-exponent
    table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return table[:, :positions].float()


class ClassBatchAttention(nn.Module):
    """:func:`class_batch_attention` as a module, whose weights (C, B, B) go to its listeners.

    ``listeners`` works as in :class:`ferlib.models.attention.ScaledDotProduct`. Chapters 4 and 8.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Callable[[Tensor], None]] = []

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not self.listeners:
            return class_batch_attention(query, key, value)
        mixed, weights = class_batch_attention(query, key, value, return_weights=True)
        for listener in self.listeners:
            listener(weights)
        return mixed


class BatchTransformer(nn.Module):
    r"""Class batch attention and a shortcut: scores from the batch, and those plus the image's own.

    .. math:: \mathrm{CBA} = \mathrm{attention}(q + P, k + P, v), \qquad \mathrm{BT} = \mathrm{CBA} + v

    Maps query and key (B, C, 49) and value (B, C) to (CBA, BT), each (B, C). Without learned encoding it has
    no parameters. Permuting the batch permutes both outputs; for B = 1, CBA = v exactly and BT = 2 v.
    ``set_reference`` replaces the other images of the batch by fixed ones in evaluation. In training on
    several devices (torch.distributed) the images of all of them are the batch; the result is that of one
    device with the whole batch. Evaluation never waits for other processes.

    Args:
        num_classes: The number C.
        encoding: The kind of :class:`ChannelPositionalEncoding`.

    Source: BTN README, ``BatchTransformer``; arXiv 2407.04218; gathering and reference are ours. Chapter 4.
    """

    def __init__(self, num_classes: int, encoding: str = "sinusoidal") -> None:
        super().__init__()
        self.pos_encoder = ChannelPositionalEncoding(num_classes, kind=encoding)
        self.attention = ClassBatchAttention()
        self.register_buffer("reference_key", None, persistent=False)
        self.register_buffer("reference_value", None, persistent=False)

    def set_reference(self, key: Tensor | None, value: Tensor | None) -> None:
        """Remember the keys (M, C, 49), without encoding, and values (M, C) of M images; None forgets them.

        They are not part of the state dict.
        """
        self.reference_key = None if key is None else key.detach().clone()
        self.reference_value = None if value is None else value.detach().clone()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        query, key = self.pos_encoder(query, key)
        if self.reference_key is not None and not self.training:
            _, reference = self.pos_encoder(self.reference_key, self.reference_key)
            attended = reference_attention(query, key, value, reference, self.reference_value)
        elif self.training and is_shared():
            attended = self.attention(query, gather_batch(key), gather_batch(value))
        else:
            attended = self.attention(query, key, value)
        return attended, attended + value


def reference_attention(
    query: Tensor, key: Tensor, value: Tensor, reference_key: Tensor, reference_value: Tensor
) -> Tensor:
    """Class batch attention of each image to itself and to M reference images, not to its batch.

    Takes query and key (B, C, E), value (B, C), reference (M, C, E) and (M, C); returns (B, C), the same for
    an image in a batch of any size. Chapter 4.
    """
    scale = 1 / math.sqrt(query.shape[1])
    own = (query * key).sum(-1, keepdim=True)  # (B, C, 1)
    others = torch.einsum("bce,mce->bcm", query, reference_key)
    weights = torch.softmax(scale * torch.cat([own, others], dim=-1), dim=-1)
    return weights[..., 0] * value + torch.einsum("bcm,mc->bc", weights[..., 1:], reference_value)


def is_shared() -> bool:
    """Whether the batch is spread over several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_batch(tensor: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks: (B_r, ...) -> (B_1 + B_2 + ..., ...).

    Gradients flow back to each row from all processes. Losses that are averaged over each process's share,
    and DistributedDataParallel's average over processes, then give the gradients of one process with the
    whole batch. All processes have to call it; their shares may differ in size. Chapter 4.
    """
    if not is_shared():
        return tensor
    own = torch.tensor([len(tensor)], device=tensor.device)
    sizes = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, own)
    counts = [int(size) for size in sizes]
    missing = max(counts) - len(tensor)
    padded = torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))]) if missing else tensor
    shares = all_gather(padded.contiguous())
    return torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])
