"""One process or many: Lightning Fabric finds the device, starts the group, and averages the gradients.

``torchrun --nproc-per-node 4 -m ferlib train ...`` starts four processes with the same words. Each gets its
own GPU (or its share of the CPU) and its share of every batch; after each backward pass all have the mean of
the gradients, so they stay equal to each other. What is written is written by the first one.

Batch attention sees the whole batch (``ferlib.models.batch_transformer``). Batch norm does not: it normalizes
by the share of its own process, as everywhere under ``DistributedDataParallel``, so a network with batch norm
is not quite the one that a single process trains; the first process's running statistics are judged and kept.
Chapter 6.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ferlib.training.device import choose_device


def is_leader() -> bool:
    """Whether this process speaks and writes: the first of those that ``torchrun`` started, or the only one.

    Shape: nothing in, a truth value out. Chapter 6.
    """
    return not TorchElasticEnvironment.detect() or int(os.environ["RANK"]) == 0


def make_fabric(device: str | torch.device | None = None) -> Fabric:
    """This process's place: a device of its own and, under ``torchrun``, a seat in the group.

    Shape: a device's name or None (see ``choose_device``) in, a launched Fabric out. Raises ``DeviceError``
    for a device that is not here. Chapter 6.
    """
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


def leave() -> None:
    """Leave the group of processes, where there is one: the last thing to do. Shape: nothing in or out."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def total(fabric: Fabric, *numbers: float) -> list[float]:
    """Each number summed over all processes, in 64 bits. Shape: n numbers in, n numbers out."""
    if fabric.world_size == 1:
        return list(numbers)
    return fabric.all_reduce(torch.tensor(numbers, dtype=torch.float64), reduce_op="sum").tolist()


def own_share(count: int, rank: int, world: int) -> slice:
    """Which of ``count`` rows belong to process ``rank`` of ``world``; shares differ by at most one.

    Shape: three numbers in, a slice out. Chapter 6.
    """
    return slice(count * rank // world, count * (rank + 1) // world)


def unsynchronised(network: nn.Module) -> AbstractContextManager:
    """A backward pass inside keeps its gradients to this process until the next one outside.

    Shape: a network, shared or not, in; a context manager out.
    """
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@torch.no_grad()
def make_equal(fabric: Fabric, module: nn.Module) -> None:
    """Give every process the first one's buffers (batch statistics). Shape: a module, changed in place."""
    if fabric.world_size > 1:
        buffers: list[Tensor] = list(module.buffers())
        for own, first in zip(buffers, fabric.broadcast([b.cpu() for b in buffers]), strict=True):
            own.copy_(first)
