"""The Batch Transformer Network: images to tokens to logits, which batch attention then corrects.

images -> encoder -> 147 tokens -> multi-level attention -> transformer -> logits ("vit")
                                         \\-> class maps -> batch transformer -> "cba" and "bt" scores

The encoder is a part that can be exchanged: POSTER V2's two backbones, or a small residual pyramid
(:func:`ferlib.models.btn_small`). Source: arXiv 2407.04218. Chapter 5 draws the network from this code.

Multi-level attention and the class maps are OUR RECONSTRUCTION. The paper states what multi-level attention
is for (the correlations between feature levels, so that no level is overfitted) and what it costs together
with the batch transformer (1.3 M parameters, 0.18 G operations); its inside is not public to us. Two
768 x 768 maps applied to all 147 tokens cost 1.18 M parameters and 173 M multiply-adds, so a query map and a
key map for all tokens fit that budget, and a value map would not. Chapter 5 does this arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ferlib.errors import choose
from ferlib.models.attention import ScaledDotProduct, merge_heads, split_heads
from ferlib.models.batch_transformer import BatchTransformer
from ferlib.models.common import divisors, evaluating, expect
from ferlib.models.poster_v2 import PosterV2Encoder, TokenTransformer

OUTPUTS = ("vit", "bt", "cba")
LEVELS, POSITIONS = 3, 49  # of the tokens: 7 x 7 places of each level


class LevelOutput(NamedTuple):
    """``tokens`` (B, 147, dim) for the transformer; ``query`` and ``key`` (B, C, 49) for the batch."""

    tokens: Tensor
    query: Tensor
    key: Tensor


class MultiLevelAttention(nn.Module):
    r"""Attention between the tokens of three feature levels, and each class's query and key maps.

    A reconstruction by this book, within the paper's stated budget; not the authors' code.

    .. math::

        N &= \mathrm{LayerNorm}(X), \qquad A = \mathrm{softmax}((N W_q)(N W_k)^\top / \sqrt{d_{head}}) \\
        Y &= X + g \odot A N, \qquad
        m(p) = \mathrm{LayerNorm}(\tfrac{1}{3} \textstyle\sum_{levels} Y(p)) \\
        \mathrm{query}_c(p) &= u_c \cdot m(p), \qquad \mathrm{key}_c(p) = w_c \cdot m(p)

    with X the 147 tokens, g a learned gain per channel, and p a position of the 7 x 7 grid. Values are not
    projected.

    Maps tokens (B, 147, dim), levels one after the other from fine to coarse, 49 positions each row by row,
    to a :class:`LevelOutput`. Listeners of ``attention`` get (B, heads, 147, 147). It has
    2 (dim^2 + dim) + 2 C (dim + 1) + 5 dim parameters.

    Args:
        num_classes: The number C.
        dim: Width of the tokens.
        heads: Heads of the attention.
        gain: Start value of g; with 0 the tokens pass unchanged, so that a loaded POSTER V2 starts as it was.

    Raises:
        FerlibError: Tokens of another shape.

    Chapter 5.
    """

    def __init__(self, num_classes: int, *, dim: int = 768, heads: int = 8, gain: float = 0.1) -> None:
        super().__init__()
        self.heads = choose("heads", heads, divisors(dim))
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.attention = ScaledDotProduct()
        self.gain = nn.Parameter(torch.full((dim,), float(gain)))
        self.map_norm = nn.LayerNorm(dim)
        self.class_query = nn.Linear(dim, num_classes)
        self.class_key = nn.Linear(dim, num_classes)

    def mix(self, tokens: Tensor) -> Tensor:
        """Tokens after attention to all levels: (B, 147, dim) -> (B, 147, dim)."""
        normed = self.norm(tokens)
        parts = (self.query(normed), self.key(normed), normed)
        query, key, value = (split_heads(t, self.heads) for t in parts)
        return tokens + self.gain * merge_heads(self.attention(query, key, value))

    def class_maps(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Each class's query map and key map on the 7 x 7 grid: (B, 147, dim) -> two of (B, C, 49)."""
        grid = self.map_norm(tokens.unflatten(1, (LEVELS, POSITIONS)).mean(1))
        return self.class_query(grid).transpose(1, 2), self.class_key(grid).transpose(1, 2)

    def forward(self, tokens: Tensor) -> LevelOutput:
        expect(tokens, LEVELS * POSITIONS, len(self.gain), of="tokens")
        tokens = self.mix(tokens)
        return LevelOutput(tokens, *self.class_maps(tokens))


