"""Soft masks of the facial regions, and of those that carry each expression."""

from __future__ import annotations

import torch

from ferlib.data.synthetic.expressions import ACTION_UNITS
from ferlib.data.synthetic.identity import FaceParameters
from ferlib.data.synthetic.paint import Canvas, blob, wide

REGIONS = ("forehead", "brows", "glabella", "eyes", "nose", "cheeks", "mouth", "chin")
#: Where each action unit shows.
SHOWS: dict[str, dict[str, float]] = {
    "AU1": {"brows": 1, "forehead": 0.7}, "AU2": {"brows": 1, "forehead": 0.7}, "AU4": {"brows": 1,
    "glabella": 1},
    "AU5": {"eyes": 1}, "AU6": {"eyes": 0.7, "cheeks": 0.8}, "AU7": {"eyes": 1}, "AU9": {"nose": 1,
    "glabella": 0.6},
    "AU10": {"mouth": 0.8, "cheeks": 0.4, "nose": 0.3}, "AU12": {"mouth": 1, "cheeks": 0.6}, "AU14":
    {"mouth": 1},
    "AU15": {"mouth": 1, "chin": 0.3}, "AU16": {"mouth": 1}, "AU17": {"chin": 1, "mouth": 0.5}, "AU20":
    {"mouth": 1},
    "AU22": {"mouth": 1}, "AU23": {"mouth": 1}, "AU24": {"mouth": 1}, "AU25": {"mouth": 0.8},
    "AU26": {"mouth": 1, "chin": 0.4}, "AU27": {"mouth": 1, "chin": 0.5}, "AU43": {"eyes": 1},
}  # fmt: skip


def _weights() -> torch.Tensor:
    weights = torch.zeros(len(ACTION_UNITS), len(REGIONS))
    for i, name in enumerate(ACTION_UNITS):
        for region, value in SHOWS[name].items():
            weights[i, REGIONS.index(region)] = value
    return weights


WEIGHTS = _weights()


def region_masks(c: Canvas, p: FaceParameters, cover: torch.Tensor) -> dict[str, torch.Tensor]:
    """Masks in [0, 1] of eight regions, of what is hidden, and of what carries the expression.

    Shape: each ``(B, H, W)``. ``"expression"`` is the regions weighted by how strongly the face's action
    units move
    them (its maximum is 1 unless nothing moves: a neutral face has zeros), seen only where nothing covers
    the face;
    ``"occluded"`` is what covers it. Chapters 1 and 8.
    """
    pt = c.points
    mean = lambda which: (wide(pt[:, which, 0].mean(1)), wide(pt[:, which, 1].mean(1)))  # noqa: E731

    def spot(
        which: list[int], sx: float | torch.Tensor, sy: float | torch.Tensor, dy: float = 0.0
    ) -> torch.Tensor:
        mx, my = mean(which)
        return torch.exp(-(((c.x - mx) / sx) ** 4 + ((c.y - my - dy) / sy) ** 4))

    tall = wide((pt[:, 57, 1] - pt[:, 51, 1]) / 2 + 0.07)
    broad = wide((pt[:, 54, 0] - pt[:, 48, 0]) / 2 + 0.08)
    left, right = list(range(36, 42)), list(range(42, 48))
    masks = {
        "forehead": spot([19, 24], 0.50, 0.16, -0.22),
        "brows": torch.maximum(
            spot([17, 18, 19, 20, 21], 0.28, 0.09), spot([22, 23, 24, 25, 26], 0.28, 0.09)
        ),
        "glabella": blob(c.x, c.y - mean([21, 22])[1] - 0.04, 0.09, 0.10),
        "eyes": torch.maximum(spot(left, 0.20, 0.11), spot(right, 0.20, 0.11)),
        "nose": spot([27, 30, 33], 0.17, 0.28, -0.03),
        "cheeks": torch.maximum(spot([36, 39, 48], 0.20, 0.20, 0.14), spot([42, 45, 54], 0.20, 0.20, 0.14)),
        "mouth": spot([48, 51, 54, 57], broad, tall),
        "chin": spot([8], 0.24, 0.14, -0.11),
    }
    strength = p.action_units.clamp(0, 1) @ WEIGHTS
    strength = strength / strength.amax(1, keepdim=True).clamp(min=0.6)
    carried = torch.zeros_like(c.x)
    for k, name in enumerate(REGIONS):
        carried = torch.maximum(carried, masks[name] * wide(strength[:, k]))
    masks["expression"] = carried * (1 - cover)
    masks["occluded"] = cover
    return masks
