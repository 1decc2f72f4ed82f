"""Is a map right? Scores against the regions that the renderer knows to carry the expression."""

from __future__ import annotations

import torch
from torch import Tensor

from ferlib.explain.picture import enlarge


def attention_score(heat: Tensor, truth: Tensor, *, threshold: float = 0.5) -> dict[str, Tensor]:
    r"""Score maps against true regions, face by face.

    .. math:: \mathrm{pointing} = [\,T(\arg\max_p M(p)) \ge \theta\,]

    .. math:: \mathrm{energy} = \frac{\sum_p M(p)\,[T(p) \ge \theta]}{\sum_p M(p)}, \qquad
              \mathrm{area} = \frac{1}{|P|} \sum_p [T(p) \ge \theta]

    .. math:: \mathrm{auc} = P\bigl(M(p) > M(q)\bigr) + \tfrac12 P\bigl(M(p) = M(q)\bigr),
              \quad T(p) \ge \theta > T(q)

    ``truth`` is the renderer's ``masks["expression"]`` (which pixels make this expression), or
    ``masks["occluded"]``: then high scores mean attention on what covers the face.

    ``area`` is what a map that knows nothing gets, on average, in the first two scores, and 1/2 in the third.
    Ties: where the maximum is reached at several places, ``pointing`` is the share of them inside; equal
    values count half in ``auc``. Negative heat counts as none; a map that is zero everywhere counts as a
    uniform one. A map of another size is brought to the region's size bilinearly.

    Shape: heat (B, h, w), truth (B, H, W) in [0, 1] -> ``{"pointing", "energy", "auc", "area"}``, each (B,)
    in [0, 1]; ``auc`` is NaN where the region is the whole picture. Raises ``ValueError`` for shapes that do
    not fit, for maps that are not finite and for an empty region. Zhang et al. 2016 (pointing game); Wang et
    al. 2020 (energy); Fawcett 2006 (AUC by ranks). Chapter 8.
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
    return {
        "pointing": (peak * inside).sum(1) / peak.sum(1),
        "energy": (heat * inside).sum(1) / heat.sum(1),
        "auc": _auc(heat, inside),
        "area": inside.float().mean(1),
    }


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 along the last axis, equal values sharing their mean rank: (B, N) -> float64 (B, N)."""
    ordered = values.sort(-1).values.contiguous()
    values = values.contiguous()
    below = torch.searchsorted(ordered, values)
    upto = torch.searchsorted(ordered, values, right=True)
    return (below + upto + 1).double() / 2


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation of two stacks of maps, face by face; a constant map resembles nothing: 0.

    Shape: (B, H, W) twice -> (B,) in [-1, 1]. Chapter 8.
    """
    one, other = (ranks(maps.float().flatten(1)) for maps in (one, other))
    one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    scale = (one.square().sum(1) * other.square().sum(1)).sqrt()
    return torch.where(scale > 0, (one * other).sum(1) / scale.clamp(min=1e-12), 0.0).float()


def _auc(heat: Tensor, inside: Tensor) -> Tensor:
    """Mann-Whitney: the sum of the ranks inside, less the least it could be, over all pairs."""
    count = inside.sum(1).double()
    others = inside.shape[1] - count
    above = (ranks(heat) * inside).sum(1) - count * (count + 1) / 2
    return (above / (count * others)).float()  # 0 / 0 = NaN where nothing lies outside
