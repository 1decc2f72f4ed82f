"""`ferlib convert`: original files, mappings, and the npm copy of dlib's network, into our safetensors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ferlib.cli import main
from ferlib.models import DlibFaceNet, MobileFaceNet, NeuralResizer
from ferlib.models.official import rename
from ferlib.models.resizer import OFFICIAL_NAMES
from ferlib.models.tfjs import MANIFEST


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def resizer() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {rename(n, OFFICIAL_NAMES): t for n, t in NeuralResizer(384, 224).state_dict().items()}


def say(capsys, *words: str) -> tuple[int, str]:
    code = main(["convert", *words])
    out = capsys.readouterr()
    return code, out.out + out.err


def test_an_original_file_becomes_ours(capsys):
    torch.save({"state_dict": {f"module.{n}": t for n, t in resizer().items()}, "epoch": 2}, "a.pth")
    code, text = say(capsys, "--architecture", "neural-resizer", "a.pth", "out/b.safetensors")
    assert code == 0 and "everything has its place" in text and "out/b.safetensors: " in text
    NeuralResizer(384, 224).load_state_dict(load_file("out/b.safetensors"), strict=True)


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_a_mapping_gives_places(capsys, kind):
    official = resizer()
    official["odd.weight"] = official.pop("conv4.weight")
    official["odd.bias"] = official.pop("conv4.bias")
    official["junk"] = torch.zeros(3)
    torch.save(official, "a.pth")
    code, text = say(capsys, "--architecture", "neural-resizer", "a.pth", "b.safetensors")
    assert code == 1 and "odd.weight" in text and not Path("b.safetensors").exists()
    mapping = {"odd": "to_image", "junk": None}
    Path(f"m.{kind}").write_text(json.dumps(mapping))  # JSON is YAML too
    words = "--architecture", "neural-resizer", "--mapping", f"m.{kind}", "a.pth", "b.safetensors"
    code, text = say(capsys, *words)
    assert code == 0 and "set aside, they do not touch the output (1): junk" in text
    assert torch.equal(load_file("b.safetensors")["to_image.bias"], official["odd.bias"])
    Path(f"m.{kind}").write_text("[1, 2]")
    code, text = say(capsys, *words)
    assert code == 1 and "not of the form" in text
    Path(f"m.{kind}").write_text("{")
    assert say(capsys, *words)[0] == 1


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--architecture", "resnet", "a.pth", "b.safetensors"), "'resnet' is unknown; known are"),
        (("--architecture", "ir50", "a.pth", "b.pth"), "is called *.safetensors"),
        (("--architecture", "ir50", "absent.pth", "b.safetensors"), "there is no file absent.pth"),
        (("--architecture", "ir50", "a.pth", "b.safetensors"), "nothing was written"),
        (("--architecture", "dlib-face-api", ".", "b.safetensors"), f"no {MANIFEST} in ."),
        (("--architecture", "dlib-face-api", "--part", "x", ".", "b.safetensors"), "takes neither"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys, words, answer):
    save_file({"x": torch.zeros(1)}, "a.safetensors")
    torch.save(MobileFaceNet().state_dict(), "a.pth")
    code, text = say(capsys, *words)
    assert code == 1 and answer in text and "Traceback" not in text


def face_api(folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A package like the real one: the same names, random bytes; returns the numbers they stand for."""
    draw = np.random.default_rng(seed)
    entries, data, numbers = [], b"", {}
    for name, tensor in DlibFaceNet().state_dict().items():
        shape = list(tensor.shape)
        shape = shape[2:] + shape[1::-1] if len(shape) == 4 else shape[::-1]
        theirs = re.sub(r"^blocks\.", "", name).replace("stem.", "conv32_down.").replace(".", "/")
        theirs = theirs.replace("conv/weight", "conv/filters").replace("fc/weight", "fc")
        theirs = re.sub(r"/scale$", "/scale/weights", theirs)
        theirs = re.sub(r"/shift$", "/scale/biases", theirs)
        bytes_ = draw.integers(0, 256, shape, dtype=np.uint8)
        scale, low = float(draw.uniform(0.0001, 0.01)), float(draw.uniform(-0.5, 0))
        quantisation = {"dtype": "uint8", "scale": scale, "min": low}
        entries.append({"name": theirs, "shape": shape, "dtype": "float32", "quantization": quantisation})
        data += bytes_.tobytes()
        values = bytes_ * scale + low
        numbers[name] = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps([{"weights": entries, "paths": ["face.bin"]}]))
    (folder / "face.bin").write_bytes(data)
    return numbers


def test_the_face_network_from_its_package(capsys, tmp_path):
    numbers = face_api(tmp_path / "model")
    code, text = say(capsys, "--architecture", "dlib-face-api", str(tmp_path), "d.safetensors")
    assert code == 0 and "117 tensors" in text
    found = load_file("d.safetensors")
    for name, values in numbers.items():
        np.testing.assert_allclose(found[name].float(), values, rtol=1e-3, atol=1e-5)
    DlibFaceNet().load_state_dict(found, strict=True)
    manifest = str(tmp_path / "model" / MANIFEST)
    assert say(capsys, "--architecture", "dlib-face-api", manifest, "e.safetensors")[0] == 0
    data = (tmp_path / "model" / "face.bin").read_bytes()
    for damaged, words in ((data[:-9], "too short: it ends within"), (data + b"x", "its manifest describes")):
        (tmp_path / "model" / "face.bin").write_bytes(damaged)
        code, text = say(capsys, "--architecture", "dlib-face-api", manifest, "e.safetensors")
        assert code == 1 and words in text
    Path(manifest).write_text('[{"weights": 3}]')
    code, text = say(capsys, "--architecture", "dlib-face-api", manifest, "e.safetensors")
    assert code == 1 and "weights manifest of TensorFlow.js" in text
