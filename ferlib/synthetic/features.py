"""The parts of a face: backdrop, body, skin, brows, eyes, nose, mouth, and the folds that muscles make."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch

from ferlib.synthetic.expressions import MIRROR
from ferlib.synthetic.geometry import CENTER, face_landmarks, outline, outline_radius, snap_jaw, unproject
from ferlib.synthetic.identity import FaceParameters, skin_color
from ferlib.synthetic.paint import LUMINANCE, Curve, bell, below, blob, line, noise, smooth, table, wide

HAIR = "181414 261c18 3e2a1e 60422a 966e44 c4a068 8c4424"
IRIS = "3a2418 54341e 684e2c 5c6846 5c8096 788892"
LIPS = "c47670 ba6062 a8484e"
GRAY = torch.tensor([186.0, 184.0, 182.0]) / 255
#: A color (B, 3), (3,) or three numbers; or one for every pixel, (B, C, H, W).
Color = torch.Tensor | tuple[float, float, float]


class Face:
    """B pictures of faces in the making, and what several layers need, computed once per batch.

    Args:
        p: the faces.
        size: width and height in pixels.
        channels: 1 or 3.

    Attributes:
        image: ``(B, C, H, W)`` in [0, 1].
        x, y: face coordinates ``(B, H, W)``; u, v the same without pose.
        pixel: ``(B, 1, 1)`` width of a pixel in face units.
        points: ``(B, 68, 2)`` landmarks in face coordinates.
        distance, mask: from the outline of the head, and where the head is, ``(B, H, W)``.
        lx, ly, lz, ambient: direction of the light, and its ambient share, ``(B, 1, 1)``.
        skin, hair: colors ``(B, 3)``.
        shade: light on the skin ``(B, H, W)``.
    """

    def __init__(self, p: FaceParameters, size: int, channels: int):
        points = face_landmarks(p)
        coefficients = outline(points)
        self.p, self.points = p, snap_jaw(points, coefficients)
        self.image, self.pixel = torch.zeros(len(p), channels, size, size), wide(1 / (p.camera[:, 2] * size))
        self.x, self.y, self.u, self.v = unproject(p, size)
        dy = self.y - CENTER
        radius = (self.x**2 + dy**2 + 1e-8).sqrt()
        self.distance = radius - outline_radius(coefficients, dy / radius)
        self.mask = self.inside(self.distance, 0.012)
        azimuth, elevation, self.ambient = p.light[:, :, None, None].unbind(1)
        azimuth, elevation = azimuth * (math.pi / 180), elevation * (math.pi / 180)
        across = elevation.cos()
        self.lx, self.ly, self.lz = azimuth.sin() * across, -elevation.sin(), azimuth.cos() * across
        self.skin = skin_color(p.get("skin"), p.get("redness"))
        # dark skin goes with dark hair, age with gray
        tone = table(HAIR, p.get("hair_color") * (1 - 0.85 * smooth(p.get("skin") - 0.35, 0.3)))
        gray = smooth(p.get("age") - 0.62, 0.35)[:, None]
        self.hair = torch.lerp(tone, GRAY.expand_as(tone), 0.85 * gray)

    def color(self, rgb: Color, shade: torch.Tensor | None = None) -> torch.Tensor:
        """A color in the picture's channels, gray being luminance, times a shade ``(B, H, W)``."""
        rgb = torch.as_tensor(rgb).expand(len(self.image), 3)
        if self.image.shape[1] == 1:
            rgb = (rgb * LUMINANCE).sum(1, keepdim=True)
        rgb = rgb[:, :, None, None]
        return rgb if shade is None else rgb * shade[:, None]

    def paint(self, mask: torch.Tensor, color: Color, shade: torch.Tensor | None = None) -> None:
        """Lay a color over the picture where the mask ``(B, H, W)`` is, lit by a shade ``(B, H, W)``."""
        if not isinstance(color, torch.Tensor) or color.dim() < 4:
            color = self.color(color, shade)
        self.image = torch.lerp(self.image, color.expand_as(self.image), mask[:, None].expand_as(self.image))

    def dim(self, mask: torch.Tensor, amount: float | torch.Tensor) -> None:
        """Multiply by ``1 - amount * mask``; a negative amount brightens."""
        self.image = self.image * (1 - amount * mask)[:, None]

    def inside(self, distance: torch.Tensor, width: float) -> torch.Tensor:
        """1 where distance < 0; the edge is ``width`` wide, and at least a pixel."""
        return below(distance, self.pixel.clamp(min=width))

    def spot(
        self,
        x: torch.Tensor | float,
        y: torch.Tensor | float,
        sx: torch.Tensor | float,
        sy: torch.Tensor | float,
        dx: float = 0.0,
        dy: float = 0.0,
    ) -> torch.Tensor:
        """A bump of widths sx and sy around (x - dx, y - dy)."""
        return blob(self.x - x + dx, self.y - y + dy, sx, sy)

    def get(self, name: str) -> torch.Tensor:
        """One named proportion or look, ``(B, 1, 1)``."""
        return wide(self.p.get(name))

    def unit(self, name: str, side: int = 0) -> torch.Tensor:
        """Intensity of one action unit, of one half where given, ``(B, 1, 1)``."""
        return wide(self.p.unit(name, side))

    def point(self, index: int, side: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
        """Coordinates of a landmark, or (side 1) of its mirror image, each ``(B, 1, 1)``."""
        x, y = self.points[:, index if side < 0 else MIRROR[index]].unbind(1)
        return wide(x), wide(y)

    def noise(self, across: float, down: float, phase: int, layer: int) -> torch.Tensor:
        """Noise, finer than the face's coordinates by two factors, shifted by two numbers of the phase."""
        return noise(self.x * across, self.y * down, self.p.phase[:, phase : phase + 2], layer)

    def some(self, rows: torch.Tensor, draw: Callable[[Face], torch.Tensor | None]) -> torch.Tensor | None:
        """Draw on some of the pictures; gives what ``draw`` does."""
        if not len(rows):
            return None
        part = copy.copy(self)
        for name, value in vars(self).items():
            setattr(part, name, value[rows])
        found = draw(part)
        self.image = self.image.index_copy(0, rows, part.image)
        return found


def background(c: Face) -> None:
    """A soft two-color backdrop with a little structure."""
    b = c.p.background
    base = 0.18 + 0.62 * b[:, 0]
    hue = torch.stack([b[:, 1], 1 - (b[:, 1] - 0.5).abs(), 1 - b[:, 1]], 1) - 0.6
    c.image = c.image + c.color((base[:, None] + 0.16 * hue).clamp(0.05, 0.95))
    other = ((base + 0.4 * (b[:, 2] - 0.5))[:, None] + 0.16 * hue.flip(1)).clamp(0.05, 0.95)
    angle = wide(b[:, 3] * 2 * math.pi)
    t = 0.5 + 0.28 * (c.u * angle.cos() + c.v * angle.sin())
    c.paint(smooth(t + 0.10 * noise(c.u / 6, c.v / 6, c.p.phase[:, :2], 0)), other)


def body(c: Face) -> None:
    """Neck, shoulders and clothes, below the chin and unposed."""
    cx = wide(torch.sin(c.p.pose[:, 2] * math.pi / 180) * -0.9)
    u, v = c.u - cx * smooth(c.v - 0.2, 1.2), c.v
    half = 0.47 + 0.03 * c.get("jaw_width") - 0.08 * (c.get("femininity") - 0.5)
    neck = c.inside(u.abs() - half - 0.25 * smooth(v - 1.2, 0.7) ** 2, 0.015)
    shade = 1 - 0.45 * (u / 0.55).abs().clamp(max=1.3) ** 2 + 0.25 * u * c.lx
    shade = shade * (0.50 + 0.40 * smooth(v - c.point(8)[1] + 0.02, 0.42))
    c.paint(neck * smooth((v - 0.5) * 8), c.skin, shade.clamp(0.2, 1.1))
    slope = v - (1.52 + 0.30 * smooth(u.abs() - 0.35, 1.2) + 0.25 * (u / 2).clamp(-1, 1) ** 2)
    hue = c.p.get("cloth_hue")
    collar = wide(0.02 + 0.45 * hue**2) * (1 - (u / 0.55) ** 2).clamp(min=0)
    rgb = torch.stack([0.5 + 0.4 * (6.28 * (hue + k / 3)).cos() for k in range(3)], 1)
    value = (0.12 + 0.75 * c.p.get("cloth"))[:, None]
    rgb = torch.lerp(value.expand(-1, 3), rgb * value * 1.3, 0.35).clamp(0, 1)
    folds = 1 + 0.05 * noise(c.u / 3, c.v / 5, c.p.phase[:, 2:4], 0) - 0.12 * (u.abs() / 1.6).clamp(max=1)
    c.paint(c.inside(-(slope - collar), 0.02), rgb, folds)


def ears(c: Face) -> None:
    """Both ears, behind the face."""
    for side in (-1, 1):
        ex, ey = c.point(1, side)
        dx, dy = c.x - (ex + side * 0.035), c.y - (ey - 0.07)
        r = ((dx - side * 0.12 * dy * -0.5) / 0.095) ** 2 + (dy / 0.20) ** 2
        shade = 0.86 + 0.10 * side * c.lx - 0.28 * blob(dx - side * 0.005, dy - 0.01, 0.04, 0.10)
        c.paint(c.inside((r.sqrt() - 1) * 0.1, 0.012), c.skin * torch.tensor([1.0, 0.94, 0.92]), shade)


def _add_bumps(
    nx: torch.Tensor, ny: torch.Tensor, x: torch.Tensor, y: torch.Tensor, bumps: list
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tilt normals ``(B, H, W)`` by the slopes of bumps ``(x, y, width, height, amplitude)``."""
    for bx, by, width, height, amplitude in bumps:
        dx, dy = (x - bx).mul_(1 / width), (y - by).mul_(1 / height)
        g = bell(torch.addcmul(dx * dx, dy, dy)).mul_(amplitude)
        nx = torch.addcmul(nx, g, dx, value=1 / width)
        ny = torch.addcmul(ny, g, dy, value=1 / height)
    return nx, ny


def skin(c: Face) -> None:
    """The lit skin of the face; its shade is kept, so that lips and eyes share the light."""
    smile = (c.unit("AU12") + 0.6 * c.unit("AU6")).clamp(0, 1.4)
    chin, frown, age = c.unit("AU17"), c.unit("AU4"), c.get("age")
    x, y = c.x, c.y
    sx, sy = x / 0.93, (y - 0.05) / 1.32
    nz = (1 - sx * sx - sy * sy).clamp(min=0.03).sqrt()
    lx, ly = ([wide(t) for t in c.points[..., k].unbind(1)] for k in (0, 1))
    bumps = [  # x, y, width, height, amplitude
        (0, ly[27] * 0.4 + ly[30] * 0.6 - 0.05, 0.070, 0.20, 0.085),
        (0, ly[30] + 0.045, 0.080, 0.070, 0.060),
        (lx[31] + 0.035, ly[31] - 0.045, 0.050, 0.055, 0.034),
        (lx[35] - 0.035, ly[35] - 0.045, 0.050, 0.055, 0.034),
        (0, ly[51] - 0.02, 0.24, 0.16, 0.050),
        (0, ly[8] - 0.16, 0.15, 0.09, 0.040 + 0.035 * chin),
        (0, ly[57] + 0.055, 0.13, 0.040, -0.020 - 0.012 * chin),
        (0, (ly[33] + ly[51]) / 2 + 0.01, 0.030, 0.06, -0.010),
        (0, -0.62, 0.40, 0.20, 0.05),
        (lx[48] - 0.11, ly[48] + 0.02, 0.09, 0.14, -0.012 - 0.02 * age),
        (lx[54] + 0.11, ly[54] + 0.02, 0.09, 0.14, -0.012 - 0.02 * age),
    ]
    # what both halves share is computed once, on |x|
    eye = (lx[42] + lx[45] - lx[36] - lx[39]) / 4
    brow_x, brow_y = (lx[24] - lx[19]) / 2, (ly[19] + ly[24]) / 2
    socket, low = (brow_y + (ly[37] + ly[44]) / 2) / 2, (ly[41] + ly[46]) / 2
    paired = [
        (eye + 0.02, socket + 0.03, 0.16, 0.075, -0.052),
        (brow_x + 0.02, brow_y + 0.005, 0.19, 0.055, 0.022),
        (0.44 + 0.02 * smile, 0.36 - 0.05 * smile, 0.17, 0.14, 0.045 + 0.050 * smile),
        (0.66, -0.20, 0.14, 0.20, -0.035),
        (eye, low + 0.10, 0.13, 0.040, -0.010 - 0.010 * age),
        (0.075, (ly[21] + ly[22]) / 2 + 0.02, 0.045, 0.05, 0.016 * frown),
    ]
    half = x.abs()
    nx, ny = _add_bumps(sx, sy * 0.5, x, y, bumps)
    across, ny = _add_bumps(torch.zeros_like(x), ny, half, y, paired)
    nx = torch.addcmul(nx, across, x.sign())
    occlusion = 1 - 0.30 * blob(x, y - ly[33] - 0.035, 0.12, 0.035) - 0.10 * smooth(c.distance + 0.16, 0.16)
    sockets = blob(half - eye, y - socket - 0.05, 0.15, 0.085)
    occlusion = occlusion - (0.16 + 0.14 * frown.clamp(max=1)) * sockets
    occlusion = occlusion - 0.16 * blob(half - 0.13, y + 0.03, 0.055, 0.075)
    occlusion = occlusion - 0.10 * blob(x, y - ly[27], 0.10, 0.07)
    square = nx * nx + ny * ny + nz * nz
    # ambient plus Lambert, 1 towards the light
    lambert = ((nx * c.lx + ny * c.ly + nz * c.lz) * torch.rsqrt(square) * 1.12).clamp(min=0)
    c.shade = (c.ambient + (1 - c.ambient) * lambert) * occlusion
    hz = c.lz + 1
    shine = torch.rsqrt(square * (c.lx**2 + c.ly**2 + hz**2))
    shine = ((nx * c.lx + ny * c.ly + nz * hz) * shine).clamp(min=0)
    shine = shine * shine * shine
    for _ in range(3):  # to the power of 24
        shine = shine * shine
    grain = c.noise(1.1, 1.1, 4, 2) * 0.007 + c.noise(0.5, 0.5, 4, 1) * 0.012
    tone = c.color(c.skin, c.shade * (1 + grain))
    if c.image.shape[1] == 3:  # blood near the surface: cheeks, nose, ears
        blush = blob(half - 0.42, y - 0.36, 0.20, 0.16) + 0.7 * blob(x, y - ly[30], 0.13, 0.12)
        blush = blush * (0.03 + 0.05 * c.get("redness"))
        tone = tone * (1 + blush[:, None] * torch.tensor([0.5, -1.0, -0.9])[:, None, None])
    c.paint(c.mask, (tone + (0.10 * shine)[:, None]).clamp(0, 1))


def brow(c: Face, side: int) -> None:
    """A tapered stroke of hair along points 17-21 (side -1) or 22-26 (side 1)."""
    curve = Curve(c.points[:, 17:22] if side < 0 else c.points[:, 22:27])
    s = curve.place(c.x)
    t = -s * side  # -1 outer end, 1 inner end
    thick = 0.026 + 0.020 * c.get("brow_thickness") - 0.012 * (c.get("femininity") - 0.5)
    width = thick * (0.45 + 0.75 * smooth(t + 1.1, 1.3)) * (1 - 0.25 * smooth(t - 0.6, 0.5))
    d = (c.y - curve.at(s) - 0.018) / width
    ends = smooth(1.06 - t, 0.22) * smooth(1.10 + t, 0.30)
    hairs = noise(c.x * 1.6 + c.y * 0.9 * side, c.y * 0.5 - c.x * 0.8 * side, c.p.phase[:, 4:6], 2)
    mask = bell(2 * d * d * (1.0 - 0.12 * hairs)) * ends * (0.86 + 0.10 * hairs)
    c.paint(mask.clamp(0, 0.95), torch.lerp(c.hair * 0.75, c.skin * 0.35, 0.35))


def eye(c: Face, side: int) -> None:
    """Lids, lashes, sclera, iris, pupil, catchlight, crease and lower-lid fold."""
    dark = torch.lerp(c.skin * 0.22, torch.tensor([0.09, 0.07, 0.07]).expand_as(c.skin), 0.6)
    age, soft = c.get("age"), c.pixel.clamp(min=0.010)
    pts = c.points[:, 36:42] if side < 0 else c.points[:, 42:48]
    upper, lower = Curve(pts[:, :4]), Curve(pts[:, [0, 5, 4, 3]])
    s = upper.place(c.x)
    top, bottom, along = upper.at(s), lower.at(s), s.abs()
    opened = below(top - c.y, soft) * below(c.y - bottom, soft) * below(along - 1, 0.08)
    x, y = (wide(t) for t in pts.mean(1).unbind(1))
    look_x, look_y = (wide(t) for t in c.p.gaze.unbind(1))
    gx, gy = x + look_x, y + look_y - 0.002
    gap = wide(pts[:, 4:6, 1].mean(1) - pts[:, 1:3, 1].mean(1))
    near = smooth(1.25 - along, 0.3)
    # socket shade and the fold of the upper lid
    lid = (0.034 + 0.012 * c.get("eye_size") * 0.3) * (1 - 0.35 * s * s)
    c.dim(line(c.y - (top - lid), 0.013) * smooth(1.12 - along, 0.4), 0.34 + 0.12 * age)
    c.dim(c.spot(x, top, 0.13, 0.035, side * -0.06, 0.05), 0.10)
    fold = line(c.y - (bottom + 0.035 + 0.02 * (1 - s * s)), 0.016) * near
    c.dim(fold, 0.07 + 0.16 * c.unit("AU6") + 0.10 * c.unit("AU7") + 0.10 * age)
    c.dim(line(c.y - (bottom + 0.022), 0.010) * near, -0.08)
    # eyeball
    ball = 1 - 0.32 * smooth(top + 0.030 - c.y, 0.04) - 0.22 * along.clamp(max=1) ** 3
    c.paint(opened, (0.84, 0.815, 0.80), ball * (0.35 + 0.65 * c.shade.clamp(0.3, 1.2)))
    r = ((c.x - gx) ** 2 + (c.y - gy) ** 2 + 1e-9).sqrt()
    glow = 1 + 0.25 * c.spot(gx, gy, 0.03, 0.022, 0.01, -0.03) - 0.45 * smooth(r - 0.040, 0.026)
    glow = glow * (1 - 0.30 * smooth(top + 0.025 - c.y, 0.035))
    iris = table(IRIS, c.get("iris") * (1 - 0.8 * smooth(c.get("skin") - 0.4, 0.3)))
    c.paint(below(r - 0.066, soft) * opened, iris, glow)
    c.paint(below(r - 0.027, soft) * opened, (0.03, 0.03, 0.035))
    spark = c.spot(gx + 0.022 * c.lx.sign(), gy, 0.011, 0.011, dy=0.022)
    spark = spark + 0.25 * c.spot(gx, gy, 0.012, 0.008, 0.02, -0.025)
    c.paint((spark * opened * smooth(gap, 0.05)).clamp(0, 0.95), (1.0, 1.0, 1.0))
    # lash line, thicker outside
    width = (0.011 + 0.006 * c.get("femininity")) * (1 + 0.25 * s * side) + 0.2 * c.pixel
    c.paint(line(c.y - top + 0.002, width) * below(along - 1.03, 0.12) * 0.88, dark)
    c.paint(line(c.y - bottom - 0.003, 0.008 + 0.2 * c.pixel) * below(along - 0.95, 0.2) * 0.30, dark)
    corner = c.spot(*c.point(39, side), 0.014, 0.010, side * -0.008) * 0.5
    c.paint(corner, c.skin * torch.tensor([0.9, 0.62, 0.6]))


def nose(c: Face) -> None:
    """Nostrils, wings and the shadow under the tip."""
    x, y = c.point(33)
    bx, by = c.point(29)
    for side in (-1, 1):
        ax, ay = c.point(31, side)
        dx, dy = c.x - ((ax + x) / 2 + side * 0.008), c.y - ((ay + y) / 2 - 0.012)
        c.dim(blob(dx, dy + 0.25 * side * dx, 0.028, 0.012 + 0.2 * c.pixel), 0.55)
        dx, dy = c.x - ax, c.y - ay
        wing = line((((dx + side * 0.005) / 0.05) ** 2 + ((dy + 0.045) / 0.065) ** 2).sqrt() - 1, 0.26)
        c.dim(wing * (smooth(dx * side + 0.045, 0.05) * smooth(dy + 0.13, 0.06)), 0.20)
        c.dim(c.spot(bx, by, 0.035, 0.13, -side * 0.085, 0.10), 0.07 + 0.05 * c.lx.abs())
    tip = line(c.y - y - 0.004 + 0.9 * (c.x - x) ** 2, 0.018)
    c.dim(tip * smooth(0.14 - (c.x - x).abs(), 0.1), 0.20)


def mouth(c: Face) -> None:
    """Lips with bow and highlight; cavity, teeth and tongue when they part."""
    pt, au, soft = c.points, c.unit, c.pixel.clamp(min=0.014)
    upper, lower = Curve(pt[:, 48:55]), Curve(pt[:, [48, 59, 58, 57, 56, 55, 54]])
    inner_up, inner_low = Curve(pt[:, 60:65]), Curve(pt[:, [60, 67, 66, 65, 64]])
    s, t = upper.place(c.x), inner_up.place(c.x)
    top, bottom = upper.at(s), lower.at(s)
    seam_up, seam_low = inner_up.at(t), inner_low.at(t)
    lips = below(top - c.y, soft * 1.3) * below(c.y - bottom, soft * 1.5) * below(s.abs() - 1, 0.05)
    red, fem = c.get("lip_color"), c.get("femininity")
    redder = table(LIPS, 0.6 * red + 0.4 * fem) * (0.35 + 0.65 * c.skin.mean(1, keepdim=True) / 0.75)
    lip = torch.lerp(c.skin * torch.tensor([0.92, 0.77, 0.76]), redder, (0.20 + 0.55 * fem * red)[:, 0])
    down = ((c.y - top) / (seam_up - top).clamp(min=0.01)).clamp(0, 1)
    out = ((c.y - seam_low) / (bottom - seam_low).clamp(min=0.01)).clamp(0, 1)
    below_seam = 1.02 + 0.16 * blob(out - 0.42, s * 0.6, 0.22, 0.35) - 0.10 * out
    tone = torch.where(c.y < seam_up, 1.04 - 0.16 * down, below_seam)
    wrinkle = 1 + 0.02 * c.noise(2.5, 0.3, 4, 2)
    c.paint(lips * 0.92, lip, (tone * wrinkle * (0.25 + 0.75 * c.shade)).clamp(0, 1))
    # cavity
    gap = seam_low - seam_up
    hole = below(seam_up - c.y, soft) * below(c.y - seam_low, soft) * below(t.abs() - 1, 0.06)
    hole = hole * smooth(gap, 0.02)
    c.paint(hole, (0.17, 0.06, 0.06))
    (x, low), (_, high) = c.point(66), c.point(62)
    tongue = c.spot(x, seam_low, 0.14, 0.055, dy=-0.01) * smooth((low - high).clamp(min=0) - 0.10, 0.08)
    c.paint(hole * tongue * 0.85, (0.62, 0.30, 0.30))
    show = 0.35 + 0.8 * au("AU12") + 0.8 * au("AU10") + 0.5 * au("AU20")
    show = (show + 0.3 * au("AU9") - 0.7 * au("AU22") + 0.1 * au("AU27")).clamp(0, 1)
    edge = seam_up + (0.015 + 0.085 * show) * (1 - 0.35 * t * t) - 0.012 * (1 - (t * 1.2).abs().clamp(max=1))
    gaps = 1 - 0.10 * line(torch.remainder(c.x / 0.052, 1.0) - 0.5, 0.10) * below(c.pixel - 0.02, 0.01)
    bright = 0.86 - 0.28 * t.abs().clamp(max=1) ** 2 - 0.15 * smooth(seam_up + 0.012 - c.y, 0.02)
    ivory = c.color((0.97, 0.94, 0.88), bright * gaps * (0.4 + 0.6 * c.shade.clamp(0.4, 1.1)))
    c.paint(hole * below(c.y - edge, soft) * smooth((show - 0.1) * 4), ivory)
    low = (0.9 * au("AU16") + 0.5 * au("AU20") - 0.2).clamp(0, 1) * 0.07
    c.paint(hole * below(seam_low - low - c.y, soft) * smooth(low * 40), ivory * 0.9)
    # seam, corners, shadow under the lower lip
    seam = line(c.y - (seam_up + seam_low) / 2, 0.012 + 0.25 * c.pixel) * below(t.abs() - 1.02, 0.1)
    c.dim(seam * (1 - smooth(gap, 0.03)), 0.50)
    for side in (-1, 1):
        corner = (0.28 + 0.15 * au("AU12", side) + 0.25 * au("AU14", side)).clamp(max=0.6)
        c.dim(c.spot(*c.point(48, side), 0.026, 0.018, -side * 0.005), corner)
    c.dim(line(c.y - bottom - 0.035, 0.030) * smooth(0.75 - s.abs(), 0.5), 0.15 + 0.12 * au("AU17"))


def _old(c: Face) -> torch.Tensor:
    return (c.get("age") - 0.45).clamp(min=0)


def cheek_fold(c: Face, side: int) -> None:
    """Nasolabial fold from the wing of the nose round the corner of the mouth, and the dimple of AU14."""
    (ax, ay), (mx, my) = c.point(31, side), c.point(48, side)
    au4, au9, au10, au12, au14, au15, au20 = (c.unit(f"AU{n}", side) for n in (4, 9, 10, 12, 14, 15, 20))
    depth = 0.06 + 0.30 * _old(c) + 0.30 * au12 + 0.36 * au10 + 0.32 * au9 + 0.15 * au15 + 0.12 * au20
    rise = (0.5 * (au15 + au9 + au10 + 0.4 * au4)).clamp(0, 1)
    groove = blob(c.x - ax + side * -0.02 - side * 0.05, c.y - ay + 0.15, 0.055, 0.10)
    c.dim(groove * c.mask, 0.06 + 0.15 * rise)
    # an arc from above the wing of the nose to outside and below the corner of the mouth
    x0, y0 = ax + side * 0.045, ay - 0.05
    dx, dy = mx + side * 0.085 - x0, (my + 0.05 - y0).clamp(min=0.20)
    length = (dx * dx + dy * dy).sqrt()
    q = ((c.x - x0) * dx + (c.y - y0) * dy) / length**2
    bend = (q * (1 - q)).clamp(min=0) * 4 * (0.4 + 0.6 * au12 + 0.35 * au10).clamp(max=1.0)
    d = ((c.x - x0) * dy - (c.y - y0) * dx) / length - side * 0.045 * bend
    window = smooth(q + 0.05 + 0.5 * rise, 0.25 + 0.3 * rise) * smooth(1.15 - q, 0.4)
    fold = (line(d, 0.026) - 0.45 * line(d - side * 0.055, 0.045)) * window
    c.dim(fold * c.mask, depth.clamp(0, 0.5))
    ring = line(((c.x - mx - side * 0.06) / 0.7) ** 2 + ((c.y - my) / 1.6) ** 2 - 0.0016, 0.0016)
    c.dim(ring * c.mask * smooth((c.x - mx) * side * 30), 0.20 * au14)


def crows_feet(c: Face, side: int) -> None:
    """Short lines that fan out from the outer corner of the eye."""
    ex, ey = c.point(36, side)
    u = (c.x - ex) * side
    feet = sum(line(c.y - ey - 0.01 - slope * u, 0.009 + 0.15 * c.pixel) for slope in (-0.45, 0.0, 0.45))
    feet = feet * smooth(u - 0.02, 0.05) * smooth(0.19 - u, 0.1)
    c.dim(feet, (0.30 * _old(c) + 0.20 * c.unit("AU6")).clamp(0, 0.26))


def frown(c: Face) -> None:
    """Lines and shade between the brows (AU4), across the root of the nose (AU9)."""
    lowered = c.unit("AU4").clamp(max=1.1) * (1 - 0.40 * c.unit("AU1").clamp(max=1))
    for side in (-1, 1):
        bx, by = c.point(21, side)
        d = c.x - bx * 0.40 - 0.14 * side * (c.y - by)
        fold = line(d, 0.015 + 0.15 * c.pixel) - 0.45 * line(d - side * 0.035, 0.022)
        fold = fold * smooth(c.y - by + 0.11, 0.08) * smooth(by + 0.12 - c.y, 0.09)
        c.dim(fold, (0.42 * lowered + 0.12 * _old(c)).clamp(0, 0.5))
        c.dim(c.spot(bx * 0.8, by, 0.075, 0.045, dy=-0.07), 0.34 * lowered)
    dy = c.y - c.point(27)[1]
    c.dim(blob(c.x, dy + 0.02, 0.08, 0.06), 0.26 * lowered)
    root = line(dy + 0.02, 0.014) + line(dy - 0.03, 0.014)
    c.dim(root * smooth(0.11 - c.x.abs(), 0.06), 0.45 * c.unit("AU9") * (1 - 0.7 * lowered).clamp(min=0))


def forehead(c: Face) -> None:
    """Lines across the forehead: level when the whole brow rises, short when only its inner end does."""
    lift = (c.point(19)[1] + c.point(24)[1]) / 2
    inner = (c.unit("AU1") - c.unit("AU2")).clamp(min=0)
    lines = torch.zeros_like(c.x)
    for k in range(3):
        bend = 0.05 * (c.x / 0.4) ** 2 * (1 + inner)
        d = c.y - (lift - 0.12 - 0.085 * k + bend + 0.008 * torch.sin(9 * c.x + k))
        lines = lines + line(d, 0.012 + 0.15 * c.pixel) - 0.6 * line(d - 0.03, 0.018)
    reach = smooth(0.50 - c.x.abs() - 0.18 * inner, 0.2)
    c.dim(lines * reach, (0.22 * c.unit("AU2") + 0.18 * c.unit("AU1") + 0.18 * _old(c)).clamp(0, 0.32))


def chin(c: Face) -> None:
    """The dented, pushed-up chin of AU17."""
    y = (c.point(57)[1] + c.point(8)[1]) / 2
    dents = c.noise(0.8, 0.8, 2, 1).clamp(-1, 1)
    c.dim(dents * c.spot(0.0, y, 0.12, 0.08, dy=-0.02), 0.13 * c.unit("AU17"))
