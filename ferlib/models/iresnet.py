"""IR50: the face-recognition branch of POSTER V2, an "improved residual" network cut after its third stage.

Units of batch norm, 3x3, PReLU, 3x3, batch norm, as trained with ArcFace on millions of faces. POSTER V2
keeps three of its four stages, and with them a network that already knows faces. Chapter 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ferlib.models.official import Architecture, register

INPUT_SIZE = 112
UNITS = (3, 4, 14)
WIDTHS = (64, 128, 256)


class ImprovedResidualUnit(nn.Module):
    """Batch norm, 3x3, PReLU, 3x3 (with the stride), batch norm; plus the input, subsampled or projected.

    Shape: (B, in, H, W) -> (B, out, H / stride, W / stride). Source: ArcFace (Deng et al. 2019), "IR".
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
    """Three maps of a face from a face-recognition network: 3, 4 and 14 units.

    Shape: RGB, normalised (B, 3, H, W) -> (B, 64, 56, 56), (B, 128, 28, 28), (B, 256, 14, 14). Images are
    first resized to 112 x 112 by ``resize``: "nearest", as the released code does (which of a 224-pixel image
    keeps every second pixel), or "bilinear".

    ``recompute``: in training, forget the large maps of the stem and of two stages, and compute them again in
    the backward pass: half the memory for maps, about 8 % more time, the same gradients and the same
    statistics. Source: POSTER V2 (arXiv 2301.12149), ``ir50.py``. Chapter 5.
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
    """Batch norms that compute as ever and count nothing, for a pass that is done a second time.

    Shape: modules in, a context out; running statistics are put back as they were.
    """
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


def official_name(name: str) -> str:
    """Our name -> the name in POSTER V2's ``ir50.py``, say "stages.0.1.residual.3" -> "body1.1.res_layer.3".

    Shape: a string in, a string out.
    """
    head, _, rest = name.partition(".")
    if head == "stem":
        return f"input_layer.{rest}"
    stage, _, rest = rest.partition(".")
    return f"body{int(stage) + 1}.{rest}".replace("residual", "res_layer").replace(
        "shortcut", "shortcut_layer"
    )


def _from_single_body(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """ArcFace files name their units body.0 ... body.23; ours are the first 21, in three bodies."""
    if not any(key.startswith("body.") for key in state_dict):
        return state_dict
    renamed = {}
    for key, tensor in state_dict.items():
        if key.startswith("body."):
            _, unit, rest = key.split(".", 2)
            number, stage = int(unit), 0
            while stage < len(UNITS) and number >= UNITS[stage]:
                number, stage = number - UNITS[stage], stage + 1
            key = f"body{stage + 1}.{number}.{rest}"
        renamed[key] = tensor
    return renamed


register(
    Architecture(
        "ir50", IResNet50, official_name, unused=("output_layer.", "body4."), translate=_from_single_body
    )
)
