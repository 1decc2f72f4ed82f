"""Does a map come from what the network learned? Take the learning away stage by stage, see it change."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.explain.answer import answer, undisturbed
from ferlib.explain.methods import attention_map
from ferlib.explain.picture import stretch
from ferlib.explain.scores import rank_correlation

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]
ORDERS = ("cascade", "full")


@dataclass(frozen=True)
class SanityCheck:
    """How alike the maps of a trained network and of ever more randomised ones are.

    ``stages`` are the parts in the order in which they were randomised, the output's first; at the last one
    everything is random. A map that shows what was learned has lost its likeness there; one that has not
    shows the picture, or the architecture.

    Shape: ``stages`` S names; ``spearman`` (S, B) rank correlations in [-1, 1]; ``ssim`` (S, B) structural
    similarities. Both are 1 for equal maps; a constant map resembles nothing and gets 0. Chapter 8.
    """

    stages: tuple[str, ...]
    spearman: Tensor
    ssim: Tensor

    def passes(self, limit: float = 0.5) -> bool:
        """Whether the mean rank correlation, at full randomisation, is below ``limit``. Shape: none."""
        return bool(self.spearman[-1].mean() < limit)


def sanity_check(
    method: str | Method, model: nn.Module, images: Tensor, classes: Tensor, *, order: str = "cascade",
    fresh: nn.Module | None = None, seed: int = 0,
) -> SanityCheck:  # fmt: skip
    """Model parameter randomisation test: compare a method's maps before and after learning is taken away.

    Parameters
    ----------
    method: a key of ``METHODS`` or ``BASELINES``, or any function (model, images, classes) -> (B, H, W).
    model: the trained network; a copy of it is randomised, itself stays as it was.
    classes: the classes asked about, the same for all networks.
    order: "cascade" randomises stage after stage from the output down and keeps what is random random;
        "full" everything at once.
    fresh: an untrained network of the same architecture, whose weights and buffers are taken. Without one,
        each tensor of two or more axes is drawn from a normal distribution with the trained tensor's mean and
        deviation, and each vector is shuffled; running statistics stay.
    seed: of the drawing.

    Shape: images (B, 3, H, W), classes (B,) -> :class:`SanityCheck`. Raises ``ValueError`` for an unknown
    order or method, and for a ``fresh`` network of another shape. Adebayo et al. 2018, section 3.1. Chapter
    8.
    """
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}, got {order!r}")
    draw_map = _named(method) if isinstance(method, str) else method
    reference = draw_map(model, images, classes).float().cpu()
    stages = _stages(model, images[:2])
    copied = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(seed)
    source = None if fresh is None else _state_of(fresh, copied)
    alike: list[tuple[Tensor, Tensor]] = []
    for _, tensors in stages:
        _randomise(copied, tensors, draw, source)
        if order == "cascade":
            alike.append(_compare(reference, draw_map(copied, images, classes).float().cpu()))
    names = tuple(name for name, _ in stages)
    if order == "full":
        alike.append(_compare(reference, draw_map(copied, images, classes).float().cpu()))
        names = ("everything",)
    spearman, ssim = (torch.stack(part) for part in zip(*alike, strict=True))
    return SanityCheck(names, spearman, ssim)


def _named(method: str) -> Method:
    return lambda model, images, classes: attention_map(model, images, classes, method)


def _stages(model: nn.Module, images: Tensor) -> list[tuple[str, list[str]]]:
    """Names of stages and of their tensors, from the output to the input.

    A stage is what stands under one path up to its first number: ``vit.blocks.1``, ``head``. Stages are
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
            answer(model, images)
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


def _state_of(fresh: nn.Module, like: nn.Module) -> dict[str, Tensor]:
    state, ours = fresh.state_dict(), like.state_dict()
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in ours.items()}:
        raise ValueError("the fresh network has other tensors than the trained one: build it the same way")
    return state


@torch.no_grad()
def _randomise(
    model: nn.Module, names: list[str], draw: torch.Generator, source: dict[str, Tensor] | None
) -> None:
    state, weights = model.state_dict(), dict(model.named_parameters())
    for name in names:
        tensor = state[name]
        if source is not None:
            tensor.copy_(source[name])
        elif name in weights and tensor.is_floating_point() and tensor.numel() > 1:
            values = tensor.float().cpu()
            if tensor.ndim > 1:
                noise = torch.randn(tensor.shape, generator=draw)
                tensor.copy_(values.mean() + values.std() * noise)
            else:
                tensor.copy_(values[torch.randperm(len(values), generator=draw)])


def _compare(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return rank_correlation(one, other), _ssim(stretch(one), stretch(other))


def _ssim(one: Tensor, other: Tensor, window: int = 7) -> Tensor:
    """Structural similarity, uniform windows (Wang et al. 2004): maps in [0, 1], (B, H, W) twice -> (B,)."""
    window = min(window, *one.shape[1:])
    mean = lambda t: F.avg_pool2d(t[:, None].double(), window, 1)[:, 0]  # noqa: E731
    a, b = mean(one), mean(other)
    va, vb = mean(one.double() ** 2) - a * a, mean(other.double() ** 2) - b * b
    both = mean(one.double() * other.double()) - a * b
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * a * b + c1) * (2 * both + c2) / ((a * a + b * b + c1) * (va + vb + c2))
    return found.mean((1, 2)).float()
