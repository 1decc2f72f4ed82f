"""Parameters, multiply-adds and milliseconds of each part of a network. Chapters 2 and 5 show them."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ferlib.models.modes import evaluating

Hook = Callable[..., None]


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

    Raises:
        ValueError: Negative ``repeats``, or a module without children.

    Chapter 2.
    """
    children = dict(model.named_children())
    if repeats < 0 or not children:
        what = f"repeats={repeats}" if children else f"{type(model).__name__} has no parts"
        raise ValueError(f"part_costs needs a network with parts and repeats of 0 or more, got {what}")
    with torch.no_grad(), evaluating(model):
        operations = _multiply_adds(model, children, image)
        times = _milliseconds(model, children, image, repeats)
    return tuple(
        PartCost(name, sum(p.numel() for p in child.parameters()), operations[name], times[name])
        for name, child in children.items()
    )


def _multiply_adds(model: nn.Module, children: dict[str, nn.Module], image: Tensor) -> dict[str, int]:
    """Multiply-adds between each child's entry and exit, from torch's counter (which counts each twice)."""
    found: dict[str, int] = defaultdict(int)
    entered: dict[str, int] = {}
    # not every torch counts the CPU's fused attention; written out, it is two counted products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:

        def enter(name: str, *_: object) -> None:
            entered[name] = counter.get_total_flops()

        def leave(name: str, *_: object) -> None:
            found[name] += (counter.get_total_flops() - entered[name]) // 2

        _run(model, children, image, enter, leave)
    return found


def _milliseconds(
    model: nn.Module, children: dict[str, nn.Module], image: Tensor, repeats: int
) -> dict[str, float]:
    """Median over the passes of the time between each child's entry and exit."""
    passes: list[dict[str, float]] = []
    entered: dict[str, float] = {}

    def now() -> float:
        if image.device.type == "cuda":
            torch.cuda.synchronize(image.device)
        return 1e3 * time.perf_counter()

    def enter(name: str, *_: object) -> None:
        entered[name] = now()

    def leave(name: str, *_: object) -> None:
        passes[-1][name] += now() - entered[name]

    for _ in range(repeats):
        passes.append(defaultdict(float))
        _run(model, children, image, enter, leave)
    return {name: statistics.median(one[name] for one in passes) if passes else 0.0 for name in children}


def _run(model: nn.Module, children: dict[str, nn.Module], image: Tensor, enter: Hook, leave: Hook) -> None:
    handles = []
    for name, child in children.items():
        handles.append(child.register_forward_pre_hook(partial(enter, name)))
        handles.append(child.register_forward_hook(partial(leave, name)))
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
