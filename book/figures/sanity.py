"""Does a map show what a network learned? Model parameter randomization, as Adebayo et al. 2018 propose it.

Structural similarity is scikit-image's. Chapter 8.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from book.figures.maps import attention_map, rank_correlation, stretch
from ferlib.explain import output_logits
from ferlib.explain.recorder import undisturbed

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]


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
