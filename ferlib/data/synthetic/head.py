"""The head and what is around it: background, neck, hair, ears, and the lit skin."""

from __future__ import annotations

import math

import torch

from ferlib.data.synthetic.expressions import AU_INDEX
from ferlib.data.synthetic.geometry import CENTRE, outline_radius
from ferlib.data.synthetic.identity import FaceParameters, skin_colour
from ferlib.data.synthetic.paint import Canvas, bell, below, blob, noise, smooth, table, wide

HAIR = [
    (24, 20, 20),
    (38, 28, 24),
    (62, 42, 30),
    (96, 66, 42),
    (150, 110, 68),
    (196, 160, 104),
    (140, 68, 36),
]
GREY = torch.tensor([186.0, 184.0, 182.0]) / 255


def hair_colour(p: FaceParameters) -> torch.Tensor:
    """Hair colour ``(B, 3)``: dark skin goes with dark hair, age with grey."""
    limit = 1 - 0.85 * smooth((p.get("skin") - 0.35) / 0.3)
    tone = table(HAIR, p.get("hair_colour") * limit)
    grey = smooth((p.get("age") - 0.62) / 0.35)[:, None]
    return torch.lerp(tone, GREY.expand_as(tone), 0.85 * grey)


def background(c: Canvas, p: FaceParameters) -> None:
    """A soft two-colour backdrop with a little structure."""
    b = p.background
    base = 0.18 + 0.62 * b[:, 0]
    hue = torch.stack([b[:, 1], 1 - (b[:, 1] - 0.5).abs(), 1 - b[:, 1]], 1) - 0.6
    one = c.colour((base[:, None] + 0.16 * hue).clamp(0.05, 0.95))
    two = c.colour(((base + 0.4 * (b[:, 2] - 0.5))[:, None] + 0.16 * hue.flip(1)).clamp(0.05, 0.95))
    angle = wide(b[:, 3] * 2 * math.pi)
    t = (
        0.5
        + 0.28 * (c.u * angle.cos() + c.v * angle.sin())
        + 0.10 * noise(c.u / 6, c.v / 6, p.phase[:, :2], 0)
    )
    c.image = torch.zeros_like(c.image) + one[:, :, None, None]
    c.paint(smooth(t), two)


class Head:
    """Outline, distances and light that several layers need, computed once per batch.

    Shape: takes a ``Canvas``, ``FaceParameters`` and outline coefficients ``(B, ORDER)``; keeps ``(B, H,
    W)`` maps.
    """

    def __init__(self, c: Canvas, p: FaceParameters, coefficients: torch.Tensor):
        dy = c.y - CENTRE
        self.radius = (c.x**2 + dy**2 + 1e-8).sqrt()
        self.cosine = dy / self.radius
        self.edge = outline_radius(coefficients, self.cosine)
        self.distance = self.radius - self.edge
        self.mask = below(self.distance, c.pixel.clamp(min=0.012))
        azimuth, elevation = (p.light[:, :2] * (math.pi / 180)).unbind(1)
        self.light = [
            wide(t)
            for t in (azimuth.sin() * elevation.cos(), -elevation.sin(), azimuth.cos() * elevation.cos())
        ]
        self.ambient = wide(p.light[:, 2])
        self.skin = skin_colour(p.get("skin"), p.get("redness"))
        self.hair = hair_colour(p)

    def rows(self, index: torch.Tensor) -> Head:
        """The same for some of the faces."""
        part = object.__new__(Head)
        for name, value in vars(self).items():
            setattr(part, name, [v[index] for v in value] if isinstance(value, list) else value[index])
        return part

    def lit(self, nx: torch.Tensor, ny: torch.Tensor, nz: torch.Tensor) -> torch.Tensor:
        """Brightness of a surface with normal (nx, ny, nz): ambient plus Lambert, 1 towards the light."""
        lx, ly, lz = self.light
        norm = torch.rsqrt(nx * nx + ny * ny + nz * nz)
        return self.ambient + (1 - self.ambient) * ((nx * lx + ny * ly + nz * lz) * norm * 1.12).clamp(min=0)


