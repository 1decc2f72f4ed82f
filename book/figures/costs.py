"""Parameters, multiply-adds and milliseconds of each part of a network. Chapters 2 and 5 show them."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ferlib.models.common import evaluating


@dataclass(frozen=True)
class PartCost:
    """The cost of one part of a network in one forward pass of the whole batch.

    ``parameters`` counts every trainable or frozen weight once, ``multiply_adds`` those of convolutions,
    linear maps and attention products; ``milliseconds`` is a median.
    """

    name: str
    parameters: int
    multiply_adds: int
    milliseconds: float


def part_costs(model: nn.Module, image: Tensor, *, repeats: int = 5) -> tuple[PartCost, ...]:
    r"""Cost of every direct child of a network in one forward pass, in the order in which they are defined.

    A convolution of :math:`k \times k` weights from :math:`C` to :math:`D` maps of :math:`H \times W` costs
    :math:`k^2 C D H W` multiply-adds, a linear map of n tokens :math:`n C D`, attention of N tokens of width
    d :math:`2 N^2 d`. Everything else (interpolation, normalization, activations, the warp of a spatial
    transformer) counts zero multiply-adds here, as in the papers' tables; its time is in the milliseconds.

    Args:
        model: Any module; it is run in evaluation mode without gradients and given back in the mode it had.
        image: What ``model`` takes, (B, 3, H, W). Costs are those of the whole batch.
        repeats: Timed passes after one pass that counts and warms up; 0 leaves the milliseconds at zero,
            which also works on the meta device, where nothing is computed.

    Returns:
        One :class:`PartCost` per child; a child that did not run has zero multiply-adds and milliseconds.

    Chapter 2.
    """
    children = dict(model.named_children())
    with torch.no_grad(), evaluating(model):
        # not every torch counts the CPU's fused attention; written out, it is two counted products
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(image)
        passes = [_milliseconds(model, children, image) for _ in range(repeats)]
    flops = counter.get_flop_counts()  # by the path of each module, two for a multiply-add
    return tuple(
        PartCost(
            name,
            sum(parameter.numel() for parameter in child.parameters()),
            sum(flops.get(f"{type(model).__name__}.{name}", {}).values()) // 2,
            statistics.median(one[name] for one in passes) if passes else 0.0,
        )
        for name, child in children.items()
    )


def _milliseconds(model: nn.Module, children: dict[str, nn.Module], image: Tensor) -> dict[str, float]:
    """The time between each child's entry and exit in one pass."""
    taken: dict[str, float] = defaultdict(float)
    handles = []

    def clock(name: str, sign: int) -> None:
        if image.device.type == "cuda":
            torch.cuda.synchronize(image.device)
        taken[name] += sign * 1e3 * time.perf_counter()

    for name, child in children.items():
        handles.append(child.register_forward_pre_hook(lambda *_, name=name: clock(name, -1)))
        handles.append(child.register_forward_hook(lambda *_, name=name: clock(name, 1)))
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return taken
