"""MobileFaceNet: the landmark branch of POSTER V2 and of the Batch Transformer Network.

A light network of depthwise-separable bottlenecks (Chen et al. 2018, arXiv 1804.07573), trained to find
68 facial landmarks. The two papers use it frozen, for the feature maps it computes on the way; the book
also uses the landmarks themselves, to measure how face-like its synthetic faces are.

Parameter names are those of the released landmark checkpoints, so that they load strictly.
Chapter 5 shows the network; chapter 1's appendix measures with it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from ferlib.models.common import expect

INPUT_SIZE = 112
LANDMARKS = 68


class MobileFaceNetOutput(NamedTuple):
    """Three maps from fine to coarse, and the landmarks.

    ``level1`` (B, 64, 28, 28), ``level2`` (B, 128, 14, 14), ``level3`` (B, 512, 7, 7), ``landmarks``
    (B, 68, 2) as (x, y) in [0, 1] of the image's width and height, in 300-W order.
    """

    level1: Tensor
    level2: Tensor
    level3: Tensor
    landmarks: Tensor


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, and a PReLU unless the unit is linear.

    Source: MobileFaceNet, table 1.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)
        if not linear:
            self.prelu = nn.PReLU(channels_out)
        self.linear = linear

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.bn(self.conv(maps))
        return maps if self.linear else self.prelu(maps)


class Bottleneck(nn.Module):
    """Expand with a 1x1, filter each channel with a 3x3, project back with a linear 1x1; may add its input.

    Source: MobileFaceNet, table 1 (the inverted bottleneck of MobileNetV2, with PReLU).
    """

    def __init__(
        self, channels_in: int, channels_out: int, expanded: int, *, stride: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.conv = ConvUnit(channels_in, expanded)
        self.conv_dw = ConvUnit(expanded, expanded, 3, stride=stride, padding=1, groups=expanded)
        self.project = ConvUnit(expanded, channels_out, linear=True)
        self.residual = residual

    def forward(self, maps: Tensor) -> Tensor:
        out = self.project(self.conv_dw(self.conv(maps)))
        return maps + out if self.residual else out


def _stage(channels: int, expanded: int, blocks: int) -> nn.Sequential:
    """A run of residual bottlenecks; ``model`` is its name in the released checkpoints."""
    run = (Bottleneck(channels, channels, expanded, residual=True) for _ in range(blocks))
    return nn.Sequential(OrderedDict(model=nn.Sequential(*run)))


class _LandmarkHead(nn.Module):
    """One 7x7 depthwise filter per channel covers the whole map, then one linear map gives 136 numbers."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv_6_dw = ConvUnit(channels, channels, 7, groups=channels, linear=True)
        self.linear = nn.Linear(channels, outputs, bias=False)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        return self.bn(self.linear(self.conv_6_dw(maps).flatten(1)))


class MobileFaceNet(nn.Module):
    """Find 68 landmarks on a face, and give the three feature maps from which they are found.

    Maps RGB floats (B, 3, 112, 112) in [0, 1], without any normalization, to a :class:`MobileFaceNetOutput`.
    Faces should fill the picture, brows to chin with some room. ``features`` gives the three maps alone
    and leaves the landmark head out; ``head=False`` does not even build it (POSTER V2 builds it, computes it
    and throws the result away).

    Raises:
        FerlibError: Any other size: the head's 7x7 filter needs a 7x7 map.

    Source: arXiv 1804.07573; as the landmark branch, POSTER V2 (arXiv 2301.12149) section 3.
    1,007,248 parameters with the head. Chapter 5.
    """

    def __init__(self, head: bool = True) -> None:
        super().__init__()
        self.conv1 = ConvUnit(3, 64, 3, stride=2, padding=1)
        self.conv2_dw = ConvUnit(64, 64, 3, padding=1, groups=64)
        self.conv_23 = Bottleneck(64, 64, 128, stride=2)
        self.conv_3 = _stage(64, 128, 4)
        self.conv_34 = Bottleneck(64, 128, 256, stride=2)
        self.conv_4 = _stage(128, 256, 6)
        self.conv_45 = Bottleneck(128, 128, 512, stride=2)
        self.conv_5 = _stage(128, 256, 2)
        self.conv_6_sep = ConvUnit(128, 512)
        if head:
            self.output_layer = _LandmarkHead(512, 2 * LANDMARKS)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three maps from fine to coarse: (B, 64, 28, 28), (B, 128, 14, 14), (B, 512, 7, 7)."""
        expect(images, 3, INPUT_SIZE, INPUT_SIZE)
        level1 = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(images))))
        level2 = self.conv_4(self.conv_34(level1))
        level3 = self.conv_6_sep(self.conv_5(self.conv_45(level2)))
        return level1, level2, level3

    def landmarks(self, level3: Tensor) -> Tensor:
        """Landmarks (B, 68, 2) in [0, 1] from the coarsest map (B, 512, 7, 7)."""
        return self.output_layer(level3).unflatten(1, (LANDMARKS, 2))

    def forward(self, images: Tensor) -> MobileFaceNetOutput:
        level1, level2, level3 = self.features(images)
        return MobileFaceNetOutput(level1, level2, level3, self.landmarks(level3))