class BTNOutput(NamedTuple):
    """The three predictions, logits (B, C): ``vit`` from the image alone, ``bt`` from image and batch,
    ``cba`` from the batch alone.
    """

    vit: Tensor
    bt: Tensor
    cba: Tensor


class BatchTransformerNetwork(nn.Module):
    """Recognize expressions with the help of the other images of the batch.

    Maps images (B, 3, H, W), RGB, ImageNet-normalized, to a :class:`BTNOutput` in training mode, and in
    evaluation mode to the one of its tensors that ``inference`` names. "vit" does not depend on the other
    images; "bt" and "cba" do, and for a single image they give the same class as "vit". ``set_reference``
    replaces the other images by fixed ones. ``outputs`` gives all three in either mode.

    Args:
        num_classes: The number C.
        inference: "vit", "bt" or "cba". Which one the paper uses at test time is not stated.
        encoder: Maps images to tokens (B, 147, dim); by default POSTER V2's two backbones with
            ``face_backbone`` and ``encoder_options``.
        face_backbone: See :class:`ferlib.models.PosterV2Encoder`.
        encoder_options: Its other options.
        dim: Width of the tokens, here and below by default POSTER V2's.
        depth: Blocks of the transformer.
        heads: Heads of every attention.
        mlp_ratio: Hidden width of the MLPs over ``dim``.
        dropout: Share of the class token that training leaves out.
        encoding: See :class:`ferlib.models.batch_transformer.ChannelPositionalEncoding`.

    Raises:
        FerlibError: An unknown ``inference``.

    Source: arXiv 2407.04218. Chapter 5.
    """

    def __init__(
        self,
        num_classes: int = 7,
        inference: str = "bt",
        *,
        encoder: nn.Module | None = None,
        face_backbone: str | nn.Module = "ir50",
        encoder_options: Mapping[str, Any] | None = None,
        dim: int = 768,
        depth: int = 2,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        encoding: str = "sinusoidal",
    ) -> None:
        super().__init__()
        self.num_classes, self.inference = num_classes, choose("inference", inference, OUTPUTS)
        if encoder is None:
            encoder = PosterV2Encoder(face_backbone=face_backbone, **(encoder_options or {}))
        self.encoder = encoder
        self.levels = MultiLevelAttention(num_classes, dim=dim, heads=heads)
        self.vit = TokenTransformer(
            num_classes, dim=dim, depth=depth, heads=heads, mlp_ratio=mlp_ratio, dropout=dropout
        )
        self.batch_transformer = BatchTransformer(num_classes, encoding=encoding)

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
        """All three predictions, whatever the mode: (B, 3, H, W) -> three of (B, C)."""
        tokens, query, key = self.encode(images, frozen)
        vit = self.vit(tokens)
        cba, bt = self.batch_transformer(query, key, vit)
        return BTNOutput(vit, bt, cba)

    @torch.no_grad()
    def set_reference(self, images: Tensor | None) -> None:
        """In evaluation, let each image attend to itself and to these images (M, 3, H, W) alone.

        "bt" and "cba" then do not depend on the batch. None goes back to the other images of the batch.
        """
        if images is None:
            return self.batch_transformer.set_reference(None, None)
        with evaluating(self):
            tokens, _, key = self.encode(images)
            self.batch_transformer.set_reference(key, self.vit(tokens))

    def forward(self, images: Tensor, frozen: Any = None) -> BTNOutput | Tensor:
        if self.training:
            return self.outputs(images, frozen)
        if self.inference == "vit":  # nothing of the batch is needed
            return self.vit(self.encode(images, frozen).tokens)
        return getattr(self.outputs(images, frozen), self.inference)
