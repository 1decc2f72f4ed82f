"""Weights files of every kind are read, and nothing in them is executed."""

import argparse
import builtins
import copyreg
import os
import pickle
import random
import struct
import time
import zipfile
from collections import OrderedDict, defaultdict
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ferlib.weights import CheckpointError, read_weights
from ferlib.weights.reading import Inert, InertReader

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


class RecorderMeter:
    """Stands for the class that POSTER V2's training program keeps its curves in."""

    def __init__(self) -> None:
        self.epoch_losses = np.zeros((4, 2), dtype=np.float32)


class Gadget:
    """A pickled call: whoever unpickles this the usual way runs ``function(*arguments)``."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def weights() -> OrderedDict:
    torch.manual_seed(0)
    base = torch.randn(24)
    return OrderedDict(
        {
            "module.conv.weight": torch.randn(4, 3, 3, 3),
            "module.conv.bias": torch.nn.Parameter(torch.randn(4)),
            "module.bn.num_batches_tracked": torch.tensor(7),
            "module.half": torch.randn(5).half(),
            "module.view": base.view(4, 6).t()[2:],  # offset and strides
            "module.same": base,
            "module.empty": torch.zeros(0, 3),
        }
    )


def check(found: dict) -> None:
    expected = {name.removeprefix("module."): tensor for name, tensor in weights().items()}
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor.data, rtol=0, atol=0)


@FORMATS
def test_a_training_record_with_objects_in_it(tmp_path, zipped):
    path = tmp_path / "RAFDB.pth"
    record = {
        "epoch": 3,
        "best_acc": np.float64(92.5),
        "recorder": RecorderMeter(),
        "recorder1": RecorderMeter(),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]},
        "args": argparse.Namespace(lr=1e-3),
        "state_dict": weights(),
        "seen": defaultdict(list, {1: [2]}),
    }
    torch.save(record, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    found = read_weights(path)
    check(found)
    assert f"{RecorderMeter.__module__}.RecorderMeter" in found.inert
    assert "argparse.Namespace" in found.inert


@FORMATS
def test_plain_weights_and_their_shapes_alone(tmp_path, zipped):
    path = tmp_path / "plain.pth.tar"
    torch.save({"state_dict": weights(), "epoch": 1}, path, _use_new_zipfile_serialization=zipped)
    found, shapes = read_weights(path), read_weights(path, numbers=False)
    check(found)
    assert not found.inert
    assert {name: t.shape for name, t in shapes.items()} == {name: t.shape for name, t in found.items()}
    assert all(tensor.is_meta for tensor in shapes.values())


@pytest.mark.parametrize(("zipped", "protocol"), [(True, 2), (True, 5), (False, 2), (False, 4)])
def test_nothing_that_a_hostile_file_asks_for_is_run(tmp_path, zipped, protocol):
    proof = tmp_path / "proof"
    code = f"open({str(proof)!r}, 'w').close()"

    def gadgets() -> list:
        return [
            Gadget(os.system, f"touch {proof}"),
            Gadget(builtins.exec, code),
            Gadget(builtins.eval, code),
            Gadget(Path.touch, proof),
            Gadget(getattr, Gadget(__import__, "os"), "system"),
            Gadget(map, Gadget(getattr, Gadget(__import__, "builtins"), "exec"), [code]),
        ]

    gadgets()[1].call[0](*gadgets()[1].call[1])
    assert proof.exists(), "the gadget works where somebody runs it"
    proof.unlink()
    nested = {"deep": [(gadgets(), {"x": gadgets()})]}
    record = {"first": gadgets(), "nested": nested, "state_dict": weights(), "last": gadgets()}
    path = tmp_path / "hostile.pth"
    torch.save(record, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    found = read_weights(path)
    check(found)
    assert {f"{os.system.__module__}.system"} & set(found.inert)
    assert {n.removeprefix("__builtin__.") for n in map(str, found.inert)} & {"builtins.exec", "exec"}
    assert not proof.exists()


@FORMATS
def test_a_gadget_in_the_place_of_a_tensor_is_refused(tmp_path, zipped):
    proof = tmp_path / "proof"
    bad = {**weights(), "module.bad": Gadget(os.system, f"touch {proof}")}
    torch.save({"state_dict": bad}, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"bad.pth: not a state dict.* module.bad"):
        read_weights(tmp_path / "bad.pth")
    assert not proof.exists()


def test_every_way_of_calling_is_inert(tmp_path):
    proof = tmp_path / "proof"
    command = f"touch {proof}".encode()
    programs = {
        "REDUCE": b"cos\nsystem\n(V" + command + b"\ntR.",
        "INST": b"(S'" + command + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + command + b"'\no.",
        "NEWOBJ": b"\x80\x02cos\nsystem\n(V" + command + b"\nt\x81.",
        "NEWOBJ_EX": b"\x80\x04cos\nsystem\n(V" + command + b"\nt}\x92.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93(V" + command + b"\ntR.",
        "BUILD": b"cos\nsystem\n(V" + command + b"\ntR}(V__setstate__\ncos\nsystem\nub.",
    }
    for code, program in programs.items():
        reader = InertReader(BytesIO(program), torch.empty)
        assert isinstance(reader.load(), Inert) and reader.names == {"os.system"}, code
    assert not proof.exists()
    copyreg.add_extension("os", "system", 1)  # a class that another reader of this process has met
    try:
        pickle.loads(b"\x80\x02\x82\x01.")
        with pytest.raises(KeyError):
            InertReader(BytesIO(b"\x80\x02\x82\x01."), torch.empty).load()
    finally:
        copyreg.remove_extension("os", "system", 1)


def damaged_zip(path: Path, change) -> None:
    """The same archive with its pickle changed."""
    source = path.with_suffix(".source")
    torch.save({"state_dict": weights(), "r": RecorderMeter()}, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, change(data) if entry.filename.endswith("data.pkl") else data)


def test_a_claim_beyond_the_file_is_refused(tmp_path):
    path = tmp_path / "huge.pth"
    # 108 numbers of the first tensor become two thousand million, in its storage and in its shape
    damaged_zip(path, lambda data: data.replace(b"Kl", b"J" + struct.pack("<i", 2_000_000_000), 1))
    with pytest.raises(CheckpointError, match=r"huge.pth: .*(fewer numbers than it claims|damaged)"):
        read_weights(path)
    # a text of 2^60 bytes
    damaged_zip(path, lambda data: b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.")
    with pytest.raises(CheckpointError, match=r"huge\.pth"):
        read_weights(path)
    # a tuple that doubles forty times cannot be printed or hashed in a lifetime
    bomb = b"\x80\x02}" + b"K\x01\x85" + b"2\x86" * 40 + b"}s."
    damaged_zip(path, lambda data: bomb)
    with pytest.raises(CheckpointError, match=r"huge\.pth"):
        read_weights(path)


def doubled(count: int) -> bytes:
    """A program that puts a tuple of 2^count numbers into memo ``count``, by doubling."""
    steps = (b"h%ch%c\x86q%c0" % (n, n, n + 1) for n in range(count))
    return b"K\x01\x85q\x000" + b"".join(steps)


# keys n (2^61 - 1), all of which have the hash 0
COLLIDING = b"".join(b"\x8a\x11" + (n * (2**61 - 1)).to_bytes(17, "little") + b"N" for n in range(20000))


@pytest.mark.parametrize(
    "program",
    [
        b"}" + doubled(64) + b"h\x40K\x01s.",  # a key that takes 2^64 steps to hash
        b"}" + doubled(64) + b"h\x40h\x40\x93K\x01s.",  # a name that takes 2^64 letters to print
        b"}(" + COLLIDING + b"u.",
        b"ccollections\nOrderedDict\n(](" + b"(" + b"K\x01" * 2000 + b"tq\x01" + b"h\x01" * 2000 + b"etR.",
    ],
    ids=["hash", "print", "collisions", "pairs"],
)
def test_a_small_file_cannot_keep_the_reader_busy(tmp_path, program):
    began = time.process_time()
    damaged_zip(tmp_path / "busy.pth", lambda data: b"\x80\x04" + program)
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "busy.pth")
    assert time.process_time() - began < 5


def test_files_of_other_kinds(tmp_path):
    for name, data, word in (
        ("page.pth", b"<html>quota exceeded</html>", "neither safetensors nor"),
        ("empty.pth", b"", "neither safetensors nor"),
        ("list.pth", pickle.dumps([1, 2, RecorderMeter()]), "torch did not write"),
        ("bad.safetensors", b"\xff" * 64, "copy it again"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{name}.*{word}"):
            read_weights(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"no data.pkl"):
        read_weights(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no file"):
        read_weights(tmp_path / "absent.pth")
    torch.save({"optimizer": {}, "epoch": 3}, tmp_path / "optimizer_only.pth")
    with pytest.raises(CheckpointError, match=r"optimizer_only.pth: not a state dict"):
        read_weights(tmp_path / "optimizer_only.pth")
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in weights().items()}
    save_file(plain, tmp_path / "good.safetensors")
    check(read_weights(tmp_path / "good.safetensors"))
    for length in range(128, 256, 64):  # a header whose length begins like a pickle, or like a zip archive
        save_file({"a" * length: torch.zeros(1)}, tmp_path / "any.safetensors")
        (tmp_path / "any.safetensors").rename(tmp_path / "any.pth")
        assert read_weights(tmp_path / "any.pth").keys() == {"a" * length}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda found: {**found, "epoch": 3, "best": 0.5, "arch": "x", "none": None},
        lambda found: {"model_state": {f"_orig_mod.{name}": tensor for name, tensor in found.items()}},
        lambda found: {"state_dict_ema": {f"model.module.{name}": tensor for name, tensor in found.items()}},
        lambda found: {"model": {"state_dict": found}, "epoch": 3},
        lambda found: {"params_ema": found, "params": {"other": torch.zeros(1)}},
        lambda found: {"params": found},
        lambda found: {"weights": found},
        lambda found: {"ema_model": found},
    ],
    ids=["flat", "compiled", "average", "two", "params_ema", "params", "weights", "ema_model"],
)
def test_wrappers_prefixes_and_notes_come_off(tmp_path, wrap):
    torch.save(wrap(weights()), tmp_path / "a.pth")
    check(read_weights(tmp_path / "a.pth"))


def test_a_whole_model_is_named_for_what_it_is(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth.*Linear.*state_dict"):
        read_weights(tmp_path / "model.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match=r"script\.pt.*TorchScript.*state_dict"):
        read_weights(tmp_path / "script.pt")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.safetensors")  # called what it is not
    assert read_weights(tmp_path / "weights.safetensors").keys() == {"weight", "bias"}
    endless = {"weight": torch.zeros(1)}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    with pytest.raises(CheckpointError, match="not a state dict"):
        read_weights(tmp_path / "endless.pth")


@FORMATS
def test_damage_anywhere_is_one_kind_of_error(tmp_path, zipped):
    draw = random.Random(0)
    path, record = tmp_path / "a.pth", {"state_dict": weights(), "r": RecorderMeter()}
    torch.save(record, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for keep in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(data[: int(keep * len(data))])
        with pytest.raises(CheckpointError, match=r"a.pth"):
            read_weights(path)
    start = data.find(b"data.pkl") if zipped else 0
    errors = 0
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 3))):
            damaged[start + draw.randrange(900)] = draw.randrange(256)
        (tmp_path / "b.pth").write_bytes(damaged)
        try:
            read_weights(tmp_path / "b.pth")
        except CheckpointError:
            errors += 1
    assert errors > 35
