"""A spatial transformer: the network straightens a face before anything else reads it.

Source: Jaderberg et al., "Spatial Transformer Networks", NeurIPS 2015; the layers are those of the Neural
Resizer's released code (Hwang et al. 2022, section 2). Chapter 2 shows it on a rotated face.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ferlib.errors import FerlibError
from ferlib.models.common import expect

SMALLEST = 18  # below this, two convolutions and two poolings leave no pixel


def warp(image: Tensor, theta: Tensor) -> Tensor:
    r"""Read an image through an affine map.

    Output position :math:`(x, y)` shows what the input has at :math:`\theta\, (x, y, 1)^\top`.

    Positions run from -1 to 1, from the center of the first pixel to that of the last
    (``align_corners=True``, as in the released code); outside of the image is zero; values between pixels
    are bilinear. Takes image (B, C, H, W) and theta (B, 2, 3); returns (B, C, H, W). Chapter 2.
    """
    with _full_precision(image):
        wide = image if image.dtype == torch.float64 else image.float()
        grid = F.affine_grid(theta.to(wide.dtype), list(image.shape), align_corners=True)
        read = F.grid_sample(wide, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return read.to(image.dtype)


def _full_precision(image: Tensor) -> AbstractContextManager:
    """Leave autocast: in half precision a position is off by up to 1/256, most of a pixel at 384."""
    if torch.amp.is_autocast_available(image.device.type):
        return torch.autocast(image.device.type, enabled=False)
    return nullcontext()


class SpatialTransformer(nn.Module):
    r"""Predict one affine map per image and read the image through it.

    .. math::

        \theta = \mathrm{regressor}(\mathrm{localiser}(x)) \in \mathbb{R}^{2 \times 3}, \qquad
        y = \mathrm{warp}(x, \theta)

    A new network begins with the identity map: it changes nothing until training makes it.

    Maps (B, in_channels, in_size, in_size) to the same; ``theta`` gives (B, 2, 3) in units of half an image.
    At 384 it has 2,711,904 parameters, nearly all in one linear layer of 84,640 inputs.

    Args:
        in_size: Height and width of the images in pixels, 18 or more; the paper uses 384. The first linear
            layer depends on it, so weights belong to one size (the original's fit 382 to 385).
        in_channels: Channels of the image.

    Raises:
        FerlibError: A size below 18, or images of another shape than announced.

    Source: released code of the Neural Resizer; Jaderberg et al. 2015, equation 1. Chapter 2.
    """

    def __init__(self, in_size: int = 384, in_channels: int = 3) -> None:
        super().__init__()
        if in_size < SMALLEST:
            raise FerlibError(f"SpatialTransformer needs at least {SMALLEST} pixels, got in_size={in_size}")
        self.in_size, self.in_channels = in_size, in_channels
        self.localiser = nn.Sequential(
            nn.Conv2d(in_channels, 8, 7),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 10, 5),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
        )
        left = ((in_size - 6) // 2 - 4) // 2  # pixels per side after both convolutions and poolings
        self.regressor = nn.Sequential(nn.Linear(10 * left * left, 32), nn.ReLU(), nn.Linear(32, 6))
        nn.init.zeros_(self.regressor[2].weight)
        with torch.no_grad():
            self.regressor[2].bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))

    def theta(self, image: Tensor) -> Tensor:
        """The affine map of each image: (B, in_channels, in_size, in_size) -> (B, 2, 3)."""
        expect(image, self.in_channels, self.in_size, self.in_size)
        features = self.localiser(image).flatten(1)
        with _full_precision(image):
            return self.regressor(features.to(self.regressor[0].weight.dtype)).view(-1, 2, 3)

    def forward(self, image: Tensor) -> Tensor:
        return warp(image, self.theta(image))
