"""What lies over a face: hair, beard, and what may hide it (sunglasses, a hand, a surgical mask, a scarf)."""

from __future__ import annotations

import torch

from ferlib.synthetic.features import Face
from ferlib.synthetic.identity import OCCLUSIONS, FaceParameters
from ferlib.synthetic.paint import Curve, below, blob, line, noise, smooth, wide


class Hair:
    """Continuous style numbers from the looks; women have longer hair more often, men are bald more often."""

    def __init__(self, c: Face):
        fem, style, self.c = c.get("femininity"), c.get("hair_style"), c
        self.bald = ((style < 0.16) & (fem < 0.5)).float()
        long = smooth(c.get("hair_length") * 0.75 + 0.55 * (fem - 0.5) - 0.30, 0.20)
        self.long = long * (1 - self.bald)
        self.curl = smooth(c.get("curl") - 0.6, 0.3)
        self.fringe = ((c.get("fringe") > 0.62) & (self.bald < 0.5)).float()
        self.volume = 0.05 + 0.11 * c.get("volume") + 0.06 * self.long
        self.part = (c.get("parting") - 0.5) * 0.7
        self.wave = c.noise(0.45, 0.45, 0, 1)

    def color(self, along: torch.Tensor, across: torch.Tensor, gloss: torch.Tensor) -> torch.Tensor:
        """Strands in the light: ``(B, C, H, W)``."""
        c, phase = self.c, self.c.p.phase[:, 6:8]
        strands = noise(along * 0.35, across * 1.1, phase, 2) * 0.35
        strands = strands + noise(along * 0.2, across * 0.45, phase, 1) * 0.5
        side = 0.80 + 0.24 * (c.x * c.lx + (c.y + 0.3) * c.ly * 0.7)
        value = (side * (1 + 0.17 * strands) + gloss * (0.45 + 0.2 * strands)).clamp(0.15, 2.0)
        return (c.color(c.hair + 0.015, value) + 0.07 * gloss[:, None]).clamp(0, 1)

    def cap(self, low: float, rough: float) -> torch.Tensor:
        """Where there is hair on the head, in [0, 1]."""
        volume = self.volume * (low + (1 - low) * smooth(0.25 - self.c.y, 0.9))
        return self.c.inside(self.c.distance - volume + self.wave * (rough + 0.045 * self.curl), 0.03)

    def behind(self) -> None:
        """Hair behind the head: a cap with volume, and the fall of long hair."""
        c = self.c
        mask = self.cap(0.35, 0.010) * smooth(0.55 - c.y, 0.5) * (1 - self.bald)
        curl = 0.10 * smooth(c.y + 0.2, 1.2) * self.curl
        width = 0.80 + self.volume * 0.8 + curl - 0.18 * smooth(c.y - 0.8, 0.9)
        wave = self.wave * (0.010 + 0.045 * self.curl)
        reach = 0.75 + 1.1 * c.get("hair_length")
        tip = c.y - reach + 0.05 * c.noise(0.9, 0.1, 0, 1)
        fall = c.inside(c.x.abs() - width + wave, 0.03) * below(tip, 0.10)
        fall = fall * smooth(c.y + 0.45, 0.3) * smooth((self.long - 0.3) * 4)
        inner = 0.55 + 0.35 * smooth(c.x.abs() - 0.45, 0.4)
        strands = self.color(c.y, c.x + 0.3 * wave, torch.zeros_like(c.x))
        c.paint(torch.maximum(mask, fall), strands * inner[:, None])

    def front(self) -> None:
        """Hairline, parting, fringe and sides over the forehead; stubble of a shaved head."""
        c, bald = self.c, self.bald
        half = (c.point(16)[0] - c.point(0)[0]) / 2
        recede = smooth(c.get("age") - 0.35, 0.6) * (1 - c.get("femininity")) * 0.16
        wave = c.noise(0.55, 0.55, 2, 1)
        xx = c.x - self.part * 0.12
        # a superellipse leaves the face open; hair is what lies outside it but on the head
        a, b = xx.abs() / (0.94 * half + 0.01 * wave), (0.06 - c.y).clamp(min=0) / (0.70 + recede)
        ragged = smooth(-0.05 - c.y, 0.3)
        hairline = (1 - (a * a * a + b * b * b)) * 0.19 + 0.010 * wave * (1 + 2 * self.curl) * ragged
        hairline = hairline - 0.05 * blob(c.x, c.y + 0.66, 0.10, 0.12) * (1 - self.fringe)
        sides = smooth(0.22 + 0.55 * self.long - c.y, 0.18)
        slant = 0.10 * (c.x * self.part.sign()).clamp(-0.5, 0.5)
        fringe = (c.y - (-0.36 - 0.10 * (xx / 0.6) ** 2 + 0.03 * wave + slant)) * 0.8
        hairline = torch.where(self.fringe > 0.5, torch.minimum(hairline, fringe.clamp(min=-0.3)), hairline)
        mask = c.inside(hairline, 0.05) * self.cap(0.3, 0.008) * sides
        c.dim(below(hairline - 0.035, 0.12) * c.mask * sides * (1 - bald), 0.30)
        right, down = c.x - self.part * 0.5, c.y - 0.1
        angle = torch.atan2(right, 0.15 - c.y)
        distance = (right**2 + down**2).sqrt()
        curls = self.curl * 0.06 * wave
        gloss = line(c.distance + 0.16 + 0.03 * wave, 0.09) * smooth(-0.2 - c.y, 0.5) * 0.55
        c.paint(mask * (1 - bald), self.color(distance + curls, angle * 0.6 - curls, gloss))
        shaved = below(hairline - 0.02, 0.12) * c.mask * sides * bald
        c.paint(shaved * (0.30 * (c.get("hair_style") < 0.11).float()), c.hair * 0.6 + c.skin * 0.3)


