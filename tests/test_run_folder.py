"""A run's folder: whole, re-runnable, with one writer; disks that are full or read-only."""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from ferlib.cli import main
from ferlib.data.base import fingerprint
from ferlib.training import Recipe, TrainingError, build_criterion, fit, load_recipe
from ferlib.training.environment import versions
from ferlib.training.runs import RunFolder, only_writer, state_file
from ferlib.weights import CheckpointError, checkpoints
from tests.tiny import Net, Spots, net, train_words

RECIPE = Recipe(name="tiny", loss="cross-entropy", epochs=3, batch_size=16, lr=1e-2, augment="light", ema=0.9)
TRAIN, VALID = Spots(64, seed=1), Spots(40, seed=2)


def run(folder, recipe=RECIPE, model=None, **options):
    options = {"run_dir": folder, "progress": None, "device": "cpu"} | options
    return fit(model or net(), nn.CrossEntropyLoss(), TRAIN, VALID, recipe, **options)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load(path)["model"]


def test_the_folder_tells_everything_and_its_recipe_runs_again(tmp_path):
    first, second, model = tmp_path / "first", tmp_path / "second", net()
    history = run(first, model=model)
    facts = json.loads((first / "environment.json").read_text())
    assert facts["torch"] == torch.__version__ and facts["computes on"] == "cpu" and facts["commit"]
    told = facts["data"]["train"]
    assert (told["kind"], told["faces"], told["fingerprint"]) == ("Spots", 64, fingerprint(TRAIN))
    (start,) = facts["starts"]
    assert start["process"] == os.getpid() and start["started"] and start["command"]
    assert state_file(first) == state_file(first / "last.safetensors") == first / "last.state.safetensors"
    for name, tensor in model.state_dict().items():  # the average: what the metrics are of
        assert torch.equal(weights(first / "last.safetensors")[name], tensor)
    stored = checkpoints.load(first / "last.safetensors")
    assert stored.keys() == {"model", "epoch", "step", "recipe", "record", "classes"}
    assert stored["classes"] == list(Spots.classes)
    recipe = load_recipe(first / "recipe.yaml")
    fit(net(), build_criterion(recipe), TRAIN, VALID, recipe, run_dir=second, progress=None, device="cpu")
    for name in ("best.safetensors", "last.safetensors"):  # to the byte: the clock is not in them
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert len(history) == 3


def test_files_that_follow_from_the_state_are_written_again(tmp_path):
    run(tmp_path)
    names = ("last.safetensors", "metrics.jsonl", "log.txt")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    (tmp_path / "last.safetensors").write_bytes(b"half")
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "log.txt").write_text("")
    run(tmp_path, resume=True)
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_a_fresh_start_does_not_destroy_a_run(tmp_path):
    run(tmp_path)
    kept = (tmp_path / "best.safetensors").read_bytes()
    for name in ("last.state.safetensors", "last.safetensors"):
        with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
            run(tmp_path)
        (tmp_path / name).write_bytes(b"damaged")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        run(tmp_path / "file" / "run")
    assert (tmp_path / "best.safetensors").read_bytes() == kept
    (tmp_path / "test.json").write_text("of the old run")
    other = RECIPE.replace(lr=2e-2)
    run(tmp_path, other, overwrite=True)
    assert load_recipe(tmp_path / "recipe.yaml") == other and not (tmp_path / "test.json").exists()


NAMES = ("log.txt", "run.json", "tensorboard")


@pytest.mark.parametrize("name", NAMES)
def test_files_in_a_folder_that_is_no_runs_are_not_replaced(tmp_path, name):
    run(tmp_path / "other", RECIPE.replace(epochs=1))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text('{"ferlib": "my notes"}')
    (folder / "holiday.txt").write_text("mine")
    options = {"notes": {"run.json": "{}"}, "recipe": RECIPE.replace(epochs=1)}
    for more in ({}, {"resume": tmp_path / "other"}, {}):
        with pytest.raises(CheckpointError, match=re.escape(str(folder / name))):
            run(folder, **options, **more)
    assert (folder / name).read_text() == '{"ferlib": "my notes"}'
    assert {path.name for path in folder.iterdir()} == {name, "holiday.txt", ".lock"}
    if name != "tensorboard":
        assert len(run(folder, **options, overwrite=True)) == 1
    assert (folder / "holiday.txt").read_text() == "mine"


@pytest.mark.parametrize("files", [0, 2])
def test_a_folder_left_by_a_kill_in_the_first_epoch_begins_afresh(tmp_path, files):
    folder, written = tmp_path / "run", []

    class Killed(BaseException):
        pass

    class Folder(RunFolder):
        def _write(self, name, text):
            if len(written) == files:
                raise Killed
            written.append(name)
            super()._write(name, text)

    with pytest.raises(Killed), Folder(folder, RECIPE, notes={"run.json": "{}"}) as one:
        one.start(versions)
        raise Killed  # in the first epoch
    assert written == ["environment.json", "recipe.yaml", "run.json"][:files]
    assert len(run(folder, notes={"run.json": "{}"})) == 3


class Renamed(Spots):
    classes = tuple(reversed(Spots.classes))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


