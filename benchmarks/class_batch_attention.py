"""Class batch attention, forward and backward: time and peak memory against the published formulation.

The published formulation (README of the Batch Transformer Network) writes the (C, B, B) attention down and
lets autograd keep it. ferlib writes it down for small batches and calls fused attention for large ones.

The two take turns, each in a process of its own (``turns.py``); reported are the median step and the memory
that the steps add at most. Asserts that values and gradients agree, and no time::

    python benchmarks/class_batch_attention.py [--batch 64 4096] [--classes 8] [--threads 2]
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from turns import take_turns

from ferlib.models import class_batch_attention


def published(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The steps of the BTN README, one after the other: (B, C, E), (B, C, E), (B, C) -> (B, C)."""
    query = query.contiguous().transpose(0, 1).unsqueeze(0)  # (1, C, B, E)
    key = key.contiguous().transpose(0, 1).unsqueeze(0)
    value = value.unsqueeze(1).contiguous().transpose(0, -1).contiguous().transpose(-2, -1)  # (C, B, 1)
    _, classes, batch, _ = query.shape
    scaled = query / math.sqrt(classes)
    weights = torch.softmax(scaled @ key.transpose(-2, -1), dim=-1)
    weights = weights.contiguous().view(classes, batch, batch)
    mixed = torch.bmm(weights, value).contiguous().view(classes, batch)
    return mixed.transpose(-1, -2)


FORMULATIONS = {"published": published, "ferlib": class_batch_attention}


def make_inputs(batch: int, classes: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = (batch, classes, 49), (batch, classes, 49), (batch, classes)
    return [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]


def one_step(function, inputs: list[Tensor]) -> list[Tensor]:
    out = function(*inputs)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]


def ready(name: str, batch: int, classes: int) -> Callable[[], list[Tensor]]:
    """One step of a formulation, ready to be called."""
    return partial(one_step, FORMULATIONS[name], make_inputs(batch, classes))


def warm_up() -> None:
    for function in FORMULATIONS.values():
        one_step(function, make_inputs(2, 2))


def compare(batch: int, classes: int, threads: int, rounds: int) -> None:
    make = partial(ready, batch=batch, classes=classes)
    costs = take_turns(make, tuple(FORMULATIONS), rounds, threads=threads, warm_up=warm_up)
    print(f"\nbatch {batch}, {classes} classes, {threads} threads, median of {rounds} steps")
    for name, cost in costs.items():
        print(f"  {name:10s} {1e3 * cost.median:9.2f} ms   peak {cost.added:8.1f} MiB")
    ours, theirs = costs["ferlib"], costs["published"]
    print(f"  ferlib is {theirs.median / ours.median:.2f} times as fast", end="")
    print(f", with {ours.added / theirs.added:.3f} of the peak memory")


def check(batch: int, classes: int) -> None:
    inputs = make_inputs(batch, classes)
    for ours, theirs in zip(*[one_step(f, inputs) for f in FORMULATIONS.values()], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 4096])
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=0, help="default: 200 for small batches, 5 for large")
    options = parser.parse_args()
    for batch in options.batch:
        check(min(batch, 1024), options.classes)
        compare(batch, options.classes, options.threads, options.rounds or (200 if batch <= 512 else 5))


if __name__ == "__main__":
    main()
