"""Soft shapes: the few functions with which every part of a face is painted, on B pictures at once.

All shapes are functions of continuous face coordinates, so one face is the same at every size; an edge is
never sharper than one pixel, which antialiases it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LUMINANCE = torch.tensor([0.299, 0.587, 0.114])


def wide(t: torch.Tensor) -> torch.Tensor:
    """``(B,) -> (B, 1, 1)``."""
    return t[:, None, None]


def below(distance: torch.Tensor, width: torch.Tensor | float) -> torch.Tensor:
    """1 where distance < 0, 0 where > 0, with a straight ramp ``width`` wide in between."""
    return torch.add(0.5, distance / width, alpha=-1).clamp_(0, 1)


def smooth(t: torch.Tensor, width: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Smoothstep of t / width clamped to [0, 1]: t^2 (3 - 2 t)."""
    t = (t / width).clamp(0, 1)
    return t * t * torch.add(3.0, t, alpha=-2)


def bell(q: torch.Tensor) -> torch.Tensor:
    """Nearly exp(-q / 2), but exactly 0 from q = 16 on and several times faster: (1 - q / 16)^8."""
    t = torch.add(1.0, q, alpha=-1 / 16).clamp_(min=0)
    for _ in range(3):
        t = t.mul_(t)
    return t


def blob(
    dx: torch.Tensor, dy: torch.Tensor, sx: float | torch.Tensor, sy: float | torch.Tensor
) -> torch.Tensor:
    """Bump around (0, 0) of widths sx and sy, nearly Gaussian."""
    a, b = dx / sx, dy / sy
    return bell(torch.addcmul(a * a, b, b))


def line(distance: torch.Tensor, width: torch.Tensor | float) -> torch.Tensor:
    """Soft stroke around distance 0, nearly exp(-(d / width)^2)."""
    a = distance / width
    return bell(2 * a * a)


def table(scale: str, t: torch.Tensor) -> torch.Tensor:
    """Read a scale of colors, hexadecimal as in CSS, at t in [0, 1], linear in between: ``(B, 3)``."""
    colors = torch.tensor([list(bytes.fromhex(color)) for color in scale.split()]) / 255
    at = t.flatten().clamp(0, 1) * (len(colors) - 1)
    low = at.floor().long().clamp(max=len(colors) - 2)
    return torch.lerp(colors[low], colors[low + 1], (at - low)[:, None])


class Curve:
    """A curve y(x) through landmarks: the chord plus ``(1 - s^2)`` times a polynomial, s in [-1, 1].

    Args:
        points: ``(B, n, 2)`` from one end to the other; the polynomial of degree ``n - 3`` meets them all.
    """

    def __init__(self, points: torch.Tensor):
        a, b = points[:, 0].double(), points[:, -1].double()
        self.middle, self.half = (a + b) / 2, (b - a) / 2
        inner = points[:, 1:-1].double()
        s = ((inner[..., 0] - self.middle[:, None, 0]) / self.half[:, None, 0]).clamp(-0.97, 0.97)
        lift = inner[..., 1] - self.middle[:, None, 1] - s * self.half[:, None, 1]
        powers = s[..., None] ** torch.arange(s.shape[1])
        system = (1 - s**2)[..., None] * powers
        normal = system.mT @ system + 1e-7 * torch.eye(s.shape[1])
        self.weights = torch.linalg.solve(normal, system.mT @ lift[..., None])[..., 0].float()
        self.middle, self.half = self.middle.float(), self.half.float()

    def place(self, x: torch.Tensor) -> torch.Tensor:
        """s in [-1, 1] along the curve (beyond: outside its ends)."""
        return (x - wide(self.middle[:, 0])) / wide(self.half[:, 0])

    def at(self, s: torch.Tensor) -> torch.Tensor:
        """y at place s."""
        c = s.clamp(-1.05, 1.05)
        value = wide(self.weights[:, -1]) * torch.ones_like(c)
        for k in range(self.weights.shape[1] - 2, -1, -1):
            value = value * c + wide(self.weights[:, k])
        return value * (1 - c * c) + wide(self.middle[:, 1]) + c * wide(self.half[:, 1])


def noise_bank() -> torch.Tensor:
    generator = torch.Generator().manual_seed(20240406)
    layers = []
    for cells in (8, 24, 96):
        values = torch.rand(1, 1, cells, cells, generator=generator)
        values = F.pad(values, (2, 2, 2, 2), mode="circular")
        step = 256 // cells + 1
        grid = F.interpolate(values, scale_factor=step, mode="bicubic", align_corners=False)
        grid = grid[..., 2 * step : -2 * step, 2 * step : -2 * step]
        grid = F.interpolate(grid, size=(256, 256), mode="bilinear", align_corners=False)[0, 0]
        grid = (
            grid.double()
        )  # so that the number of threads, which splits the sums, does not change the result
        layers.append(((grid - grid.mean()) / grid.std()).float())
    return F.pad(torch.stack(layers)[None], (0, 1, 0, 1), mode="circular")


#: Periodic noise layers of mean 0 and deviation 1: coarse, middle, fine.
NOISE = noise_bank()
GRAIN = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(7))


def noise(x: torch.Tensor, y: torch.Tensor, phase: torch.Tensor, layer: int) -> torch.Tensor:
    """Noise at coordinates (period 1), shifted by ``phase (B, 2)``: ``(B, H, W)``."""
    grid = torch.stack([x + wide(phase[:, 0]), y + wide(phase[:, 1])], -1)
    grid = grid.frac_().add_(1.0).frac_().mul_(2.0).sub_(1.0)
    source = NOISE[:, layer : layer + 1].expand(len(x), -1, -1, -1)
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]