def bearded(p: FaceParameters) -> torch.Tensor:
    """Which of the B faces have any beard or stubble: row numbers."""
    return ((p.get("femininity") < 0.45) & (p.get("beard") > 0.55)).nonzero()[:, 0]


def beard(c: Face) -> None:
    """Stubble, moustache or full beard for some men, under the lips' paint."""
    man, much = smooth(0.45 - c.get("femininity"), 0.1), c.get("beard")
    full, moustache = man * smooth(much - 0.78, 0.04), man * smooth(much - 0.90, 0.04)
    stubble = man * smooth(much - 0.55, 0.2) * 0.30
    upper = Curve(c.points[:, 48:55])
    s = upper.place(c.x)
    grain = c.noise(1.5, 1.5, 6, 2)
    corner = (c.point(48)[1] + c.point(54)[1]) / 2
    cheek = corner - 0.04 - 1.0 * (c.x.abs() - 0.27).clamp(min=0) + 0.02 * grain
    area = smooth(c.y - cheek, 0.13) * smooth(-c.distance + 0.03, 0.08)
    area = area * (1 - 0.5 * c.spot(0.0, c.point(57)[1], 0.10, 0.04, dy=-0.05))
    strip = smooth(c.y - c.point(33)[1] - 0.015, 0.05) * smooth(upper.at(s) + 0.01 - c.y, 0.03)
    strip = strip * smooth(1.2 - s.abs(), 0.35)
    area = torch.maximum(area, strip)
    amount = area * (full * 0.86 + (1 - full) * stubble) + strip * moustache * 0.9 * (1 - full)
    color = c.color(c.hair * 0.85, (1 + 0.15 * grain).clamp(0.3, 1.7))
    amount = amount.clamp(0, 0.92) * (0.92 + 0.08 * grain).clamp(0, 1)
    c.paint(amount, color * (0.6 + 0.4 * c.lz)[:, None])


def _box(
    x: torch.Tensor, y: torch.Tensor, wx: torch.Tensor | float, wy: torch.Tensor | float
) -> torch.Tensor:
    """Below 0 inside a superellipse of third order with half axes wx and wy: a rounded box."""
    return ((x.abs() / wx) ** 3 + (y.abs() / wy) ** 3 + 1e-6) ** (1 / 3) - 1


def _place(c: Face) -> list[torch.Tensor]:
    return [wide(t) for t in c.p.occlusion_place.unbind(1)]


def glasses(c: Face) -> torch.Tensor:
    """Sunglasses over both eyes: mask ``(B, H, W)``."""
    a, b, *_ = _place(c)
    cover, frame = torch.zeros_like(c.x), torch.zeros_like(c.x)
    for outer, inner in ((36, 39), (42, 45)):
        (x, y), (x2, y2) = c.point(outer), c.point(inner)
        x, y = c.x - (x + x2) / 2, c.y - ((y + y2) / 2 + 0.015)
        r = _box(x, y, 0.225 + 0.02 * a, 0.145 + 0.03 * b) * 0.15
        cover = torch.maximum(cover, c.inside(r, 0.014))
        frame = torch.maximum(frame, line(r, 0.022))
    bridge = line(c.y + 0.035 - 0.4 * c.x**2, 0.020) * below(c.x.abs() - 0.14, 0.02)
    arms = line(c.y + 0.05, 0.018) * smooth(c.x.abs() - 0.52, 0.03) * c.mask
    frame = torch.maximum(frame, torch.maximum(bridge, arms)).clamp(0, 1)
    shine = 0.10 + 0.25 * smooth((c.x + c.y * 1.4 + 0.15 * c.lx) * 2.5 % 1.0 - 0.6) * 0.5
    c.paint(cover * 0.97, (1.0, 1.02, 1.06), shine * 0.7)
    c.paint(frame, (0.06, 0.05, 0.06))
    return torch.maximum(cover, frame)