def body(c: Canvas, p: FaceParameters, head: Head) -> None:
    """Neck, shoulders and clothes, below the chin and unposed."""
    cx = wide(torch.sin(p.pose[:, 2] * math.pi / 180) * -0.9)
    u, v = c.u - cx * smooth((c.v - 0.2) / 1.2), c.v
    chin = wide(c.points[:, 8, 1])
    half = wide(0.47 + 0.03 * p.get("jaw_width") - 0.08 * (p.get("femininity") - 0.5))
    flare = 0.25 * smooth((v - 1.2) / 0.7) ** 2
    neck = below(u.abs() - half - flare, c.pixel.clamp(min=0.015))
    shade = (1 - 0.45 * (u / 0.55).abs().clamp(max=1.3) ** 2 + 0.25 * u * head.light[0]) * (
        0.50 + 0.40 * smooth((v - chin + 0.02) / 0.42)
    )
    c.paint(
        neck * smooth((v - 0.5) * 8), c.colour(head.skin)[:, :, None, None] * shade[:, None].clamp(0.2, 1.1)
    )
    slope = v - (1.52 + 0.30 * smooth((u.abs() - 0.35) / 1.2) + 0.25 * (u / 2).clamp(-1, 1) ** 2)
    collar = wide(0.02 + 0.45 * p.get("cloth_hue") ** 2) * (1 - (u / 0.55) ** 2).clamp(min=0)
    cloth = below(-(slope - collar), c.pixel.clamp(min=0.02))
    hue = p.get("cloth_hue")
    rgb = torch.stack([0.5 + 0.4 * (6.28 * (hue + k / 3)).cos() for k in range(3)], 1)
    value = (0.12 + 0.75 * p.get("cloth"))[:, None]
    rgb = torch.lerp(value.expand(-1, 3), rgb * value * 1.3, 0.35).clamp(0, 1)
    folds = 1 + 0.05 * noise(c.u / 3, c.v / 5, p.phase[:, 2:4], 0) - 0.12 * (u.abs() / 1.6).clamp(max=1)
    c.paint(cloth, c.colour(rgb)[:, :, None, None] * folds[:, None])


def ears(c: Canvas, p: FaceParameters, head: Head) -> None:
    """Both ears, behind the face."""
    for side, index in ((-1, 1), (1, 15)):
        ex, ey = c.point(index)
        dx, dy = c.x - (ex + side * 0.035), c.y - (ey - 0.07)
        r = ((dx - side * 0.12 * dy * -0.5) / 0.095) ** 2 + (dy / 0.20) ** 2
        ear = below((r.sqrt() - 1) * 0.1, c.pixel.clamp(min=0.012))
        shade = 0.86 + 0.10 * side * head.light[0] - 0.28 * blob(dx - side * 0.005, dy - 0.01, 0.04, 0.10)
        c.paint(ear, c.colour(head.skin * torch.tensor([1.0, 0.94, 0.92]))[:, :, None, None] * shade[:, None])


