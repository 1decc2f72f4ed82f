"""From parameters to pictures: the order in which a face is painted, the camera, masks of its regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ferlib.errors import DataError
from ferlib.synthetic import features, wear
from ferlib.synthetic.expressions import REGIONS, SHOWN
from ferlib.synthetic.geometry import face_landmarks, outline, project, snap_jaw, unproject
from ferlib.synthetic.identity import FaceParameters
from ferlib.synthetic.paint import GRAIN, Canvas, blob, wide

#: Faces of 64 pixels painted together: enough to make the cost of calling operations small.
CHUNK = 64
_CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])


@dataclass
class Rendering:
    """What rendering B faces gives.

    Attributes:
        image: uint8 ``(B, C, size, size)``.
        landmarks: ``(B, 68, 2)`` in pixels, 300-W order, (0, 0) being the top left corner of the picture and
            (size, size) its bottom right one.
        masks: region name -> ``(B, size, size)`` in [0, 1], empty unless asked for.
    """

    image: torch.Tensor
    landmarks: torch.Tensor
    masks: dict[str, torch.Tensor]


def render_faces(p: FaceParameters, size: int = 64, channels: int = 1, masks: bool = False) -> Rendering:
    """Draw faces.

    Args:
        p: parameters of B faces.
        size: width and height in pixels.
        channels: 1 (gray) or 3 (RGB).
        masks: whether to give masks of the regions, too.

    Raises:
        DataError: for a size below 16 or another number of channels.
    """
    if not isinstance(size, int) or size < 16:
        raise DataError(f"size={size!r}: faces are drawn from 16 pixels on; 48 to 384 look best")
    if channels not in (1, 3):
        raise DataError(f"channels={channels!r}: expected 1 (gray) or 3 (RGB)")
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
    canvas = Canvas(torch.zeros(len(p), channels, size, size), x, y, u, v, wide(pixel), points)
    head = features.Head(canvas, p, coefficients)
    hair = wear.Hair(canvas, p, head)
    features.background(canvas, p)
    hair.behind()
    features.body(canvas, p, head)
    features.ears(canvas, p, head)
    _face(canvas, p, head)
    hair.front()
    cover = wear.occlude(canvas, p, head)
    image = _camera(canvas.image, p)
    found = _region_masks(canvas, p, cover) if masks else {}
    return Rendering(image, project(p, points, size), found)


def _face(canvas: Canvas, p: FaceParameters, head: features.Head) -> None:
    """Skin, folds and features, each in a window: most parts of a face need only a few of its pixels."""
    shade = features.skin(canvas, p, head)

    def within(
        which: list[int],
        half: tuple[float, float],
        draw: Callable[[Canvas, torch.Tensor, torch.Tensor], None],
        dx: float = 0.0,
        dy: float = 0.0,
    ) -> None:
        """Draw around some landmarks: gets the window's canvas, shade and the mask of the head."""
        center = canvas.points[:, which].mean(1) + torch.tensor([dx, dy])
        _paint_within(canvas, p, center, half, draw, (shade, head.mask))

    within([19, 24], (0.66, 0.36), lambda c, *_: features.forehead(c, p), dy=-0.22)
    within([21, 22], (0.36, 0.30), lambda c, *_: features.frown(c, p), dy=0.04)
    within([31, 33, 35], (0.34, 0.40), lambda c, *_: features.nose(c, p, head), dy=-0.12)
    for side, ends in ((-1, [31, 48]), (1, [35, 54])):
        within(ends, (0.40, 0.32), lambda c, _, on, s=side: features.cheek_fold(c, p, on, s), dx=side * 0.07)
    within([57, 8], (0.44, 0.32), lambda c, *_: features.chin(c, p))
    rows = wear.bearded(p)
    if len(rows):
        part = canvas.rows(rows)
        wear.beard(part, p[rows], head.rows(rows))
        canvas.image = canvas.image.index_copy(0, rows, part.image)
    within([48, 51, 54, 57], (0.56, 0.44), lambda c, lit, _: features.mouth(c, p, head, lit), dy=0.04)
    for side, eye, brow in ((-1, range(36, 42), range(17, 22)), (1, range(42, 48), range(22, 27))):
        within([*eye], (0.36, 0.26), lambda c, lit, _, s=side: features.eye(c, p, head, lit, s))
        within([*eye], (0.30, 0.20), lambda c, *_, s=side: features.crows_feet(c, p, s), dx=side * 0.22)
        within([*brow], (0.36, 0.22), lambda c, *_, s=side: features.brow(c, p, head, s))


