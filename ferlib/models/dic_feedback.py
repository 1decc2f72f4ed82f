"""The recurrent half of DIC: dense up- and downward projections, and features that look where landmarks are.

Source: Ma et al., "Deep Face Super-Resolution with Iterative Collaboration between Attentive Recovery and
Landmark Estimation", CVPR 2020, section 3.3, and its released code; the projections are those of Li et al.,
"Feedback Network for Image Super-Resolution", CVPR 2019. Chapter 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACTOR, KERNEL, PADDING = 8, 12, 2  # up- and downward projections inside the block
REGIONS = (slice(36, 42), slice(42, 48), slice(27, 36), slice(48, 68), slice(0, 27))
SLOPE = 0.2


def activated(layer: nn.Module) -> nn.Sequential:
    """A convolution and the PReLU after it, whose slope is one number for all channels.

    Shape: a layer in, a module with the layer's shapes out. Chapter 2.
    """
    return nn.Sequential(layer, nn.PReLU(num_parameters=1, init=SLOPE))


def merge_heatmaps(heatmaps: Tensor) -> Tensor:
    r"""Sixty-eight landmark maps become five region maps: eyes, nose, mouth and outline.

    .. math:: R_g = \sum_{k \in g} \frac{H_k}{\max(\max_{xy} H_k,\; 0.05)}

    Shape: ``(B, 68, H, W)`` in the 300-W order in, ``(B, 5, H, W)`` out: eye at the image's left, the other
    eye, nose, mouth, jaw with brows. Raises: ``ValueError`` for another number of maps. Source: released
    code of DIC. Chapter 2.
    """
    if heatmaps.ndim != 4 or heatmaps.shape[1] != 68:
        raise ValueError(f"expected 68 landmark maps (B, 68, H, W), got {tuple(heatmaps.shape)}")
    scaled = heatmaps / heatmaps.amax(dim=(2, 3), keepdim=True).clamp(min=0.05)
    return torch.stack([scaled[:, group].sum(1) for group in REGIONS], dim=1)


class ResidualGroups(nn.Module):
    r"""Two grouped 3x3 convolutions with a skip: every region's features stay among themselves.

    .. math:: y = x + W_2 * \mathrm{LeakyReLU}(W_1 * x)

    Shape: ``(B, groups * C, H, W)`` in and out. Source: released code of DIC. Chapter 2.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE, inplace=True))


class AttentiveFusion(nn.Module):
    r"""Features for each facial region, mixed at every position as the landmark maps say.

    .. math:: y = \sum_g a_g \odot F_g(x), \qquad a = \mathrm{softmax}_g(R)

    Shape: features ``(B, C, H, W)`` and region maps R ``(B, 5, H, W)`` in, ``(B, C, H, W)`` out. Source: Ma
    et al. 2020, section 3.3, equation 6. Chapter 2.
    """

    def __init__(self, channels: int, blocks: int, regions: int = len(REGIONS)) -> None:
        super().__init__()
        self.regions = regions
        self.spread = nn.Conv2d(channels, regions * channels, 1)
        self.blocks = nn.Sequential(*(ResidualGroups(regions * channels, regions) for _ in range(blocks)))

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        spread = self.blocks(F.leaky_relu(self.spread(features), SLOPE, inplace=True))
        attention = maps.softmax(dim=1).unsqueeze(2)  # (B, 5, 1, H, W)
        return (spread.unflatten(1, (self.regions, -1)) * attention).sum(1)


class FeedbackBlock(nn.Module):
    r"""Project up eight times, back down, six times over, each time with all results so far.

    .. math::

        h_i &= \mathrm{up}_i(\mathrm{mix}([l_0, \dots, l_i])), \\
        l_{i+1} &= \mathrm{down}_i(\mathrm{mix}([h_0, \dots, h_i])), \qquad
        y = \mathrm{join}([l_1, \dots, l_6])

    Parameters
    ----------
    channels: feature maps everywhere (48). projections: pairs of up and down (6).
    inputs: how many feature tensors are given: 1, or 2 with what the block said the step before.
    fusions: residual blocks of the attentive fusion, which then follows the first layer; 0 for none.

    Shape: ``inputs`` tensors ``(B, channels, H, W)``, and the region maps ``(B, 5, H, W)`` where there is a
    fusion, in; ``(B, channels, H, W)`` out. Inside, six tensors ``(B, channels, 8 H, 8 W)`` are alive at
    once. Source: released code of DIC; Li et al. 2019, figure 3. Chapter 2.
    """

    def __init__(
        self, channels: int = 48, projections: int = 6, *, inputs: int = 1, fusions: int = 0
    ) -> None:
        super().__init__()
        size = {"kernel_size": KERNEL, "stride": FACTOR, "padding": PADDING}
        several = range(2, projections + 1)
        self.enter = activated(nn.Conv2d(inputs * channels, channels, 1))
        self.fusion = AttentiveFusion(channels, fusions) if fusions else None
        self.up = nn.ModuleList(
            activated(nn.ConvTranspose2d(channels, channels, **size)) for _ in range(projections)
        )
        self.down = nn.ModuleList(
            activated(nn.Conv2d(channels, channels, **size)) for _ in range(projections)
        )
        self.mix_low = nn.ModuleList(activated(nn.Conv2d(n * channels, channels, 1)) for n in several)
        self.mix_high = nn.ModuleList(activated(nn.Conv2d(n * channels, channels, 1)) for n in several)
        self.join = activated(nn.Conv2d(projections * channels, channels, 1))

    def forward(self, *features: Tensor, maps: Tensor | None = None) -> Tensor:
        x = _mixed(self.enter, features)
        if self.fusion is not None:
            x = self.fusion(x, maps)
        low, high = [x], []
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            high.append(up(low[0] if i == 0 else _mixed(self.mix_low[i - 1], low)))
            low.append(down(high[0] if i == 0 else _mixed(self.mix_high[i - 1], high)))
        return _mixed(self.join, low[1:])


def _mixed(layer: nn.Sequential, features: Sequence[Tensor]) -> Tensor:
    """``layer(cat(features))`` for a 1x1 convolution, without the copy, which is large up there."""
    if torch.is_grad_enabled():
        return layer(torch.cat(tuple(features), dim=1))
    convolution, activation = layer
    weights = convolution.weight.split([f.shape[1] for f in features], dim=1)
    total = F.conv2d(features[0], weights[0], convolution.bias)
    for feature, weight in zip(features[1:], weights[1:], strict=True):
        total += F.conv2d(feature, weight)
    return activation(total)
