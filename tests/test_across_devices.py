"""Batch attention over two processes equals one process with the whole batch; and answers of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ferlib.models import BatchTransformerNetwork, btn_small
from ferlib.models.batch_transformer import class_batch_attention, gather_batch, is_shared

CLASSES = 5


class Patches(nn.Module):
    """147 tokens from 147 patches of 4 x 4, without batch norm, whose statistics are each process's own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(images).flatten(2).transpose(1, 2)


def network() -> BatchTransformerNetwork:
    torch.manual_seed(0)
    net = BatchTransformerNetwork(CLASSES, encoder=Patches(16), dim=16, depth=1, heads=2, encoding="learned")
    with torch.no_grad():
        net.levels.class_query.weight *= 20  # attention that prefers somebody
    return net.double()


def faces(count: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 28, 84, generator=draw, dtype=torch.float64)
    return images, torch.arange(count) % CLASSES


def loss_of(outputs, labels: Tensor) -> Tensor:
    return sum(F.cross_entropy(logits, labels) for logits in outputs)


def worker(rank: int, sizes: list[int], folder: str) -> None:
    """One of two processes: its share of the batch, one backward pass, what came out."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(sizes))
    assert is_shared()
    images, labels = faces(sum(sizes))
    share = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    model = DistributedDataParallel(network())
    outputs = model(images[share])
    loss_of(outputs, labels[share]).backward()
    gradients = {name: p.grad for name, p in model.module.named_parameters()}
    rows = torch.arange(3.0 * (rank + 1)).view(-1, 3)
    found = {"outputs": list(outputs), "gradients": gradients, "rows": gather_batch(rows)}
    model.eval()
    if rank == 0:  # evaluation does not wait for the other process
        found["alone"] = model.module(images[:1]).detach()
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def together(sizes: list[int], folder: Path) -> list[dict]:
    mp.spawn(worker, (sizes, str(folder)), nprocs=len(sizes), join=True)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(len(sizes))]


def test_two_processes_are_one_batch(tmp_path):
    images, labels = faces(6)
    whole = network()
    outputs = whole(images)
    loss_of(outputs, labels).backward()
    parts = together([3, 3], tmp_path)
    for n, expected in enumerate(outputs):
        torch.testing.assert_close(torch.cat([part["outputs"][n] for part in parts]), expected)
    for part in parts:
        for name, parameter in whole.named_parameters():
            torch.testing.assert_close(part["gradients"][name], parameter.grad, msg=name)
    torch.testing.assert_close(
        parts[1]["rows"], torch.cat([torch.arange(3.0), torch.arange(6.0)]).view(-1, 3)
    )
    torch.testing.assert_close(parts[0]["alone"], whole.eval()(images[:1]).detach())


def test_shares_of_different_size(tmp_path):
    images, _ = faces(6)
    whole = network()(images)
    parts = together([4, 2], tmp_path)
    torch.testing.assert_close(torch.cat([part["outputs"][1] for part in parts]), whole.bt)


def test_others_may_answer():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 7), torch.randn(6, 4, 7), torch.randn(6, 4)
    out, weights = class_batch_attention(query, key, value, return_weights=True)
    assert weights.shape == (4, 3, 6)
    torch.testing.assert_close(out, torch.einsum("cij,jc->ic", weights, value))
    with pytest.raises(ValueError, match=r"key \(M, C, E\)"):
        class_batch_attention(query, key, value[:5])


def test_with_a_reference_the_neighbours_do_not_matter():
    torch.manual_seed(0)
    net = btn_small(7, inference="bt").train()
    crowd, mine = torch.randn(9, 3, 48, 48), torch.randn(4, 3, 48, 48)
    net(torch.cat([crowd, mine]))  # moves the batch norms' statistics
    keys = list(net.state_dict())
    assert net.training
    net.set_reference(crowd)
    assert net.training and list(net.state_dict()) == keys
    net.eval()
    with torch.no_grad():
        together, alone = net(mine), torch.cat([net(face[None]) for face in mine])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        net.set_reference(None)
        free = net.outputs(mine[:1])
        by_hand = net.outputs(torch.cat([mine[:1], crowd])).bt[:1]  # itself and the crowd: the same question
        torch.testing.assert_close(alone[:1], by_hand, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(free.bt, 2 * free.vit)
