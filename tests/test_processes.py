"""Two processes that torchrun starts are one process with the whole batch, batch attention included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ferlib.training.batches import Batches, own_share
from ferlib.training.device import is_leader, make_fabric, total
from ferlib.weights import checkpoints
from tests.shared_batch import RECIPE, Wide, train

ROOT = Path(__file__).resolve().parents[1]


def test_two_processes_end_with_the_weights_of_one(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "-m", "tests.shared_batch", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
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
