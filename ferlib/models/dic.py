"""DIC: faces eight times larger, by a network that looks for landmarks and refines, four times in turn.

The Neural Resizer's authors enlarge FER+ from 48 to 384 pixels with it before anything is trained. Weights
are not part of this book: ``DIC_HELEN.pth`` comes from its authors' repository.

Source: Ma et al., "Deep Face Super-Resolution with Iterative Collaboration between Attentive Recovery and
Landmark Estimation", CVPR 2020; released code of Maclory/Deep-Iterative-Collaboration. Chapter 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ferlib.models.dic_feedback import FeedbackBlock, activated, merge_heatmaps
from ferlib.models.dic_hourglass import LandmarkHourglass
from ferlib.models.official import Architecture, from_official, register, rename
from ferlib.models.official_files import read_official

SCALE = 8
MEAN = (0.509, 0.424, 0.378)  # of the training faces, red, green and blue, in units of 0 to 1
SIDE = 8  # the hourglass halves four times what is twice as large as the face
WHERE = "https://github.com/Maclory/Deep-Iterative-Collaboration"


class DIC(nn.Module):
    r"""Enlarge faces eight times in steps: what is seen in the last picture guides the next.

    .. math::

        f_1 &= \mathrm{first}(x), \qquad f_t = \mathrm{feedback}(x, f_{t-1}, \mathrm{merge}(H_{t-1})) \\
        I_t &= \mathrm{bilinear}_8(I) + \mathrm{image}(f_t), \qquad
        H_t, m_t = \mathrm{landmarks}(I_t, m_{t-1})

    with x the features of the small face I. The call gives the last picture only and makes no landmark maps
    for it; :meth:`steps` gives all of them, one after the other.

    Parameters
    ----------
    channels: feature maps (48). steps: how often it looks (4). projections: of a feedback block (6).
    fusions: residual blocks that see the landmark maps (7). landmarks: 68.

    Shape: ``(B, 3, H, W)``, H and W multiples of 8, RGB in 0..1 minus ``MEAN`` in; ``(B, 3, 8 H, 8 W)`` in
    the same unit out, not clamped. 21,803,849 parameters, 408 billion multiply-adds for one face of 48
    pixels, about one gigabyte while it computes.

    Raises: ``ValueError`` for images of another shape. Chapter 2.
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
        large = image
        for large, _ in self._steps(image, last_maps=False):  # noqa: B007 - the last one is returned
            pass
        return large

    def steps(self, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Every step's picture ``(B, 3, 8 H, 8 W)`` and landmark maps ``(B, 68, 2 H, 2 W)``, in turn."""
        for large, maps in self._steps(image, last_maps=True):
            assert maps is not None
            yield large, maps

    def _steps(self, image: Tensor, *, last_maps: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
        if image.ndim != 4 or image.shape[1] != 3 or any(n % SIDE or n == 0 for n in image.shape[2:]):
            raise ValueError(
                f"DIC takes RGB faces (B, 3, H, W) whose sides are multiples of {SIDE} pixels, got "
                f"{tuple(image.shape)}"
            )
        start = F.interpolate(image, scale_factor=SCALE, mode="bilinear", align_corners=False)
        features = F.pixel_shuffle(self.lift(image), 2)
        state = maps = memory = None
        for step in range(self.count):
            if state is None:
                state = self.first(features)
            else:
                state = self.feedback(features, state, maps=merge_heatmaps(maps))
            large = start + self.to_image(self.enlarge(state))
            if last_maps or step < self.count - 1:
                maps, memory = self.landmarks(large, memory)
                yield large, maps
            else:
                yield large, None


class DICUpscaler:
    """The network as a method of super-resolution: stored bytes in, stored bytes out, one face at a time.

    .. math:: \\mathrm{out} = \\mathrm{round}(255\\,(\\mathrm{DIC}(\\mathrm{in}/255 - m) + m))

    with m = ``MEAN``, clamped to 0..255 and rounded half to even, as the original saves it. Grey faces are
    given as three equal channels; what comes back is RGB and, because the means differ, not exactly grey.
    One face at a time, so that the memory does not depend on the batch and a face not on its neighbours.

    Shape: uint8 ``(B, 1 or 3, H, W)`` in, uint8 ``(B, 3, 8 H, 8 W)`` out. ``scales``, ``channels`` and
    ``at_once`` tell ``ferlib.data.prepare`` what it can do. Raises: ``ValueError`` for another scale
    or sides that are no multiples of 8. Chapter 2.
    """

    scales = (SCALE,)
    channels = 3
    at_once = 1

    def __init__(self, network: DIC, device: str | torch.device | None = None, name: str = "dic") -> None:
        self.name = name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # channels last: a transposed convolution of 48 maps is four times faster on a CPU
        network = network.to(self.device, memory_format=torch.channels_last)
        self.network = network.eval().requires_grad_(False)
        self.mean = torch.tensor(MEAN, device=self.device).view(1, 3, 1, 1)

    @torch.no_grad()
    def __call__(self, images: Tensor, scale: int = SCALE) -> Tensor:
        if scale != SCALE:
            raise ValueError(f"DIC enlarges {SCALE} times, not {scale}")
        large = []
        for face in images.split(1):
            small = face.to(self.device).float().expand(-1, 3, -1, -1) / 255 - self.mean
            out = self.network(small.contiguous(memory_format=torch.channels_last)) + self.mean
            large.append((255 * out).clamp(0, 255).round().to("cpu", torch.uint8))
        return torch.cat(large).contiguous()


def upscaler(weights: str | Path | None) -> Callable[[Tensor, int], Tensor]:
    """The ``"dic"`` method of ``ferlib prepare``, from a file of the original's weights.

    Shape: a path in (``.pth``, ``.safetensors``), a :class:`DICUpscaler` out, on the GPU where there is one.

    Raises: ``ValueError`` where there is no file, saying what to get; ``CheckpointError`` for a file that
    does not hold exactly the network's 296 tensors, listing them. Chapter 2.
    """
    if weights is None:
        raise ValueError(
            f"method 'dic' needs weights: get DIC_HELEN.pth, which the README of {WHERE} links to, and give "
            "it as weights (--weights DIC_HELEN.pth); or use method 'bicubic' (--method bicubic), which "
            "needs none"
        )
    network = DIC()
    network.load_state_dict(from_official(read_official(weights), "dic"))
    return DICUpscaler(network, name=f"dic, {Path(weights).name}")


BLOCK_NAMES = {
    "enter": "compress_in",
    "up": "upBlocks",
    "down": "downBlocks",
    "mix_low": "uptranBlocks",
    "mix_high": "downtranBlocks",
    "join": "compress_out",
    "fusion.spread": "fusion_block.conv_in.0",
    "fusion.blocks": "fusion_block.resnet",
}
OUTER_NAMES = {
    "lift": "conv_in",
    "first": "first_block",
    "feedback": "block",
    "enlarge": "out",
    "to_image": "conv_out.0",
    "landmarks.stem": "HG.pre_conv_block.0",
    "landmarks.widen1": "HG.pre_conv_block.2",
    "landmarks.widen2": "HG.pre_conv_block.4",
    "landmarks.widen3": "HG.pre_conv_block.5",
    "landmarks.enter": "HG.compress_in",
    "landmarks.hourglass": "HG.hg",
    "landmarks.refine": "HG.hg_conv_out.0",
    "landmarks.decide": "HG.hg_conv_out.1.conv_block.0",
    "landmarks.maps": "HG.hg_conv_out.2",
}
CONVOLUTIONS = {"narrow": "conv_block.0", "look": "conv_block.2", "widen": "conv_block.3"}
LEVEL_PARTS = {"here": "1", "before": "2", "after": "3"}


def _official_name(ours: str) -> str:
    part, rest = ours.split(".", 1)
    if part in ("first", "feedback"):
        name = f"{OUTER_NAMES[part]}.{rename(rest, BLOCK_NAMES)}"
        return name.replace(".conv1.", ".res.0.").replace(".conv2.", ".res.2.")
    if ours.startswith("landmarks.hourglass."):
        ours = _hourglass_name(ours.removeprefix("landmarks.hourglass."))
    else:
        ours = rename(ours, OUTER_NAMES)
    ours = ours.replace(".shortcut.", ".skip_layer.")
    return re.sub(r"\.(narrow|look|widen)\.", lambda found: f".{CONVOLUTIONS[found[1]]}.", ours)


def _hourglass_name(path: str) -> str:
    """Our levels lie in each other, the original numbers them 4 (outermost) to 1."""
    level = 4
    while path.startswith("inner.") and level > 1:
        path, level = path.removeprefix("inner."), level - 1
    part, rest = path.split(".", 1)
    return f"HG.hg.res_center.{rest}" if part == "inner" else f"HG.hg.res{level}_{LEVEL_PARTS[part]}.{rest}"


register(Architecture("dic", DIC, _official_name))
