"""The smallest member of the family: the Batch Transformer Network for a laptop CPU.

Same structure as the large one (three maps of 28, 14 and 7 cells, 49 tokens each, multi-level attention,
transformer, batch transformer), other widths, and one residual pyramid in place of the two backbones, so
that it trains from scratch on 48-pixel faces. Chapters 5 to 8 use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.errors import FerlibError
from ferlib.models.btn import BatchTransformerNetwork
from ferlib.models.common import expect, stem

GRID = 7


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut; stride 2 halves the map.

    Source: He et al. 2016, figure 2. Chapter 5.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            projection = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), projection, nn.BatchNorm2d(channels_out))

    def forward(self, maps: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(maps), inplace=True)


def stages(widths: Sequence[int], blocks: Sequence[int], strides: Sequence[int]) -> Iterator[nn.Sequential]:
    """Residual units in stages, each stage with its width, number of units and first stride."""
    before = widths[0]
    for width, count, stride in zip(widths, blocks, strides, strict=True):
        units = [ResidualUnit(before, width, stride), *(ResidualUnit(width, width) for _ in range(count - 1))]
        before = width
        yield nn.Sequential(*units)


class ResidualPyramid(nn.Module):
    """Images to 3 x 49 tokens: a convolutional pyramid whose levels are pooled to 7 x 7 and projected.

    Maps (B, 3, H, W) to tokens (B, 147, dim), levels one after the other from fine to coarse. ``maps`` gives
    the levels before pooling: (B, widths[0], S/2, S/2), (B, widths[1], S/4, S/4) and (B, widths[2], S/8,
    S/8). Images of any size are first resized to S x S, as the large network resizes everything to 112.

    Args:
        dim: Width of the tokens.
        widths: Channels of each level.
        blocks: Residual units of each level.
        size: S, a multiple of 56 (which gives 28, 14, 7).

    Raises:
        FerlibError: Another S, or images without three channels.

    Chapter 5.
    """

    def __init__(
        self,
        dim: int,
        widths: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (1, 1, 2),
        size: int = 56,
    ) -> None:
        super().__init__()
        if size < 8 * GRID or size % (8 * GRID):
            raise FerlibError(f"the pyramid's working size is a multiple of {8 * GRID}, got {size}")
        self.size = size
        self.stem = stem(3, widths[0])
        self.stages = nn.ModuleList(stages(widths, blocks, (1, 2, 2)))
        self.embed = nn.ModuleList(nn.Linear(width, dim) for width in widths)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The three levels before pooling, from fine to coarse."""
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        levels = [self.stem(images)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return levels[1:]

    def forward(self, images: Tensor) -> Tensor:
        expect(images, 3, None, None)
        tokens = []
        for level, embed in zip(self.maps(images), self.embed, strict=True):
            pooled = F.avg_pool2d(level, level.shape[-1] // GRID)  # (B, width, 7, 7)
            tokens.append(embed(pooled.flatten(2).transpose(1, 2)))
        return torch.cat(tokens, dim=1)


def btn_small(
    num_classes: int = 8,
    in_size: int = 48,
    inference: str = "bt",
    *,
    dim: int = 64,
    depth: int = 2,
    heads: int = 2,
    mlp_ratio: float = 2.0,
    dropout: float = 0.1,
    widths: Sequence[int] = (32, 64, 128),
    blocks: Sequence[int] = (1, 1, 2),
    encoding: str = "sinusoidal",
) -> BatchTransformerNetwork:
    """The Batch Transformer Network in a size that a laptop trains: 0.7 M parameters, 72 M multiply-adds.

    Takes images (B, 3, H, W), RGB, ImageNet-normalized, of any size, and returns what
    :class:`ferlib.models.BatchTransformerNetwork` does. ``in_size`` is the size of face it is meant for; the
    pyramid works at the next multiple of 56 (48-pixel faces at 56, where its maps have POSTER V2's 28, 14 and
    7 cells). The other settings are widths; the defaults are ours. Chapter 5.
    """
    size = 8 * GRID * max(1, -(-in_size // (8 * GRID)))
    return BatchTransformerNetwork(
        num_classes,
        inference,
        encoder=ResidualPyramid(dim, widths, blocks, size),
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        dropout=dropout,
        encoding=encoding,
    )
