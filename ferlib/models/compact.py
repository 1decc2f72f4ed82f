"""Both pretrained branches in a network that a CPU can train: dlib for faces, MobileFaceNet for landmarks.

Same structure as the large one (landmarks ask, the face answers, three levels of 49 tokens, multi-level
attention, transformer, batch transformer), one narrow width for all levels, and a face branch whose weights
anybody can have, which goes on learning. Chapter 9 trains it on FER+.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.models.btn import BatchTransformerNetwork
from ferlib.models.dlib_face import BLOCKS, DlibFaceNet, to_unit
from ferlib.models.iresnet import resize_to
from ferlib.models.mobilefacenet import MobileFaceNet
from ferlib.models.window_attention import LevelFusion

GRID = 7
FACE_LEVELS = ("conv64_3", "conv128_2", "conv256_2")  # blocks of dlib's network, from fine to coarse
LANDMARK_WIDTHS, LANDMARK_SIZE = (64, 128, 512), 112
SMALLEST = 70  # below, nothing is left of dlib's last level


class CompactEncoder(nn.Module):
    """Images to 3 x 49 tokens by POSTER V2's fusion, all levels of one width.

    Shape: (B, 3, H, W), RGB, ImageNet-normalised, any size -> tokens (B, 147, dim), from fine to coarse. The
    face branch sees ``face_size`` pixels (dlib's network was trained with 150; fewer cost less), the landmark
    branch 112 in [0, 1], as its weights were trained. Each level's two maps are normalised and brought to
    ``dim`` channels by 1x1 convolutions, the face's to 14 x 14 places, the landmarks' to 7 x 7.

    The landmark branch does not learn and its batch norms do not move; ``frozen`` gives its maps, which
    ``forward`` takes, so that a second pass over the same images need not compute them again.
    Raises: ``ValueError`` for a ``face_size`` under 70. The arrangement is ours. Chapter 9.
    """

    def __init__(self, dim: int = 64, heads: int = 4, face_size: int = 112) -> None:
        super().__init__()
        if face_size < SMALLEST:
            raise ValueError(f"face_size is {face_size}, expected at least {SMALLEST} pixels")
        self.face_size = face_size
        self.face = DlibFaceNet()
        del self.face.fc, self.face.blocks["conv256_down_out"]  # the descriptor is not asked for
        self.landmarks = MobileFaceNet(head=False).requires_grad_(False)
        face_widths = [BLOCKS[name] for name in FACE_LEVELS]
        self.adapt_face = nn.ModuleList(_adapt(width, dim) for width in face_widths)
        self.adapt_landmarks = nn.ModuleList(_adapt(width, dim) for width in LANDMARK_WIDTHS)
        fusions = (LevelFusion(dim, heads, GRID, scale=0.1, mlp_ratio=2) for _ in FACE_LEVELS)
        self.fusion = nn.ModuleList(fusions)
        self.train()

    def train(self, mode: bool = True) -> CompactEncoder:
        super().train(mode)
        self.landmarks.eval()
        return self

    @torch.no_grad()
    def frozen(self, images: Tensor) -> list[Tensor]:
        """What does not learn, without graph: the landmark maps, three of (B, C, 7, 7)."""
        found = self.landmarks.features(resize_to(to_unit(images), LANDMARK_SIZE, "bilinear"))
        return [F.adaptive_avg_pool2d(level, GRID) for level in found]

    def forward(self, images: Tensor, frozen: list[Tensor] | None = None) -> Tensor:
        marks = self.frozen(images) if frozen is None else frozen
        faces = self.face.maps(255 * resize_to(to_unit(images), self.face_size, "bilinear"), FACE_LEVELS[-1])
        tokens = []
        for level, fuse in enumerate(self.fusion):
            face = self.adapt_face[level](faces[FACE_LEVELS[level]])
            face = F.interpolate(face, size=(2 * GRID, 2 * GRID), mode="bilinear")
            tokens.append(fuse(face, self.adapt_landmarks[level](marks[level])).flatten(1, 2))
        return torch.cat(tokens, dim=1)


def _adapt(width: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.GroupNorm(1, width, affine=False), nn.Conv2d(width, dim, 1))


def btn_compact(
    num_classes: int = 8, inference: str = "bt", *, dim: int = 64, depth: int = 2, heads: int = 4,
    mlp_ratio: float = 2.0, dropout: float = 0.1, face_size: int = 112, encoding: str = "sinusoidal",
) -> BatchTransformerNetwork:  # fmt: skip
    """The Batch Transformer Network with two pretrained branches and narrow parts behind them.

    Load the branches' weights, they are the point of it: ``{"face": "dlib-face", "landmarks":
    "mobilefacenet"}`` for ``ferlib.models.load_pretrained``, or ``weights`` in a recipe.

    Shape: images (B, 3, H, W), RGB, ImageNet-normalised, any size -> as
    :class:`ferlib.models.btn.BatchTransformerNetwork`. The other settings are widths; the defaults are ours.
    Chapter 9.
    """
    return BatchTransformerNetwork(
        num_classes, inference, encoder=CompactEncoder(dim, heads, face_size), dim=dim, depth=depth,
        heads=heads, mlp_ratio=mlp_ratio, dropout=dropout, encoding=encoding,
    )  # fmt: skip
