"""How far can a map be trusted: scores against the regions that carry an expression. Chapter 8."""

from __future__ import annotations

import torch
from scipy.stats import rankdata
from torch import Tensor

from ferlib.explain.cam import enlarge


def attention_score(heat: Tensor, truth: Tensor, *, threshold: float = 0.5) -> dict[str, Tensor]:
    r"""Score maps against true regions, face by face.

    .. math:: \mathrm{pointing} = [\,T(\arg\max_p M(p)) \ge \theta\,]

    .. math:: \mathrm{energy} = \frac{\sum_p M(p)\,[T(p) \ge \theta]}{\sum_p M(p)}, \qquad
              \mathrm{area} = \frac{1}{|P|} \sum_p [T(p) \ge \theta]

    .. math:: \mathrm{auc} = P\bigl(M(p) > M(q)\bigr) + \tfrac12 P\bigl(M(p) = M(q)\bigr),
              \quad T(p) \ge \theta > T(q)

    ``area`` is what an uninformative map scores, on average, in the first two, and 1/2 in the third. Ties:
    where the maximum is reached at several places, ``pointing`` is the share of them inside; equal values
    count half in ``auc``, so a map of zeros scores 1/2 whatever the region. Negative heat counts as none; a
    map that is zero everywhere counts as a uniform one. A map of another size is brought to the region's size
    bilinearly. Source: Zhang et al. 2016 (pointing game); Wang et al. 2020 (energy); Fawcett 2006 (AUC by
    ranks). Chapter 8.

    Args:
        heat: (B, h, w).
        truth: (B, H, W) in [0, 1], the renderer's ``masks["expression"]`` (the pixels that make this
            expression), or ``masks["occluded"]``: then high scores mean attention on what covers the face.
        threshold: From which value of ``truth`` a pixel belongs to the region.

    Returns:
        "pointing", "energy", "auc" and "area", each (B,) in [0, 1]; ``auc`` is NaN where the region is the
        whole picture.

    Raises:
        ValueError: The shapes do not fit, a map is not finite, or a region is empty.
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
    heat = enlarge(heat.float().clamp(min=0), tuple(truth.shape[1:])).flatten(1)
    heat = torch.where(heat.sum(1, keepdim=True) > 0, heat, torch.ones_like(heat))
    peak = (heat >= heat.amax(1, keepdim=True) * (1 - 1e-6)).float()
    count, places = inside.sum(1).double(), inside.shape[1]
    ranks = torch.from_numpy(rankdata(heat.detach().cpu().numpy(), axis=1)).to(heat.device)
    above = (ranks * inside).sum(1) - count * (count + 1) / 2  # Mann-Whitney's U
    return {
        "pointing": (peak * inside).sum(1) / peak.sum(1),
        "energy": (heat * inside).sum(1) / heat.sum(1),
        "auc": (above / (count * (places - count))).float(),  # 0 / 0 = NaN where nothing lies outside
        "area": inside.float().mean(1),
    }
