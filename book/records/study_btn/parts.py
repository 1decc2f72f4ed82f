"""The networks of the study's second part: Batch Transformer Networks that a CPU trains in two minutes.

``small``: a residual pyramid that starts from nothing, 48-pixel faces. ``pretrained``: two frozen branches
that know faces (dlib's face recognition in the place of IR50, MobileFaceNet for landmarks), whose maps were
computed once; what is trained is POSTER V2's fusion on three levels of 7 x 7 places, and what follows it.
An arm takes parts away (``alone``), or puts another in their place (``levels``, ``scale``, ``encoding``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from maps import LEVELS, fetch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.models import BatchTransformerNetwork
from ferlib.models.attention import merge_heads, split_heads
from ferlib.models.batch_transformer import ClassBatchAttention
from ferlib.models.multi_level_attention import LEVELS as COUNT
from ferlib.models.multi_level_attention import LevelOutput, MultiLevelAttention
from ferlib.models.small import ResidualPyramid
from ferlib.models.window_attention import LevelFusion

CLASSES, GRID = 8, 7
SMALL = {"dim": 48, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "dropout": 0.1}
PRETRAINED = {"dim": 48, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "dropout": 0.1}
WIDTHS, BLOCKS = (16, 32, 64), (1, 1, 1)


class FrozenBranches(nn.Module):
    """Maps that were computed once to 147 tokens: POSTER V2's fusion, every level of one width.

    A face is given by its number (:func:`maps.numbered`). Each level's two maps are normalised and brought to
    ``dim`` channels by 1x1 convolutions, the face's to 14 x 14 places; from there it is POSTER V2's level.
    In training half of the faces are their mirror images.

    Shape: numbers as pictures (B, 3, 2, 2) -> tokens (B, 147, dim).
    """

    def __init__(self, dim: int, heads: int, landmarks: str, shortcut: str) -> None:
        super().__init__()
        self.landmarks = landmarks
        self.adapt = nn.ModuleDict({
            part: nn.ModuleList(nn.Sequential(nn.GroupNorm(1, c, affine=False), nn.Conv2d(c, dim, 1))
                                for c, _ in levels)
            for part, levels in LEVELS.items()
        })  # fmt: skip
        self.fusion = nn.ModuleList(
            LevelFusion(dim, heads, GRID, shortcut=shortcut, scale=0.1, mlp_ratio=2) for _ in LEVELS["face"]
        )

    def frozen(self, images: Tensor) -> list[list[Tensor]]:
        """The maps of the faces with these numbers, by level: the face's and the landmarks'."""
        return fetch(images, self.landmarks, mirror=self.training)

    def forward(self, images: Tensor, frozen: list[list[Tensor]] | None = None) -> Tensor:
        faces, marks = self.frozen(images) if frozen is None else frozen
        tokens = []
        for level, fuse in enumerate(self.fusion):
            face = self.adapt["face"][level](faces[level])
            if face.shape[-1] != 2 * GRID:
                face = F.interpolate(face, size=(2 * GRID, 2 * GRID), mode="bilinear")
            tokens.append(fuse(face, self.adapt["landmarks"][level](marks[level])).flatten(1, 2))
        return torch.cat(tokens, dim=1)


class ClassMaps(nn.Module):
    """No multi-level attention: tokens pass, and the class maps are drawn from them as they are.

    Shape: (B, 147, dim) -> :class:`LevelOutput`.
    """

    class_maps = MultiLevelAttention.class_maps

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.positions = GRID**2
        self.map_norm = nn.LayerNorm(dim)
        self.class_query = nn.Linear(dim, CLASSES)
        self.class_key = nn.Linear(dim, CLASSES)

    def forward(self, tokens: Tensor) -> LevelOutput:
        return LevelOutput(tokens, *self.class_maps(tokens))


class WithValues(MultiLevelAttention):
    """Values and results are projected, too, as in any transformer: twice the paper's budget."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(CLASSES, dim=dim, heads=heads)
        self.value, self.result = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def mix(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        parts = (split_heads(part(normed), self.heads) for part in (self.query, self.key, self.value))
        return tokens + self.gain * self.result(merge_heads(self.attention(*parts)))


class SamePlace(MultiLevelAttention):
    """Each place asks its own place on the three levels, and no other: the levels alone are correlated."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(CLASSES, dim=dim, heads=heads)

    def mix(self, tokens: Tensor) -> Tensor:
        batch = len(tokens)
        own = tokens.unflatten(1, (COUNT, self.positions)).transpose(1, 2).flatten(0, 1)  # (B 49, 3, dim)
        mixed = super().mix(own)
        return mixed.unflatten(0, (batch, self.positions)).transpose(1, 2).flatten(1, 2)


class Scaled(ClassBatchAttention):
    """Class batch attention with another scale: 1 / sqrt(``number``) in the place of 1 / sqrt(classes)."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return super().forward(query * math.sqrt(query.shape[1] / self.number), key, value)


class Mix(nn.Module):
    """Multi-level attention without class maps, for which nobody asks: (B, 147, dim) -> (B, 147, dim)."""

    def __init__(self, levels: MultiLevelAttention) -> None:
        super().__init__()
        del levels.map_norm, levels.class_query, levels.class_key
        self.levels = levels

    def forward(self, tokens: Tensor) -> Tensor:
        return self.levels.mix(tokens)


class Alone(nn.Module):
    """The same network without the batch: encoder, perhaps multi-level attention, transformer.

    Shape: (B, 3, H, W) -> logits (B, 8), in training as in evaluation.
    """

    def __init__(self, model: BatchTransformerNetwork) -> None:
        super().__init__()
        self.encoder, self.vit = model.encoder, model.vit
        self.mix: nn.Module = nn.Identity() if isinstance(model.levels, ClassMaps) else Mix(model.levels)

    def frozen(self, images: Tensor) -> Any:
        """What does not learn, or None."""
        return self.encoder.frozen(images) if hasattr(self.encoder, "frozen") else None

    def forward(self, images: Tensor, frozen: Any = None) -> Tensor:
        tokens = self.encoder(images) if frozen is None else self.encoder(images, frozen)
        return self.vit(self.mix(tokens))


RECONSTRUCTIONS = {"none": ClassMaps, "with values": WithValues, "same place": SamePlace}


def make(
    family: str, seed: int, *, levels: str = "ours", batch: bool = True, encoding: str = "sinusoidal",
    scale: int | None = None, landmarks: str = "pretrained", shortcut: str = "normalised",
) -> nn.Module:  # fmt: skip
    """A network; parts that two arms have in common begin with the same weights for the same ``seed``.

    ``levels``: multi-level attention as this book reconstructs it, or one of ``RECONSTRUCTIONS``; ``batch``:
    with the batch transformer; ``scale``: C for None. Shape: pictures (B, 3, H, W) -> one or three of (B, 8).
    """
    wide = {"small": SMALL, "pretrained": PRETRAINED}[family]
    dim, heads = wide["dim"], wide["heads"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "small":
            encoder: nn.Module = ResidualPyramid(dim, WIDTHS, BLOCKS)
        else:
            encoder = FrozenBranches(dim, heads, landmarks, shortcut)
        torch.manual_seed(1000 + seed)  # what follows does not depend on how much the encoder drew
        model = BatchTransformerNetwork(CLASSES, encoder=encoder, encoding=encoding, **wide)
        if levels != "ours":
            torch.manual_seed(2000 + seed)
            model.levels = RECONSTRUCTIONS[levels](dim, heads)
    if scale is not None:
        model.batch_transformer.attention = Scaled(scale)
    return model if batch else Alone(model)
