"""What lies over a face: hair, beard, and what may hide it (sunglasses, a hand, a surgical mask, a scarf)."""

from __future__ import annotations

import torch

from ferlib.synthetic.features import Head
from ferlib.synthetic.identity import OCCLUSIONS, FaceParameters
from ferlib.synthetic.paint import Canvas, Curve, below, blob, line, noise, smooth, wide


class Hair:
    """Continuous style numbers from the looks; women have longer hair more often, men are bald more often."""

    def __init__(self, c: Canvas, p: FaceParameters, head: Head):
        fem, style = p.get("femininity"), p.get("hair_style")
        bald = ((style < 0.16) & (fem < 0.5)).float()
        long = smooth((p.get("hair_length") * 0.75 + 0.55 * (fem - 0.5) - 0.30) / 0.20) * (1 - bald)
        self.bald, self.long = wide(bald), wide(long)
        self.curl = wide(smooth((p.get("curl") - 0.6) / 0.3))
        self.fringe = wide(((p.get("fringe") > 0.62) & (bald < 0.5)).float())
        self.volume = wide(0.05 + 0.11 * p.get("volume") + 0.06 * long)
        self.part = wide((p.get("parting") - 0.5) * 0.7)
        self.wave = noise(c.x * 0.45, c.y * 0.45, p.phase[:, :2], 1)
        self.c, self.p, self.head = c, p, head

    def color(self, along: torch.Tensor, across: torch.Tensor, gloss: torch.Tensor) -> torch.Tensor:
        """Strands in the light: ``(B, C, H, W)``."""
        c, phase = self.c, self.p.phase[:, 6:8]
        strands = noise(along * 0.35, across * 1.1, phase, 2) * 0.35
        strands = strands + noise(along * 0.2, across * 0.45, phase, 1) * 0.5
        lx, ly, _ = self.head.light
        side = 0.80 + 0.24 * (c.x * lx + (c.y + 0.3) * ly * 0.7)
        value = (side * (1 + 0.17 * strands) + gloss * (0.45 + 0.2 * strands)).clamp(0.15, 2.0)
        return (c.color(self.head.hair + 0.015, value) + 0.07 * gloss[:, None]).clamp(0, 1)

    def cap(self, low: float, rough: float) -> torch.Tensor:
        """Distance from the outer edge of the hair on the head, in face units, below 0 inside."""
        volume = self.volume * (low + (1 - low) * smooth((0.25 - self.c.y) / 0.9))
        return self.head.distance - volume + self.wave * (rough + 0.045 * self.curl)

    def behind(self) -> None:
        """Hair behind the head: a cap with volume, and the fall of long hair."""
        c, p = self.c, self.p
        mask = (
            below(self.cap(0.35, 0.010), c.pixel.clamp(min=0.03))
            * smooth((0.55 - c.y) / 0.5)
            * (1 - self.bald)
        )
        curl = 0.10 * smooth((c.y + 0.2) / 1.2) * self.curl
        width = 0.80 + self.volume * 0.8 + curl - 0.18 * smooth((c.y - 0.8) / 0.9)
        wave = self.wave * (0.010 + 0.045 * self.curl)
        reach = wide(0.75 + 1.1 * p.get("hair_length"))
        tip = c.y - reach + 0.05 * noise(c.x * 0.9, c.y * 0.1, p.phase[:, :2], 1)
        fall = below(c.x.abs() - width + wave, c.pixel.clamp(min=0.03)) * below(tip, 0.10)
        fall = fall * smooth((c.y + 0.45) / 0.3) * smooth((self.long - 0.3) * 4)
        inner = 0.55 + 0.35 * smooth((c.x.abs() - 0.45) / 0.4)
        strands = self.color(c.y, c.x + 0.3 * wave, torch.zeros_like(c.x))
        c.paint(torch.maximum(mask, fall), strands * inner[:, None])

    def front(self) -> None:
        """Hairline, parting, fringe and sides over the forehead; stubble of a shaved head."""
        c, p, head = self.c, self.p, self.head
        half = (c.point(16)[0] - c.point(0)[0]) / 2
        recede = wide(smooth((p.get("age") - 0.35) / 0.6) * (1 - p.get("femininity")) * 0.16)
        wave = noise(c.x * 0.55, c.y * 0.55, p.phase[:, 2:4], 1)
        xx = c.x - self.part * 0.12
        # a superellipse leaves the face open; hair is what lies outside it but on the head
        a, b = xx.abs() / (0.94 * half + 0.01 * wave), (0.06 - c.y).clamp(min=0) / (0.70 + recede)
        ragged = smooth((-0.05 - c.y) / 0.3)
        hairline = (1 - (a * a * a + b * b * b)) * 0.19 + 0.010 * wave * (1 + 2 * self.curl) * ragged
        hairline = hairline - 0.05 * blob(c.x, c.y + 0.66, 0.10, 0.12) * (1 - self.fringe)
        sides = smooth((0.22 + 0.55 * self.long - c.y) / 0.18)
        slant = 0.10 * (c.x * self.part.sign()).clamp(-0.5, 0.5)
        fringe = (c.y - (-0.36 - 0.10 * (xx / 0.6) ** 2 + 0.03 * wave + slant)) * 0.8
        hairline = torch.where(self.fringe > 0.5, torch.minimum(hairline, fringe.clamp(min=-0.3)), hairline)
        mask = below(hairline, c.pixel.clamp(min=0.05))
        mask = mask * below(self.cap(0.3, 0.008), c.pixel.clamp(min=0.03)) * sides
        c.dim(below(hairline - 0.035, 0.12) * head.mask * sides * (1 - self.bald), 0.30)
        angle = torch.atan2(c.x - self.part * 0.5, 0.15 - c.y)
        distance = ((c.x - self.part * 0.5) ** 2 + (c.y - 0.1) ** 2).sqrt()
        curls = self.curl * 0.06 * wave
        gloss = line(head.distance + 0.16 + 0.03 * wave, 0.09) * smooth((-0.2 - c.y) / 0.5) * 0.55
        c.paint(mask * (1 - self.bald), self.color(distance + curls, angle * 0.6 - curls, gloss))
        shaved = below(hairline - 0.02, 0.12) * head.mask * sides * self.bald
        stubble = shaved * wide(0.30 * (p.get("hair_style") < 0.11).float())
        c.paint(stubble, head.hair * 0.6 + head.skin * 0.3)


