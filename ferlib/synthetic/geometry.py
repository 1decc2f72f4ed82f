"""The geometry of a face: 68 landmarks moved by action units, the outline of the head, pose.

Face coordinates: origin between the eyes, x to the viewer's right, y down, the outer eye corners of the
average face one unit apart.
"""

from __future__ import annotations

import math

import torch

from ferlib.synthetic.expressions import (
    AU_INDEX,
    DISPLACE_LEFT,
    DISPLACE_RIGHT,
    MIRROR,
    OBLIQUE,
    mirrored,
    oblique,
    rows,
    sided,
)
from ferlib.synthetic.identity import FaceParameters
from ferlib.synthetic.paint import bell, wide

# The average neutral shape, viewer's left half and midline; from the frontal neutral faces of FER+'s training
# split (means of a landmark network's points after alignment by the outer eye corners; numbers only).
_HALF = """
half 0 -0.751 -0.019, 1 -0.744 0.176, 2 -0.716 0.372, 3 -0.669 0.565, 4 -0.595 0.742, 5 -0.482 0.89,
     6 -0.34 1.007, 7 -0.178 1.088, 8 0 1.115, 17 -0.619 -0.182, 18 -0.522 -0.245, 19 -0.396 -0.257,
     20 -0.268 -0.235, 21 -0.153 -0.194, 27 0 -0.022, 28 0 0.113, 29 0 0.242, 30 0 0.369, 31 -0.16 0.488,
     32 -0.083 0.512, 33 0 0.527, 36 -0.5 -0.004, 37 -0.401 -0.05, 38 -0.299 -0.048, 39 -0.205 0.017,
     40 -0.303 0.044, 41 -0.405 0.042, 48 -0.277 0.729, 49 -0.175 0.682, 50 -0.069 0.652, 51 0 0.669,
     57 0 0.853, 58 -0.082 0.844, 59 -0.182 0.799, 60 -0.242 0.732, 61 -0.073 0.735, 62 0 0.742, 66 0 0.745,
     67 -0.074 0.738
"""
MEAN_SHAPE = mirrored(next(rows(_HALF))[1])
#: Center of the polar outline of the head.
CENTER = 0.20
ORDER = 10


def _basis() -> torch.Tensor:
    """How each proportion (one standard deviation) moves the landmarks: ``(16, 68, 2)``."""
    m, out = MEAN_SHAPE, torch.zeros(16, 68, 2)
    x, y = m[:, 0], m[:, 1]
    low = ((y - 0.2) / 0.9).clamp(0, 1)
    jaw = (torch.arange(68) < 17).float()
    out[0, :, 0] = 0.05 * x * jaw  # face_width
    out[1, :, 0] = 0.07 * x * jaw * low  # jaw_width
    out[2, :, 1] = 0.05 * jaw * low**2  # chin_length
    out[3, :, 1] = 0.035 * y.clamp(min=0) / 0.9  # face_length
    for eye, sign in ((slice(36, 42), -1), (slice(42, 48), 1)):
        center = m[eye].mean(0)
        out[4, eye, 1] = 0.16 * (y[eye] - center[1])  # eye_size
        out[5, eye, 1] = -0.04 * sign * (x[eye] - center[0])  # eye_tilt
        inner = (x[eye].abs() - 0.5).abs() / 0.3
        out[6, eye, 0] = sign * 0.010 * inner  # eye_gap
    brows, nose, mouth = slice(17, 27), slice(27, 36), slice(48, 68)
    out[7, brows, 1] = -0.022  # brow_height
    arch = 1 - ((x[brows].abs() - 0.39) / 0.25) ** 2
    out[8, brows, 1] = -0.016 * arch  # brow_arch
    out[9, nose, 1] = 0.035 * ((y[nose] + 0.02) / 0.55).clamp(0, 1)  # nose_length
    out[10, nose, 0] = 0.09 * x[nose]  # nose_width
    out[11, mouth, 0] = 0.07 * x[mouth]  # mouth_width
    out[12, mouth, 1] = 0.022  # mouth_height
    out[13, 49:54, 1] = -0.010  # upper_lip
    out[14, 55:60, 1] = 0.012  # lower_lip
    cheeks = torch.exp(-(((y - 0.55) / 0.25) ** 2))
    out[15, :, 0] = 0.03 * x.sign() * jaw * cheeks  # cheeks
    return out


SHAPE_BASIS = _basis()


def face_landmarks(p: FaceParameters) -> torch.Tensor:
    """Landmarks in face coordinates, before pose: mean shape + proportions + action units, ``(B, 68, 2)``."""
    left, right = sided(p.action_units, p.side)
    points = MEAN_SHAPE + torch.einsum("bk,kpd->bpd", p.shape, SHAPE_BASIS)
    points = points + torch.einsum("bk,kpd->bpd", left, DISPLACE_LEFT)
    points = points + torch.einsum("bk,kpd->bpd", right, DISPLACE_RIGHT)
    points = points + wide(oblique(p.action_units)) * OBLIQUE
    # lids and lips may touch but never cross
    upper, lower = [61, 62, 63], [67, 66, 65]  # inner edges of the lips
    for up, lo, gap, share in (([37, 38, 43, 44], [41, 40, 47, 46], 0.012, 0.2), (upper, lower, 0.0, 0.5)):
        short = (gap - (points[:, lo, 1] - points[:, up, 1])).clamp(min=0)
        points[:, up, 1] -= share * short
        points[:, lo, 1] += (1 - share) * short
    # pressed lips (AU24) stay shut whatever else pulls at them
    seal = 1 - 1.4 * wide(p.action_units[:, AU_INDEX["AU24"]].clamp(0, 1 / 1.4))
    middle, half = (points[:, upper] + points[:, lower]) / 2, (points[:, lower] - points[:, upper]) / 2
    points[:, upper], points[:, lower] = middle - half * seal, middle + half * seal
    for outer, inner, sign in (([50, 51, 52], upper, 1), ([58, 57, 56], lower, -1)):
        thick = (points[:, inner, 1] - points[:, outer, 1]) * sign
        points[:, outer, 1] -= sign * (0.03 - thick).clamp(min=0)
    return points


