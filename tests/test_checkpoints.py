"""Checkpoints are whole, strict and free of pickle."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ferlib.training import SAM, checkpoints
from tests.tiny import Net, net


def test_weights_and_state_come_back(tmp_path):
    model = net()
    state = {
        "epoch": 3, "best": 0.5, "name": "x", "none": None, "yes": True, "betas": (0.9, 0.999),
        "moments": {0: {"step": torch.tensor(4.0), "exp_avg": torch.randn(3, 2)}, 1: {}},
        "list": [1, {"a": torch.arange(3)}], "big": 2**40, "tiny": 0.1 + 0.2,
    }  # fmt: skip
    path = checkpoints.save(tmp_path / "new" / "a.safetensors", model, state)
    other = net(seed=1)
    found = checkpoints.load(path, other)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    torch.testing.assert_close(found.pop("moments"), state.pop("moments"), rtol=0, atol=0)
    assert torch.equal(found["list"][1].pop("a"), state["list"][1].pop("a"))
    assert found == state
    assert isinstance(found["betas"], tuple)


def test_any_program_that_reads_safetensors_reads_the_weights(tmp_path):
    path = checkpoints.save(tmp_path / "a.safetensors", net())
    assert load_file(path).keys() == net().state_dict().keys()
    assert checkpoints.load(path).keys() == {"model"}


def test_an_optimiser_goes_on_from_its_state(tmp_path):
    model = net()
    optimiser = SAM(model.parameters(), torch.optim.AdamW, lr=1e-3)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    model.eval()

    def step(model, optimiser):
        def closure():
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            return loss

        optimiser.step(closure)

    step(model, optimiser)
    path = checkpoints.save(tmp_path / "a.safetensors", model, {"optimiser": optimiser.state_dict()})
    other = net(seed=1).eval()
    resumed = SAM(other.parameters(), torch.optim.AdamW, lr=1e-3)
    resumed.load_state_dict(checkpoints.load(path, other)["optimiser"])
    step(model, optimiser)
    step(other, resumed)
    assert torch.equal(model.head.weight, other.head.weight)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = checkpoints.save(tmp_path / "a.safetensors", net(), {"epoch": 1})

    def full(tensors, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(checkpoints.CheckpointError, match="No space left"):
        checkpoints.save(path, net(seed=1), {"epoch": 2})
    assert checkpoints.load(path, net(seed=3))["epoch"] == 1
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_what_is_no_checkpoint_is_told_and_the_model_left_alone(tmp_path):
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = checkpoints.save(tmp_path / "a.safetensors", net(seed=1))
    whole = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "head.safetensors").write_bytes(whole[:40])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with open(tmp_path / "old.pth", "wb") as file:
        pickle.dump({"weight": [1, 2]}, file)
    torch.save(net().state_dict(), tmp_path / "new.pth")
    checkpoints.save(tmp_path / "classes.safetensors", Net(num_classes=7))
    checkpoints.save(tmp_path / "other.safetensors", nn.Linear(2, 2))
    cases = {
        "cut.safetensors": "truncated", "head.safetensors": "truncated", "empty.safetensors": "truncated",
        "old.pth": "pickle", "new.pth": "pickle", "missing.safetensors": "no checkpoint",
        "classes.safetensors": r"'head.weight' has shape \(7, 128\), Net expects \(4, 128\)",
        "other.safetensors": "another architecture",
    }  # fmt: skip
    for name, message in cases.items():
        with pytest.raises(checkpoints.CheckpointError, match=message):
            checkpoints.load(tmp_path / name, model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_cannot_be_kept_without_pickle_is_refused(tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match="state/model is a Net"):
        checkpoints.save(tmp_path / "a.safetensors", net(), {"model": net()})
    assert not (tmp_path / "a.safetensors").exists()


def test_from_official_is_here_too():
    from ferlib.models.official import from_official

    assert checkpoints.from_official is from_official
