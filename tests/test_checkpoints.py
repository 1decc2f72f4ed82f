"""Checkpoints are whole, strict and free of pickle."""

import copy
import functools
import json
import os
import pickle
import random
import secrets
import struct

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ferlib.training import Recipe, TrainingError, fit
from ferlib.weights import checkpoints
from tests.tiny import Net, Spots, net


def test_weights_and_state_come_back(tmp_path):
    model = net()
    state = {
        "epoch": 3,
        "best": 0.5,
        "name": "x",
        "none": None,
        "yes": True,
        "betas": (0.9, 0.999),
        "moments": {0: {"step": torch.tensor(4.0), "exp_avg": torch.randn(3, 2)}, 1: {}},
        "list": [1, {"a": torch.arange(3)}],
        "big": 2**40,
        "tiny": 0.1 + 0.2,
    }
    path = checkpoints.save(tmp_path / "new" / "a.safetensors", model, state)
    assert model.state_dict().keys() <= load_file(path).keys()  # any program that reads safetensors
    with pytest.raises(checkpoints.CheckpointError, match="state/model is a Net"):
        checkpoints.save(path, model, {"model": net()})
    other = net(seed=1)
    found = checkpoints.load(path, other)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    torch.testing.assert_close(found.pop("moments"), state.pop("moments"), rtol=0, atol=0)
    assert torch.equal(found["list"][1].pop("a"), state["list"][1].pop("a"))
    assert found == state
    assert isinstance(found["betas"], tuple)


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
        "cut.safetensors": "truncated",
        "head.safetensors": "truncated",
        "empty.safetensors": "truncated",
        "old.pth": "pickle",
        "new.pth": "pickle",
        "missing.safetensors": "no checkpoint",
        "classes.safetensors": r"'head.weight' has shape \(7, 128\), Net expects \(4, 128\)",
        "other.safetensors": "another network",
    }
    for name, message in cases.items():
        with pytest.raises(checkpoints.CheckpointError, match=message):
            checkpoints.load(tmp_path / name, model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def _raw(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _header(**entries) -> bytes:
    return json.dumps(entries).encode()


def hostile_files() -> dict[str, bytes]:
    """Files that only look like safetensors: each lies about itself in its own way."""
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    deep = b"[" * 200_000 + b"]" * 200_000
    state = {"__metadata__": {"state": ""}, "x": good}

    def stated(text: str) -> bytes:
        return _raw(json.dumps({**state, "__metadata__": {"state": text}}).encode(), bytes(8))

    return {
        "header longer than the file": _raw(_header(x=good), length=10**6),
        "no json": _raw(b"{not json}", bytes(8)),
        "deep json": _raw(deep),
        "overlapping": _raw(_header(x=good, y=good), bytes(8)),
        "hole": _raw(_header(x=good, y={**good, "data_offsets": [16, 24]}), bytes(24)),
        "beyond the end": _raw(_header(x={**good, "shape": [100], "data_offsets": [0, 400]}), bytes(8)),
        "overflowing shape": _raw(_header(x={**good, "shape": [2**62, 4, 2]}), bytes(8)),
        "negative shape": _raw(_header(x={**good, "shape": [-2]}), bytes(8)),
        "unknown numbers": _raw(_header(x={**good, "dtype": "F99"}), bytes(8)),
        "backward offsets": _raw(_header(x={**good, "data_offsets": [8, 0]}), bytes(8)),
        "deep state": stated("[" * 100_000 + "]" * 100_000),
        "state that is no state": stated("[1, 2"),
        "state of a wrong kind": stated('{"__items__": 5}'),
        "state that points nowhere": stated('{"__tensor__": "state/none"}'),
        "state that points oddly": stated('{"__items__": [["a", {"__tensor__": [1]}]]}'),
        "state that is a list": stated("[1]"),
        "state with odd keys": stated('{"__items__": [[[1], 2]]}'),
        "other numbers": _raw(_header(**{"head.bias": {**good, "dtype": "I64", "shape": [1]}}), bytes(8)),
    }


@pytest.mark.parametrize("name", hostile_files())
def test_a_hostile_file_is_one_error_and_the_model_is_left_alone(tmp_path, name):
    path, model = tmp_path / "evil.safetensors", nn.Module()
    model.x = nn.Parameter(torch.ones(2))
    path.write_bytes(hostile_files()[name])
    with pytest.raises(checkpoints.CheckpointError, match=r"evil\.safetensors"):
        checkpoints.load(path, model)
    assert torch.equal(model.x, torch.ones(2))
    if "state" in name or "deep" in name:
        with pytest.raises(checkpoints.CheckpointError, match=r"evil\.safetensors"):
            checkpoints.peek(path)


def paths(value, start=()):
    """The place of every entry of a nested state."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in pairs:
        yield (*start, key)
        yield from paths(entry, (*start, key))


def test_a_state_with_an_odd_entry_is_one_error_or_goes_on(tmp_path):
    """60 times another entry of a run's state is removed or replaced by something of another kind."""
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    recipe = Recipe(name="tiny", loss="cross-entropy", epochs=2, batch_size=16, ema=0.9, schedule="constant")
    sets, options = (Spots(32), Spots(16)), {"progress": None, "device": "cpu"}
    fit(net(), nn.CrossEntropyLoss(), *sets, recipe.replace(epochs=1), run_dir=tmp_path / "run", **options)
    stored = checkpoints.load(tmp_path / "run" / "last.state.safetensors")
    odd = [None, 5, -3, 1.5, "x", [], [None] * 3, {"a": 1}, True, torch.zeros(2), float("nan")]
    refused = 0
    for _ in range(60):
        state = copy.deepcopy(stored)
        model = state.pop("model")
        *inside, key = draw.choice(list(paths(state)))
        place = functools.reduce(lambda entry, inner: entry[inner], inside, state)
        if draw.random() < 0.2:
            del place[key]
        else:
            place[key] = draw.choice(odd)
        path = checkpoints.save(tmp_path / "odd.safetensors", model, state)
        try:
            fit(net(), nn.CrossEntropyLoss(), *sets, recipe, resume=path, **options)
        except (checkpoints.CheckpointError, TrainingError):
            refused += 1
    assert refused > 30
