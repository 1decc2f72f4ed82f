"""POSTER V2: cross-attention between landmarks and face features on three levels, then a small transformer.

The baseline of the Batch Transformer Network, and a part of it. 43.75 M parameters; the 14.6 M which the
released code builds and never uses are left out. Chapter 5 follows a face through it.
Source: arXiv 2301.12149; outputs equal to the released code's on equal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import Mlp
from timm.models.swin_transformer import get_relative_position_index
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from ferlib.errors import FerlibError, choose
from ferlib.models.attention import ScaledDotProduct, merge_heads, split_heads
from ferlib.models.common import divisors, expect
from ferlib.models.iresnet import IResNet50, resize_to
from ferlib.models.mobilefacenet import MobileFaceNet
from ferlib.models.mobilenet_faces import MobileNetFacesBranch, to_unit

WIDTHS, HEADS, SIZES = (64, 128, 256), (2, 4, 8), (28, 14, 7)
DIM = 768
SHORTCUTS = ("normalized", "input")
Maps = tuple[Tensor, Tensor, Tensor]


# Cross-attention: one level of the pyramid


def relative_positions(window: int) -> Tensor:
    r"""Which entry of the bias table each pair of places of a window uses.

    .. math::

        \mathrm{index}(p, q) = (\mathrm{row}_p - \mathrm{row}_q + w - 1)(2w - 1)
        + \mathrm{column}_p - \mathrm{column}_q + w - 1

    Returns:
        int64 (window^2, window^2), values below (2 window - 1)^2.

    Source: Swin Transformer (Liu et al. 2021), as timm computes it. Chapter 5.
    """
    return get_relative_position_index(window, window)


class WindowCrossAttention(nn.Module):
    r"""Attention from every place of the landmark map to every place of the face map in its window.

    .. math:: \mathrm{softmax}(L K^\top / \sqrt{d} + b)\, V

    per head, with K and V projected from the face map. The queries L are the landmark features themselves,
    without a projection, as in the released code. With ``project_query`` they have one (dim^2 + dim
    parameters); it starts as the identity, so that weights trained without it give the same output.

    Maps from landmarks (B, N, dim) and face (B, N, dim), N = window^2, to (B, N, dim); listeners of
    ``attention`` get (B, heads, N, N). Source: POSTER V2 (arXiv 2301.12149), section 3. Chapter 5.
    """

    def __init__(self, dim: int, heads: int, window: int, project_query: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query: nn.Module = nn.Identity()
        if project_query:
            self.query = nn.Linear(dim, dim)
            nn.init.eye_(self.query.weight)
            nn.init.zeros_(self.query.bias)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("positions", relative_positions(window), persistent=False)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention = ScaledDotProduct()

    def forward(self, landmarks: Tensor, face: Tensor) -> Tensor:
        key, value = (split_heads(t, self.heads) for t in self.key_value(face).chunk(2, dim=-1))
        places = len(self.positions)
        # contiguous, and with an axis for the batch: fused kernels need both
        bias = self.bias_table.t().contiguous().index_select(1, self.positions.flatten())
        bias = bias.view(1, self.heads, places, places)
        query = split_heads(self.query(landmarks), self.heads)
        return self.proj(merge_heads(self.attention(query, key, value, bias=bias)))


class LevelFusion(nn.Module):
    r"""One level of the pyramid: halve the face map, attend to it from the landmark map, add, refine.

    .. math::

        S &= \mathrm{LayerNorm}(\mathrm{conv}(F)), \qquad X = S + g_1 \odot \mathrm{attention}(L, S), \\
        \mathrm{out} &= X + g_2 \odot \mathrm{mlp}(\mathrm{LayerNorm}(X))

    The shortcut S is the *normalized* map, as in the released code; with ``shortcut="input"`` it is the map
    before its normalization, as pre-norm transformers have it.

    Maps from face (B, dim, 2s, 2s) and landmarks (B, dim, s, s) to (B, s, s, dim), channels last.

    Args:
        dim: Channels.
        heads: Heads of the attention.
        size: The side s of the map.
        window: Side of the windows, which divides ``size``; by default as large, so that each place attends
            to all places, as released.
        shortcut: "normalized" or "input".
        project_query: See :class:`WindowCrossAttention`.
        scale: Start value of the gains g1 and g2.
        drop_path: Probability that a branch is skipped.
        mlp_ratio: Hidden width of the MLP over ``dim``.

    Raises:
        FerlibError: A window that does not divide the map, or an unknown shortcut.

    Source: POSTER V2, ``window`` and ``feedforward``. Chapter 5.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        size: int,
        *,
        window: int | None = None,
        shortcut: str = "normalized",
        project_query: bool = False,
        scale: float = 1e-5,
        drop_path: float = 0.0,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        window = size if window is None else window
        if window < 1 or size % window:
            raise FerlibError(f"a window of {window} does not divide a map of {size} x {size} places")
        self.window, self.shortcut = window, choose("shortcut", shortcut, SHORTCUTS)
        self.conv = nn.Conv2d(dim, dim, 3, 2, 1)
        self.norm = nn.LayerNorm(dim)
        self.attn = WindowCrossAttention(dim, heads, window, project_query)
        self.gain1 = nn.Parameter(torch.full((dim,), scale))
        self.gain2 = nn.Parameter(torch.full((dim,), scale))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, face: Tensor, landmarks: Tensor) -> Tensor:
        halved = self.conv(face).permute(0, 2, 3, 1)  # (B, s, s, dim)
        normalized = self.norm(halved)
        queries = cut_windows(landmarks.permute(0, 2, 3, 1), self.window)
        mixed = self.attn(queries, cut_windows(normalized, self.window))
        mixed = join_windows(mixed, self.window, halved.shape[1])
        shortcut = normalized if self.shortcut == "normalized" else halved
        out = shortcut + self.drop_path(self.gain1 * mixed)
        return out + self.drop_path(self.gain2 * self.mlp(self.norm2(out)))