OTHERS = [
    {"recipe": {"lr": 2e-2}},
    {"train": Spots(64, seed=5)},
    {"valid": Spots(24)},
    {"train": Renamed(64, seed=1), "valid": Renamed(40, seed=2)},
    {"format": 1},
    {"history": [1]},
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: "-".join(other))
def test_a_refused_resume_writes_nothing(tmp_path, other):
    recipe = RECIPE.replace(schedule="constant", epochs=2)
    old, new = tmp_path / "old", tmp_path / "new"
    run(old, recipe)
    before = contents(old)
    data = other.get("train", TRAIN), other.get("valid", VALID)
    state = old / "last.state.safetensors"
    if damage := {key: value for key, value in other.items() if key in ("format", "history", "step")}:
        stored = checkpoints.load(state)
        state = checkpoints.save(tmp_path / "last.state.safetensors", stored.pop("model"), stored | damage)
    longer, options = recipe.replace(epochs=3), {"progress": None, "notes": {"run.json": "{}"}}
    asked = longer.replace(**other.get("recipe", {}))
    for folder in (old, new):
        with pytest.raises(CheckpointError):
            fit(net(), nn.CrossEntropyLoss(), *data, asked, run_dir=folder, resume=state, **options)
    assert contents(old) == before and not new.exists()
    assert len(run(new, longer, resume=old, **options)) == 3
    assert (new / "run.json").read_text() == "{}" and contents(old) == before


def _hold(folder: Path, pipe) -> None:
    with only_writer(folder):
        if os.fork() == 0:  # as a process that reads data does: it lives on, and holds nothing
            time.sleep(20)
            os._exit(0)
        pipe.send("held")
        time.sleep(60)


@contextlib.contextmanager
def another_writer(folder: Path) -> Iterator[multiprocessing.Process]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(folder, theirs))
    process.start()
    assert ours.recv() == "held"
    try:
        yield process
    finally:
        process.kill()
        process.join()


def test_a_second_writer_is_refused_and_a_dead_one_holds_nothing(tmp_path, capsys):
    folder = tmp_path / "run"
    with another_writer(folder) as process:
        with pytest.raises(CheckpointError) as refused:
            run(folder)
        assert str(folder) in str(refused.value) and f"process {process.pid} on " in str(refused.value)
        assert main(train_words(16, "--out", str(folder))) == 1
        told = capsys.readouterr().err
        assert "is being written by process" in told and told.count("\n") == 1
        assert [path.name for path in folder.iterdir()] == [".lock"]  # nothing was touched
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert len(run(folder)) == 3
    with only_writer(folder), only_writer(folder):  # a process may enter its own folder twice
        pass


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, where this process may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all room but a little; returns the file that took it."""
    filler = disk / "filler"
    with open(filler, "wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    with open(filler, "rb+") as file:
        file.truncate(filler.stat().st_size - 3 * 4096)
    return filler


def test_a_full_disk_is_one_error_and_the_last_checkpoint_survives(tmp_path):
    whole = net()
    run(tmp_path / "whole", model=whole)
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(CheckpointError, match=r"cannot write .*No space left.*previous checkpoint"):
            run(disk / "run", on_epoch=lambda _, record: record["epoch"] == 2 and fill(disk))
        assert len(checkpoints.load(disk / "run" / "last.state.safetensors")["history"]) == 1
        assert weights(disk / "run" / "last.safetensors") and weights(disk / "run" / "best.safetensors")
        (disk / "filler").unlink()
        resumed = net(seed=4)
        assert len(run(disk / "run", model=resumed, resume=True)) == 3
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_folder_that_is_removed_in_mid_run_is_not_made_again(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(CheckpointError, match="was removed"):
        run(folder, on_epoch=lambda _, record: record["epoch"] == 2 and shutil.rmtree(folder))
    assert not folder.exists()


@pytest.mark.parametrize(("spoiled", "sound"), [(1, False), (2, True)])
def test_the_last_checkpoint_is_called_sound_where_there_is_one(tmp_path, spoiled, sound):
    model = net()

    def spoil(_, record):
        if record["epoch"] == spoiled:
            model.conv.weight.data.fill_(float("nan"))

    with pytest.raises(TrainingError, match="lower lr") as error:
        run(tmp_path, model=model, on_epoch=spoil)
    assert ("is sound" in str(error.value)) == sound


def test_one_face_is_no_batch_for_batch_norm(tmp_path):
    one = Net()
    one.norm = nn.BatchNorm1d(4)
    one.forward = lambda images: one.norm(images.flatten(1)[:, :4])
    with pytest.raises(TrainingError, match="set batch_size to 2 or more") as error:
        run(tmp_path / "alone", RECIPE.replace(batch_size=1), model=one)
    assert "lower lr" not in str(error.value)


def test_tensorboard_reads_what_is_logged_or_is_named_where_it_is_not_installed(tmp_path, monkeypatch):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(ValueError, match="run_dir"):
        run(None, tensorboard=True)

    def stop(model, record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tensorboard=True, on_epoch=stop)
    history = run(tmp_path, tensorboard=True, resume=True)
    log = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    assert [event.step for event in log.Scalars("step/train_loss")] == list(range(1, 13))
    found = log.Scalars("epoch/valid_accuracy")
    assert [event.step for event in found] == [4, 8, 12]
    assert [event.value for event in found] == pytest.approx([record["valid_accuracy"] for record in history])
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning_fabric.loggers.tensorboard.{name}", False)
    with pytest.raises(TrainingError, match="tensorboard"):
        run(tmp_path / "other", tensorboard=True)
