"""Painting inside a small window: most parts of a face need only a few of the picture's pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ferlib.data.synthetic.geometry import project
from ferlib.data.synthetic.identity import FaceParameters
from ferlib.data.synthetic.paint import Canvas

_CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])


def paint_within(
    canvas: Canvas,
    p: FaceParameters,
    centre: torch.Tensor,
    half: tuple[float, float],
    draw: Callable[[Canvas, list[torch.Tensor]], None],
    maps: tuple[torch.Tensor, ...] = (),
) -> None:
    """Run ``draw`` on the pixels around a point of the face and put the result back.

    The window of each face is a box of face coordinates; one picture's result does not depend on the
    others in the batch.

    Shape: centre ``(B, 2)`` and half width and height in face units; ``draw`` gets a ``Canvas`` of ``(B,
    C, h, w)`` pixels and
    the given ``maps (B, H, W)`` cut in the same way. Chapter 1.
    """
    size = canvas.image.shape[-1]
    corners = project(p, centre[:, None] + _CORNERS * torch.tensor(half), size)
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

    channels = canvas.image.shape[1]
    wide_index = index[:, None].expand(-1, channels, -1)
    old = canvas.image.flatten(2).gather(2, wide_index).view(-1, channels, height, width)
    part = Canvas(
        old,
        cut(canvas.x),
        cut(canvas.y),
        canvas.u[:, :1, :1],
        canvas.v[:, :1, :1],
        canvas.pixel,
        canvas.points,
    )
    draw(part, [cut(m) for m in maps])
    dx = (part.x - centre[:, 0, None, None]).abs() / half[0]
    dy = (part.y - centre[:, 1, None, None]).abs() / half[1]
    own = (torch.maximum(dx, dy) < 1)[:, None]
    new = torch.where(own, part.image, old)
    canvas.image = canvas.image.flatten(2).scatter(2, wide_index, new.flatten(2)).view_as(canvas.image)


def middle(points: torch.Tensor, which: list[int], dx: float = 0.0, dy: float = 0.0) -> torch.Tensor:
    """Mean of some landmarks, shifted: ``(B, 68, 2) -> (B, 2)``."""
    return points[:, which].mean(1) + torch.tensor([dx, dy])
