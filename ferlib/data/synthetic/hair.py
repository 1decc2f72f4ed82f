"""Hair in front of and behind the face, and beards."""

from __future__ import annotations

import torch

from ferlib.data.synthetic.head import Head
from ferlib.data.synthetic.identity import FaceParameters
from ferlib.data.synthetic.paint import Canvas, Curve, below, blob, line, noise, smooth, wide


def _style(p: FaceParameters) -> dict[str, torch.Tensor]:
    """Continuous style numbers from the looks; women have longer hair more often, men are bald more often."""
    fem, style = p.get("femininity"), p.get("hair_style")
    bald = ((style < 0.16) & (fem < 0.5)).float()
    long = smooth((p.get("hair_length") * 0.75 + 0.55 * (fem - 0.5) - 0.30) / 0.20) * (1 - bald)
    return {
        "bald": wide(bald),
        "long": wide(long),
        "curl": wide(smooth((p.get("curl") - 0.6) / 0.3)),
        "fringe": wide(((p.get("fringe") > 0.62) & (bald < 0.5)).float()),
        "volume": wide(0.05 + 0.11 * p.get("volume") + 0.06 * long),
        "reach": wide(0.75 + 1.1 * p.get("hair_length")),
        "part": wide((p.get("parting") - 0.5) * 0.7),
    }


def _colour(
    c: Canvas, p: FaceParameters, head: Head, along: torch.Tensor, across: torch.Tensor, gloss: torch.Tensor
) -> torch.Tensor:
    strands = (
        noise(along * 0.35, across * 1.1, p.phase[:, 6:8], 2) * 0.35
        + noise(along * 0.2, across * 0.45, p.phase[:, 6:8], 1) * 0.5
    )
    lx, ly, _ = head.light
    side = 0.80 + 0.24 * (c.x * lx + (c.y + 0.3) * ly * 0.7)
    value = (side * (1 + 0.17 * strands) + gloss * (0.45 + 0.2 * strands)).clamp(0.15, 2.0)
    base = c.colour(head.hair + 0.015)[:, :, None, None]
    return (base * value[:, None] + 0.07 * gloss[:, None]).clamp(0, 1)


def behind(c: Canvas, p: FaceParameters, head: Head) -> None:
    """Hair behind the head: a cap with volume, and the fall of long hair."""
    st = _style(p)
    wave = noise(c.x * 0.45, c.y * 0.45, p.phase[:, :2], 1) * (0.010 + 0.045 * st["curl"])
    up = smooth((0.55 - c.y) / 0.5)
    cap = head.distance - st["volume"] * (0.35 + 0.65 * smooth((0.25 - c.y) / 0.9)) + wave
    mask = below(cap, c.pixel.clamp(min=0.03)) * up * (1 - st["bald"])
    fall = (
        c.x.abs()
        - (
            0.80
            + st["volume"] * 0.8
            + 0.10 * smooth((c.y + 0.2) / 1.2) * st["curl"]
            - 0.18 * smooth((c.y - 0.8) / 0.9)
        )
        + wave
    )
    tip = c.y - st["reach"] + 0.05 * noise(c.x * 0.9, c.y * 0.1, p.phase[:, :2], 1)
    long = (
        below(fall, c.pixel.clamp(min=0.03))
        * below(tip, 0.10)
        * smooth((c.y + 0.45) / 0.3)
        * smooth((st["long"] - 0.3) * 4)
    )
    mask = torch.maximum(mask, long)
    inner = smooth((c.x.abs() - 0.45) / 0.4)
    paint = _colour(c, p, head, c.y, c.x + 0.3 * wave, torch.zeros_like(c.x)) * (0.55 + 0.35 * inner)[:, None]
    c.paint(mask, paint)


