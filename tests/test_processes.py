"""Two processes that torchrun starts are one process with the whole batch, batch attention included."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ferlib.data.base import FaceDataset
from ferlib.losses import BatchTransformerLoss
from ferlib.models import BatchTransformerNetwork, btn_small
from ferlib.training import Recipe, fit
from ferlib.training.batches import Batches, own_share
from ferlib.training.device import is_leader, leave_group, make_fabric, total
from ferlib.weights import checkpoints

ROOT = Path(__file__).resolve().parents[1]
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
    options = {"encoder": Patches(16), "dim": 16, "depth": 1, "heads": 2, "encoding": "learned"}
    net = BatchTransformerNetwork(CLASSES, **options)
    with torch.no_grad():
        net.levels.class_query.weight *= 20  # attention that prefers somebody
    return net.double()


RECIPE = Recipe(
    name="shared", loss="cross-entropy", epochs=2, batch_size=6, accumulate=2, lr=1e-3, warmup=0.5
)
RECIPE = RECIPE.replace(
    ema=0.9, sam_rho=0.05, clip=1.0, augment="flip-erase", balance=True, channels_last=False
)


class Wide(FaceDataset):
    """Noise of 28 x 84 pixels, which the test's network cuts into 147 patches."""

    classes = tuple("abcde")

    def __init__(self, count: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (count, 1, 28, 84), generator=draw, dtype=torch.uint8)
        self.labels = torch.arange(count) % CLASSES

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self.labels[index])}


class Exact(nn.Module):
    """The network in 64 bits, where the order of additions does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, images: Tensor) -> Any:
        return self.net(images.double())


def train(folder: Path) -> tuple[Exact, list[dict[str, Any]]]:
    """The run, in however many processes there are; batches of 5 + 5 + ... faces of 27, judged in three."""
    torch.set_num_threads(1)
    model = Exact()
    criterion = BatchTransformerLoss(nn.CrossEntropyLoss())
    options = {"run_dir": folder, "progress": None, "device": "cpu"}
    return model, fit(model, criterion, Wide(27, 1), Wide(14, 2), RECIPE, **options)


def test_two_processes_end_with_the_weights_of_one(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command += ["-m", "tests.test_processes", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    first, second = (checkpoints.load(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    assert first["history"] == second["history"]
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name]), name

    alone, history = train(tmp_path / "alone")
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(first["model"][name], tensor, rtol=1e-7, atol=1e-9, msg=name)
    pairs = zip(alone.parameters(), type(alone)().parameters(), strict=True)
    moved = max((a - b).abs().max().item() for a, b in pairs)
    assert moved > 1e-3  # what agrees is not the start
    for ours, theirs in zip(history, first["history"], strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"seconds"}:
            assert theirs[key] == pytest.approx(ours[key], rel=1e-6), key
    facts = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert facts["processes"] == 2 and len(facts["starts"]) == 1  # the first process alone has written


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


def test_shares_cover_every_batch_once():
    data = Wide(27, 1)
    recipe = RECIPE.replace(batch_size=7, accumulate=1, balance=False)
    for shuffle in (True, False):
        options = [{"shuffle": shuffle, "place": place} for place in ((0, 1), (0, 3), (1, 3), (2, 3))]
        passes = [Batches(data, recipe, torch.device("cpu"), **option).read(3) for option in options]
        whole, *parts = ([batch.names for batch in one] for one in passes)
        if shuffle:  # each process has a part of every batch
            joined = [[*a, *b, *c] for a, b, c in zip(*parts, strict=True)]
        else:  # or whole batches, since an answer may depend on the batch
            joined = [parts[n % 3][n // 3] for n in range(len(whole))]
        assert joined == whole
    assert [own_share(7, r, 3) for r in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 7)]
    with pytest.raises(ValueError, match="no face for each of 9 processes"):
        Batches(data, recipe, torch.device("cpu"), shuffle=True, place=(0, 9))


def test_one_process_is_a_group_of_its_own():
    fabric = make_fabric("cpu")
    assert is_leader() and fabric.world_size == 1 and fabric.device == torch.device("cpu")
    assert total(fabric, 1, 2.5) == [1, 2.5]


if __name__ == "__main__":  # one of the processes that torchrun starts
    root = Path(sys.argv[1])
    model, history = train(root / "run")
    checkpoints.save(root / f"rank{os.environ['RANK']}.safetensors", model, {"history": history})
    leave_group()
