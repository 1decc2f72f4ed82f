"""From parameters to pictures: the order in which a face is painted, then the camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ferlib.data.base import DataError
from ferlib.data.synthetic import creases, features, hair, mouth, wear
from ferlib.data.synthetic.geometry import face_landmarks, outline, project, snap_jaw, unproject
from ferlib.data.synthetic.head import Head, background, body, ears, skin
from ferlib.data.synthetic.identity import FaceParameters
from ferlib.data.synthetic.paint import GRAIN, Canvas
from ferlib.data.synthetic.regions import region_masks
from ferlib.data.synthetic.window import middle, paint_within

#: Faces of 64 pixels painted together: enough to make the cost of calling operations small.
CHUNK = 64


@dataclass
class Rendering:
    """What rendering B faces gives.

    Shape: ``image`` uint8 ``(B, C, size, size)``; ``landmarks (B, 68, 2)`` in pixels, 300-W order, (0, 0)
    being the
    top left corner of the picture and (size, size) its bottom right one; ``masks`` region name -> ``(B,
    size, size)``
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
    with torch.no_grad(), _one_thread():
        parts = [_render(p[i : i + rows], size, channels, masks) for i in range(0, len(p), rows)]
    return Rendering(
        torch.cat([part.image for part in parts]),
        torch.cat([part.landmarks for part in parts]),
        {name: torch.cat([part.masks[name] for part in parts]) for name in parts[0].masks},
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for a while: the last bits where threads share an array depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
    _features(canvas, p, head, shade)
    hair.front(canvas, p, head)
    cover = wear.occlude(canvas, p, head)
    image = _camera(canvas.image, p)
    found = region_masks(canvas, p, cover) if masks else {}
    return Rendering(image, project(p, points, size), found)


def _features(canvas: Canvas, p: FaceParameters, head: Head, shade: torch.Tensor) -> None:
    pt = canvas.points
    sides = ((-1, list(range(36, 42)), list(range(17, 22))), (1, list(range(42, 48)), list(range(22, 27))))

    def within(
        which: list[int], half: tuple[float, float], draw: Callable, dx: float = 0.0, dy: float = 0.0
    ) -> None:
        paint_within(canvas, p, middle(pt, which, dx, dy), half, draw, (shade, head.mask))

    within([19, 24], (0.66, 0.36), lambda c, m: creases.forehead(c, p), dy=-0.22)
    within([21, 22], (0.36, 0.30), lambda c, m: creases.frown(c, p), dy=0.04)
    within([31, 33, 35], (0.34, 0.40), lambda c, m: features.nose(c, p, head), dy=-0.12)
    for side, _, _ in sides:
        ends = [31, 48] if side < 0 else [35, 54]
        within(ends, (0.40, 0.32), lambda c, m, s=side: creases.cheek_fold(c, p, m[1], s), dx=side * 0.07)
    within([57, 8], (0.44, 0.32), lambda c, m: creases.chin(c, p))
    rows = hair.bearded(p)
    if len(rows):
        part = canvas.rows(rows)
        hair.beard(part, p[rows], head.rows(rows))
        canvas.image = canvas.image.index_copy(0, rows, part.image)
    within([48, 51, 54, 57], (0.56, 0.44), lambda c, m: mouth.mouth(c, p, head, m[0]), dy=0.04)
    for side, eye, brow in sides:
        within(eye, (0.36, 0.26), lambda c, m, s=side: features.eye(c, p, head, m[0], s))
        within(eye, (0.30, 0.20), lambda c, m, s=side: creases.crows_feet(c, p, s), dx=side * 0.22)
        within(brow, (0.36, 0.22), lambda c, m, s=side: features.brow(c, p, head, s))


def _camera(image: torch.Tensor, p: FaceParameters) -> torch.Tensor:
    gain, contrast, grain = (t[:, None, None, None] for t in p.tone.unbind(1))
    image = (image * gain - 0.5) * contrast + 0.5
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