def front(c: Canvas, p: FaceParameters, head: Head) -> None:
    """Hairline, parting, fringe and sides over the forehead; stubble of a shaved head."""
    st = _style(p)
    age, fem = p.get("age"), p.get("femininity")
    half = (c.point(16)[0] - c.point(0)[0]) / 2
    recede = wide(smooth((age - 0.35) / 0.6) * (1 - fem) * 0.16)
    wave = noise(c.x * 0.55, c.y * 0.55, p.phase[:, 2:4], 1)
    width, top = 0.94 * half + 0.01 * wave, 0.70 + recede
    xx = c.x - st["part"] * 0.12
    # a superellipse leaves the face open; hair is what lies outside it but on the head
    a, b = xx.abs() / width, (0.06 - c.y).clamp(min=0) / top
    oval = a * a * a + b * b * b
    ragged = smooth((-0.05 - c.y) / 0.3)
    hairline = (1 - oval) * 0.19 + 0.010 * wave * (1 + 2 * st["curl"]) * ragged
    peak = 0.05 * blob(c.x, c.y + 0.66, 0.10, 0.12)
    hairline = hairline - peak * (1 - st["fringe"])
    sides = smooth((0.22 + 0.55 * st["long"] - c.y) / 0.18)
    line_y = -0.36 - 0.10 * (xx / 0.6) ** 2 + 0.03 * wave + 0.10 * (c.x * st["part"].sign()).clamp(-0.5, 0.5)
    fringe = (c.y - line_y) * 0.8
    hairline = torch.where(st["fringe"] > 0.5, torch.minimum(hairline, fringe.clamp(min=-0.3)), hairline)
    cap = (
        head.distance
        - st["volume"] * (0.3 + 0.7 * smooth((0.25 - c.y) / 0.9))
        + noise(c.x * 0.45, c.y * 0.45, p.phase[:, :2], 1) * (0.008 + 0.045 * st["curl"])
    )
    edge = c.pixel.clamp(min=0.05)
    on = below(cap, c.pixel.clamp(min=0.03))
    mask = below(hairline, edge) * on * sides
    shadow = below(hairline - 0.035, 0.12) * head.mask * sides * (1 - st["bald"])
    c.dim(shadow, 0.30)
    angle = torch.atan2(c.x - st["part"] * 0.5, 0.15 - c.y)
    distance = ((c.x - st["part"] * 0.5) ** 2 + (c.y - 0.1) ** 2).sqrt()
    curls = st["curl"] * 0.06 * wave
    along, across = distance + curls, angle * 0.6 - curls
    gloss = line(head.distance + 0.16 + 0.03 * wave, 0.09) * smooth((-0.2 - c.y) / 0.5) * 0.55
    c.paint(mask * (1 - st["bald"]), _colour(c, p, head, along, across, gloss))
    shaved = below(hairline - 0.02, 0.12) * head.mask * sides * st["bald"]
    c.paint(
        shaved * wide(0.30 * (p.get("hair_style") < 0.11).float()),
        c.colour(head.hair * 0.6 + head.skin * 0.3),
    )


def bearded(p: FaceParameters) -> torch.Tensor:
    """Which of the B faces have any beard or stubble: row numbers."""
    return ((p.get("femininity") < 0.45) & (p.get("beard") > 0.55)).nonzero()[:, 0]


def beard(c: Canvas, p: FaceParameters, head: Head) -> None:
    """Stubble, moustache or full beard for some men, under the lips' paint."""
    man = smooth((0.45 - p.get("femininity")) / 0.1)
    amount = p.get("beard")
    full = wide(man * smooth((amount - 0.78) / 0.04))
    stubble = wide(man * smooth((amount - 0.55) / 0.2) * 0.30)
    tash = wide(man * smooth((amount - 0.90) / 0.04))
    upper = Curve(c.points[:, 48:55])
    s = upper.place(c.x)
    lip = upper.at(s)
    y33 = c.point(33)[1]
    grain = noise(c.x * 1.5, c.y * 1.5, p.phase[:, 6:8], 2)
    corner = (c.point(48)[1] + c.point(54)[1]) / 2
    cheek = corner - 0.04 - 1.0 * (c.x.abs() - 0.27).clamp(min=0) + 0.02 * grain
    area = smooth((c.y - cheek) / 0.13) * smooth((-head.distance + 0.03) / 0.08)
    area = area * (1 - 0.5 * blob(c.x, c.y - c.point(57)[1] - 0.05, 0.10, 0.04))
    strip = (
        smooth((c.y - y33 - 0.015) / 0.05)
        * smooth((lip + 0.01 - c.y) / 0.03)
        * smooth((1.2 - s.abs()) / 0.35)
    )
    area = torch.maximum(area, strip)
    colour = c.colour(head.hair * 0.85)[:, :, None, None] * (1 + 0.15 * grain)[:, None].clamp(0.3, 1.7)
    amount_map = (area * (full * 0.86 + (1 - full) * stubble) + strip * tash * 0.9 * (1 - full)).clamp(
        0, 0.92
    )
    c.paint(amount_map * (0.92 + 0.08 * grain).clamp(0, 1), colour * (0.6 + 0.4 * head.light[2]).unsqueeze(1))
