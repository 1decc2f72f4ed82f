"""Files of every kind, damaged in seeded ways: each ends in exit status 0 or 3, or 1 and one line.

An exception that is none of ``ferlib.cli.CAUGHT`` is a defect and fails the test.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import ferlib
from ferlib.cli import CAUGHT, main, one_line
from ferlib.data.prepare import prepare
from ferlib.errors import DataError
from ferlib.evaluation import ResultRecord
from ferlib.models import NETWORKS, NeuralResizer
from ferlib.predict import shipped_model
from ferlib.weights import ARCHITECTURES
from tests import data_files
from tests.tiny import Net

DEEP = json.loads("[" * 300 + "]" * 300)
ODD = (None, True, -1, 0, 1e39, float("nan"), 10**30, "", "a\0b", "../../x", "\x1b[31m")
ODD += ([], {}, ["a"], {"b": 1}, DEEP)
RECIPE = {"name": "tiny", "model": "tiny_net", "loss": "f-pdls", "epochs": 1, "batch_size": 32, "lr": 5e-3}


def damaged(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """A file with bytes changed, a part overwritten with zeros, its end cut off, or bytes put into it."""
    dice = random.Random(seed)
    for number in range(count):
        some, place = bytearray(data), dice.randrange(max(1, len(data)))
        length = dice.choice((1, 4, 60))
        if number % 4 == 0:
            some[place : place + length] = dice.randbytes(len(some[place : place + length]))
        elif number % 4 == 1:
            some[place : place + length] = bytes(len(some[place : place + length]))
        elif number % 4 == 2:
            del some[place:]
        else:
            some[place:place] = dice.choice((b"\xff", b"\0", b"{", b'"', b"\n", b"-", b"9" * 40))
        yield bytes(some)


def twisted(content: Any, count: int, seed: int = 0) -> Iterator[Any]:
    """JSON or YAML content with a value replaced by an odd one, or a key removed or added, at any depth."""
    dice = random.Random(seed)
    for number in range(count):
        whole = copy.deepcopy(content)
        part = whole
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            key = dice.choice(keys)
            if isinstance(part[key], dict | list) and part[key] and dice.random() < 0.7:
                part = part[key]
                continue
            break
        if number % 5 == 0:
            del part[key]
        else:
            part[key] = dice.choice(ODD)
        yield whole
    yield from (None, [], "x", DEEP)[: count // 3]


def check(words: list[str], capsys: pytest.CaptureFixture) -> int:
    code = main(words)
    errors = capsys.readouterr().err.splitlines()
    assert code in (0, 1, 3), words
    if code == 1 and words[0] != "doctor":  # whose report names what is broken
        assert errors and errors[-1].isprintable() and len(errors[-1]) < 5000
        assert not any("Traceback" in line for line in errors)
    return code


def attempt(call: Callable[[], Any]) -> None:
    """A call of the library that raises nothing but what the command line turns into one line."""
    try:
        call()
    except CAUGHT as error:
        assert one_line(error).isprintable()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FERLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FERLIB_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setitem(NETWORKS, "tiny_net", lambda num_classes: Net(num_classes))


def train(*words: str) -> list[str]:
    return ["train", *words, "--data", "synthetic", "--length", "32", "--quiet", "--no-test"]


def test_run_files(capsys):
    Path("r.yaml").write_text(json.dumps(RECIPE))
    assert check(train("--recipe", "r.yaml", "--out", "run"), capsys) == 0
    for file in sorted(path for path in Path("run").iterdir() if path.is_file()):
        before = file.read_bytes()
        changed = list(damaged(before, 1, seed=len(file.name)))
        if file.suffix == ".json":
            changed += [json.dumps(content).encode() for content in twisted(json.loads(before), 2)]
        for data in changed:
            file.write_bytes(data)
            check(train("--resume", "run"), capsys)
            file.write_bytes(before)


def test_prepared_data(capsys):
    data_files.microsoft(Path("in"), {"train": 8, "valid": 4, "test": 4})
    prepare("ferplus", "in", "out", progress=False)
    for file in sorted(Path("out").iterdir()):
        before = file.read_bytes()
        changed = list(damaged(before, 2))
        if file.suffix == ".json":
            changed += [json.dumps(content).encode() for content in twisted(json.loads(before), 15)]
        for data in changed:
            file.write_bytes(data)
            attempt(lambda: ferlib.data.FERPlus("out", "train").batch(range(2)))
            check(["doctor", "--data", "out"], capsys)
        file.write_bytes(before)
    assert check(["doctor", "--data", "out"], capsys) == 0


@pytest.mark.parametrize("layout", ["microsoft", "kaggle", "rafdb_official", "affectnet_official"])
def test_label_files(layout, capsys):
    counts = {
        "microsoft": {"train": 6},
        "kaggle": {"train": 6},
        "rafdb_official": {"train": 7, "test": 7},
        "affectnet_official": {"train_set": [0, 1, 2], "val_set": [3]},
    }
    getattr(data_files, layout)(Path("in"), counts[layout])
    files = [path for path in Path("in").rglob("*") if path.suffix in (".csv", ".txt", ".npy")]
    for file in sorted(files)[:4]:
        before = file.read_bytes()
        for data in damaged(before, 4):
            file.write_bytes(data)
            check(["doctor", "--data", "in"], capsys)
        file.write_bytes(before)


def test_recipes(monkeypatch, capsys):
    def stop(*_: Any, **__: Any) -> None:
        raise DataError("everything was built")

    monkeypatch.setattr("ferlib.commands.train.fit", stop)
    options = {"dim": 8, "heads": 2, "widths": [8, 8, 8], "depth": 1}
    recipe = RECIPE | {"model": "btn_small", "model_options": options, "lr_scale": {"fc": 0.1}}
    texts = [json.dumps(content).encode() for content in twisted(recipe, 24)]  # YAML, too
    for data in [*texts, *damaged(json.dumps(recipe).encode(), 12)]:
        Path("r.yaml").write_bytes(data)
        assert check(train("--recipe", "r.yaml"), capsys) == 1
    Path("r.yaml").write_text(json.dumps(recipe))
    assert main(train("--recipe", "r.yaml")) == 1 and "was built" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_images(suffix, capsys):
    Image.fromarray(data_files.picture(0, 40, 3)).save(f"a.{suffix}")
    whole = Path(f"a.{suffix}").read_bytes()
    for data in damaged(whole, 8):
        Path(f"b.{suffix}").write_bytes(data)
        check(["predict", f"b.{suffix}", "--whole"], capsys)
    assert check(["predict", f"a.{suffix}", "--whole"], capsys) == 0


def test_onnx_files(capsys):
    Image.fromarray(data_files.picture(0, 40, 3)).save("a.png")
    whole = shipped_model()[0].read_bytes()
    start = whole.rindex(b"ferlib") - 8  # the end of the file holds what it says of itself
    ends = [whole[:start] + end for end in damaged(whole[start:], 8)]
    words = ["predict", "a.png", "--whole", "--model", "m.onnx"]
    for data in [*ends, *(part + whole[2000:] for part in damaged(whole[:2000], 6)), b""]:
        Path("m.onnx").write_bytes(data)
        check(words, capsys)
    Path("m.onnx").write_bytes(whole)
    assert check(words, capsys) == 0


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_checkpoints_and_mappings(suffix, capsys):
    name = ARCHITECTURES["neural-resizer"].official_name
    weights = {name(key): value for key, value in NeuralResizer(384, 224).state_dict().items()}
    file = Path(f"a.{suffix}")
    save_file(weights, file) if suffix == "safetensors" else torch.save({"state_dict": weights}, file)
    whole = file.read_bytes()
    words = ["convert", str(file), "c.safetensors", "--architecture", "neural-resizer"]
    assert check(words, capsys) == 0
    for data in [*(head + whole[1500:] for head in damaged(whole[:1500], 8)), *damaged(whole, 4)]:
        file.write_bytes(data)
        attempt(lambda: ferlib.load_network(file))
        check(["doctor", "--weights", str(file)], capsys)
        check(words, capsys)
    file.write_bytes(whole)
    mapping = {"a.weight": "conv1.weight", "b": None}
    texts = [json.dumps(content).encode() for content in twisted(mapping, 8)]
    for data in [*texts, *damaged(json.dumps(mapping).encode(), 4)]:
        Path("m.json").write_bytes(data)
        check([*words, "--mapping", "m.json"], capsys)
    assert not list(Path().glob(".*.half"))


def test_records():
    ResultRecord("name", "what it is", ["a", "b"], {"split": "test"}).save("record.json")
    whole = Path("record.json").read_bytes()
    texts = [json.dumps(some).encode() for some in twisted(json.loads(whole), 40)]
    for data in [*texts, *damaged(whole, 20)]:
        Path("record.json").write_bytes(data)
        attempt(lambda: ResultRecord.load("record.json"))
