"""Folds of skin that action units make and age deepens, from the forehead to the chin."""

from __future__ import annotations

import torch

from ferlib.data.synthetic.expressions import AU_INDEX
from ferlib.data.synthetic.identity import FaceParameters, sided
from ferlib.data.synthetic.paint import Canvas, blob, line, noise, smooth, wide


def unit(p: FaceParameters, name: str, side: int = 0) -> torch.Tensor:
    """Intensity of one action unit, ``(B,)`` in [0, 1.3]; of one half (-1 left, 1 right) where given."""
    units = p.action_units if side == 0 else sided(p.action_units, p.side)[(side + 1) // 2]
    return units[:, AU_INDEX[name]].clamp(0, 1.3)


def _old(p: FaceParameters) -> torch.Tensor:
    return (p.get("age") - 0.45).clamp(min=0)


def cheek_fold(c: Canvas, p: FaceParameters, on: torch.Tensor, side: int) -> None:
    """Nasolabial fold from the wing of the nose round the corner of the mouth, and the dimple of AU14."""
    ax, ay = c.point(31 if side < 0 else 35)
    mx, my = c.point(48 if side < 0 else 54)
    depth = (
        0.06
        + 0.30 * _old(p)
        + 0.30 * unit(p, "AU12", side)
        + 0.36 * unit(p, "AU10", side)
        + 0.32 * unit(p, "AU9", side)
    )
    depth = (depth + 0.15 * unit(p, "AU15", side) + 0.12 * unit(p, "AU20", side)).clamp(0, 0.5)
    rise = wide(
        (
            0.5
            * (
                unit(p, "AU15", side)
                + unit(p, "AU9", side)
                + unit(p, "AU10", side)
                + 0.4 * unit(p, "AU4", side)
            )
        ).clamp(0, 1)
    )
    groove = blob(c.x - ax + side * -0.02 - side * 0.05, c.y - ay + 0.15, 0.055, 0.10)
    c.dim(groove * on, 0.06 + 0.15 * rise[:, 0, 0])
    # an arc from above the wing of the nose to outside and below the corner of the mouth
    x0, y0 = ax + side * 0.045, ay - 0.05
    dx, dy = mx + side * 0.085 - x0, (my + 0.05 - y0).clamp(min=0.20)
    length = (dx * dx + dy * dy).sqrt()
    q = ((c.x - x0) * dx + (c.y - y0) * dy) / length**2
    bulge = wide(0.4 + 0.6 * unit(p, "AU12", side) + 0.35 * unit(p, "AU10", side)).clamp(max=1.0)
    bend = (q * (1 - q)).clamp(min=0) * 4 * bulge
    d = ((c.x - x0) * dy - (c.y - y0) * dx) / length - side * 0.045 * bend
    window = smooth((q + 0.05 + 0.5 * rise) / (0.25 + 0.3 * rise)) * smooth((1.15 - q) / 0.4)
    c.dim((line(d, 0.026) - 0.45 * line(d - side * 0.055, 0.045)) * window * on, depth)
    ring = line(((c.x - mx - side * 0.06) / 0.7) ** 2 + ((c.y - my) / 1.6) ** 2 - 0.0016, 0.0016)
    c.dim(ring * on * smooth((c.x - mx) * side * 30), 0.20 * unit(p, "AU14", side))


def crows_feet(c: Canvas, p: FaceParameters, side: int) -> None:
    """Short lines that fan out from the outer corner of the eye."""
    ex, ey = c.point(36 if side < 0 else 45)
    u = (c.x - ex) * side
    feet = torch.zeros_like(c.x)
    for slope in (-0.45, 0.0, 0.45):
        feet = feet + line(c.y - ey - 0.01 - slope * u, 0.009 + 0.15 * c.pixel)
    feet = feet * smooth((u - 0.02) / 0.05) * smooth((0.19 - u) / 0.1)
    c.dim(feet, (0.30 * _old(p) + 0.20 * unit(p, "AU6")).clamp(0, 0.26))


def frown(c: Canvas, p: FaceParameters) -> None:
    """Lines and shade between the brows (AU4), across the root of the nose (AU9)."""
    lowered = unit(p, "AU4").clamp(max=1.1) * (1 - 0.40 * unit(p, "AU1").clamp(max=1))
    for side, index in ((-1, 21), (1, 22)):
        bx, by = c.point(index)
        d = c.x - bx * 0.40 - 0.14 * side * (c.y - by)
        fold = line(d, 0.015 + 0.15 * c.pixel) - 0.45 * line(d - side * 0.035, 0.022)
        fold = fold * smooth((c.y - by + 0.11) / 0.08) * smooth((by + 0.12 - c.y) / 0.09)
        c.dim(fold, (0.42 * lowered + 0.12 * _old(p)).clamp(0, 0.5))
        c.dim(blob(c.x - bx * 0.8, c.y - by - 0.07, 0.075, 0.045), 0.34 * lowered)
    c.dim(blob(c.x, c.y - c.point(27)[1] + 0.02, 0.08, 0.06), 0.26 * lowered)
    y27 = c.point(27)[1]
    root = line(c.y - y27 + 0.02, 0.014) + line(c.y - y27 - 0.03, 0.014)
    c.dim(root * smooth((0.11 - c.x.abs()) / 0.06), 0.45 * unit(p, "AU9") * (1 - 0.7 * lowered).clamp(min=0))


def forehead(c: Canvas, p: FaceParameters) -> None:
    """Lines across the forehead: level when the whole brow rises, short when only its inner end does."""
    lift = (c.points[:, 19, 1] + c.points[:, 24, 1]) / 2
    inner = wide(unit(p, "AU1") - unit(p, "AU2")).clamp(min=0)
    lines = torch.zeros_like(c.x)
    for k in range(3):
        bend = 0.05 * (c.x / 0.4) ** 2 * (1 + inner)
        d = c.y - (wide(lift) - 0.12 - 0.085 * k + bend + 0.008 * torch.sin(9 * c.x + k))
        lines = lines + line(d, 0.012 + 0.15 * c.pixel) - 0.6 * line(d - 0.03, 0.018)
    reach = smooth((0.50 - c.x.abs() - 0.18 * inner) / 0.2)
    c.dim(lines * reach, (0.22 * unit(p, "AU2") + 0.18 * unit(p, "AU1") + 0.18 * _old(p)).clamp(0, 0.32))


def chin(c: Canvas, p: FaceParameters) -> None:
    """The dented, pushed-up chin of AU17."""
    y = (c.points[:, 57, 1] + c.points[:, 8, 1]) / 2
    dents = noise(c.x * 0.8, c.y * 0.8, p.phase[:, 2:4], 1).clamp(-1, 1)
    c.dim(dents * blob(c.x, c.y - wide(y) - 0.02, 0.12, 0.08), 0.13 * unit(p, "AU17"))
