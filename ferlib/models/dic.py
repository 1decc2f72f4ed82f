"""DIC: faces eight times larger, by a network that looks for landmarks and refines, four times in turn.

The Neural Resizer's authors enlarge FER+ from 48 to 384 pixels with it before anything is trained. Weights
are not part of this book: ``DIC_HELEN.pth`` comes from its authors' repository.

Source: Ma et al., "Deep Face Super-Resolution with Iterative Collaboration between Attentive Recovery and
Landmark Estimation", CVPR 2020, and its released code; the projections are those of Li et al., "Feedback
Network for Image Super-Resolution", CVPR 2019, the hourglass that of Newell et al., "Stacked Hourglass
Networks for Human Pose Estimation", ECCV 2016. Chapter 2.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ferlib.errors import FerlibError, choose
from ferlib.models.common import expect

SCALE = 8
MEAN = (0.509, 0.424, 0.378)  # of the training faces, red, green and blue, in units of 0 to 1
SIDE = 8  # the hourglass halves four times what is twice as large as the face
FACTOR, KERNEL, PADDING = 8, 12, 2  # up- and downward projections inside the block
REGIONS = (slice(36, 42), slice(42, 48), slice(27, 36), slice(48, 68), slice(0, 27))
SLOPE = 0.2


def activated(layer: nn.Module) -> nn.Sequential:
    """A convolution and the PReLU after it, whose slope is one number for all channels."""
    return nn.Sequential(layer, nn.PReLU(num_parameters=1, init=SLOPE))


def merge_heatmaps(heatmaps: Tensor) -> Tensor:
    r"""Sixty-eight landmark maps become five region maps: eyes, nose, mouth and outline.

    .. math:: R_g = \sum_{k \in g} \frac{H_k}{\max(\max_{xy} H_k,\; 0.05)}

    Maps (B, 68, H, W) in the 300-W order to (B, 5, H, W): eye at the image's left, the other eye, nose,
    mouth, jaw with brows.

    Raises:
        FerlibError: Another number of maps.

    Source: released code of DIC. Chapter 2.
    """
    expect(heatmaps, 68, None, None, of="landmark maps")
    scaled = heatmaps / heatmaps.amax(dim=(2, 3), keepdim=True).clamp(min=0.05)
    return torch.stack([scaled[:, group].sum(1) for group in REGIONS], dim=1)


class ResidualGroups(nn.Module):
    r"""Two grouped 3x3 convolutions with a skip: every region's features stay separate.

    .. math:: y = x + W_2 * \mathrm{LeakyReLU}(W_1 * x)

    Source: released code of DIC. Chapter 2.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE, inplace=True))


class AttentiveFusion(nn.Module):
    r"""Features for each facial region, averaged at every position with the landmark maps as weights.

    .. math:: y = \sum_g a_g \odot F_g(x), \qquad a = \mathrm{softmax}_g(R)

    Takes features (B, C, H, W) and region maps R (B, 5, H, W); returns (B, C, H, W).
    Source: Ma et al. 2020, section 3.3, equation 6. Chapter 2.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        regions = len(REGIONS)
        self.spread = nn.Conv2d(channels, regions * channels, 1)
        self.blocks = nn.Sequential(*(ResidualGroups(regions * channels, regions) for _ in range(blocks)))

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        spread = self.blocks(F.leaky_relu(self.spread(features), SLOPE, inplace=True))
        attention = maps.softmax(dim=1).unsqueeze(2)  # (B, 5, 1, H, W)
        return (spread.unflatten(1, (len(REGIONS), -1)) * attention).sum(1)


class FeedbackBlock(nn.Module):
    r"""Project up eight times, back down, six times over, each time with all results so far.

    .. math::

        h_i &= \mathrm{up}_i(\mathrm{mix}([l_0, \dots, l_i])), \\
        l_{i+1} &= \mathrm{down}_i(\mathrm{mix}([h_0, \dots, h_i])), \qquad
        y = \mathrm{join}([l_1, \dots, l_6])

    Takes ``inputs`` tensors (B, channels, H, W), and the region maps (B, 5, H, W) where there is a fusion;
    returns (B, channels, H, W). Inside, six tensors (B, channels, 8 H, 8 W) are alive at once.

    Args:
        channels: Feature maps everywhere.
        projections: Pairs of up and down.
        inputs: How many feature tensors are given: 1, or 2 with the block's output of the step before.
        fusions: Residual blocks of the attentive fusion, which then follows the first layer; 0 for none.

    Source: released code of DIC; Li et al. 2019, figure 3. Chapter 2.
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
        x = self.enter(torch.cat(features, dim=1))
        if self.fusion is not None:
            x = self.fusion(x, maps)
        low, high = [x], []
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            high.append(up(x if i == 0 else self.mix_low[i - 1](torch.cat(low, dim=1))))
            low.append(down(high[0] if i == 0 else self.mix_high[i - 1](torch.cat(high, dim=1))))
        return self.join(torch.cat(low[1:], dim=1))


# The landmark half


