"""What may hide a face: sunglasses, a hand, a surgical mask, a scarf."""

from __future__ import annotations

import torch

from ferlib.data.synthetic.head import Head
from ferlib.data.synthetic.identity import OCCLUSIONS, FaceParameters
from ferlib.data.synthetic.paint import Canvas, below, blob, line, noise, smooth, wide


def _when(p: FaceParameters, name: str) -> torch.Tensor:
    return wide((p.occlusion == OCCLUSIONS.index(name)).float())


def glasses(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """Sunglasses over both eyes: mask ``(B, H, W)``."""
    place = p.occlusion_place
    cover = torch.zeros_like(c.x)
    soft = c.pixel.clamp(min=0.014)
    rim_colour = c.colour(torch.tensor([0.06, 0.05, 0.06]))
    on = _when(p, "glasses")
    frame = torch.zeros_like(c.x)
    for a, b in ((36, 39), (42, 45)):
        cx, cy = (c.point(a)[0] + c.point(b)[0]) / 2, (c.point(a)[1] + c.point(b)[1]) / 2 + 0.015
        wx, wy = 0.225 + 0.02 * wide(place[:, 0]), 0.145 + 0.03 * wide(place[:, 1])
        r = (((c.x - cx).abs() / wx) ** 3 + ((c.y - cy).abs() / wy) ** 3 + 1e-6) ** (1 / 3) - 1
        cover = torch.maximum(cover, below(r * 0.15, soft))
        frame = torch.maximum(frame, line(r * 0.15, 0.022))
    bridge = line(c.y + 0.035 - 0.4 * c.x**2, 0.020) * below(c.x.abs() - 0.14, 0.02)
    arms = line(c.y + 0.05, 0.018) * smooth((c.x.abs() - 0.52) / 0.03) * head.mask
    frame = torch.maximum(frame, torch.maximum(bridge, arms))
    shine = 0.10 + 0.25 * smooth((c.x + c.y * 1.4 + 0.15 * head.light[0]) * 2.5 % 1.0 - 0.6) * 0.5
    c.paint(
        cover * on * 0.97, c.colour(torch.tensor([1.0, 1.02, 1.06]))[:, :, None, None] * shine[:, None] * 0.7
    )
    c.paint(frame.clamp(0, 1) * on, rim_colour)
    return torch.maximum(cover, frame.clamp(0, 1)) * on


def hand(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """A hand laid over mouth and cheek, fingers up: mask ``(B, H, W)``."""
    on, place = _when(p, "hand"), p.occlusion_place
    side = wide((place[:, 0] - 0.5).sign())
    ox, oy = side * (0.02 + 0.12 * wide(place[:, 1])), 0.70 + 0.14 * wide(place[:, 2])
    tilt = side * (0.35 + 0.5 * wide(place[:, 3]))
    dx, dy = c.x - ox, c.y - oy
    rx, ry = dx * tilt.cos() + dy * tilt.sin(), -dx * tilt.sin() + dy * tilt.cos()
    soft = c.pixel.clamp(min=0.016)
    height, cover, seams = torch.full_like(c.x, 0.0), torch.zeros_like(c.x), torch.zeros_like(c.x)
    for k, length in enumerate((0.40, 0.50, 0.47, 0.34)):
        fx, fw = (k - 1.5) * 0.135, 0.068
        top = -length
        ddx, ddy = rx - fx, (ry - top - fw).clamp(max=0)
        d = (ddx**2 + ddy**2 + 1e-8).sqrt() - fw + 3 * (ry - 0.15).clamp(min=0)
        m = below(d, soft)
        cover = torch.maximum(cover, m)
        height = torch.maximum(height, m * (1 - (ddx / fw) ** 2).clamp(min=0))
        seams = torch.maximum(
            seams, line(ddx.abs() - fw, 0.014) * below(top + 0.08 - ry, 0.05) * below(ry - 0.12, 0.05)
        )
        for joint in (0.30, 0.62):
            seams = torch.maximum(
                seams, 0.4 * line(ry - top * (1 - joint), 0.012) * below(ddx.abs() - 0.05, 0.03)
            )
    palm = ((rx.abs() / 0.285) ** 3 + ((ry - 0.28).abs() / 0.36) ** 3 + 1e-6) ** (1 / 3) - 1
    m = below(palm * 0.28, soft)
    arm = below(rx.abs() - 0.21, soft) * smooth((ry - 0.45) * 8)
    thumb_d = (
        ((rx + side * 0.33) * 0.9 + (ry - 0.12) * 0.5 * side) ** 2 / 0.075**2
        + (ry - 0.14) ** 2 / 0.26**2
        + 1e-6
    ).sqrt() - 1
    cover = torch.maximum(torch.maximum(cover, m), torch.maximum(arm, below(thumb_d * 0.07, soft)))
    shade = (
        0.80 + 0.18 * height + 0.10 * side * head.light[0] * rx + 0.02 * noise(c.x, c.y, p.phase[:, :2], 1)
    )
    shade = shade * (1 - 0.32 * seams) * (1 - 0.12 * blob(rx, ry - 0.25, 0.15, 0.15))
    c.dim(smooth(1 - 5 * palm.clamp(min=0)) * on * 0.5, 0.25)
    c.paint(cover * on, c.colour(head.skin)[:, :, None, None] * shade[:, None])
    return cover * on


def mask(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """A surgical mask from the bridge of the nose to under the chin: mask ``(B, H, W)``."""
    on = _when(p, "mask")
    top = c.point(28)[1] + 0.10 + 0.30 * c.x**2 - 0.06 * blob(c.x, c.y * 0, 0.10, 1.0)
    bottom = c.point(8)[1] + 0.03 - 0.20 * c.x**2
    soft = c.pixel.clamp(min=0.016)
    cover = below(top - c.y, soft) * below(c.y - bottom, soft) * below(head.distance - 0.015, soft)
    pleats = sum(line(c.y - y + 0.06 * c.x**2, 0.014) for y in (0.60, 0.74, 0.88))
    bulge = (
        1.02
        - 0.45 * (c.x / 0.8) ** 2
        + 0.16 * c.x * head.light[0]
        - 0.12 * pleats
        - 0.10 * smooth((c.y - 0.75) / 0.4)
    )
    colour = torch.lerp(
        torch.tensor([0.62, 0.78, 0.86]), torch.tensor([0.92, 0.93, 0.93]), p.occlusion_place[:, :1]
    )
    loops = (
        line(c.y - 0.36 + 0.42 * (c.x.abs() - 0.72), 0.014)
        * smooth((c.x.abs() - 0.60) / 0.05)
        * head.mask
        * on
    )
    c.paint(loops * 0.8, c.colour(colour * 0.9))
    c.dim(line(c.y - top + 0.02, 0.03) * head.mask * on, 0.12)
    c.paint(cover * on, c.colour(colour)[:, :, None, None] * bulge.clamp(0.3, 1.1)[:, None])
    return cover * on


def scarf(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """A scarf wound around neck, mouth and chin: mask ``(B, H, W)``."""
    on, place = _when(p, "scarf"), p.occlusion_place
    top = (
        0.60
        + 0.08 * (wide(place[:, 0]) - 0.5)
        + 0.10 * c.x**2
        + 0.03 * torch.sin(4 * c.x + 6 * wide(place[:, 1]))
    )
    width = 0.86 + 0.12 * smooth((c.y - 0.7) / 0.7)
    soft = c.pixel.clamp(min=0.02)
    cover = below(top - c.y, soft) * below(c.x.abs() - width, soft) * below(c.y - 1.75, 0.05)
    weave = 0.04 * noise(c.x * 1.4, c.y * 1.4, p.phase[:, 2:4], 2)
    folds = sum(
        line(c.y - 0.72 - 0.20 * k - (0.10 - 0.05 * k) * c.x * (1 if k % 2 else -1) - 0.12 * c.x**2, 0.03)
        for k in range(5)
    )
    shade = 0.95 - 0.40 * (c.x / 0.95) ** 2 + 0.18 * c.x * head.light[0] - 0.22 * folds + weave
    hue = place[:, 2:3]
    colour = torch.cat([0.45 + 0.35 * (6.28 * (hue + k / 3)).cos() for k in range(3)], 1)
    stripes = 1 - 0.25 * wide((place[:, 3] > 0.5).float()) * smooth(torch.sin(22 * c.y + 3 * c.x) * 3)
    c.dim(line(c.y - top + 0.03, 0.04) * head.mask * on, 0.20)
    c.paint(cover * on, c.colour(colour)[:, :, None, None] * (shade * stripes).clamp(0.15, 1.2)[:, None])
    return cover * on


def occlude(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """Paint whatever hides each face; returns where it is, ``(B, H, W)`` in [0, 1]."""
    cover = torch.zeros_like(c.x)
    for name, draw in (("glasses", glasses), ("hand", hand), ("mask", mask), ("scarf", scarf)):
        rows = (p.occlusion == OCCLUSIONS.index(name)).nonzero()[:, 0]
        if len(rows):
            part = c.rows(rows)
            cover[rows] = draw(part, p[rows], head.rows(rows))
            c.image = c.image.index_copy(0, rows, part.image)
    return cover
