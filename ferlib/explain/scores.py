"""How far can a map be trusted: scores against the regions that carry an expression, and the sanity check.

Ranks are scipy's, structural similarity is scikit-image's. Chapter 8.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.explain.cam import attention_map, enlarge, stretch
from ferlib.explain.recorder import output_logits, undisturbed

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]


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
    above = (_ranks(heat) * inside).sum(1) - count * (count + 1) / 2  # Mann-Whitney's U
    return {
        "pointing": (peak * inside).sum(1) / peak.sum(1),
        "energy": (heat * inside).sum(1) / heat.sum(1),
        "auc": (above / (count * (places - count))).float(),  # 0 / 0 = NaN where nothing lies outside
        "area": inside.float().mean(1),
    }


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation of two stacks of maps (B, H, W), face by face: (B,); 0 for a constant map."""
    ranks = [_ranks(maps.float().flatten(1)) for maps in (one, other)]
    return F.cosine_similarity(*(rank - rank.mean(1, keepdim=True) for rank in ranks)).float()


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1 along the last axis, equal values sharing their mean rank."""
    return torch.from_numpy(rankdata(values.detach().cpu().numpy(), axis=-1)).to(values.device)


@dataclass(frozen=True)
class SanityCheck:
    """How alike the maps of a trained network and of ever more randomized ones are.

    A map that shows what was learned has lost its likeness at the last stage, where everything is random; one
    that has not shows the picture, or the architecture.

    Attributes:
        stages: S parts in the order in which they were randomized, the output's first.
        spearman: Rank correlations (S, B), 1 for equal maps, 0 for a constant one.
        ssim: Structural similarities (S, B).
    """

    stages: tuple[str, ...]
    spearman: Tensor
    ssim: Tensor

    def passes(self, limit: float = 0.5) -> bool:
        """Whether the mean rank correlation, with everything random, is below ``limit``."""
        return bool(self.spearman[-1].mean() < limit)


def sanity_check(
    method: str | Method, model: nn.Module, images: Tensor, classes: Tensor, *, seed: int = 0
) -> SanityCheck:
    """Model parameter randomization test: a method's maps while learning is taken away, stage by stage.

    From the output down, each tensor of two or more axes is drawn anew from a normal distribution with the
    trained tensor's mean and deviation, and each vector is shuffled; what is random stays random. Source:
    Adebayo et al. 2018, section 3.1. Chapter 8.

    Args:
        method: A key of ``METHODS`` or ``BASELINES``, or any function (model, images, classes) -> (B, H, W).
        model: The trained network; a copy of it is randomized.
        images: (B, 3, H, W).
        classes: (B,), the same for all networks.
        seed: Of the draws.

    Raises:
        ValueError: The method is unknown.
    """
    named = isinstance(method, str)
    draw_map = (lambda *given: attention_map(*given, method)) if named else method
    reference = draw_map(model, images, classes).float().cpu()
    copied, draw = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    stages, spearman, ssim = _stages(model, images[:2]), [], []
    for _, tensors in stages:
        _randomize(copied, tensors, draw)
        now = draw_map(copied, images, classes).float().cpu()
        spearman.append(rank_correlation(reference, now))
        pairs = zip(stretch(reference).numpy(), stretch(now).numpy(), strict=True)
        alike = [structural_similarity(*pair, data_range=1.0) for pair in pairs]
        ssim.append(torch.tensor(alike))
    return SanityCheck(tuple(name for name, _ in stages), torch.stack(spearman), torch.stack(ssim))


def _stages(model: nn.Module, images: Tensor) -> list[tuple[str, list[str]]]:
    """Names of stages and of their tensors, from the output to the input.

    A stage is what stands under one path up to its last number: ``vit.blocks.1``, ``head``. Stages are
    ordered by when they first compute something; those that never do come last.
    """
    called: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.append(_stage(name)))
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        with undisturbed(model), torch.no_grad():
            output_logits(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    when = {stage: n for n, stage in reversed(list(enumerate(called)))}
    tensors: dict[str, list[str]] = {}
    for name in model.state_dict():
        tensors.setdefault(_stage(name.rpartition(".")[0]), []).append(name)
    return [(stage or "itself", tensors[stage]) for stage in sorted(tensors, key=lambda s: -when.get(s, -1))]


def _stage(name: str) -> str:
    """``layers.1.blocks.0.attn`` -> ``layers.1.blocks.0``: up to the last number, or the module itself."""
    found = re.match(r"(.*\.\d+|\d+)(?:\.|$)", name)
    return found[1] if found else name


@torch.no_grad()
def _randomize(model: nn.Module, names: list[str], draw: torch.Generator) -> None:
    for name, tensor in model.named_parameters():
        if name in names and tensor.numel() > 1:
            values = tensor.float().cpu()
            if tensor.ndim > 1:
                tensor.copy_(values.mean() + values.std() * torch.randn(tensor.shape, generator=draw))
            else:
                tensor.copy_(values[torch.randperm(len(values), generator=draw)])