def _paint_within(
    canvas: Canvas,
    p: FaceParameters,
    center: torch.Tensor,
    half: tuple[float, float],
    draw: Callable[..., None],
    maps: tuple[torch.Tensor, ...],
) -> None:
    """Run ``draw`` on the pixels of a box of face coordinates around ``center (B, 2)``, and put them back.

    ``draw`` gets a canvas of the box and the given maps ``(B, H, W)`` cut in the same way. One picture's
    result does not depend on the others in the batch.
    """
    size, channels = canvas.image.shape[-1], canvas.image.shape[1]
    corners = project(p, center[:, None] + _CORNERS * torch.tensor(half), size)
    low = corners.amin(1).floor().long().clamp(0, size - 1)  # (B, 2): x, y
    high = corners.amax(1).ceil().long().clamp(1, size)
    width, height = (max(1, int(n)) for n in (high - low).amax(0))
    left = torch.minimum(low[:, 0], torch.tensor(size - width))
    top = torch.minimum(low[:, 1], torch.tensor(size - height))
    columns = left[:, None] + torch.arange(width)
    rows = top[:, None] + torch.arange(height)
    index = (rows[:, :, None] * size + columns[:, None, :]).flatten(1)

    def cut(full: torch.Tensor) -> torch.Tensor:
        return full.flatten(1).gather(1, index).view(-1, height, width)

    wide_index = index[:, None].expand(-1, channels, -1)
    old = canvas.image.flatten(2).gather(2, wide_index).view(-1, channels, height, width)
    x, y = cut(canvas.x), cut(canvas.y)
    part = Canvas(old, x, y, canvas.u[:, :1, :1], canvas.v[:, :1, :1], canvas.pixel, canvas.points)
    draw(part, *map(cut, maps))
    dx, dy = (x - wide(center[:, 0])).abs() / half[0], (y - wide(center[:, 1])).abs() / half[1]
    new = torch.where((torch.maximum(dx, dy) < 1)[:, None], part.image, old)
    canvas.image = canvas.image.flatten(2).scatter(2, wide_index, new.flatten(2)).view_as(canvas.image)


def _camera(image: torch.Tensor, p: FaceParameters) -> torch.Tensor:
    gain, contrast, grain = (t[:, None, None, None] for t in p.tone.unbind(1))
    image = (image * gain - 0.5) * contrast + 0.5
    size = image.shape[-1]
    if bool((p.resolution > 0).any()):
        image = torch.stack([_reduce(im, float(r)) for im, r in zip(image, p.resolution, strict=True)])
    corners = (p.phase[:, [3, 5]] * (1024 - size)).long().tolist()
    noise = torch.stack([GRAIN[top : top + size, left : left + size] for top, left in corners])
    return ((image + grain * noise[:, None]).clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _reduce(image: torch.Tensor, resolution: float) -> torch.Tensor:
    """Lose detail: down to ``resolution`` pixels across and back up, ``(C, H, W) -> (C, H, W)``."""
    size, small = image.shape[-1], round(resolution)
    if small <= 0 or small >= size:
        return image
    low = F.interpolate(image[None], size=(small, small), mode="bilinear", antialias=True)
    return F.interpolate(low, size=(size, size), mode="bilinear")[0].clamp(0, 1)


def _region_masks(c: Canvas, p: FaceParameters, cover: torch.Tensor) -> dict[str, torch.Tensor]:
    """Masks in [0, 1] of eight regions, of what is hidden, and of what carries the expression: ``(B, H, W)``.

    ``"expression"`` is the regions weighted by how strongly the face's action units move them (its maximum is
    1 unless nothing moves: a neutral face has zeros), seen only where nothing covers the face; ``"occluded"``
    is what covers it.
    """
    pt = c.points

    def spot(
        which: list[int], sx: float | torch.Tensor, sy: float | torch.Tensor, dy: float = 0.0
    ) -> torch.Tensor:
        mx, my = (wide(t) for t in pt[:, which].mean(1).unbind(1))
        return torch.exp(-(((c.x - mx) / sx) ** 4 + ((c.y - my - dy) / sy) ** 4))

    tall = wide((pt[:, 57, 1] - pt[:, 51, 1]) / 2 + 0.07)
    broad = wide((pt[:, 54, 0] - pt[:, 48, 0]) / 2 + 0.08)
    pairs = {
        "brows": (spot([*range(17, 22)], 0.28, 0.09), spot([*range(22, 27)], 0.28, 0.09)),
        "eyes": (spot([*range(36, 42)], 0.20, 0.11), spot([*range(42, 48)], 0.20, 0.11)),
        "cheeks": (spot([36, 39, 48], 0.20, 0.20, 0.14), spot([42, 45, 54], 0.20, 0.20, 0.14)),
    }
    masks = {
        "forehead": spot([19, 24], 0.50, 0.16, -0.22),
        "glabella": blob(c.x, c.y - wide(pt[:, [21, 22], 1].mean(1)) - 0.04, 0.09, 0.10),
        "nose": spot([27, 30, 33], 0.17, 0.28, -0.03),
        "mouth": spot([48, 51, 54, 57], broad, tall),
        "chin": spot([8], 0.24, 0.14, -0.11),
        **{name: torch.maximum(*two) for name, two in pairs.items()},
    }
    masks = {name: masks[name] for name in REGIONS}
    strength = p.action_units.clamp(0, 1) @ SHOWN
    strength = strength / strength.amax(1, keepdim=True).clamp(min=0.6)
    carried = torch.stack([masks[name] * wide(strength[:, k]) for k, name in enumerate(REGIONS)]).amax(0)
    masks["expression"] = carried * (1 - cover)
    masks["occluded"] = cover
    return masks