def cut_windows(maps: Tensor, window: int) -> Tensor:
    """Cut maps into square windows: (B, s, s, d) -> (B * (s / w)^2, w^2, d), row by row. Chapter 5."""
    count, dim = maps.shape[1] // window, maps.shape[3]
    cut = maps.unflatten(2, (count, window)).unflatten(1, (count, window))  # (B, n, w, n, w, d)
    return cut.transpose(2, 3).reshape(-1, window**2, dim)


def join_windows(tokens: Tensor, window: int, size: int) -> Tensor:
    """Undo ``cut_windows``: (B * (s / w)^2, w^2, d) -> (B, s, s, d). Chapter 5."""
    count, dim = size // window, tokens.shape[-1]
    cut = tokens.view(-1, count, count, window, window, dim)
    return cut.transpose(2, 3).reshape(-1, size, size, dim)


# The transformer over the tokens of all levels


class SelfAttention(nn.Module):
    """Multi-head self-attention: (B, N, dim) -> (B, N, dim); listeners get (B, heads, N, N).

    With ``first_only`` the first token alone attends, (B, 1, dim): the first row of the same. Chapter 5.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = choose("heads", heads, divisors(dim))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention = ScaledDotProduct()

    def forward(self, tokens: Tensor, first_only: bool = False) -> Tensor:
        if first_only:
            dim = tokens.shape[-1]
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(tokens[:, :1], weight[:dim], bias[:dim])
            parts = query, *F.linear(tokens, weight[dim:], bias[dim:]).chunk(2, dim=-1)
        else:
            parts = self.qkv(tokens).chunk(3, dim=-1)
        query, key, value = (split_heads(t, self.heads) for t in parts)
        return self.proj(merge_heads(self.attention(query, key, value)))


class Block(nn.Module):
    """Pre-norm transformer block, x + attention(norm(x)), then x + mlp(norm(x)): (B, N, dim) -> (B, N, dim).

    With ``first_only`` it gives the first token of that alone, (B, 1, dim).
    Source: Dosovitskiy et al. 2021, equations 2 and 3. Chapter 5.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, tokens: Tensor, first_only: bool = False) -> Tensor:
        mixed = self.attn(self.norm1(tokens), first_only)
        tokens = (tokens[:, :1] if first_only else tokens) + mixed
        return tokens + self.mlp(self.norm2(tokens))


