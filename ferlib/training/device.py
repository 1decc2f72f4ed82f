"""Where and how a network computes: device, processes, width of its numbers, memory format, compiler.

Lightning Fabric finds the device, starts the group of processes and averages the gradients.
``torchrun --nproc-per-node 4 -m ferlib train ...`` starts four processes with the same arguments. Each gets
its own GPU (or its share of the CPU) and its share of every batch; after each backward pass all have the
average of the gradients, so their weights stay equal. The first process writes the files and the messages.

Batch attention sees the whole batch (``ferlib.models.batch_transformer``). Batch norm does not: it normalizes
by the share of its own process, as everywhere under ``DistributedDataParallel``, so a network with batch norm
is not quite the one that a single process trains; the first process's running statistics are evaluated and
kept.
Chapter 6.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from functools import cache

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from ferlib.errors import FerlibError
from ferlib.training.recipes import Recipe


class DeviceError(FerlibError):
    """A device that is not here."""


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The named device ("cpu", "cuda:1"), or the GPU where there is one.

    Raises:
        DeviceError: A device that is not here.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:160]
        raise DeviceError(
            f"no device {str(device)!r} here ({reason}): take cpu, or see `ferlib doctor`"
        ) from None
    return chosen


def is_leader() -> bool:
    """Whether this process writes: the first of those that ``torchrun`` started, or the only one."""
    return not TorchElasticEnvironment.detect() or int(os.environ["RANK"]) == 0


def make_fabric(device: str | torch.device | None = None) -> Fabric:
    """A launched Fabric on this process's device, in its group of processes under ``torchrun``."""
    chosen = choose_device(device)
    if not TorchElasticEnvironment.detect():
        return Fabric(strategy=SingleDeviceStrategy(chosen), plugins=[LightningEnvironment()])
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(
        accelerator=chosen.type,
        devices=here,
        num_nodes=int(os.environ["WORLD_SIZE"]) // here,
        strategy=DDPStrategy(),
    )
    fabric.launch()
    return fabric


def leave_group() -> None:
    """Leave the group of processes, where there is one: the last thing to do."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def total(fabric: Fabric, *numbers: float) -> list[float]:
    """Each number summed over all processes, in 64 bits."""
    if fabric.world_size == 1:
        return list(numbers)
    return fabric.all_reduce(torch.tensor(numbers, dtype=torch.float64), reduce_op="sum").tolist()


def memory_format(recipe: Recipe) -> torch.memory_format:
    """How images lie in memory; channels-last makes convolutions on a CPU some 10 % faster."""
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context of a forward pass: bf16 where the recipe has it ("auto": where that is fast).

    In bf16 matrix products and convolutions take 16-bit numbers with the range of 32-bit ones (so no loss is
    scaled); weights, their gradients and the optimizer stay in 32 bits.
    """
    narrow = precision == "bf16" or (precision == "auto" and computes_bf16(device.type))
    return torch.autocast(device.type, torch.bfloat16, enabled=narrow)


@cache
def computes_bf16(device_type: str) -> bool:
    """Whether a kind of device computes in bf16 itself, and does not imitate it."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("avx512_bf16", "amx_tile") if device_type == "cpu" else ()
    return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in names)


def move(model: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """Put a network on its device, in the recipe's memory format, compiled if the recipe has it so.

    Compiling is in place: names and class stay. Where no compiler works the network stays as it is, and one
    line on standard error says why.
    """
    model.to(device, memory_format=memory_format(recipe))
    if recipe.compile == "always" or (recipe.compile == "gpu" and device.type == "cuda"):
        if problem := compiler_problem(device.type):
            print(f"not compiled, so somewhat slower: {problem}", file=sys.stderr)
        else:
            model.compile()
    return model


@cache
def compiler_problem(device_type: str = "cpu") -> str | None:
    """Why ``torch.compile`` cannot be used on a kind of device, found by trying it once; None if it can."""
    try:
        probe = torch.compile(lambda x: (x.sin() + 1).sum())
        with torch.random.fork_rng(devices=[]):
            probe(torch.ones(8, device=device_type))
    except Exception as error:  # a missing compiler, an old Python, an unsupported system: each its own kind
        return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    return None
