"""IR50: the face-recognition branch of POSTER V2, an "improved residual" network cut after its third stage.

Units of batch norm, 3x3, PReLU, 3x3, batch norm, as trained with ArcFace on millions of faces. POSTER V2
keeps three of its four stages. Chapter 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

INPUT_SIZE = 112
UNITS = (3, 4, 14)
WIDTHS = (64, 128, 256)


class ImprovedResidualUnit(nn.Module):
    """Batch norm, 3x3, PReLU, 3x3 (with the stride), batch norm; plus the input, subsampled or projected.

    Source: ArcFace (Deng et al. 2019), "IR".
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels_out, 3, 1, 1, bias=False),
            nn.PReLU(channels_out),
            nn.Conv2d(channels_out, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.stride = stride
        if channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        else:
            self.shortcut = Subsample(stride)

    def forward(self, maps: Tensor) -> Tensor:
        return self.residual(maps).add_(self.shortcut(maps))  # in place: batch norm's own output is not kept


class Subsample(nn.Module):
    """Keep every stride-th pixel: (B, C, H, W) -> (B, C, H / stride, W / stride).

    The released code uses max-pooling over one pixel, which gives the same and keeps an index for each.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        return maps if self.stride == 1 else maps[:, :, :: self.stride, :: self.stride]


class IResNet50(nn.Module):
    """Three maps of a face from a face-recognition network of 3, 4 and 14 units.

    Maps RGB, normalized (B, 3, H, W) to (B, 64, 56, 56), (B, 128, 28, 28), (B, 256, 14, 14).

    Args:
        resize: How images are first resized to 112 x 112: "nearest", as the released code does (which of a
            224-pixel image keeps every second pixel), or "bilinear".
        recompute: In training, drop the large maps of the stem and of two stages, and compute them again in
            the backward pass: half the memory for maps, about 8 % more time, the same gradients and the same
            statistics.

    Source: POSTER V2 (arXiv 2301.12149), ``ir50.py``. Chapter 5.
    """

    def __init__(self, resize: str = "nearest", recompute: bool = False) -> None:
        super().__init__()
        self.resize, self.recompute = resize, recompute
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.PReLU(WIDTHS[0])
        )
        self.stages = nn.ModuleList()
        channels = WIDTHS[0]
        for width, units in zip(WIDTHS, UNITS, strict=True):
            first = ImprovedResidualUnit(channels, width, stride=2)
            rest = [ImprovedResidualUnit(width, width, stride=1) for _ in range(units - 1)]
            self.stages.append(nn.Sequential(first, *rest))
            channels = width

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = resize_to(images, INPUT_SIZE, self.resize)
        level1 = self._large(images, self.stem, self.stages[0])
        level2 = self._large(level1, self.stages[1])
        return level1, level2, self.stages[2](level2)

    def _large(self, given: Tensor, *parts: nn.Module) -> Tensor:
        """Parts with large maps, one after the other; what they keep for the backward pass is optional."""

        def run(maps: Tensor) -> Tensor:
            for part in parts:
                maps = part(maps)
            return maps

        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return run(given)

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), still(*parts)  # the second pass counts nothing

        return checkpoint(run, given, use_reentrant=False, context_fn=contexts)


@contextmanager
def still(*modules: nn.Module) -> Iterator[None]:
    """Put running statistics back as they were after the block, for a pass that is done a second time."""
    norms = [m for module in modules for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, values in zip(norms, kept, strict=True):
                for buffer, value in zip(norm.buffers(), values, strict=True):
                    buffer.copy_(value)


def resize_to(images: Tensor, size: int, mode: str) -> Tensor:
    """Resize (B, 3, H, W) to (B, 3, size, size), "nearest" or "bilinear" (antialiased). Chapter 5."""
    if images.shape[-2:] == (size, size):
        return images
    if mode == "nearest":
        return F.interpolate(images, size=size)
    return F.interpolate(images, size=size, mode=mode, antialias=True)