def _add_bumps(
    nx: torch.Tensor, ny: torch.Tensor, x: torch.Tensor, y: torch.Tensor, bumps: list
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tilt normals ``(B, H, W)`` by the slopes of bumps ``(x, y, width, height, amplitude)``."""
    for bx, by, width, height, amplitude in bumps:
        dx, dy = (x - wide(bx)).mul_(1 / width), (y - wide(by)).mul_(1 / height)
        g = bell(torch.addcmul(dx * dx, dy, dy)).mul_(wide(amplitude))
        nx = torch.addcmul(nx, g, dx, value=1 / width)
        ny = torch.addcmul(ny, g, dy, value=1 / height)
    return nx, ny


def skin(c: Canvas, p: FaceParameters, head: Head) -> torch.Tensor:
    """The lit skin of the face; returns its shade ``(B, H, W)`` so that lips and eyes share the light."""
    au = p.action_units
    smile = (au[:, AU_INDEX["AU12"]] + 0.6 * au[:, AU_INDEX["AU6"]]).clamp(0, 1.4)
    boss = au[:, AU_INDEX["AU17"]]
    corr = au[:, AU_INDEX["AU4"]]
    age = p.get("age")
    x, y = c.x, c.y
    sx, sy = x / 0.93, (y - 0.05) / 1.32
    nz = (1 - sx * sx - sy * sy).clamp(min=0.03).sqrt()
    nx, ny = sx, sy * 0.5
    lx, ly = [c.points[:, i, 0] for i in range(68)], [c.points[:, i, 1] for i in range(68)]
    one = torch.ones(len(p))
    zero = one * 0
    bumps = [  # x, y, width, height, amplitude
        (zero, ly[27] * 0.4 + ly[30] * 0.6 - 0.05, 0.070, 0.20, 0.085 * one),
        (zero, ly[30] + 0.045, 0.080, 0.070, 0.060 * one),
        (lx[31] + 0.035, ly[31] - 0.045, 0.050, 0.055, 0.034 * one),
        (lx[35] - 0.035, ly[35] - 0.045, 0.050, 0.055, 0.034 * one),
        (zero, ly[51] - 0.02, 0.24, 0.16, 0.050 * one),
        (zero, ly[8] - 0.16, 0.15, 0.09, 0.040 + 0.035 * boss),
        (zero, ly[57] + 0.055, 0.13, 0.040, -0.020 - 0.012 * boss),
        (zero, (ly[33] + ly[51]) / 2 + 0.01, 0.030, 0.06, -0.010 * one),
        (zero, -0.62 * one, 0.40, 0.20, 0.05 * one),
    ]
    for side, mouth in ((-1, 48), (1, 54)):
        bumps.append((lx[mouth] + side * 0.11, ly[mouth] + 0.02, 0.09, 0.14, -0.012 - 0.02 * age))
    # what both halves share is computed once, on |x|
    eye = (lx[42] + lx[45] - lx[36] - lx[39]) / 4
    brow_x, brow_y = (lx[24] - lx[19]) / 2, (ly[19] + ly[24]) / 2
    lid, low = (ly[37] + ly[44]) / 2, (ly[41] + ly[46]) / 2
    paired = [
        (eye + 0.02, (brow_y + lid) / 2 + 0.03, 0.16, 0.075, -0.052 * one),
        (brow_x + 0.02, brow_y + 0.005, 0.19, 0.055, 0.022 * one),
        (0.44 + 0.02 * smile, 0.36 - 0.05 * smile, 0.17, 0.14, 0.045 + 0.050 * smile),
        (0.66 * one, -0.20 * one, 0.14, 0.20, -0.035 * one),
        (eye, low + 0.10, 0.13, 0.040, -0.010 - 0.010 * age),
        (0.075 * one, (ly[21] + ly[22]) / 2 + 0.02, 0.045, 0.05, 0.016 * corr),
    ]
    half = x.abs()
    nx, ny = _add_bumps(nx, ny, x, y, bumps)
    across, ny = _add_bumps(torch.zeros_like(x), ny, half, y, paired)
    nx = torch.addcmul(nx, across, x.sign())
    shade = head.lit(nx, ny, nz)
    occlusion = 1 - 0.30 * blob(x, y - wide(ly[33]) - 0.035, 0.12, 0.035)
    occlusion = occlusion - 0.10 * smooth((head.distance + 0.16) / 0.16)
    sockets = blob(half - wide(eye), y - wide((brow_y + lid) / 2) - 0.05, 0.15, 0.085)
    inner = blob(half - 0.13, y + 0.03, 0.055, 0.075)
    root = blob(x, y - wide(ly[27]), 0.10, 0.07)
    occlusion = occlusion - wide(0.16 + 0.14 * corr.clamp(0, 1)) * sockets - 0.16 * inner - 0.10 * root
    shade = shade * occlusion
    lx_, ly_, lz_ = head.light
    hz = lz_ + 1
    spec = torch.rsqrt((nx * nx + ny * ny + nz * nz) * (lx_**2 + ly_**2 + hz**2)) * (
        nx * lx_ + ny * ly_ + nz * hz
    )
    spec = spec.clamp(min=0)
    spec = spec * spec * spec
    spec = spec * spec
    spec = spec * spec
    spec = spec * spec
    texture = (
        noise(x * 1.1, y * 1.1, p.phase[:, 4:6], 2) * 0.007 + noise(x / 2, y / 2, p.phase[:, 4:6], 1) * 0.012
    )
    tone = c.colour(head.skin)[:, :, None, None] * (shade * (1 + texture))[:, None]
    if c.image.shape[1] == 3:  # blood near the surface: cheeks, nose, ears
        blush = blob(x.abs() - 0.42, y - 0.36, 0.20, 0.16) + 0.7 * blob(x, y - wide(ly[30]), 0.13, 0.12)
        blush = blush * wide(0.03 + 0.05 * p.get("redness"))
        tone = tone * (1 + blush[:, None] * torch.tensor([0.5, -1.0, -0.9])[:, None, None])
    c.paint(head.mask, (tone + (0.10 * spec)[:, None]).clamp(0, 1))
    return shade
