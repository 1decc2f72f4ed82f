"""The mouth: lips, and what shows when they part."""

from __future__ import annotations

import torch

from ferlib.data.synthetic.creases import unit
from ferlib.data.synthetic.head import Head
from ferlib.data.synthetic.identity import FaceParameters
from ferlib.data.synthetic.paint import Canvas, Curve, below, blob, line, noise, smooth, table, wide

LIPS = [(196, 118, 112), (186, 96, 98), (168, 72, 78)]


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
    mix = (0.20 + 0.55 * p.get("femininity") * p.get("lip_colour"))[:, None]
    lip = torch.lerp(
        head.skin * torch.tensor([0.92, 0.77, 0.76]),
        redder * (0.35 + 0.65 * head.skin.mean(1, keepdim=True) / 0.75),
        mix,
    )
    down = ((c.y - top) / (seam_up - top).clamp(min=0.01)).clamp(0, 1)
    out = ((c.y - seam_low) / (bottom - seam_low).clamp(min=0.01)).clamp(0, 1)
    tone = torch.where(
        c.y < seam_up, 1.04 - 0.16 * down, 1.02 + 0.16 * blob(out - 0.42, s * 0.6, 0.22, 0.35) - 0.10 * out
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
    au = lambda n: unit(p, n)  # noqa: E731
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
    c.dim(seam, 0.50)
    for index, side in ((48, -1), (54, 1)):
        mx, my = c.point(index)
        c.dim(
            blob(c.x - mx - side * 0.005, c.y - my, 0.026, 0.018),
            (0.28 + 0.15 * unit(p, "AU12", side) + 0.25 * unit(p, "AU14", side)).clamp(max=0.6),
        )
    c.dim(line(c.y - bottom - 0.035, 0.030) * smooth((0.75 - s.abs()) / 0.5), 0.15 + 0.12 * au("AU17"))
