"""A face branch that knows faces and that anybody can have: dlib's face-recognition network.

POSTER V2 starts its face branch from IR50, trained on millions of faces; without those weights it is much
weaker. dlib's residual network (29 convolutions, 5.6 M numbers, trained on about 3 million faces, public
domain) is a stand-in: ``ferlib convert --architecture dlib-face-api`` makes its weights from the reader's own
copy of the package @vladmandic/face-api. Chapter 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.models.official import Architecture, register

INPUT_SIZE = 150
DESCRIPTOR = 128
BLOCKS = {  # name: channels out; a "_down" block halves its map
    "conv32_1": 32, "conv32_2": 32, "conv32_3": 32,
    "conv64_down": 64, "conv64_1": 64, "conv64_2": 64, "conv64_3": 64,
    "conv128_down": 128, "conv128_1": 128, "conv128_2": 128,
    "conv256_down": 256, "conv256_1": 256, "conv256_2": 256, "conv256_down_out": 256,
}  # fmt: skip
MEAN_RGB = (122.782, 117.001, 104.298)  # of 255, what dlib subtracts
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BRANCH_LEVELS = {"conv64_3": 56, "conv128_2": 28, "conv256_2": 14}  # block: side of the map the branch gives


def to_unit(images: Tensor) -> Tensor:
    """Undo ImageNet's normalisation: (B, 3, H, W) -> the same in [0, 1]. Chapter 5."""
    mean, std = (images.new_tensor(t).view(3, 1, 1) for t in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


class ScaledConv(nn.Module):
    """A convolution with bias, then scale and shift per channel (batch norm as dlib stores it).

    Equation: y = (W * x + b) s + t. Shape: (B, in, H, W) -> (B, out, H', W'). Source: dlib, ``affine_``.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding)
        self.scale = nn.Parameter(torch.ones(channels_out))
        self.shift = nn.Parameter(torch.zeros(channels_out))

    def forward(self, maps: Tensor) -> Tensor:
        return self.conv(maps) * self.scale.view(-1, 1, 1) + self.shift.view(-1, 1, 1)


class DlibBlock(nn.Module):
    """3x3, ReLU, 3x3, plus the input, ReLU; ``down`` halves the map and pads the shortcut with zeros.

    Shape: (B, in, H, W) -> (B, out, H, W), or about half of H and W with ``down``: its first convolution has
    stride 2 without padding, its shortcut is a 2x2 mean, and the smaller of the two is filled up at the
    bottom and on the right. Source: dlib, ``residual`` and ``residual_down``. Chapter 5.
    """

    def __init__(self, channels_in: int, channels_out: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = ScaledConv(channels_in, channels_out, 3, 2 if down else 1, 0 if down else 1)
        self.conv2 = ScaledConv(channels_out, channels_out, 3, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.conv1(maps)))
        if not self.down:
            return F.relu(out + maps)
        shortcut = F.avg_pool2d(maps, 2)
        height, width = (max(out.shape[n], shortcut.shape[n]) for n in (2, 3))
        extra = out.shape[1] - shortcut.shape[1]
        shortcut = F.pad(shortcut, (0, width - shortcut.shape[3], 0, height - shortcut.shape[2], 0, extra))
        return F.relu(F.pad(out, (0, width - out.shape[3], 0, height - out.shape[2])) + shortcut)


class DlibFaceOutput(NamedTuple):
    """Shape: ``descriptor`` (B, 128); faces of one person lie closer than 0.6. ``maps``: of each block, by
    name, (B, C, H, W).
    """

    descriptor: Tensor
    maps: dict[str, Tensor]


class DlibFaceNet(nn.Module):
    """dlib's face-recognition network: a descriptor of who it is, and the maps on the way.

    Shape: RGB (B, 3, 150, 150) in 0..255 -> :class:`DlibFaceOutput`: descriptor (B, 128), maps 32 x 35 x 35,
    64 x 17 x 17, 128 x 8 x 8, 256 x 4 x 4 (and 256 x 2 x 2 before the mean over positions). Other sizes from
    about 70 pixels run too. ``maps`` gives the maps alone, up to the block asked for.

    Source: Davis King, dlib, ``dlib_face_recognition_resnet_model_v1``; 5.6 M parameters. Chapter 5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ScaledConv(3, 32, 7, 2, 0)
        self.blocks = nn.ModuleDict()
        channels = 32
        for name, width in BLOCKS.items():
            self.blocks[name] = DlibBlock(channels, width, "_down" in name)
            channels = width
        self.fc = nn.Linear(channels, DESCRIPTOR, bias=False)

    def maps(self, images: Tensor, last: str = "conv256_down_out") -> dict[str, Tensor]:
        """The output of every block up to ``last``, by name."""
        centred = (images - images.new_tensor(MEAN_RGB).view(3, 1, 1)) / 255
        level = F.max_pool2d(F.relu(self.stem(centred)), 3, 2)
        found = {}
        for name, block in self.blocks.items():
            level = found[name] = block(level)
            if name == last:
                break
        return found

    def forward(self, images: Tensor) -> DlibFaceOutput:
        maps = self.maps(images)
        return DlibFaceOutput(self.fc(maps["conv256_down_out"].mean((2, 3))), maps)


class DlibFaceBranch(nn.Module):
    """dlib's network in the place of IR50: three maps of a face.

    Shape: RGB, ImageNet-normalised (B, 3, H, W) -> (B, 64, 56, 56), (B, 128, 28, 28), (B, 256, 14, 14).
    The normalisation is undone, dlib's own is applied, and the image is resized to 150 x 150 (bilinear,
    antialiased), the size the network was trained on. Its levels conv64_3 (17 x 17), conv128_2 (8 x 8) and
    conv256_2 (4 x 4) have just the widths that the fusion expects; a 1x1 convolution, which starts as the
    identity, lets each find its scale, and bilinear resizing brings it to the fusion's grid. The levels
    are coarser than IR50's: what they lack in places they have in training.

    ``net`` is the :class:`DlibFaceNet` without what lies behind conv256_2; load its weights
    (``ferlib.models.pretrained``), they are the point of it. The arrangement is ours. Chapter 5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = DlibFaceNet()
        del self.net.fc, self.net.blocks["conv256_down_out"]  # the descriptor is not asked for
        self.adapt = nn.ModuleDict()
        for name in BRANCH_LEVELS:
            self.adapt[name] = nn.Conv2d(BLOCKS[name], BLOCKS[name], 1)
            nn.init.dirac_(self.adapt[name].weight)
            nn.init.zeros_(self.adapt[name].bias)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        images = 255 * to_unit(images)
        if images.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
            images = F.interpolate(images, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True)
        maps = self.net.maps(images, last="conv256_2")
        return tuple(
            F.interpolate(self.adapt[name](maps[name]), (side, side), mode="bilinear")
            for name, side in BRANCH_LEVELS.items()
        )


register(Architecture("dlib-face", DlibFaceNet, lambda name: name))
