"""Brows, eyes, nose, mouth and the creases that action units fold into the skin."""

from __future__ import annotations

import torch

from ferlib.data.synthetic.expressions import AU_INDEX
from ferlib.data.synthetic.head import Head
from ferlib.data.synthetic.identity import FaceParameters
from ferlib.data.synthetic.paint import Canvas, Curve, below, blob, line, noise, smooth, table, wide

IRIS = [(58, 36, 24), (84, 52, 30), (104, 78, 44), (92, 104, 70), (92, 128, 150), (120, 136, 146)]
LIPS = [(196, 118, 112), (186, 96, 98), (168, 72, 78)]


def _au(p: FaceParameters, name: str) -> torch.Tensor:
    return p.action_units[:, AU_INDEX[name]].clamp(0, 1.3)


def brows(c: Canvas, p: FaceParameters, head: Head) -> None:
    """Two tapered strokes of hair along points 17-21 and 22-26."""
    colour = c.colour(torch.lerp(head.hair * 0.75, head.skin * 0.35, 0.35))
    thick = wide(0.026 + 0.020 * p.get("brow_thickness") - 0.012 * (p.get("femininity") - 0.5))
    for points, sign in ((c.points[:, 17:22], 1), (c.points[:, 22:27], -1)):
        curve = Curve(points)
        s = curve.place(c.x)
        t = s * sign  # -1 outer end, 1 inner end
        width = thick * (0.45 + 0.75 * smooth((t + 1.1) / 1.3)) * (1 - 0.25 * smooth((t - 0.6) / 0.5))
        d = (c.y - curve.at(s) - 0.012) / width
        ends = smooth((1.06 - t) / 0.22) * smooth((1.10 + t) / 0.30)
        hairs = noise(c.x * 1.6 - c.y * 0.9 * sign, c.y * 0.5 + c.x * 0.8 * sign, p.phase[:, 4:6], 2)
        mask = torch.exp(-(d * d) * (1.0 - 0.12 * hairs)) * ends * (0.86 + 0.10 * hairs)
        c.paint(mask.clamp(0, 0.95), colour)


def eyes(c: Canvas, p: FaceParameters, head: Head, shade: torch.Tensor) -> None:
    """Lids, lashes, sclera, iris, pupil, catchlight, crease and lower-lid fold."""
    iris_rgb = table(IRIS, p.get("iris") * (1 - 0.8 * smooth((p.get("skin") - 0.4) / 0.3)))
    dark = c.colour(torch.lerp(head.skin * 0.22, torch.tensor([0.09, 0.07, 0.07]).expand_as(head.skin), 0.6))
    age, fem = p.get("age"), p.get("femininity")
    for index, side in (([36, 37, 38, 39, 40, 41], -1), ([42, 43, 44, 45, 46, 47], 1)):
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
            0.07 + 0.16 * _au(p, "AU6") + 0.10 * _au(p, "AU7") + 0.10 * age,
        )
        c.dim(line(c.y - (bottom + 0.022), 0.010) * near, -0.08)
        # eyeball
        ball = 1 - 0.32 * smooth((top + 0.030 - c.y) / 0.04) - 0.22 * s.abs().clamp(max=1) ** 3
        white = torch.tensor([0.90, 0.875, 0.86]).expand(len(p), 3)
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
        c.dim(blob(dx, dy + 0.25 * side * dx, 0.030, 0.014 + 0.2 * c.pixel), 0.62)
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