def hand(c: Face) -> torch.Tensor:
    """A hand laid over mouth and cheek, fingers up: mask ``(B, H, W)``."""
    place, soft = _place(c), c.pixel.clamp(min=0.016)
    side = (place[0] - 0.5).sign()
    tilt = side * (0.35 + 0.5 * place[3])
    dx, dy = c.x - side * (0.02 + 0.12 * place[1]), c.y - (0.70 + 0.14 * place[2])
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
    palm = _box(rx, ry - 0.28, 0.285, 0.36)
    arm = below(rx.abs() - 0.21, soft) * smooth((ry - 0.45) * 8)
    thumb = ((rx + side * 0.33) * 0.9 + (ry - 0.12) * 0.5 * side) ** 2 / 0.075**2 + (ry - 0.14) ** 2 / 0.26**2
    thumb = below(((thumb + 1e-6).sqrt() - 1) * 0.07, soft)
    cover = torch.maximum(torch.maximum(cover, below(palm * 0.28, soft)), torch.maximum(arm, thumb))
    grain = 0.02 * c.noise(1, 1, 0, 1)
    shade = 0.80 + 0.18 * height + 0.10 * side * c.lx * rx + grain
    shade = shade * (1 - 0.32 * seams) * (1 - 0.12 * blob(rx, ry - 0.25, 0.15, 0.15))
    c.dim(smooth(1 - 5 * palm.clamp(min=0)) * 0.5, 0.25)
    c.paint(cover, c.skin, shade)
    return cover


def mask(c: Face) -> torch.Tensor:
    """A surgical mask from the bridge of the nose to under the chin: mask ``(B, H, W)``."""
    top = c.point(28)[1] + 0.10 + 0.30 * c.x**2 - 0.06 * blob(c.x, c.y * 0, 0.10, 1.0)
    bottom = c.point(8)[1] + 0.03 - 0.20 * c.x**2
    cover = c.inside(top - c.y, 0.016) * c.inside(c.y - bottom, 0.016) * c.inside(c.distance - 0.015, 0.016)
    pleats = sum(line(c.y - y + 0.06 * c.x**2, 0.014) for y in (0.60, 0.74, 0.88))
    bulge = 1.02 - 0.45 * (c.x / 0.8) ** 2 + 0.16 * c.x * c.lx - 0.12 * pleats
    bulge = bulge - 0.10 * smooth(c.y - 0.75, 0.4)
    blue, white = torch.tensor([0.62, 0.78, 0.86]), torch.tensor([0.92, 0.93, 0.93])
    color = torch.lerp(blue, white, c.p.occlusion_place[:, :1])
    loops = line(c.y - 0.36 + 0.42 * (c.x.abs() - 0.72), 0.014) * smooth(c.x.abs() - 0.60, 0.05) * c.mask
    c.paint(loops * 0.8, color * 0.9)
    c.dim(line(c.y - top + 0.02, 0.03) * c.mask, 0.12)
    c.paint(cover, color, bulge.clamp(0.3, 1.1))
    return cover


def scarf(c: Face) -> torch.Tensor:
    """A scarf wound around neck, mouth and chin: mask ``(B, H, W)``."""
    height, phase, hue, striped = _place(c)
    top = 0.60 + 0.08 * (height - 0.5) + 0.10 * c.x**2 + 0.03 * torch.sin(4 * c.x + 6 * phase)
    width = 0.86 + 0.12 * smooth(c.y - 0.7, 0.7)
    cover = c.inside(top - c.y, 0.02) * c.inside(c.x.abs() - width, 0.02) * below(c.y - 1.75, 0.05)
    weave = 0.04 * c.noise(1.4, 1.4, 2, 2)
    folds = torch.zeros_like(c.x)
    for k, lean in enumerate((-1, 1, -1, 1, -1)):
        folds = folds + line(c.y - 0.72 - 0.20 * k - (0.10 - 0.05 * k) * c.x * lean - 0.12 * c.x**2, 0.03)
    shade = 0.95 - 0.40 * (c.x / 0.95) ** 2 + 0.18 * c.x * c.lx - 0.22 * folds + weave
    color = torch.cat([0.45 + 0.35 * (6.28 * (hue[:, 0] + k / 3)).cos() for k in range(3)], 1)
    stripes = 1 - 0.25 * (striped > 0.5).float() * smooth(torch.sin(22 * c.y + 3 * c.x) * 3)
    c.dim(line(c.y - top + 0.03, 0.04) * c.mask, 0.20)
    c.paint(cover, color, (shade * stripes).clamp(0.15, 1.2))
    return cover


def occlude(c: Face) -> torch.Tensor:
    """Paint whatever hides each face; returns where it is, ``(B, H, W)`` in [0, 1]."""
    cover = torch.zeros_like(c.x)
    for kind, draw in enumerate((glasses, hand, mask, scarf), start=OCCLUSIONS.index("glasses")):
        rows = (c.p.occlusion == kind).nonzero()[:, 0]
        if (found := c.some(rows, draw)) is not None:
            cover[rows] = found
    return cover