def bearded(p: FaceParameters) -> torch.Tensor:
    """Which of the B faces have any beard or stubble: row numbers."""
    return ((p.get("femininity") < 0.45) & (p.get("beard") > 0.55)).nonzero()[:, 0]


def beard(c: Canvas, p: FaceParameters, head: Head) -> None:
    """Stubble, moustache or full beard for some men, under the lips' paint."""
    man = smooth((0.45 - p.get("femininity")) / 0.1)
    amount = p.get("beard")
    full = wide(man * smooth((amount - 0.78) / 0.04))
    stubble = wide(man * smooth((amount - 0.55) / 0.2) * 0.30)
    moustache = wide(man * smooth((amount - 0.90) / 0.04))
    upper = Curve(c.points[:, 48:55])
    s = upper.place(c.x)
    grain = noise(c.x * 1.5, c.y * 1.5, p.phase[:, 6:8], 2)
    corner = (c.point(48)[1] + c.point(54)[1]) / 2
    cheek = corner - 0.04 - 1.0 * (c.x.abs() - 0.27).clamp(min=0) + 0.02 * grain
    area = smooth((c.y - cheek) / 0.13) * smooth((-head.distance + 0.03) / 0.08)
    area = area * (1 - 0.5 * blob(c.x, c.y - c.point(57)[1] - 0.05, 0.10, 0.04))
    strip = smooth((c.y - c.point(33)[1] - 0.015) / 0.05) * smooth((upper.at(s) + 0.01 - c.y) / 0.03)
    strip = strip * smooth((1.2 - s.abs()) / 0.35)
    area = torch.maximum(area, strip)
    amount = (area * (full * 0.86 + (1 - full) * stubble) + strip * moustache * 0.9 * (1 - full)).clamp(
        0, 0.92
    )
    color = c.color(head.hair * 0.85, (1 + 0.15 * grain).clamp(0.3, 1.7))
    c.paint(amount * (0.92 + 0.08 * grain).clamp(0, 1), color * (0.6 + 0.4 * head.light[2])[:, None])