def mouth(c: Canvas, p: FaceParameters, head: Head, shade: torch.Tensor) -> None:
    """Lips with bow and highlight; cavity, teeth and tongue when they part."""
    pt = c.points
    upper, lower = Curve(pt[:, 48:55]), Curve(pt[:, [48, 59, 58, 57, 56, 55, 54]])
    ends = lambda which: pt[:, which]  # noqa: E731
    inner_up, inner_low = Curve(ends([60, 61, 62, 63, 64])), Curve(ends([60, 67, 66, 65, 64]))
    soft = c.pixel.clamp(min=0.014)
    s = upper.place(c.x)
    top, bottom = upper.at(s), lower.at(s)
    t = inner_up.place(c.x)
    seam_up, seam_low = inner_up.at(t), inner_low.at(t)
    within = below(s.abs() - 1, 0.05)
    lips = below(top - c.y, soft * 1.3) * below(c.y - bottom, soft * 1.5) * within
    redder = table(LIPS, 0.6 * p.get("lip_colour") + 0.4 * p.get("femininity"))
    mix = (0.42 + 0.35 * p.get("femininity") * p.get("lip_colour"))[:, None]
    lip = torch.lerp(
        head.skin * torch.tensor([0.86, 0.70, 0.70]),
        redder * (0.35 + 0.65 * head.skin.mean(1, keepdim=True) / 0.75),
        mix,
    )
    down = ((c.y - top) / (seam_up - top).clamp(min=0.01)).clamp(0, 1)
    out = ((c.y - seam_low) / (bottom - seam_low).clamp(min=0.01)).clamp(0, 1)
    tone = torch.where(
        c.y < seam_up, 0.98 - 0.20 * down, 0.90 + 0.22 * blob(out - 0.42, s * 0.6, 0.22, 0.35) - 0.10 * out
    )
    wrinkle = 1 + 0.02 * noise(c.x * 2.5, c.y * 0.3, p.phase[:, 4:6], 2)
    c.paint(
        lips * 0.92,
        c.colour(lip)[:, :, None, None] * (tone * wrinkle * (0.25 + 0.75 * shade))[:, None].clamp(0, 1),
    )
    # cavity
    gap = seam_low - seam_up
    hole = below(seam_up - c.y, soft) * below(c.y - seam_low, soft) * below(t.abs() - 1, 0.06)
    hole = hole * smooth(gap / 0.02)
    c.paint(hole, c.colour(torch.tensor([0.17, 0.06, 0.06])))
    au = lambda n: _au(p, n)  # noqa: E731
    drop = wide((pt[:, 66, 1] - pt[:, 62, 1]).clamp(min=0))
    tongue = blob(c.x - wide(pt[:, 66, 0]), c.y - seam_low - 0.01, 0.14, 0.055) * smooth((drop - 0.10) / 0.08)
    c.paint(hole * tongue * 0.85, c.colour(torch.tensor([0.62, 0.30, 0.30])))
    show = (
        0.35
        + 0.8 * au("AU12")
        + 0.8 * au("AU10")
        + 0.5 * au("AU20")
        + 0.3 * au("AU9")
        - 0.7 * au("AU22")
        + 0.1 * au("AU27")
    ).clamp(0, 1)
    tooth = wide(0.015 + 0.085 * show)
    edge = seam_up + tooth * (1 - 0.35 * t * t) - 0.012 * (1 - (t * 1.2).abs().clamp(max=1))
    gaps = 1 - 0.10 * line(torch.remainder(c.x / 0.052, 1.0) - 0.5, 0.10) * below(c.pixel - 0.02, 0.01)
    bright = (0.86 - 0.28 * t.abs().clamp(max=1) ** 2 - 0.15 * smooth((seam_up + 0.012 - c.y) / 0.02)) * gaps
    ivory = (
        c.colour(torch.tensor([0.97, 0.94, 0.88]))[:, :, None, None]
        * (bright * (0.4 + 0.6 * shade.clamp(0.4, 1.1)))[:, None]
    )
    c.paint(hole * below(c.y - edge, soft) * smooth((show[:, None, None] - 0.1) * 4), ivory)
    low = wide((0.9 * au("AU16") + 0.5 * au("AU20") - 0.2).clamp(0, 1) * 0.07)
    c.paint(hole * below(seam_low - low - c.y, soft) * smooth(low * 40), ivory * 0.9)
    # seam, corners, shadow under the lower lip
    seam = (
        line(c.y - (seam_up + seam_low) / 2, 0.012 + 0.25 * c.pixel)
        * below(t.abs() - 1.02, 0.1)
        * (1 - smooth(gap / 0.03))
    )
    c.dim(seam, 0.66)
    for index, side in ((48, -1), (54, 1)):
        mx, my = c.point(index)
        c.dim(
            blob(c.x - mx - side * 0.005, c.y - my, 0.026, 0.018), 0.28 + 0.15 * au("AU12") + 0.3 * au("AU14")
        )
    c.dim(line(c.y - bottom - 0.035, 0.030) * smooth((0.75 - s.abs()) / 0.5), 0.15 + 0.12 * au("AU17"))


