"""`ferlib export`: what the file says is what torch says, whatever the size of the batch."""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from book.experiments.model_card import card
from ferlib.cli import main
from ferlib.data.faces import drawn_faces
from ferlib.data.labels import EMOTIONS_FERPLUS
from ferlib.data.transforms import model_input, resize, to_float
from ferlib.evaluation import ResultRecord
from ferlib.export import (
    ExportError,
    WholeClassifier,
    export_onnx,
    parity,
    resizing_matrix,
    store_half,
)
from ferlib.models import NETWORKS
from ferlib.models.pocket import PocketNet
from ferlib.runtime import open_session
from ferlib.training import load_recipe
from ferlib.weights import checkpoints
from tests import documented

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).resolve().parents[1]


def trained(seed: int = 0) -> PocketNet:
    """A network that answers decidedly, whose batch norms have seen something."""
    torch.manual_seed(seed)
    network = PocketNet(widths=(8, 16, 16, 24), resizer_channels=4)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(16, 3, 64, 64))
        network.classify.weight.mul_(4)
    return network.eval()


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return drawn_faces("valid", length=6).batch(torch.arange(6))["image"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    options = {"image_size": 64, "temperature": 1.7, "facts": {"recipe": "none"}}
    return export_onnx(trained(), path, classes=EMOTIONS_FERPLUS, **options)


def run(path: Path, faces: torch.Tensor) -> dict[str, np.ndarray]:
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"face": faces.numpy()}), strict=True))


def test_the_file_says_what_torch_says(exported, faces):
    found = parity(exported.path, exported.module, to_float(faces))
    assert set(found) == {"probabilities", "logits", "evidence"}
    assert max(found.values()) < 1e-4
    other = WholeClassifier(trained(seed=1), image_size=64, temperature=1.7).eval()
    assert min(parity(exported.path, other, to_float(faces)).values()) > 1e-2  # it can fail


def test_it_is_the_network_that_was_trained_with_its_own_resizing(exported, faces):
    network = trained()
    store_half(network)
    with torch.no_grad():
        logits = network(model_input(faces, 64)) / 1.7
    found = run(exported.path, to_float(faces))
    np.testing.assert_allclose(found["logits"], logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(found["probabilities"], logits.softmax(1).numpy(), atol=1e-4)
    np.testing.assert_allclose(found["evidence"].mean((2, 3)), found["logits"], atol=1e-5)
    assert found["evidence"].shape == (6, 8, 6, 6)
    one = run(exported.path, to_float(faces[:1]))  # the batch may have any size
    np.testing.assert_allclose(one["logits"], found["logits"][:1], atol=1e-5)


def test_the_file_knows_itself_and_weighs_half(exported):
    session = open_session(exported.path)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["ferlib"])
    assert facts["classes"] == list(EMOTIONS_FERPLUS) and facts["temperature"] == 1.7
    assert facts["face_size"] == 48 and facts["image_size"] == 64 and facts["weights"] == "float16"
    assert facts["parameters"] == sum(p.numel() for p in trained().parameters())
    assert hashlib.sha256(exported.path.read_bytes()).hexdigest() == exported.sha256
    assert str(ROOT).encode() not in exported.path.read_bytes()  # no path of this machine
    assert exported.path.stat().st_size < 2 * facts["parameters"] + 60_000  # and the graph


@pytest.mark.parametrize(("mode", "side"), [("nearest", 64), ("bilinear", 40), ("bicubic", 64)])
def test_the_matrix_resizes_as_the_library_does(faces, mode, side):
    pixels = to_float(faces)
    matrix = resizing_matrix(48, side, mode)
    torch.testing.assert_close((matrix @ pixels @ matrix.T).clamp(0, 1), resize(pixels, side, mode))


