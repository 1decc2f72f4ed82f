"""The Neural Resizer: a small network that brings an image to the size a pretrained transformer expects.

Source: Hwang et al., "Vision Transformer Equipped with Neural Resizer on Facial Expression Recognition Task",
ICASSP 2022, section 2.1. Chapter 2 builds it step by step.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from ferlib.errors import FerlibError, choose
from ferlib.models.common import expect

SAMPLINGS = ("scale-factor", "exact-size")
SLOPE = 0.2  # of the LeakyReLUs below zero


def published_scale_factor(in_size: int, out_size: int) -> float:
    """The rounded factor with which ``floor(in_size * factor)`` is ``out_size``: 0.584 for 384 to 224.

    The original network is written with the constant 0.584, which is 224 / 384 = 0.58333... rounded up to
    three decimals (the true ratio would do, but rounded down it would give 223 pixels). The same rule, with
    as many decimals as needed and at least three, gives the factor for any other pair of sizes.

    Raises:
        FerlibError: Sizes below one pixel.

    Chapter 2.
    """
    if in_size < 1 or out_size < 1:
        raise FerlibError(f"sizes must be at least one pixel, got {in_size} -> {out_size}")
    for decimals in range(3, 10):
        unit = 10**decimals
        smallest = math.ceil(round(unit * out_size / in_size, 6))
        for steps in (smallest, smallest + 1):  # in binary 0.29 * 100 is 28.999...
            if math.floor(in_size * (steps / unit)) == out_size:
                return steps / unit
    raise FerlibError(f"no factor of at most nine decimals takes {in_size} pixels to {out_size}")


def bilinear(image: Tensor, in_size: int, out_size: int, sampling: str) -> Tensor:
    r"""Bilinear interpolation the way the published resizer does it, or with exact sizes.

    Output pixel :math:`i` reads the input at :math:`(i + \frac12)\,r - \frac12`, without any smoothing before
    the sampling. ``"scale-factor"`` takes :math:`r = 1 / s` with the rounded factor :math:`s` (384 to 224:
    1 / 0.584 = 1.7123), ``"exact-size"`` takes :math:`r` = in / out (1.7143). At the far edge of a 384 pixel
    image the two are about 0.4 pixels apart.

    Maps (B, C, in_size, in_size) to (B, C, out_size, out_size). Chapter 2.
    """
    if sampling == "exact-size":
        return F.interpolate(image, size=(out_size, out_size), mode="bilinear", align_corners=False)
    factor = published_scale_factor(in_size, out_size)
    return F.interpolate(
        image, scale_factor=factor, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )


class ResidualBlock(nn.Module):
    r"""Two 3x3 convolutions with batch norm and a skip connection; no activation after the sum.

    .. math:: y = x + \mathrm{BN}(W_2 * \mathrm{LeakyReLU}(\mathrm{BN}(W_1 * x)))

    Source: released code of the Neural Resizer. Chapter 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm1(self.conv1(x)), SLOPE, inplace=True)
        return x + self.norm2(self.conv2(y))


class NeuralResizer(nn.Module):
    r"""Resize an image with a network: bilinear interpolation plus what a few convolutions learn to add.

    .. math::

        f &= D(\mathrm{features}(x)) \\
        \mathrm{resize}(x) &= D(x) + \mathrm{to\_image}\big(f + \mathrm{fuse}(\mathrm{blocks}(f))\big)

    where :math:`D` is bilinear interpolation to the output size. ``residual`` gives the second term alone.

    Maps (B, in_channels, in_size, in_size) to (B, in_channels, out_size, out_size), in the unit of the input
    (the paper normalizes images with the ImageNet mean and deviation first). With the defaults at 384 to 224
    it has 12,083 parameters.

    Args:
        in_size: Height and width in pixels of the square images before; the paper uses 384.
        out_size: The same after; the paper uses 224.
        channels: Feature maps between the first and the last convolution (paper: 16).
        blocks: Residual blocks at the output size (paper: 1).
        in_channels: Channels of the image, 3 for RGB.
        sampling: Where the interpolation reads. ``"scale-factor"`` is the published behavior, a factor
            rounded to three decimals; ``"exact-size"`` uses the true ratio of the sizes. Weights trained with
            one should be used with the same. Chapter 2 measures the difference.
        start_bilinear: Begin with the last convolution at zero, so that the untrained network is plain
            bilinear interpolation. Ours, not the paper's.

    Raises:
        FerlibError: An unknown ``sampling``, or images of another shape than announced.

    Source: Hwang et al. 2022, section 2.1; order of layers as in the released code (LeakyReLU before
    BatchNorm). Built and checked in chapter 2.
    """

    def __init__(
        self,
        in_size: int = 384,
        out_size: int = 224,
        channels: int = 16,
        blocks: int = 1,
        *,
        in_channels: int = 3,
        sampling: str = "scale-factor",
        start_bilinear: bool = False,
    ) -> None:
        super().__init__()
        published_scale_factor(in_size, out_size)  # impossible sizes fail here, not in a batch
        self.in_size, self.out_size = in_size, out_size
        self.in_channels, self.sampling = in_channels, choose("sampling", sampling, SAMPLINGS)
        self.features = nn.Sequential(
            OrderedDict(
                lift=nn.Conv2d(in_channels, channels, 7, padding=3),
                act1=nn.LeakyReLU(SLOPE, inplace=True),  # in place: backward needs what comes out only
                mix=nn.Conv2d(channels, channels, 1),
                act2=nn.LeakyReLU(SLOPE, inplace=True),
                norm=nn.BatchNorm2d(channels),
            )
        )
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.fuse = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(channels, channels, 3, padding=1),
                norm=nn.BatchNorm2d(channels),
            )
        )
        self.to_image = nn.Conv2d(channels, in_channels, 7, padding=3)
        if start_bilinear:
            nn.init.zeros_(self.to_image.weight)
            nn.init.zeros_(self.to_image.bias)

    def downsample(self, x: Tensor) -> Tensor:
        """The interpolation inside the network: (B, C, in_size, in_size) -> (B, C, out_size, out_size)."""
        return bilinear(x, self.in_size, self.out_size, self.sampling)

    def residual(self, image: Tensor) -> Tensor:
        """What the network adds to the bilinear picture: (B, C, out_size, out_size), in the image's unit."""
        f = self.downsample(self.features(image))
        return self.to_image(f + self.fuse(self.blocks(f)))

    def forward(self, image: Tensor) -> Tensor:
        expect(image, self.in_channels, self.in_size, self.in_size)
        return self.residual(image) + self.downsample(image)


class FixedResizer(nn.Module):
    """Resize by a fixed interpolation, (B, C, H, W) -> (B, C, out_size, out_size), to compare with.

    ``method``: ``"nearest"``, ``"bilinear"`` and ``"bicubic"`` read single points of the input (four or
    sixteen pixels around them), whatever the size; ``"antialiased"`` is bilinear with the input smoothed
    first when it shrinks.

    Raises:
        FerlibError: An unknown method.

    Chapter 2 compares their spectra.
    """

    METHODS = ("nearest", "bilinear", "bicubic", "antialiased")

    def __init__(self, out_size: int, method: str = "bilinear") -> None:
        super().__init__()
        self.out_size, self.method = out_size, choose("resizer", method, self.METHODS)

    def forward(self, image: Tensor) -> Tensor:
        size = (self.out_size, self.out_size)
        if self.method == "nearest":
            return F.interpolate(image, size, mode="nearest-exact")
        smooth = self.method == "antialiased"
        return F.interpolate(image, size, mode="bilinear" if smooth else self.method, antialias=smooth)