def creases(c: Canvas, p: FaceParameters) -> None:
    """Folds of skin: nasolabial, forehead, frown, crow's feet, chin, nose root; age deepens all of them."""
    age = p.get("age")
    old = (age - 0.45).clamp(min=0)
    au = lambda n: _au(p, n)  # noqa: E731
    x, y = c.x, c.y
    for side, wing, corner, eye_out, brow_in in ((-1, 31, 48, 36, 21), (1, 35, 54, 45, 22)):
        ax, ay = c.point(wing)
        mx, my = c.point(corner)
        depth = (
            0.06
            + 0.35 * old
            + 0.34 * au("AU12")
            + 0.40 * au("AU10")
            + 0.35 * au("AU9")
            + 0.15 * au("AU15")
            + 0.12 * au("AU20")
        ).clamp(0, 0.6)
        q = (y - (ay - 0.05)) / (my + 0.05 - ay)
        fx = (
            ax
            + side * 0.045
            + (mx + side * 0.085 - ax - side * 0.045) * q.clamp(-0.2, 1.3)
            + side * 0.045 * (q * (1 - q)).clamp(min=0) * 4 * wide(0.4 + 0.6 * au("AU12"))
        )
        window = smooth((q + 0.05) / 0.25) * smooth((1.15 - q) / 0.4)
        c.dim((line(x - fx, 0.024) - 0.55 * line(x - fx - side * 0.055, 0.045)) * window, depth)
        ex, ey = c.point(eye_out)
        feet = torch.zeros_like(x)
        for slope in (-0.45, 0.0, 0.45):
            u = (x - ex) * side
            feet = feet + line(y - ey - 0.01 - slope * u, 0.009 + 0.15 * c.pixel) * smooth(
                (u - 0.02) / 0.05
            ) * smooth((0.19 - u) / 0.1)
        c.dim(feet, (0.35 * old + 0.22 * au("AU6")).clamp(0, 0.3))
        bx, by = c.point(brow_in)
        frown = (
            line(x - bx * 0.42 - 0.12 * side * (y - by), 0.013 + 0.15 * c.pixel)
            * smooth((y - by + 0.10) / 0.07)
            * smooth((by + 0.13 - y) / 0.08)
        )
        c.dim(frown, (0.52 * au("AU4") * (1 - 0.35 * au("AU1")) + 0.15 * old).clamp(0, 0.6))
        c.dim(blob(x - bx * 0.7, y - by - 0.06, 0.075, 0.05), 0.30 * au("AU4") * (1 - 0.5 * au("AU1")))
        dimple = line(((x - mx - side * 0.06) / 0.7) ** 2 + ((y - my) / 1.6) ** 2 - 0.0016, 0.0016)
        c.dim(dimple * smooth((x - mx) * side * 30), 0.10 * au("AU14"))
    lift = (c.points[:, 19, 1] + c.points[:, 24, 1]) / 2
    inner = wide(au("AU1") - au("AU2")).clamp(min=0)
    lines = torch.zeros_like(x)
    for k in range(3):
        bend = 0.05 * (x / 0.4) ** 2 * (1 + inner)
        row = wide(lift) - 0.13 - 0.085 * k + bend + 0.008 * torch.sin(9 * x + k)
        lines = lines + line(y - row, 0.012 + 0.15 * c.pixel) - 0.6 * line(y - row - 0.03, 0.018)
    reach = smooth((0.50 - x.abs() - 0.18 * inner) / 0.2)
    c.dim(lines * reach, (0.30 * au("AU2") + 0.24 * au("AU1") + 0.22 * old).clamp(0, 0.4))
    root = line(y - c.point(27)[1] + 0.02, 0.014) + line(y - c.point(27)[1] - 0.03, 0.014)
    c.dim(root * smooth((0.11 - x.abs()) / 0.06), 0.38 * au("AU9"))
    chin_y = (c.points[:, 57, 1] + c.points[:, 8, 1]) / 2
    dents = noise(x * 0.8, y * 0.8, p.phase[:, 2:4], 1).clamp(-1, 1) * blob(
        x, y - wide(chin_y) - 0.02, 0.12, 0.08
    )
    c.dim(dents, 0.13 * au("AU17"))
