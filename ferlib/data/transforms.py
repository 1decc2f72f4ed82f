"""From stored pixels to what a network takes: floats, color, size, and augmentation of whole batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ferlib.data.base import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMINANCE = (0.299, 0.587, 0.114)


def _check(images: torch.Tensor, *, floating: bool | None = None) -> torch.Tensor:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(f"images have shape {tuple(images.shape)}; expected (B, 1, H, W) or (B, 3, H, W)")
    if floating is True and not images.is_floating_point():
        raise DataError(f"images are {images.dtype}; expected floats in [0, 1]: call to_float(images) first")
    if floating is False and images.dtype != torch.uint8:
        raise DataError(f"images are {images.dtype}; expected uint8 pixels 0..255")
    return images


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Pixels 0..255 as floats in [0, 1]: uint8 (B, C, H, W) -> float32. Chapter 1."""
    return _check(images, floating=False).float().div_(255)


def to_rgb(images: torch.Tensor) -> torch.Tensor:
    """Gray faces (B, 1, H, W) as three equal channels, a view; color faces as they are. Chapter 1."""
    return _check(images).expand(-1, 3, -1, -1)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Shift and scale each channel by ImageNet's numbers: (x - mean) / std.

    Args:
        images: float (B, 1 or 3, H, W) in [0, 1]; one gray channel is spread over three.

    Returns:
        float (B, 3, H, W).

    Raises:
        DataError: uint8 pixels.

    Chapter 1.
    """
    _check(images, floating=True)
    mean, std = (images.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def resize(images: torch.Tensor, size: int, mode: str = "bicubic") -> torch.Tensor:
    """Resize to a square by ``"nearest"``, ``"bilinear"`` or ``"bicubic"`` interpolation, antialiased when
    shrinking.

    Args:
        images: uint8 or float (B, C, H, W).
        size: Pixels.
        mode: The interpolation.

    Returns:
        (B, C, size, size) of the same type, in the type's range.

    Raises:
        DataError: Another mode, or size < 1.

    Chapter 1; what interpolation loses: chapter 2.
    """
    _check(images)
    if mode not in ("nearest", "bilinear", "bicubic") or size < 1:
        raise DataError(f"cannot resize to {size} px by {mode!r}; modes: nearest, bilinear, bicubic")
    if images.shape[-2:] == (size, size):
        return images
    smooth = {} if mode == "nearest" else {"antialias": True}
    out = F.interpolate(
        images.float(), (size, size), mode="nearest-exact" if mode == "nearest" else mode, **smooth
    )
    if images.dtype == torch.uint8:
        return out.round_().clamp_(0, 255).to(torch.uint8)
    return out.clamp_(0, 1).to(images.dtype) if mode == "bicubic" else out.to(images.dtype)


def model_input(images: torch.Tensor, size: int | None = None, mode: str = "bicubic") -> torch.Tensor:
    """Stored faces as the networks take them: RGB, optionally resized (``mode``), ImageNet-normalized.

    Args:
        images: uint8 (B, 1 or 3, H, W).
        size: Pixels (default: unchanged).
        mode: The interpolation.

    Returns:
        float32 (B, 3, size, size).

    Chapter 1.
    """
    images = to_float(images)
    return normalize(to_rgb(images if size is None else resize(images, size, mode)))


@dataclass(frozen=True)
class Augment:
    """Random views of faces: one affine map and one color jitter per face, whole batches at once.

    The geometry of face i is one affine map (flip, rotation by the sum of both angles, zoom, shift),
    sampled once bilinearly; what falls outside is black. Chained transforms, as in the released Neural
    Resizer code, resample twice (nearest) and cut corners in between; the angles are distributed the same.
    Then brightness, contrast and saturation are each scaled by a factor drawn from [1 - j, 1 + j], in
    random order per face (contrast around the face's mean luminance; saturation leaves gray faces as they
    are), then a rectangle may be erased.

    Called with float (B, C, H, W) in [0, 1] it gives the same; ``generator``, a ``torch.Generator`` on the
    CPU, makes the result repeatable. Source: Neural Resizer, utils/dataloaders.py. Chapters 1 and 6.

    Attributes:
        flip: Probability of a left-right flip.
        rotation, second_rotation: Degrees; both angles are uniform in +-value, and add up.
        zoom: (lowest, highest) magnification, uniform.
        shift: Largest shift in each direction, as a share of the side, uniform in +-value.
        brightness, contrast, saturation: Half-width j of the factor's range.
        erase: Probability of erasing one rectangle.
        erase_area: (lowest, highest) share of the picture that it takes; the ratio of its sides is in [0.3,
        3.3].
        erase_fill: What it is filled with, one gray or three channels' values in [0, 1].
    """

    flip: float = 0.5
    rotation: float = 0.0
    second_rotation: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.1)
    erase_fill: float | tuple[float, float, float] = 0.5

    def __post_init__(self) -> None:
        fill = self.erase_fill if isinstance(self.erase_fill, tuple) else (self.erase_fill,)
        half_widths = (self.rotation, self.second_rotation, self.shift)
        fine = {
            "a probability from 0 to 1": all(0 <= p <= 1 for p in (self.flip, self.erase)),
            "a finite number from 0 on": all(0 <= x < math.inf for x in half_widths),
            "a half-width from 0 to 1": all(
                0 <= j <= 1 for j in (self.brightness, self.contrast, self.saturation)
            ),
            "(lowest, highest) above 0": 0 < self.zoom[0] <= self.zoom[1] < math.inf,
            "(lowest, highest) from 0 to 1": 0 <= self.erase_area[0] <= self.erase_area[1] <= 1,
            "one or three values from 0 to 1": len(fill) in (1, 3) and all(0 <= c <= 1 for c in fill),
        }
        if wrong := [expected for expected, holds in fine.items() if not holds]:
            raise DataError(f"{self}: expected {wrong[0]}")

    @classmethod
    def neural_resizer(cls) -> Augment:
        """The Neural Resizer's: flip, rotation +-45, a second +-15 at fixed zoom 1.2, jitter 0.4."""
        return cls(
            rotation=45, second_rotation=15, zoom=(1.2, 1.2), brightness=0.4, contrast=0.4, saturation=0.4
        )

    @classmethod
    def light(cls) -> Augment:
        """Gentle: flip, rotation +-10, shift 6 %, zoom 0.9-1.1, jitter 0.2, erasing."""
        return cls(
            rotation=10, zoom=(0.9, 1.1), shift=0.06, brightness=0.2, contrast=0.2, saturation=0.2, erase=0.25
        )

    @classmethod
    def flip_erase(cls) -> Augment:
        """POSTER V2's: flip, and half of the faces lose 2-10 % to the mean color."""
        return cls(erase=0.5, erase_area=(0.02, 0.1), erase_fill=IMAGENET_MEAN)

    def sample(self, count: int, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Draw the parameters of ``count`` faces.

        Returns:
            Tensors of length N = count: ``flip`` (N,) bool, ``angle`` (N,) degrees counter-clockwise,
            ``zoom`` (N,), ``shift`` (N, 2) as shares of the side (right, down), ``factors`` (N, 3) for
            brightness, contrast, saturation, ``order`` (N, 3) in which they act, ``erase`` (N, 4) as (top,
            left, bottom, right) shares of the side (all 0: nothing).
        """
        u = torch.rand(count, 16, generator=generator)
        s = 2 * u - 1
        jitter = torch.tensor([self.brightness, self.contrast, self.saturation])
        area = self.erase_area[0] + u[:, 11] * (self.erase_area[1] - self.erase_area[0])
        stretch = torch.exp(s[:, 12] * torch.log(torch.tensor(3.3)) / 2)
        sides = (area.sqrt()[:, None] * torch.stack([stretch, 1 / stretch], 1)).clamp_max(1.0)
        corner = u[:, 13:15] * (1 - sides)
        box = torch.cat([corner, corner + sides], 1) * (u[:, 15] < self.erase)[:, None]
        return {
            "flip": u[:, 0] < self.flip,
            "angle": s[:, 1] * self.rotation + s[:, 2] * self.second_rotation,
            "zoom": self.zoom[0] + u[:, 3] * (self.zoom[1] - self.zoom[0]),
            "shift": s[:, 4:6] * self.shift,
            "factors": 1 + s[:, 6:9] * jitter,
            "order": torch.rand(count, 3, generator=generator).argsort(1),
            "erase": box,
        }

    def apply(self, images: torch.Tensor, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        """Transform float faces (B, C, H, W) with given parameters (see :meth:`sample`)."""
        _check(images, floating=True)
        p = {key: value.to(images.device) for key, value in parameters.items()}
        moved = [parameters["angle"], parameters["shift"].flatten(), parameters["zoom"] - 1]
        if torch.cat(moved).any():
            images = _warp(images, p)
        else:  # a flip alone moves pixels as they are
            images = torch.where(p["flip"][:, None, None, None], images.flip(3), images)
        if self.brightness or self.contrast or self.saturation:
            images = _jitter(images, p["factors"], p["order"])
        return _erase(images, p["erase"], self.erase_fill) if self.erase else images

    def __call__(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        return self.apply(images, self.sample(len(images), generator))


def _warp(images: torch.Tensor, p: dict[str, torch.Tensor]) -> torch.Tensor:
    """One bilinear sampling of the inverse map: output pixel -> input position."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad(p["angle"])
    sign = 1 - 2 * p["flip"].to(angle.dtype)
    c, s = angle.cos() / p["zoom"], angle.sin() / p["zoom"]
    x, y = (2 * p["shift"]).unbind(1)  # grid units: the side is 2
    # inverse of (flip, rotate, zoom, shift): un-shift, un-zoom, un-rotate, un-flip; aspect keeps circles
    # round
    aspect = height / width
    a, b, tx = sign * c, -sign * s * aspect, sign * (-c * x + s * aspect * y)
    d, e, ty = s / aspect, c, -s / aspect * x - c * y
    # affine_grid written out: its matrix product with 3 columns takes four times as long on a CPU
    u, v = ((2 * torch.arange(n, device=images.device) + 1) / n - 1 for n in (width, height))
    v = v[:, None]
    a, b, tx, d, e, ty = (k[:, None, None] for k in (a, b, tx, d, e, ty))
    grid = torch.stack([a * u + (b * v + tx), d * u + (e * v + ty)], 3).to(images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _luma(images: torch.Tensor) -> torch.Tensor:
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor(LUMINANCE)
    return torch.einsum("bchw,c->bhw", images, weights)[:, None]


def _jitter(images: torch.Tensor, factors: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Brightness (0), contrast (1) and saturation (2) in each face's own order; every step clips to [0,
    1].
    """
    f = factors.to(images.dtype)[:, :, None, None, None]
    images = images.clone()
    for step in range(3):
        kind = order[:, step]
        for k in range(2 if images.shape[1] == 1 else 3):  # saturation does nothing to gray
            rows = torch.nonzero(kind == k)[:, 0]
            if len(rows) == 0:
                continue
            x, factor = images[rows], f[rows, k]
            if k == 0:
                x = x * factor
            else:  # blend with the mean luminance (contrast) or with the gray picture (saturation)
                base = _luma(x)
                base = base.mean((1, 2, 3), keepdim=True) if k == 1 else base
                x = base + factor * (x - base)
            images[rows] = x.clamp_(0, 1)
    return images


def _erase(
    images: torch.Tensor, boxes: torch.Tensor, fill: float | tuple[float, float, float]
) -> torch.Tensor:
    y, x = ((torch.arange(n, device=images.device) + 0.5) / n for n in images.shape[-2:])
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    inside = ((y >= top) & (y < bottom))[:, None, :, None] & ((x >= left) & (x < right))[:, None, None, :]
    color = torch.tensor(fill, dtype=images.dtype, device=images.device).reshape(-1, 1, 1)
    if len(color) > images.shape[1]:
        color = color.mean(0)  # a gray face has no color to lose
    return torch.where(inside, color, images)
