"""The Batch Transformer Network: images to tokens to logits, and then the batch has its say.

images -> encoder -> 147 tokens -> multi-level attention -> transformer -> logits ("vit")
                                         \\-> class maps -> batch transformer -> "cba" and "bt" scores

The encoder is a part that can be exchanged: POSTER V2's two backbones, or a small residual pyramid
(:func:`ferlib.models.btn_small`). Chapter 5 draws the network from this code.
Source: arXiv 2407.04218; multi-level attention is our reconstruction (see its module).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ferlib.models import poster_v2
from ferlib.models.batch_transformer import BatchTransformer
from ferlib.models.multi_level_attention import LevelOutput, MultiLevelAttention
from ferlib.models.official import Architecture, register
from ferlib.models.poster_v2 import PosterV2Encoder
from ferlib.models.token_transformer import TokenTransformer

OUTPUTS = ("vit", "bt", "cba")


class BTNOutput(NamedTuple):
    """The three answers, each of them logits that the loss looks at.

    Shape: ``vit`` (B, C) from the image alone, ``bt`` (B, C) image plus batch, ``cba`` (B, C) batch alone.
    """

    vit: Tensor
    bt: Tensor
    cba: Tensor


class BatchTransformerNetwork(nn.Module):
    """Recognise expressions with the help of the other images of the batch.

    Shape: images (B, 3, H, W), RGB, ImageNet-normalised -> :class:`BTNOutput` in training mode, one tensor
    (B, C) in evaluation mode: the output named by ``inference``. "vit" does not depend on the other images;
    "bt" and "cba" do, and for a single image they give the same class as "vit". ``set_reference`` fixes whom
    an image asks, so that "bt" and "cba" do not depend on the neighbours either. ``outputs`` gives all three
    in either mode.

    Parameters: ``encoder`` maps images to tokens (B, 147, dim), by default POSTER V2's two backbones with
    ``face_backbone`` and ``encoder_options`` (:class:`ferlib.models.PosterV2Encoder` says which); the other
    settings are the widths of the parts behind it, by default POSTER V2's. ``gather``: on several devices,
    the batch of all of them takes part in training.
    Raises: ``ValueError`` for an unknown ``inference``.
    Source: arXiv 2407.04218. Which output the paper uses at test time is not stated. Chapter 5.
    """

    def __init__(
        self, num_classes: int = 7, inference: str = "bt", *, encoder: nn.Module | None = None,
        face_backbone: str | nn.Module = "ir50", encoder_options: Mapping[str, Any] | None = None,
        dim: int = 768, depth: int = 2, heads: int = 8, mlp_ratio: float = 4.0, dropout: float = 0.0,
        encoding: str = "sinusoidal", gather: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if inference not in OUTPUTS:
            raise ValueError(f"inference is one of {OUTPUTS}, got {inference!r}")
        self.num_classes, self.inference = num_classes, inference
        if encoder is None:
            encoder = PosterV2Encoder(face_backbone=face_backbone, **(encoder_options or {}))
        self.encoder = encoder
        self.levels = MultiLevelAttention(num_classes, dim=dim, heads=heads)
        self.vit = TokenTransformer(
            num_classes, dim=dim, depth=depth, heads=heads, mlp_ratio=mlp_ratio, dropout=dropout
        )
        self.batch_transformer = BatchTransformer(num_classes, encoding=encoding, gather=gather)

    def frozen(self, images: Tensor) -> Any:
        """What of the encoder does not learn (POSTER V2's landmark maps), computed without graph, or None
        where all of it learns. ``outputs`` and ``forward`` take it, so that SAM's second pass over the same
        images (B, 3, H, W) need not compute it again.
        """
        return self.encoder.frozen(images) if hasattr(self.encoder, "frozen") else None

    def encode(self, images: Tensor, frozen: Any = None) -> LevelOutput:
        """Tokens (B, 147, dim) after multi-level attention, and the class maps (B, C, 49)."""
        return self.levels(self.encoder(images) if frozen is None else self.encoder(images, frozen))

    def outputs(self, images: Tensor, frozen: Any = None) -> BTNOutput:
        """All three answers, whatever the mode: (B, 3, H, W) -> three of (B, C)."""
        tokens, query, key = self.encode(images, frozen)
        vit = self.vit(tokens)
        cba, bt = self.batch_transformer(query, key, vit)
        return BTNOutput(vit, bt, cba)

    @torch.no_grad()
    def set_reference(self, images: Tensor | None) -> None:
        """Fix whom an image asks in evaluation: itself and these faces (M, 3, H, W), and no neighbour.

        "bt" and "cba" then give one image the same answer in every batch. Without images, neighbours again.
        """
        if images is None:
            return self.batch_transformer.set_reference(None, None)
        mode, _ = self.training, self.eval()
        tokens, _, key = self.encode(images)
        self.batch_transformer.set_reference(key, self.vit(tokens))
        self.train(mode)

    def forward(self, images: Tensor, frozen: Any = None) -> BTNOutput | Tensor:
        if self.training:
            return self.outputs(images, frozen)
        if self.inference == "vit":  # nothing of the batch is needed
            return self.vit(self.encode(images, frozen).tokens)
        return getattr(self.outputs(images, frozen), self.inference)


def official_name(name: str) -> str:
    """POSTER V2's name for a tensor of its part; our own for the others, whose original names are not known
    to us (a mapping places them: :func:`ferlib.models.place_official`). Shape: string to string.
    """
    return poster_v2.official_name(name) if name.startswith(("encoder.", "vit.")) else name


for _classes in (7, 8):
    register(
        Architecture(
            f"btn-{_classes}", partial(BatchTransformerNetwork, _classes), official_name,
            unused=poster_v2.UNUSED, parts={"poster-v2": ("encoder.", "vit.")},
        )
    )  # fmt: skip
