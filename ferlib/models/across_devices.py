"""The batch of all devices as one: in distributed training, each process sees only its share of the batch.

Batch attention would then look at a share only, and the network would change with the number of devices. Keys
and values of all processes are therefore gathered before they are attended to. Chapter 4.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def is_shared() -> bool:
    """Whether the batch is spread over several processes. Shape: nothing in, a truth value out."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_batch(tensor: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; unchanged where there is one process.

    Gradients flow back: a row receives what all processes ask of it. Losses that are means over each
    process's share, and DistributedDataParallel's mean over processes, then give the gradients of one process
    with the whole batch. All processes have to call it; their shares may differ in size.

    Shape: (B_r, ...) in process r -> (B_1 + B_2 + ..., ...). Source: ``torch.distributed.nn``. Chapter 4.
    """
    if not is_shared():
        return tensor
    own = torch.tensor([len(tensor)], device=tensor.device)
    sizes = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, own)
    counts = [int(size) for size in sizes]
    missing = max(counts) - len(tensor)
    padded = torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))]) if missing else tensor
    shares = all_gather(padded.contiguous())
    return torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])
