"""The landmark half of DIC: an hourglass network that finds 68 points and remembers its last look.

Source: Ma et al., CVPR 2020, section 3.2, and its released code; Newell et al., "Stacked Hourglass Networks
for Human Pose Estimation", ECCV 2016. Chapter 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Bottleneck(nn.Module):
    r"""Narrow, look around, widen, plus the input; without normalisation.

    .. math:: y = W_s * x + W_3 * (W_2 * \mathrm{ReLU}(W_1 * x))

    There is no activation between the second and the third convolution: that is how it was released.

    Shape: ``(B, channels_in, H, W)`` in, ``(B, channels_out, H, W)`` out. Source: released code of DIC.
    Chapter 2.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        half = channels_out // 2
        self.narrow = nn.Conv2d(channels_in, half, 1)
        self.look = nn.Conv2d(half, half, 3, padding=1)
        self.widen = nn.Conv2d(half, channels_out, 1)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.widen(self.look(F.relu(self.narrow(x), inplace=True)))


class Hourglass(nn.Module):
    """Look at the picture at this size, and at half the size by the same rule, down to ``depth`` halvings.

    Shape: ``(B, channels, H, W)`` in and out; H and W are multiples of 2 ** depth. Source: Newell et al.
    2016, figure 3; enlarging is bilinear with aligned corners, as released. Chapter 2.
    """

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.here = Bottleneck(channels, channels)
        self.before = Bottleneck(channels, channels)
        self.inner = Hourglass(depth - 1, channels) if depth > 1 else Bottleneck(channels, channels)
        self.after = Bottleneck(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        small = self.after(self.inner(self.before(F.max_pool2d(x, 2))))
        large = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=True)
        return self.here(x) + large


class LandmarkHourglass(nn.Module):
    """Landmark maps of a face, given also what was seen at the step before.

    Parameters
    ----------
    channels: half the width of the hourglass (256): one half makes the maps, the other is the memory.
    landmarks: how many maps (68).

    Shape: images ``(B, 3, H, W)``, H and W multiples of 64, and the memory ``(B, channels, H/4, W/4)`` or
    None at the first step in; maps ``(B, landmarks, H/4, W/4)`` and the next memory out. 11,999,172
    parameters. Source: Ma et al. 2020, section 3.2. Chapter 2.
    """

    def __init__(self, channels: int = 256, landmarks: int = 68) -> None:
        super().__init__()
        self.channels = channels
        self.stem = nn.Conv2d(3, channels // 4, 7, stride=2, padding=3)
        self.widen1 = Bottleneck(channels // 4, channels // 2)
        self.widen2 = Bottleneck(channels // 2, channels // 2)
        self.widen3 = Bottleneck(channels // 2, channels)
        self.enter = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.hourglass = Hourglass(4, 2 * channels)
        self.refine = Bottleneck(channels, channels)
        self.decide = nn.Conv2d(channels, channels, 1)
        self.maps = nn.Conv2d(channels, landmarks, 1)

    def forward(self, image: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.widen1(F.relu(self.stem(image), inplace=True))
        features = self.widen3(self.widen2(F.max_pool2d(features, 2)))
        together = torch.cat((features, features if memory is None else memory), dim=1)
        seen, memory = self.hourglass(self.enter(together)).split(self.channels, dim=1)
        return self.maps(F.relu(self.decide(self.refine(seen)), inplace=True)), memory