def test_what_cannot_be_exported_is_one_sentence(tmp_path):
    class Odd(nn.Module):
        def forward(self, image):
            return image.mean((2, 3)).repeat(1, 2) if image.sum().item() > 0 else image.mean((2, 3))[:, :2]

    with pytest.raises(ExportError, match="8 were named"):
        export_onnx(Odd(), tmp_path / "a.onnx", classes=EMOTIONS_FERPLUS)
    with pytest.raises(ExportError, match="temperature"):
        export_onnx(trained(), tmp_path / "a.onnx", classes=EMOTIONS_FERPLUS, temperature=0)
    large = trained()
    large.stages[0].conv1.weight.data.mul_(1e8)
    with pytest.raises(ExportError, match="65,504"):
        export_onnx(large, tmp_path / "a.onnx", classes=EMOTIONS_FERPLUS, image_size=64)
    assert not list(tmp_path.iterdir())


SMALL_POCKET = {"model": "PocketNet", "model_options": {"widths": [8, 8, 8, 8], "resizer_channels": 2}}
FAMILIES = {
    "vt-nr": ("vt_nr_small", {}, 96),
    "btn vit": ("btn_small", {"inference": "vit", "dim": 32}, 48),
    "btn bt": ("btn_small", {"inference": "bt", "dim": 32}, 48),
    "ensemble": ("Ensemble", {"members": [SMALL_POCKET]}, 64),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_exports_for_any_number_of_faces(family, tmp_path):
    """Agreement with torch, on several faces and on one, is checked by the export itself."""
    name, options, size = FAMILIES[family]
    torch.manual_seed(0)
    network = NETWORKS[name](num_classes=8, **options).eval()
    done = export_onnx(network, tmp_path / "a.onnx", classes=EMOTIONS_FERPLUS, image_size=size)
    assert done.difference < 1e-4
    for count in (1, 3):
        found = run(done.path, torch.rand(count, 1, 48, 48))
        assert found["probabilities"].shape == (count, 8)
        np.testing.assert_allclose(found["probabilities"].sum(1), 1, atol=1e-5)


def test_the_command_exports_a_run_and_says_what_it_wrote(tmp_path, capsys):
    recipe = load_recipe("pocket-ferplus")
    slim = recipe.replace(model_options={"widths": [8, 8, 16, 16], "resizer_channels": 4})
    network = PocketNet(**slim.model_options)
    checkpoints.save(tmp_path / "best.safetensors", network, {"recipe": asdict(slim)})
    out = tmp_path / "small.onnx"
    words = ["export", "--checkpoint", str(tmp_path / "best.safetensors"), "--out", str(out)]
    assert main(words) == 1 and "--dataset" in capsys.readouterr().err and not out.exists()
    assert main([*words, "--dataset", "ferplus"]) == 0
    text = capsys.readouterr().out
    assert hashlib.sha256(out.read_bytes()).hexdigest() in text and "temperature 1.000" in text
    assert main([*words, "--dataset", "ferplus", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == documented.keys("export")
    assert main([*words[:-1], "small.pt"]) == 1
    assert main(["export", "--checkpoint", str(tmp_path / "no.safetensors"), "--out", str(out)]) == 1
    assert "no.safetensors" in capsys.readouterr().err


def test_without_its_extra_it_says_what_to_install(tmp_path, monkeypatch):
    """A notebook opened alone brings no more than the chapters need."""
    missing = "onnxscript"
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ExportError, match=rf"{missing}\b.* pip install onnx onnxscript"):
        export_onnx(trained(), tmp_path / "a.onnx", classes=EMOTIONS_FERPLUS, image_size=64)
    assert not list(tmp_path.iterdir())


def test_the_shipped_model_is_whole_small_and_packed():
    from ferlib.predict import shipped_model

    path, facts = shipped_model()  # raises where the checksum differs
    assert path.stat().st_size == facts["bytes"] < 3_000_000
    record = ResultRecord.load("pocket_ferplus")
    found, accuracy = record.get("accuracy"), facts["validation"]["accuracy"]
    assert record.extra["sha256"] == facts["sha256"]
    assert [found.value, found.low, found.high] == list(accuracy.values())
    made = card(record)  # python -m book.experiments.model_card
    assert made == path.with_name("MODEL_CARD.md").read_text(encoding="utf-8") and facts["sha256"] in made
