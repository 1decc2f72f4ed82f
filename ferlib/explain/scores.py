"""Is a map right? Scores against the regions that the renderer knows to carry the expression."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def attention_score(heat: Tensor, truth: Tensor, *, threshold: float = 0.5) -> dict[str, Tensor]:
    r"""Score maps against true regions, face by face.

    .. math:: \mathrm{pointing} = [\,T(\arg\max_p M(p)) \ge \theta\,], \qquad
              \mathrm{energy} = \frac{\sum_p M(p)\,[T(p) \ge \theta]}{\sum_p M(p)}, \qquad
              \mathrm{area} = \frac{1}{|P|} \sum_p [T(p) \ge \theta]

    ``area`` is what a map that knows nothing gets, on average, in both scores. Where the maximum is reached
    at several places, ``pointing`` is the share of them inside. Negative heat counts as none; a map that is
    zero everywhere counts as a uniform one. A map of another size is brought to the region's size bilinearly.

    Shape: heat (B, h, w), truth (B, H, W) in [0, 1] -> ``{"pointing", "energy", "area"}``, each (B,) in [0,
    1]. Raises ``ValueError`` for shapes that do not fit, for maps that are not finite and for an empty
    region. Zhang et al. 2016 (pointing game); Wang et al. 2020 (energy). Chapter 8.
    """
    if heat.ndim != 3 or truth.ndim != 3 or len(heat) != len(truth):
        raise ValueError(
            f"expected heat (B, h, w) and truth (B, H, W), got {tuple(heat.shape)}, {tuple(truth.shape)}"
        )
    if not torch.isfinite(heat).all():
        raise ValueError("the map holds NaN or infinity: it cannot be scored")
    inside = (truth.float() >= threshold).flatten(1)
    if not inside.any(1).all():
        empty = int((~inside.any(1)).nonzero()[0, 0])
        raise ValueError(f"face {empty} has no true region: nothing in its mask reaches {threshold}")
    heat = heat.float().clamp(min=0)
    if heat.shape[1:] != truth.shape[1:]:
        heat = F.interpolate(heat[:, None], truth.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    heat = heat.flatten(1)
    heat = torch.where(heat.sum(1, keepdim=True) > 0, heat, torch.ones_like(heat))
    peak = (heat >= heat.amax(1, keepdim=True) * (1 - 1e-6)).float()
    return {
        "pointing": (peak * inside).sum(1) / peak.sum(1),
        "energy": (heat * inside).sum(1) / heat.sum(1),
        "area": inside.float().mean(1),
    }
