"""Brows, eyes and nose."""

from __future__ import annotations

import torch

from ferlib.data.synthetic.creases import unit
from ferlib.data.synthetic.head import Head
from ferlib.data.synthetic.identity import FaceParameters
from ferlib.data.synthetic.paint import Canvas, Curve, bell, below, blob, line, noise, smooth, table, wide

IRIS = [(58, 36, 24), (84, 52, 30), (104, 78, 44), (92, 104, 70), (92, 128, 150), (120, 136, 146)]


def brow(c: Canvas, p: FaceParameters, head: Head, side: int) -> None:
    """A tapered stroke of hair along points 17-21 (side -1) or 22-26 (side 1)."""
    colour = c.colour(torch.lerp(head.hair * 0.75, head.skin * 0.35, 0.35))
    thick = wide(0.026 + 0.020 * p.get("brow_thickness") - 0.012 * (p.get("femininity") - 0.5))
    for points, sign in ([(c.points[:, 17:22], 1), (c.points[:, 22:27], -1)][(side + 1) // 2],):
        curve = Curve(points)
        s = curve.place(c.x)
        t = s * sign  # -1 outer end, 1 inner end
        width = thick * (0.45 + 0.75 * smooth((t + 1.1) / 1.3)) * (1 - 0.25 * smooth((t - 0.6) / 0.5))
        d = (c.y - curve.at(s) - 0.018) / width
        ends = smooth((1.06 - t) / 0.22) * smooth((1.10 + t) / 0.30)
        hairs = noise(c.x * 1.6 - c.y * 0.9 * sign, c.y * 0.5 + c.x * 0.8 * sign, p.phase[:, 4:6], 2)
        mask = bell(2 * d * d * (1.0 - 0.12 * hairs)) * ends * (0.86 + 0.10 * hairs)
        c.paint(mask.clamp(0, 0.95), colour)


def eye(c: Canvas, p: FaceParameters, head: Head, shade: torch.Tensor, which: int) -> None:
    """Lids, lashes, sclera, iris, pupil, catchlight, crease and lower-lid fold."""
    iris_rgb = table(IRIS, p.get("iris") * (1 - 0.8 * smooth((p.get("skin") - 0.4) / 0.3)))
    dark = c.colour(torch.lerp(head.skin * 0.22, torch.tensor([0.09, 0.07, 0.07]).expand_as(head.skin), 0.6))
    age, fem = p.get("age"), p.get("femininity")
    for index, side in ([(list(range(36, 42)), -1), (list(range(42, 48)), 1)][(which + 1) // 2],):
        pts = c.points[:, index]
        upper, lower = Curve(pts[:, :4]), Curve(pts[:, [0, 5, 4, 3]])
        s = upper.place(c.x)
        inside = below(s.abs() - 1, 0.08)
        top, bottom = upper.at(s), lower.at(s)
        soft = c.pixel.clamp(min=0.010)
        open_ = below(top - c.y, soft) * below(c.y - bottom, soft) * inside
        centre = pts.mean(1)
        gx, gy = wide(centre[:, 0] + p.gaze[:, 0]), wide(centre[:, 1] + p.gaze[:, 1] - 0.002)
        gap = wide(pts[:, 4:6, 1].mean(1) - pts[:, 1:3, 1].mean(1))
        near = smooth((1.25 - s.abs()) / 0.3)
        # socket shade and the fold of the upper lid
        lid = wide(0.034 + 0.012 * p.get("eye_size") * 0.3) * (1 - 0.35 * s * s)
        c.dim(line(c.y - (top - lid), 0.013) * smooth((1.12 - s.abs()) / 0.4), 0.34 + 0.12 * age)
        c.dim(blob(c.x - wide(centre[:, 0]) + side * -0.06, c.y - top + 0.05, 0.13, 0.035), 0.10)
        c.dim(
            line(c.y - (bottom + 0.035 + 0.02 * (1 - s * s)), 0.016) * near,
            0.07 + 0.16 * unit(p, "AU6") + 0.10 * unit(p, "AU7") + 0.10 * age,
        )
        c.dim(line(c.y - (bottom + 0.022), 0.010) * near, -0.08)
        # eyeball
        ball = 1 - 0.32 * smooth((top + 0.030 - c.y) / 0.04) - 0.22 * s.abs().clamp(max=1) ** 3
        white = torch.tensor([0.84, 0.815, 0.80]).expand(len(p), 3)
        sclera = c.colour(white)[:, :, None, None] * (ball * (0.35 + 0.65 * shade.clamp(0.3, 1.2)))[:, None]
        c.paint(open_, sclera)
        r = ((c.x - gx) ** 2 + (c.y - gy) ** 2 + 1e-9).sqrt()
        radius = 0.066
        disc = below(r - radius, soft) * open_
        ring = smooth((r - 0.040) / 0.026)
        glow = 1 + 0.25 * blob(c.x - gx + 0.01, c.y - gy - 0.03, 0.03, 0.022) - 0.45 * ring
        glow = glow * (1 - 0.30 * smooth((top + 0.025 - c.y) / 0.035))
        c.paint(disc, c.colour(iris_rgb)[:, :, None, None] * glow[:, None])
        c.paint(below(r - 0.027, soft) * open_, c.colour(torch.tensor([0.03, 0.03, 0.035])))
        lx = gx + 0.022 * head.light[0].sign()
        spark = blob(c.x - lx, c.y - gy + 0.022, 0.011, 0.011) + 0.25 * blob(
            c.x - gx + 0.02, c.y - gy - 0.025, 0.012, 0.008
        )
        c.paint((spark * open_ * smooth(gap / 0.05)).clamp(0, 0.95), c.colour(torch.tensor([1.0, 1.0, 1.0])))
        # lash line, thicker outside
        width = wide(0.011 + 0.006 * fem) * (1 + 0.25 * s * side) + 0.2 * c.pixel
        c.paint(line(c.y - top + 0.002, width) * below(s.abs() - 1.03, 0.12) * 0.88, dark)
        c.paint(line(c.y - bottom - 0.003, 0.008 + 0.2 * c.pixel) * below(s.abs() - 0.95, 0.2) * 0.30, dark)
        corner = centre[:, 0] * 0 + pts[:, 3 if side < 0 else 0, 0]
        cy = pts[:, 3 if side < 0 else 0, 1]
        c.paint(
            blob(c.x - wide(corner) + side * -0.008, c.y - wide(cy), 0.014, 0.010) * 0.5,
            c.colour(head.skin * torch.tensor([0.9, 0.62, 0.6])),
        )


def nose(c: Canvas, p: FaceParameters, head: Head) -> None:
    """Nostrils, wings and the shadow under the tip."""
    x33, y33 = c.point(33)
    for index, side in ((31, -1), (35, 1)):
        ax, ay = c.point(index)
        nx, ny = (ax + x33) / 2 + side * 0.008, (ay + y33) / 2 - 0.012
        dx, dy = c.x - nx, c.y - ny
        c.dim(blob(dx, dy + 0.25 * side * dx, 0.028, 0.012 + 0.2 * c.pixel), 0.55)
        wing = ((c.x - ax + side * 0.005) / 0.05) ** 2 + ((c.y - ay + 0.045) / 0.065) ** 2
        c.dim(
            line(wing.sqrt() - 1, 0.26)
            * smooth(((c.x - ax) * side + 0.045) / 0.05)
            * smooth((c.y - ay + 0.13) / 0.06),
            0.20,
        )
        bx, by = c.point(29)
        c.dim(blob(c.x - bx - side * 0.085, c.y - by + 0.10, 0.035, 0.13), 0.07 + 0.05 * head.light[0].abs())
    c.dim(
        line(c.y - y33 - 0.004 + 0.9 * (c.x - x33) ** 2, 0.018) * smooth((0.14 - (c.x - x33).abs()) / 0.1),
        0.20,
    )
