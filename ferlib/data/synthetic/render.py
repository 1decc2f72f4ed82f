"""From parameters to pictures: the order in which a face is painted, then the camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ferlib.data.base import DataError
from ferlib.data.synthetic import features, hair, wear
from ferlib.data.synthetic.geometry import face_landmarks, outline, project, snap_jaw, unproject
from ferlib.data.synthetic.head import Head, background, body, ears, skin
from ferlib.data.synthetic.identity import FaceParameters
from ferlib.data.synthetic.paint import GRAIN, Canvas
from ferlib.data.synthetic.regions import region_masks

#: Faces painted together: small enough to stay in the processor's cache.
CHUNK = 16


@dataclass
class Rendering:
    """What rendering B faces gives.

    Shape: ``image`` uint8 ``(B, C, size, size)``; ``landmarks (B, 68, 2)`` in pixels, 300-W order, (0, 0) being the
    top left corner of the picture and (size, size) its bottom right one; ``masks`` region name -> ``(B, size, size)``
    in [0, 1], empty unless asked for. Chapter 1.
    """

    image: torch.Tensor
    landmarks: torch.Tensor
    masks: dict[str, torch.Tensor]


def render_faces(p: FaceParameters, size: int = 64, channels: int = 1, masks: bool = False) -> Rendering:
    """Draw faces.

    Shape: parameters of B faces -> ``Rendering`` of B pictures, ``size`` pixels wide and high, grey or RGB.
    Raises ``DataError`` for a size below 16 or channels other than 1 and 3. Chapter 1.
    """
    if not isinstance(size, int) or size < 16:
        raise DataError(f"size={size!r}: faces are drawn from 16 pixels on; 48 to 384 look best")
    if channels not in (1, 3):
        raise DataError(f"channels={channels!r}: expected 1 (grey) or 3 (RGB)")
    rows = max(1, CHUNK * 64 * 64 // (size * size))
    with torch.no_grad():
        parts = [_render(p[i : i + rows], size, channels, masks) for i in range(0, len(p), rows)]
    return Rendering(
        torch.cat([part.image for part in parts]),
        torch.cat([part.landmarks for part in parts]),
        {name: torch.cat([part.masks[name] for part in parts]) for name in parts[0].masks},
    )


def _render(p: FaceParameters, size: int, channels: int, masks: bool) -> Rendering:
    points = face_landmarks(p)
    coefficients = outline(points)
    points = snap_jaw(points, coefficients)
    x, y, u, v = unproject(p, size)
    pixel = 1 / (p.camera[:, 2] * size)
    canvas = Canvas(torch.zeros(len(p), channels, size, size), x, y, u, v, pixel[:, None, None], points)
    head = Head(canvas, p, coefficients)
    background(canvas, p)
    hair.behind(canvas, p, head)
    body(canvas, p, head)
    ears(canvas, p, head)
    shade = skin(canvas, p, head)
    features.creases(canvas, p)
    features.nose(canvas, p, head)
    hair.beard(canvas, p, head)
    features.mouth(canvas, p, head, shade)
    features.eyes(canvas, p, head, shade)
    features.brows(canvas, p, head)
    hair.front(canvas, p, head)
    cover = wear.occlude(canvas, p, head)
    image = _camera(canvas.image, p)
    found = region_masks(canvas, p, cover) if masks else {}
    return Rendering(image, project(p, points, size), found)


def _camera(image: torch.Tensor, p: FaceParameters) -> torch.Tensor:
    gain, contrast, grain = (t[:, None, None, None] for t in p.tone.unbind(1))
    image = ((image - 0.5) * contrast + 0.5) * gain
    size = image.shape[-1]
    if bool((p.resolution > 0).any()):
        image = torch.stack([_reduce(im, float(r)) for im, r in zip(image, p.resolution, strict=True)])
    top, left = ((p.phase[:, k] * (1024 - size)).long() for k in (3, 5))
    noise = torch.stack(
        [GRAIN[t : t + size, s : s + size] for t, s in zip(top.tolist(), left.tolist(), strict=True)]
    )
    image = image + grain * noise[:, None]
    return (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _reduce(image: torch.Tensor, resolution: float) -> torch.Tensor:
    """Lose detail: down to ``resolution`` pixels across and back up, ``(C, H, W) -> (C, H, W)``."""
    size, small = image.shape[-1], round(resolution)
    if small <= 0 or small >= size:
        return image
    low = F.interpolate(
        image[None], size=(small, small), mode="bilinear", antialias=True, align_corners=False
    )
    return F.interpolate(low, size=(size, size), mode="bilinear", align_corners=False)[0].clamp(0, 1)
