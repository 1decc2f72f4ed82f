"""From parameters to pictures: the order in which a face is painted, the camera, masks of its regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F

from ferlib.errors import DataError
from ferlib.synthetic import features, wear
from ferlib.synthetic.expressions import MIRROR, REGIONS, SHOWN
from ferlib.synthetic.geometry import project
from ferlib.synthetic.identity import FaceParameters
from ferlib.synthetic.paint import GRAIN, wide

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


# Parts of a face that need only some of its pixels: a box around the mean of some landmarks, given by half
# its width and height, and moved by (dx, dy); of parts that come twice the one of the viewer's left half.
_UPPER = (
    (features.forehead, [19, 24], 0.66, 0.36, 0.0, -0.22),
    (features.frown, [21, 22], 0.36, 0.30, 0.0, 0.04),
    (features.nose, [31, 33, 35], 0.34, 0.40, 0.0, -0.12),
)
_CHEEK = ((features.cheek_fold, [31, 48], 0.40, 0.32, -0.07),)
_EYE = (
    (features.eye, [*range(36, 42)], 0.36, 0.26),
    (features.crows_feet, [*range(36, 42)], 0.30, 0.20, -0.22),
    (features.brow, [*range(17, 22)], 0.36, 0.22),
)


def _render(p: FaceParameters, size: int, channels: int, masks: bool) -> Rendering:
    face = features.Face(p, size, channels)
    hair = wear.Hair(face)
    features.background(face)
    hair.behind()
    features.body(face)
    features.ears(face)
    features.skin(face)
    for part in _UPPER:
        _paint_within(face, 0, *part)
    for side, part in product((-1, 1), _CHEEK):
        _paint_within(face, side, *part)
    _paint_within(face, 0, features.chin, [57, 8], 0.44, 0.32)
    face.some(wear.bearded(p), wear.beard)
    _paint_within(face, 0, features.mouth, [48, 51, 54, 57], 0.56, 0.44, 0.0, 0.04)
    for side, part in product((-1, 1), _EYE):
        _paint_within(face, side, *part)
    hair.front()
    cover = wear.occlude(face)
    found = _region_masks(face, cover) if masks else {}
    return Rendering(_camera(face.image, p), project(p, face.points, size), found)


def _paint_within(
    face: features.Face,
    side: int,
    draw: Callable[..., None],
    which: list[int],
    width: float,
    height: float,
    dx: float = 0.0,
    dy: float = 0.0,
) -> None:
    """Run ``draw`` on the pixels of a box of face coordinates, and put them back.

    ``side`` is 0, or -1 or 1 for a part that comes twice. One picture's result does not depend on the others.
    """
    if side > 0:
        which, dx = sorted(MIRROR[i] for i in which), -dx
    size, channels = face.image.shape[-1], face.image.shape[1]
    center, half = face.points[:, which].mean(1) + torch.tensor([dx, dy]), torch.tensor([width, height])
    corners = project(face.p, center[:, None] + _CORNERS * half, size)
    low = corners.amin(1).floor().long().clamp(0, size - 1)  # (B, 2): x, y
    across, down = (corners.amax(1).ceil().long().clamp(1, size) - low).amax(0).clamp(min=1).tolist()
    left, top = torch.minimum(low, size - torch.tensor([across, down])).T[:, :, None]
    index = (top + torch.arange(down))[:, :, None] * size + (left + torch.arange(across))[:, None]
    index = index.flatten(1)

    def cut(full: torch.Tensor) -> torch.Tensor:
        return full.flatten(1).gather(1, index).view(-1, down, across)

    wide_index = index[:, None].expand(-1, channels, -1)
    old = face.image.flatten(2).gather(2, wide_index).view(-1, channels, down, across)
    part = copy(face)
    part.image, part.x, part.y, part.shade, part.mask = (
        old,
        *map(cut, (face.x, face.y, face.shade, face.mask)),
    )
    draw(part, side) if side else draw(part)
    x, y = (
        (v - wide(c)).abs() / h for v, c, h in zip((part.x, part.y), center.T, (width, height), strict=True)
    )
    new = torch.where((torch.maximum(x, y) < 1)[:, None], part.image, old)
    face.image = face.image.flatten(2).scatter(2, wide_index, new.flatten(2)).view_as(face.image)


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


def _region_masks(c: features.Face, cover: torch.Tensor) -> dict[str, torch.Tensor]:
    """Masks in [0, 1] of eight regions, of what is hidden, and of what carries the expression: ``(B, H, W)``.

    ``"expression"`` is the regions weighted by how strongly the face's action units move them (its maximum is
    1 unless nothing moves: a neutral face has zeros), seen only where nothing covers the face; ``"occluded"``
    is what covers it.
    """
    pt = c.points
    tall = wide((pt[:, 57, 1] - pt[:, 51, 1]) / 2 + 0.07)
    broad = wide((pt[:, 54, 0] - pt[:, 48, 0]) / 2 + 0.08)
    masks = {}
    for name, which, sx, sy, dy in (
        ("forehead", [19, 24], 0.50, 0.16, -0.22),
        ("brows", [*range(17, 22)], 0.28, 0.09, 0.0),
        ("brows", [*range(22, 27)], 0.28, 0.09, 0.0),
        ("glabella", [21, 22], 0.09, 0.10, 0.04),
        ("eyes", [*range(36, 42)], 0.20, 0.11, 0.0),
        ("eyes", [*range(42, 48)], 0.20, 0.11, 0.0),
        ("nose", [27, 30, 33], 0.17, 0.28, -0.03),
        ("cheeks", [36, 39, 48], 0.20, 0.20, 0.14),
        ("cheeks", [42, 45, 54], 0.20, 0.20, 0.14),
        ("mouth", [48, 51, 54, 57], broad, tall, 0.0),
        ("chin", [8], 0.24, 0.14, -0.11),
    ):
        x, y = (wide(t) for t in pt[:, which].mean(1).unbind(1))
        if name == "glabella":
            spot = c.spot(0.0, y, sx, sy, dy=-dy)
        else:
            spot = torch.exp(-(((c.x - x) / sx) ** 4 + ((c.y - y - dy) / sy) ** 4))
        masks[name] = torch.maximum(masks.get(name, spot), spot)
    strength = c.p.action_units.clamp(0, 1) @ SHOWN
    strength = strength / strength.amax(1, keepdim=True).clamp(min=0.6)
    carried = torch.stack([masks[name] * wide(strength[:, k]) for k, name in enumerate(REGIONS)]).amax(0)
    masks["expression"] = carried * (1 - cover)
    masks["occluded"] = cover
    return masks
