"""IR50: the face-recognition branch of POSTER V2, an "improved residual" network cut after its third stage.

Units of batch norm, 3x3, PReLU, 3x3, batch norm, as trained with ArcFace on millions of faces. POSTER V2
keeps three of its four stages. Chapter 5.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

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
        if channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        else:
            self.shortcut = nn.AvgPool2d(1, stride) if stride > 1 else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return self.residual(maps).add_(self.shortcut(maps))  # in place: batch norm's own output is not kept


class IResNet50(nn.Module):
    """Three maps of a face from a face-recognition network of 3, 4 and 14 units.

    Maps RGB, normalized (B, 3, H, W) to (B, 64, 56, 56), (B, 128, 28, 28), (B, 256, 14, 14).

    Args:
        resize: How images are first resized to 112 x 112: "nearest", as the released code does (which of a
            224-pixel image keeps every second pixel), or "bilinear".

    Source: POSTER V2 (arXiv 2301.12149), ``ir50.py``. Chapter 5.
    """

    def __init__(self, resize: str = "nearest") -> None:
        super().__init__()
        self.resize = resize
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
        level1 = self.stages[0](self.stem(resize_to(images, INPUT_SIZE, self.resize)))
        level2 = self.stages[1](level1)
        return level1, level2, self.stages[2](level2)


def resize_to(images: Tensor, size: int, mode: str) -> Tensor:
    """Resize (B, 3, H, W) to (B, 3, size, size), "nearest" or "bilinear" (antialiased). Chapter 5."""
    if images.shape[-2:] == (size, size):
        return images
    if mode == "nearest":
        return F.interpolate(images, size=size)
    return F.interpolate(images, size=size, mode=mode, antialias=True)