class Bottleneck(nn.Module):
    r"""Narrow, look around, widen, plus the input; without normalisation.

    .. math:: y = W_s * x + W_3 * (W_2 * \mathrm{ReLU}(W_1 * x))

    There is no activation between the second and the third convolution: that is how it was released.

    Source: released code of DIC. Chapter 2.
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
    """Convolve at this size, and at half the size by the same rule, down to ``depth`` halvings.

    Maps (B, channels, H, W) to the same; H and W are multiples of 2 ** depth.
    Source: Newell et al. 2016, figure 3; enlarging is bilinear with aligned corners, as released. Chapter 2.
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
    """Landmark maps of a face, with a memory of the step before.

    Takes images (B, 3, H, W), H and W multiples of 64, and the memory (B, channels, H/4, W/4), or None at the
    first step; returns maps (B, landmarks, H/4, W/4) and the next memory. 11,999,172 parameters.

    Args:
        channels: Half the width of the hourglass: one half makes the maps, the other is the memory.
        landmarks: How many maps.

    Source: Ma et al. 2020, section 3.2. Chapter 2.
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


# The whole


class DIC(nn.Module):
    r"""Enlarge faces eight times in steps: the landmarks found in one picture guide the next.

    .. math::

        f_1 &= \mathrm{first}(x), \qquad f_t = \mathrm{feedback}(x, f_{t-1}, \mathrm{merge}(H_{t-1})) \\
        I_t &= \mathrm{bilinear}_8(I) + \mathrm{image}(f_t), \qquad
        H_t, m_t = \mathrm{landmarks}(I_t, m_{t-1})

    with x the features of the small face I. The call gives the last picture only and makes no landmark maps
    for it; :meth:`steps` gives all of them, one after the other.

    Takes (B, 3, H, W), H and W multiples of 8, RGB in 0..1 minus ``MEAN``; returns (B, 3, 8 H, 8 W) in the
    same unit, not clamped. 21,803,849 parameters, 408 billion multiply-adds for one face of 48 pixels, about
    one gigabyte while it computes.

    Args:
        channels: Feature maps.
        steps: How many pictures are made in turn.
        projections: Of each feedback block.
        fusions: Residual blocks of the attentive fusion.
        landmark_channels: Half the width of the hourglass.
        landmarks: How many landmark maps.

    Raises:
        FerlibError: Images of another shape.

    Chapter 2.
    """

    def __init__(
        self,
        *,
        channels: int = 48,
        steps: int = 4,
        projections: int = 6,
        fusions: int = 7,
        landmark_channels: int = 256,
        landmarks: int = 68,
    ) -> None:
        super().__init__()
        self.count = steps
        self.lift = activated(nn.Conv2d(3, 4 * channels, 3, padding=1))
        self.first = FeedbackBlock(channels, projections)
        self.feedback = FeedbackBlock(channels, projections, inputs=2, fusions=fusions)
        self.enlarge = activated(nn.ConvTranspose2d(channels, channels, 8, stride=4, padding=2))
        self.to_image = nn.Conv2d(channels, 3, 3, padding=1)
        self.landmarks = LandmarkHourglass(landmark_channels, landmarks)

    def forward(self, image: Tensor) -> Tensor:
        for large, _ in self._steps(image, last_maps=False):
            found = large
        return found

    def steps(self, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Every step's picture ``(B, 3, 8 H, 8 W)`` and landmark maps ``(B, 68, 2 H, 2 W)``, in turn."""
        return self._steps(image, last_maps=True)

    def _steps(self, image: Tensor, *, last_maps: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
        if image.ndim != 4 or image.shape[1] != 3 or any(n % SIDE or n == 0 for n in image.shape[2:]):
            sides = f"multiples of {SIDE} pixels"
            raise FerlibError(f"expected images (B, 3, H, W), sides in {sides}, got {tuple(image.shape)}")
        start = F.interpolate(image, scale_factor=SCALE, mode="bilinear", align_corners=False)
        features = F.pixel_shuffle(self.lift(image), 2)
        state, maps, memory = self.first(features), None, None
        for step in range(self.count):
            if step:
                state = self.feedback(features, state, maps=merge_heatmaps(maps))
            large = start + self.to_image(self.enlarge(state))
            if last_maps or step < self.count - 1:
                maps, memory = self.landmarks(large, memory)
            yield large, maps


class DICUpscaler:
    r"""The network as a method of super-resolution: uint8 (B, 1 or 3, H, W) -> uint8 (B, 3, 8 H, 8 W).

    .. math:: \mathrm{out} = \mathrm{round}(255\,(\mathrm{DIC}(\mathrm{in}/255 - m) + m))

    with m = ``MEAN``, clamped to 0..255 and rounded half to even, as the original saves it. Gray faces are
    given as three equal channels; the result is RGB and, because the means differ, not exactly gray. It
    computes one face at a time, so that memory does not depend on the batch. ``scales``, ``channels`` and
    ``at_once`` tell ``ferlib prepare`` what it can do.

    Raises:
        FerlibError: Another scale, or sides that are no multiples of 8.

    Chapter 2.
    """

    name, scales, channels, at_once = "dic", (SCALE,), 3, 1

    def __init__(self, network: DIC) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # channels last: a transposed convolution of 48 maps is four times faster on a CPU
        network = network.to(self.device, memory_format=torch.channels_last)
        self.network = network.eval().requires_grad_(False)
        self.mean = torch.tensor(MEAN, device=self.device).view(1, 3, 1, 1)

    @torch.no_grad()
    def __call__(self, images: Tensor, scale: int = SCALE) -> Tensor:
        choose("scale", scale, self.scales)
        large = []
        for face in images.split(1):
            small = face.to(self.device).float().expand(-1, 3, -1, -1) / 255 - self.mean
            out = self.network(small.contiguous(memory_format=torch.channels_last)) + self.mean
            large.append((255 * out).clamp(0, 255).round().to("cpu", torch.uint8))
        return torch.cat(large).contiguous()
