"""`ferlib convert`: original files, mappings, and the npm copy of MobileNetFaces, into our safetensors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ferlib.cli import main
from ferlib.commands.convert import EXPRESSIONS
from ferlib.data import EMOTIONS_AFFECTNET, EMOTIONS_RAFDB
from ferlib.models import MobileFaceNet, MobileNetFaces, NeuralResizer
from ferlib.weights import ARCHITECTURES, checkpoints, load_network
from tests import documented


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def resizer() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    official_name = ARCHITECTURES["neural-resizer"].official_name
    return {official_name(n): t for n, t in NeuralResizer(384, 224).state_dict().items()}


def say(capsys, *words: str) -> tuple[int, str]:
    code = main(["convert", *words])
    out = capsys.readouterr()
    return code, out.out + out.err


def test_a_mapping_gives_places(capsys):
    official = resizer()
    official["odd.weight"] = official.pop("conv4.weight")
    official["odd.bias"] = official.pop("conv4.bias")
    official["junk\x1b[31m"] = torch.zeros(3)
    torch.save(official, "a.pth")
    code, text = say(capsys, "--architecture", "neural-resizer", "a.pth", "b.safetensors")
    assert code == 1 and "odd.weight" in text and not Path("b.safetensors").exists()
    mapping = {"odd": "to_image", "junk\x1b[31m": None}
    Path("m.json").write_text(json.dumps(mapping))
    words = "--architecture", "neural-resizer", "--mapping", "m.json", "a.pth", "b.safetensors"
    code, text = say(capsys, *words)
    assert code == 0 and "set aside, they do not touch the output:\n    junk\\x1b[31m" in text
    assert torch.equal(load_file("b.safetensors")["to_image.bias"], official["odd.bias"])
    Path("m.json").write_text("[1, 2]")
    code, text = say(capsys, *words)
    assert code == 1 and "not of the form" in text
    Path("m.json").write_text("{")
    assert say(capsys, *words)[0] == 1


def test_what_cannot_be_done_is_one_line(capsys):
    torch.save(MobileFaceNet().state_dict(), "a.pth")
    for architecture, source, target, answer in (
        ("resnet", "a.pth", "b.safetensors", "'resnet' is unknown"),
        ("ir50", "a.pth", "b.pth", "is called *.safetensors"),
        ("ir50", "absent.pth", "b.safetensors", "absent.pth"),
        ("ir50", "a.pth", "b.safetensors", "nothing was written"),
    ):
        code, text = say(capsys, "--architecture", architecture, source, target)
        assert code == 1 and answer in text and "Traceback" not in text


def test_what_is_read_is_never_overwritten(capsys):
    save_file(resizer(), "a.safetensors")
    Path("link.safetensors").symlink_to("a.safetensors")
    Path("m.safetensors").write_text("{}")
    before = Path("a.safetensors").read_bytes()
    words = "--architecture", "neural-resizer"
    for target in ("a.safetensors", "./a.safetensors", "link.safetensors"):
        code, text = say(capsys, *words, "a.safetensors", target)
        assert code == 1 and target.removeprefix("./") in text
        assert Path("a.safetensors").read_bytes() == before
    assert say(capsys, *words, "--mapping", "m.safetensors", "a.safetensors", "m.safetensors")[0] == 1
    assert Path("m.safetensors").read_text() == "{}" and Path("link.safetensors").is_symlink()
    for _ in range(2):  # a file that is not read may be replaced
        assert say(capsys, *words, "a.safetensors", "b.safetensors")[0] == 0


@pytest.mark.parametrize(
    ("file", "more", "classes"),
    [
        ("raf-db-model_best.pth", (), EMOTIONS_RAFDB),
        ("AffectNet7_67.60.pth", (), EMOTIONS_AFFECTNET[:7]),
        ("affectnet-7-model_best.pth", ("--dataset", "rafdb"), EMOTIONS_RAFDB),
        ("mine.pth", ("--dataset", "affectnet7"), EMOTIONS_AFFECTNET[:7]),
        ("mine.pth", (), None),
    ],
)
def test_class_names_stand_in_the_file(capsys, monkeypatch, file, more, classes):
    monkeypatch.setitem(EXPRESSIONS, "neural-resizer", ("rafdb", "affectnet7"))
    torch.save({"state_dict": {f"module.{n}": t for n, t in resizer().items()}, "epoch": 2}, file)
    words = ["convert", "--architecture", "neural-resizer", "--json", *more, file, "b.safetensors"]
    assert main(words) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found.keys() == documented.keys("convert")
    assert (found["file"], found["architecture"]) == ("b.safetensors", "neural-resizer")
    assert found["matched"] == len(resizer()) and found["unmatched"] == 0
    stored = checkpoints.load("b.safetensors")
    if classes is None:
        assert found["classes"] is None and "classes" not in stored and "add --dataset" in told.err
    else:
        assert tuple(found["classes"]) == tuple(stored["classes"]) == classes
        assert main([*words[:3], "b.safetensors", "c.safetensors"]) == 0  # they go with the file
        assert tuple(checkpoints.load("c.safetensors")["classes"]) == classes
    load_network("b.safetensors", NeuralResizer(384, 224))


def test_names_of_other_expressions_are_refused(capsys, monkeypatch):
    torch.save(resizer(), "a.pth")
    words = "--architecture", "neural-resizer", "--dataset", "rafdb", "a.pth", "b.safetensors"
    code, text = say(capsys, *words)
    assert code == 1 and "--dataset rafdb" in text and not Path("b.safetensors").exists()
    monkeypatch.setitem(EXPRESSIONS, "neural-resizer", ("affectnet8",))
    code, text = say(capsys, *words)
    assert code == 1 and "expected one of ferplus, affectnet8" in text
    assert EXPRESSIONS.keys() <= ARCHITECTURES.keys()


def human_models(folder: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """A package like the real one: the same names, random numbers; returns our weights."""
    draw = np.random.default_rng(seed)
    ours, entries, data = MobileNetFaces().state_dict(), [], b""

    def add(name: str, values: np.ndarray) -> None:
        nonlocal data
        entries.append({"name": name, "shape": list(values.shape), "dtype": "float32"})
        data += values.astype("<f4").tobytes()

    for name, tensor in ours.items():
        ours[name] = torch.from_numpy(draw.normal(size=tensor.shape).astype(np.float32))
    for head in ("age_pred/kernel", "gender_pred/bias", "feats/kernel"):
        add(head, draw.normal(size=(3, 2)))
    for name in [name.removesuffix(".weight") for name in ours if name.endswith(".weight")]:
        _, number, kind = name.split(".") if "." in name else (None, 0, None)
        theirs = {None: "conv1", "depthwise": "conv_dw_", "pointwise": "conv_pw_"}[kind]
        theirs += str(int(number) + 1) if kind else ""
        kernel = ours[f"{name}.weight"].numpy()
        if kind == "depthwise":
            add(f"{theirs}/depthwise_kernel", kernel.transpose(2, 3, 0, 1) / 2)
            add(f"{theirs}_bn/batchnorm_1/mul", np.full(len(kernel), 2.0))
        else:
            add(f"{theirs}/convolution/merged_input", kernel.transpose(2, 3, 1, 0))
        add(f"{theirs}_bn/batchnorm_1/sub", ours[f"{name}.bias"].numpy())
        add(f"{theirs}_relu/Cast", np.array(6.0))
    folder.mkdir()
    manifest = [{"weights": entries, "paths": ["../elsewhere/faceres-deep.bin"]}]
    (folder / "faceres-deep.json").write_text(json.dumps({"weightsManifest": manifest}))
    (folder / "faceres-deep.bin").write_bytes(data)
    return ours


def test_the_face_network_from_its_package(capsys, tmp_path):
    expected = human_models(tmp_path / "models")
    source, target = tmp_path / "models" / "faceres-deep.json", "m.safetensors"
    words = "--architecture", "mobilenet-faces", str(source), target
    assert say(capsys, *words)[0] == 0
    found = load_file(target)
    assert found.keys() == expected.keys()  # without the heads that estimate age and gender
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    data = source.with_suffix(".bin").read_bytes()
    for damaged in (data[:-9], data + b"x"):
        source.with_suffix(".bin").write_bytes(damaged)
        assert say(capsys, *words)[0] == 1
    source.with_suffix(".bin").write_bytes(data)
    text = source.read_text()
    negative, objects = text.replace("[3, 2]", "[-3, 2]"), text.replace('"float32"', '"object"')
    for odd in (negative, objects, '{"a": 3}', "[", ""):
        source.write_text(odd)
        assert say(capsys, *words)[0] == 1
