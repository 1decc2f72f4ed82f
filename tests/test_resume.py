"""A run that is killed anywhere, any number of times, ends with the bits of one that never was."""

from __future__ import annotations

import copy
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ferlib.cli import main
from ferlib.training import Recipe, fit
from ferlib.training.progress import Progress
from ferlib.training.runs import Interrupt
from ferlib.weights import checkpoints
from tests.tiny import Spots, net, train_words

ROOT = Path(__file__).resolve().parents[1]
RECIPE = Recipe(
    name="tiny",
    loss="cross-entropy",
    epochs=3,
    batch_size=8,
    lr=1e-2,
    warmup=0.5,
    augment="light",
    ema=0.9,
    sam_rho=0.05,
)
TRAIN, VALID = Spots(40, seed=1), Spots(24, seed=2)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def history(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def leaves(value, path="") -> dict:
    """Every tensor and number of a nested state by its path, but the clock."""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        found = {}
        for key, entry in pairs:
            if key not in ("seconds", "save_minutes"):
                found |= leaves(entry, f"{path}/{key}")
        return found
    return {path: value}


def assert_same(left: Path, right: Path) -> None:
    pair = [leaves(checkpoints.load(path)) for path in (left, right)]
    assert pair[0].keys() == pair[1].keys() and len(pair[0]) > 5
    for name, value in pair[0].items():
        other = pair[1][name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


def assert_same_run(left: Path, right: Path) -> None:
    assert history(left) == history(right)
    for name in ("last.state.safetensors", "last.safetensors", "best.safetensors"):
        assert_same(left / name, right / name)


def test_kills_at_random_moments_change_no_bit(tmp_path):
    """SAM, Adam's moments, averaged weights, dropout, augmentation, balance, clipping, accumulation."""
    seed = int(os.environ.get("FERLIB_KILL_SEED") or secrets.randbelow(10**6))
    print(f"FERLIB_KILL_SEED={seed} repeats these kills")
    words = [sys.executable, "-m", "tests.killed", str(tmp_path), str(seed), "6"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=1200)
    print(done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0] == "done" and lines[-1].endswith("done (none 0)")
    assert sum(": killed (" in line for line in lines) == 6
    finished = sorted(tmp_path.glob("killed*/end.safetensors"))
    assert finished
    for end in finished:
        assert_same_run(tmp_path / "whole", end.parent)
        assert_same(tmp_path / "whole" / end.name, end)
        assert not list(end.parent.glob(".*.*.*"))  # no half of a file is left behind


def test_the_command_is_interrupted_and_goes_on_as_it_says(tmp_path, monkeypatch):
    words = train_words(48, "--batch-size", "8", "--epochs", "2", "--quiet", "--device", "cpu")
    torch.set_num_threads(1)
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    state = tmp_path / "run" / "last.state.safetensors"
    command = [sys.executable, "-m", "ferlib", *words, "--out", "run", "--save-minutes", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), **pipes)
    while not state.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130, (out, err)
    line = err.splitlines()[-1]
    assert line.startswith("ferlib train: stopped (epoch ") and "Traceback" not in err
    command = shlex.split(line.partition("go on with: ")[2])
    assert command[:3] == ["ferlib", "train", "--resume"]
    monkeypatch.chdir(tmp_path)
    assert main(command[1:]) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def quiet_fit(model, folder: Path, train=TRAIN, **options) -> list[dict]:
    options = {"run_dir": folder, "progress": None, "device": "cpu"} | options
    return fit(model, nn.CrossEntropyLoss(), train, VALID, RECIPE, **options)


def interrupted(folder: Path, steps: int, **options) -> KeyboardInterrupt:
    """A run that hears Ctrl-C in a step of its choice."""

    class Hand(Progress):
        left = steps

        def step(self, epoch: int, step: int, loss: float) -> None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        quiet_fit(net(), folder, progress=Hand(), **options)
    return stopped.value


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    whole = net()
    quiet_fit(whole, tmp_path / "a")
    for steps, at in ((2, "epoch 1, step 2"), (5, "epoch 1, step 5"), (8, "epoch 2, step 3")):
        folder = tmp_path / str(steps)
        message = str(interrupted(folder, steps))
        assert message.startswith(at) and "resume=True goes on" in message and str(folder) in message
        assert signal.getsignal(signal.SIGINT) is handler
        resumed = net(seed=5)
        quiet_fit(resumed, folder, resume=True)
        assert_same_run(tmp_path / "a", folder)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    starts = json.loads((tmp_path / "8" / "environment.json").read_text())["starts"]
    assert [start["from"] for start in starts] == ["the beginning", "epoch 2, step 3"]
    assert all(start["command"] and start["started"] for start in starts)


def test_a_second_ctrl_c_stops_at_once():
    with Interrupt() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGINT)  # the same wish, told twice
        stop.since -= 2
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt, match="at once"):
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_callback_and_workers_change_no_number(tmp_path):
    def restless(model, record):
        torch.manual_seed(record["epoch"])
        torch.rand(3)
        np.random.rand(2)

    runs = {"plain": {}, "callback": {"on_epoch": restless}, "workers": {"workers": 2}}
    for name, options in runs.items():
        quiet_fit(net(), tmp_path / name, **options)
        assert_same_run(tmp_path / "plain", tmp_path / name)


def test_other_faces_than_the_run_began_with_are_refused(tmp_path):
    interrupted(tmp_path, 3)
    with pytest.raises(checkpoints.CheckpointError, match="began with other faces"):
        quiet_fit(net(), tmp_path, Spots(48), resume=True)
    other = copy.copy(TRAIN)
    other.images = 255 - other.images  # other pictures, the same labels
    with pytest.raises(checkpoints.CheckpointError, match="began with other faces"):
        quiet_fit(net(), tmp_path, other, resume=True)
    path = tmp_path / "last.state.safetensors"
    stored = checkpoints.load(path)
    stored["labels"] = [
        " ".join(code.split()[:2]) for code in stored["labels"]
    ]  # as states of before have it
    checkpoints.save(path, stored.pop("model"), stored)
    quiet_fit(net(), tmp_path, resume=True)


def test_a_resumed_run_never_replaces_another(tmp_path):
    recipe = RECIPE.replace(epochs=1)
    for name, seed in (("a", 1), ("b", 2)):
        fit(net(seed), nn.CrossEntropyLoss(), TRAIN, VALID, recipe, run_dir=tmp_path / name, progress=None)
    before = {path.name: path.read_bytes() for path in (tmp_path / "b").glob("[!.]*")}
    with pytest.raises(checkpoints.CheckpointError, match="holds another run"):
        quiet_fit(net(), tmp_path / "b", resume=tmp_path / "a")
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").glob("[!.]*")} == before
    fit(net(), nn.CrossEntropyLoss(), TRAIN, VALID, recipe, run_dir=tmp_path / "c", resume=tmp_path / "a")
    assert (tmp_path / "c" / "best.safetensors").read_bytes() == (
        tmp_path / "a" / "best.safetensors"
    ).read_bytes()