def outline(points: torch.Tensor) -> torch.Tensor:
    """Coefficients a_k ``(B, ORDER)`` of the head's outline R(phi) = sum_k a_k cos(k phi), phi from below.

    The lower part passes through the 17 jaw points, the upper part is the skull.
    """
    jaw = (points[:, :17] + points[:, MIRROR[:17]] * torch.tensor([-1.0, 1.0]))[:, :9] / 2
    dx, dy = jaw[..., 0].abs(), jaw[..., 1] - CENTER
    radius = (dx**2 + dy**2).sqrt()
    phi = torch.atan2(dx, dy)
    width = dx[:, :1]
    angle = torch.tensor([128.0, 140.0, 152.0, 164.0, 174.0, 180.0]) * math.pi / 180
    top, middle = 1.36, -0.15  # crown above the center; where the skull is widest
    # ellipse around (0, middle) with half axes 1.03*width and the rest, met by a ray from the center
    cx, cy = angle.sin(), -angle.cos()
    a, b, lift = 1.03 * width, top - (CENTER - middle), CENTER - middle
    qa = (cx / a) ** 2 + (cy / b) ** 2
    qb = -2 * cy * lift / b**2
    qc = (lift / b) ** 2 - 1
    skull = (-qb + (qb**2 - 4 * qa * qc).sqrt()) / (2 * qa)
    phi = torch.cat([phi, angle.expand(len(points), -1)], 1)
    radius = torch.cat([radius, skull], 1)
    k = torch.arange(ORDER)
    design = torch.cos(phi[..., None] * k)
    ridge = 1e-4 * (1 + k.float() ** 2)
    normal = design.mT @ design + torch.diag(ridge)
    return torch.linalg.solve(normal, design.mT @ radius[..., None])[..., 0]


def outline_radius(coefficients: torch.Tensor, cosine: torch.Tensor) -> torch.Tensor:
    """R at cos(phi): coefficients ``(B, ORDER)``, cosine ``(B, ...)`` -> ``(B, ...)`` (Clenshaw)."""
    shape = (-1,) + (1,) * (cosine.dim() - 1)
    b1, b2 = torch.zeros_like(cosine), torch.zeros_like(cosine)
    twice = 2 * cosine
    for k in range(ORDER - 1, 0, -1):
        b1, b2 = torch.addcmul(coefficients[:, k].view(shape) - b2, twice, b1), b1
    return torch.addcmul(coefficients[:, 0].view(shape) - b2, cosine, b1)


def snap_jaw(points: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Put the jaw landmarks exactly on the outline, along their rays: ``(B, 68, 2)``."""
    ray = points[:, :17] - torch.tensor([0.0, CENTER])
    length = ray.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    radius = outline_radius(coefficients, ray[..., 1] / length[..., 0])
    jaw = ray / length * radius[..., None] + torch.tensor([0.0, CENTER])
    return torch.cat([jaw, points[:, 17:]], 1)


def depth(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Coarse height of the face towards the viewer, used for pose: same shape as x and y."""
    xx = x * x
    d = y - 0.2
    nose = bell(xx * 40 + (y - 0.40) ** 2 * 18)
    return -0.42 * xx.clamp(max=1.0) - 0.20 * (d * d).clamp(max=1.6) + 0.17 * nose


def _pose(p: FaceParameters) -> tuple[torch.Tensor, ...]:
    yaw, pitch, roll = (p.pose * (math.pi / 180)).unbind(1)
    return yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()


def project(p: FaceParameters, points: torch.Tensor, size: int) -> torch.Tensor:
    """Face coordinates ``(B, n, 2)`` -> pixels ``(B, n, 2)`` from the left and top edge of the picture."""
    cy, sy, cp, sp, cr, sr = (t[:, None] for t in _pose(p))
    x, y = points.unbind(-1)
    z = depth(x, y)
    px, py = x * cy + z * sy, y * cp - z * sp
    qx, qy = px * cr - py * sr, px * sr + py * cr
    cam = p.camera[:, None]
    return torch.stack([cam[..., 0] + qx * cam[..., 2], cam[..., 1] + qy * cam[..., 2]], -1) * size


def unproject(p: FaceParameters, size: int) -> tuple[torch.Tensor, ...]:
    """Face coordinates x, y ``(B, H, W)`` of every pixel, and the unposed plane u, v behind the face."""
    grid = (torch.arange(size, dtype=torch.float32) + 0.5) / size
    gy, gx = torch.meshgrid(grid, grid, indexing="ij")
    cam = p.camera[:, :, None, None]
    qx, qy = (gx - cam[:, 0]) / cam[:, 2], (gy - cam[:, 1]) / cam[:, 2]
    cy, sy, cp, sp, cr, sr = (t[:, None, None] for t in _pose(p))
    px, py = qx * cr + qy * sr, qy * cr - qx * sr
    x, y = px.clone(), py.clone()
    icy, tcy, icp, tcp = 1 / cy, sy / cy, 1 / cp, sp / cp
    bx, by = px * icy, py * icp
    for _ in range(4):
        z = depth(x, y)
        x, y = bx - z * tcy, by + z * tcp
    return x, y, qx, qy