class SqueezeExcite(nn.Module):
    """Multiply a vector by gates computed from itself, x * sigmoid(W2 relu(W1 x)): (B, dim) -> (B, dim).

    Source: POSTER V2's code; Hu et al. 2018 without the bottleneck. Chapter 5.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)

    def forward(self, vector: Tensor) -> Tensor:
        return vector * torch.sigmoid(self.linear2(torch.relu(self.linear1(vector))))


class TokenTransformer(nn.Module):
    """Class token, positions, transformer blocks, squeeze-and-excitation, logits.

    Maps tokens (B, tokens, dim) to logits (B, num_classes). ``embed`` gives the class token (B, dim) after
    the blocks.

    Only the class token is read in the end. While ``lean``, the last block computes no other token (its keys
    and values excepted), which saves 10 of its 12 dim^2 multiply-adds per token and changes nothing. ``lean``
    is True, False, or None: True in training, while evaluation keeps all tokens for those who look inside.
    While there are listeners at the last block's attention, all tokens are computed.

    Args:
        num_classes: How many expressions.
        dim: Width of the tokens.
        tokens: Number of tokens, without the class token.
        depth: Number of blocks.
        heads: Heads of each block.
        mlp_ratio: Hidden width of the MLPs over ``dim``.
        dropout: Share of the class token that training leaves out.

    Raises:
        FerlibError: Tokens of another shape.

    Source: POSTER V2 (arXiv 2301.12149), its ViT: dim 768, depth 2, heads 8, 147 tokens. Chapter 5.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        dim: int = DIM,
        tokens: int = 147,
        depth: int = 2,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.lean: bool | None = None
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, tokens + 1, dim))
        self.blocks = nn.Sequential(*[Block(dim, heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.se_block = SqueezeExcite(dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)

    def embed(self, tokens: Tensor) -> Tensor:
        expect(tokens, *self.pos_embed[0, 1:].shape, of="tokens")
        sequence = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks[:-1]:
            sequence = block(sequence)
        lean = self.training if self.lean is None else self.lean
        last = self.blocks[-1]
        return self.norm(last(sequence, first_only=lean and not last.attn.attention.listeners)[:, 0])

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.dropout(self.se_block(self.embed(tokens))))


# The network


class PosterV2Encoder(nn.Module):
    """Images to 147 tokens: two backbones, three levels of cross-attention, three embeddings.

    Maps (B, 3, H, W), RGB, ImageNet-normalized, of any size (both backbones resize), to tokens
    (B, 147, 768): 49 of the fine, 49 of the middle, 49 of the coarse level. ``levels`` gives the fused maps,
    channels last: (B, 28, 28, 64), (B, 14, 14, 128), (B, 7, 7, 256). ``frozen`` gives the landmark maps,
    which may be given back to ``forward`` and ``levels``: two passes over the same images (SAM's) then
    compute them once.

    Where the released code is odd, the default is as released, except for ``landmark_statistics``.

    Args:
        resize: "nearest", or "bilinear" with antialiasing.
        face_backbone: "ir50" as in the paper; "mobilenet-faces", whose weights anybody can have
            (:class:`ferlib.models.MobileNetFaces`); or any module that maps the images to (B, 64, 56, 56),
            (B, 128, 28, 28) and (B, 256, 14, 14).
        shortcut: "normalized", or "input" (:class:`LevelFusion`).
        project_query: Whether the landmark queries are projected (:class:`WindowCrossAttention`).
        windows: Sides of the three levels' windows, by default as large as the maps.
        landmark_input: "normalized", the image as the face branch gets it; or "unit", in [0, 1], on which the
            published landmark weights were trained.
        landmark_statistics: "frozen", or "drifting" as released: the landmark branch has no gradient in
            either, but in the released code its batch norms stay in training mode, use the batch's statistics
            and move their stored ones. Evaluation is the same in both.

    Raises:
        FerlibError: An unknown choice, or a face backbone whose maps have other shapes.

    Source: arXiv 2301.12149, section 3. Chapter 5 measures each choice.
    """

    def __init__(
        self,
        resize: str = "nearest",
        *,
        face_backbone: str | nn.Module = "ir50",
        shortcut: str = "normalized",
        project_query: bool = False,
        windows: Sequence[int] = SIZES,
        landmark_input: str = "normalized",
        landmark_statistics: str = "frozen",
    ) -> None:
        super().__init__()
        self.resize = choose("resize", resize, ("nearest", "bilinear"))
        self.landmark_input = choose("landmark_input", landmark_input, ("normalized", "unit"))
        known = ("frozen", "drifting")
        self.landmark_statistics = choose("landmark_statistics", landmark_statistics, known)
        self.landmarks = MobileFaceNet(head=False).requires_grad_(False)
        self.landmark_conv = nn.Conv2d(512, WIDTHS[2], 3, padding=1)
        if not isinstance(face_backbone, nn.Module):
            branches = {"ir50": partial(IResNet50, resize), "mobilenet-faces": MobileNetFacesBranch}
            face_backbone = branches[choose("face_backbone", face_backbone, branches)]()
        self.face = face_backbone
        self.fusion = nn.ModuleList()
        for level, (dim, heads, size, window) in enumerate(zip(WIDTHS, HEADS, SIZES, windows, strict=True)):
            options = {"shortcut": shortcut, "project_query": project_query, "drop_path": 0.125 * level}
            self.fusion.append(LevelFusion(dim, heads, size, window=window, **options))
        self.embed = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(WIDTHS[0], DIM, 3, 2, 1), nn.Conv2d(DIM, DIM, 3, 2, 1)),
                nn.Conv2d(WIDTHS[1], DIM, 3, 2, 1),
                nn.Conv2d(WIDTHS[2], DIM, 1),
            ]
        )
        self.train()

    def train(self, mode: bool = True) -> PosterV2Encoder:
        super().train(mode)
        self.landmarks.train(mode and self.landmark_statistics == "drifting")
        return self

    @torch.no_grad()
    def frozen(self, images: Tensor) -> Maps:
        """The landmark maps, which do not learn: (B, 64, 28, 28), (B, 128, 14, 14) and (B, 512, 7, 7)."""
        if self.landmark_input == "unit":
            images = to_unit(images)
        return self.landmarks.features(resize_to(images, 112, self.resize))

    def levels(self, images: Tensor, frozen: Maps | None = None) -> list[Tensor]:
        """The three fused maps, channels last, from fine to coarse."""
        fine, middle, coarse = self.frozen(images) if frozen is None else frozen
        landmarks = fine, middle, self.landmark_conv(coarse)
        faces = self.face(images)
        for maps, width, size in zip(faces, WIDTHS, SIZES, strict=True):
            expect(maps, width, 2 * size, 2 * size, of="maps of the face backbone")
        return [fuse(face, marks) for fuse, face, marks in zip(self.fusion, faces, landmarks, strict=True)]

    def forward(self, images: Tensor, frozen: Maps | None = None) -> Tensor:
        maps = [level.permute(0, 3, 1, 2) for level in self.levels(images, frozen)]
        tokens = [embed(m).flatten(2).transpose(1, 2) for embed, m in zip(self.embed, maps, strict=True)]
        return torch.cat(tokens, dim=1)


class PosterV2(nn.Module):
    """Expression logits from one face: encoder, then a transformer of two blocks.

    Maps (B, 3, H, W), RGB, ImageNet-normalized, to (B, num_classes). ``frozen(images)`` gives the part that
    does not learn, and ``forward(images, frozen)`` takes it. The other settings are those of
    :class:`PosterV2Encoder`.

    Source: POSTER V2 (arXiv 2301.12149): 92.21 % on RAF-DB with pretrained backbones. Chapter 5.
    """

    def __init__(self, num_classes: int = 7, resize: str = "nearest", **encoder_options: Any) -> None:
        super().__init__()
        self.encoder = PosterV2Encoder(resize, **encoder_options)
        self.vit = TokenTransformer(num_classes)

    def frozen(self, images: Tensor) -> Maps:
        """The landmark maps, as :meth:`PosterV2Encoder.frozen` gives them."""
        return self.encoder.frozen(images)

    def forward(self, images: Tensor, frozen: Maps | None = None) -> Tensor:
        return self.vit(self.encoder(images, frozen))