def glasses(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """Sunglasses over both eyes: mask ``(B, H, W)``."""
    place = p.occlusion_place
    cover, frame = torch.zeros_like(c.x), torch.zeros_like(c.x)
    wx, wy = 0.225 + 0.02 * wide(place[:, 0]), 0.145 + 0.03 * wide(place[:, 1])
    for a, b in ((36, 39), (42, 45)):
        cx, cy = (c.point(a)[0] + c.point(b)[0]) / 2, (c.point(a)[1] + c.point(b)[1]) / 2 + 0.015
        r = (((c.x - cx).abs() / wx) ** 3 + ((c.y - cy).abs() / wy) ** 3 + 1e-6) ** (1 / 3) - 1
        cover = torch.maximum(cover, below(r * 0.15, c.pixel.clamp(min=0.014)))
        frame = torch.maximum(frame, line(r * 0.15, 0.022))
    bridge = line(c.y + 0.035 - 0.4 * c.x**2, 0.020) * below(c.x.abs() - 0.14, 0.02)
    arms = line(c.y + 0.05, 0.018) * smooth((c.x.abs() - 0.52) / 0.03) * head.mask
    frame = torch.maximum(frame, torch.maximum(bridge, arms)).clamp(0, 1)
    shine = 0.10 + 0.25 * smooth((c.x + c.y * 1.4 + 0.15 * head.light[0]) * 2.5 % 1.0 - 0.6) * 0.5
    c.paint(cover * 0.97, (1.0, 1.02, 1.06), shine * 0.7)
    c.paint(frame, (0.06, 0.05, 0.06))
    return torch.maximum(cover, frame)


def hand(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """A hand laid over mouth and cheek, fingers up: mask ``(B, H, W)``."""
    place, soft = p.occlusion_place, c.pixel.clamp(min=0.016)
    side = wide((place[:, 0] - 0.5).sign())
    tilt = side * (0.35 + 0.5 * wide(place[:, 3]))
    dx = c.x - side * (0.02 + 0.12 * wide(place[:, 1]))
    dy = c.y - (0.70 + 0.14 * wide(place[:, 2]))
    rx, ry = dx * tilt.cos() + dy * tilt.sin(), -dx * tilt.sin() + dy * tilt.cos()
    height, cover, seams = (torch.zeros_like(c.x) for _ in range(3))
    for k, length in enumerate((0.40, 0.50, 0.47, 0.34)):
        across, fw, top = rx - (k - 1.5) * 0.135, 0.068, -length
        above = (ry - top - fw).clamp(max=0)
        d = (across**2 + above**2 + 1e-8).sqrt() - fw + 3 * (ry - 0.15).clamp(min=0)
        finger = below(d, soft)
        cover = torch.maximum(cover, finger)
        height = torch.maximum(height, finger * (1 - (across / fw) ** 2).clamp(min=0))
        edge = line(across.abs() - fw, 0.014) * below(top + 0.08 - ry, 0.05) * below(ry - 0.12, 0.05)
        seams = torch.maximum(seams, edge)
        for joint in (0.30, 0.62):
            crease = line(ry - top * (1 - joint), 0.012) * below(across.abs() - 0.05, 0.03)
            seams = torch.maximum(seams, 0.4 * crease)
    palm = ((rx.abs() / 0.285) ** 3 + ((ry - 0.28).abs() / 0.36) ** 3 + 1e-6) ** (1 / 3) - 1
    arm = below(rx.abs() - 0.21, soft) * smooth((ry - 0.45) * 8)
    thumb = ((rx + side * 0.33) * 0.9 + (ry - 0.12) * 0.5 * side) ** 2 / 0.075**2 + (ry - 0.14) ** 2 / 0.26**2
    thumb = below(((thumb + 1e-6).sqrt() - 1) * 0.07, soft)
    cover = torch.maximum(torch.maximum(cover, below(palm * 0.28, soft)), torch.maximum(arm, thumb))
    shade = (
        0.80 + 0.18 * height + 0.10 * side * head.light[0] * rx + 0.02 * noise(c.x, c.y, p.phase[:, :2], 1)
    )
    shade = shade * (1 - 0.32 * seams) * (1 - 0.12 * blob(rx, ry - 0.25, 0.15, 0.15))
    c.dim(smooth(1 - 5 * palm.clamp(min=0)) * 0.5, 0.25)
    c.paint(cover, head.skin, shade)
    return cover


def mask(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """A surgical mask from the bridge of the nose to under the chin: mask ``(B, H, W)``."""
    top = c.point(28)[1] + 0.10 + 0.30 * c.x**2 - 0.06 * blob(c.x, c.y * 0, 0.10, 1.0)
    bottom = c.point(8)[1] + 0.03 - 0.20 * c.x**2
    soft = c.pixel.clamp(min=0.016)
    cover = below(top - c.y, soft) * below(c.y - bottom, soft) * below(head.distance - 0.015, soft)
    pleats = sum(line(c.y - y + 0.06 * c.x**2, 0.014) for y in (0.60, 0.74, 0.88))
    bulge = 1.02 - 0.45 * (c.x / 0.8) ** 2 + 0.16 * c.x * head.light[0] - 0.12 * pleats
    bulge = bulge - 0.10 * smooth((c.y - 0.75) / 0.4)
    blue, white = torch.tensor([0.62, 0.78, 0.86]), torch.tensor([0.92, 0.93, 0.93])
    color = torch.lerp(blue, white, p.occlusion_place[:, :1])
    loops = (
        line(c.y - 0.36 + 0.42 * (c.x.abs() - 0.72), 0.014) * smooth((c.x.abs() - 0.60) / 0.05) * head.mask
    )
    c.paint(loops * 0.8, color * 0.9)
    c.dim(line(c.y - top + 0.02, 0.03) * head.mask, 0.12)
    c.paint(cover, color, bulge.clamp(0.3, 1.1))
    return cover


def scarf(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """A scarf wound around neck, mouth and chin: mask ``(B, H, W)``."""
    place, soft = p.occlusion_place, c.pixel.clamp(min=0.02)
    top = 0.60 + 0.08 * (wide(place[:, 0]) - 0.5) + 0.10 * c.x**2
    top = top + 0.03 * torch.sin(4 * c.x + 6 * wide(place[:, 1]))
    width = 0.86 + 0.12 * smooth((c.y - 0.7) / 0.7)
    cover = below(top - c.y, soft) * below(c.x.abs() - width, soft) * below(c.y - 1.75, 0.05)
    weave = 0.04 * noise(c.x * 1.4, c.y * 1.4, p.phase[:, 2:4], 2)
    folds = torch.zeros_like(c.x)
    for k, lean in enumerate((-1, 1, -1, 1, -1)):
        folds = folds + line(c.y - 0.72 - 0.20 * k - (0.10 - 0.05 * k) * c.x * lean - 0.12 * c.x**2, 0.03)
    shade = 0.95 - 0.40 * (c.x / 0.95) ** 2 + 0.18 * c.x * head.light[0] - 0.22 * folds + weave
    color = torch.cat([0.45 + 0.35 * (6.28 * (place[:, 2:3] + k / 3)).cos() for k in range(3)], 1)
    stripes = 1 - 0.25 * wide((place[:, 3] > 0.5).float()) * smooth(torch.sin(22 * c.y + 3 * c.x) * 3)
    c.dim(line(c.y - top + 0.03, 0.04) * head.mask, 0.20)
    c.paint(cover, color, (shade * stripes).clamp(0.15, 1.2))
    return cover


def occlude(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """Paint whatever hides each face; returns where it is, ``(B, H, W)`` in [0, 1]."""
    cover = torch.zeros_like(c.x)
    for kind, draw in enumerate((glasses, hand, mask, scarf), start=OCCLUSIONS.index("glasses")):
        rows = (p.occlusion == kind).nonzero()[:, 0]
        if len(rows):
            part = c.rows(rows)
            cover[rows] = draw(part, p[rows], head.rows(rows))
            c.image = c.image.index_copy(0, rows, part.image)
    return cover
