"""Pretrained files: found by their usual names, read from any format, loaded strictly into a part."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ferlib.models import (
    BatchTransformerNetwork,
    IResNet50,
    MobileFaceNet,
    PosterV2,
)
from ferlib.models.mobilenet_faces import IMAGENET_MEAN, IMAGENET_STD
from ferlib.weights import (
    ARCHITECTURES,
    CheckpointError,
    find_pretrained,
    load_pretrained,
    place_official,
)
from ferlib.weights.names import our_shapes
from ferlib.weights.reading import StateDict


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FERLIB_WEIGHTS", raising=False)


def official(module: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """A module's weights under POSTER V2's names, each filled with numbers of its own."""
    torch.manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    cut = len({"encoder.landmarks.": "face_landback.", "encoder.face.": "ir_back."}.get(prefix, ""))
    named = ARCHITECTURES["poster-v2-7"].official_name
    return {named(prefix + name)[cut:]: tensor for name, tensor in module.state_dict().items()}


def test_files_are_found_in_the_documented_places(tmp_path, monkeypatch):
    assert find_pretrained("ir50") is None
    (tmp_path / "weights" / "deep").mkdir(parents=True)
    (tmp_path / "weights" / "deep" / "IR50.pth").touch()
    assert find_pretrained("ir50") == Path("weights/deep/IR50.pth")
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("FERLIB_WEIGHTS", str(tmp_path / "other"))
    assert find_pretrained("ir50") is None
    (tmp_path / "other" / "ir50.safetensors").touch()
    assert find_pretrained("ir50") == tmp_path / "other" / "ir50.safetensors"
    assert find_pretrained("ir50", tmp_path / "weights") == tmp_path / "weights" / "deep" / "IR50.pth"
    with pytest.raises(CheckpointError, match="ir50, mobilefacenet"):
        find_pretrained("resnet")


def test_both_branches_of_poster_v2_load(tmp_path):
    face, marks = IResNet50(), MobileFaceNet(head=False)
    whole = MobileFaceNet()
    (tmp_path / "weights").mkdir()
    ir50 = official(face, "encoder.face.") | {"output_layer.3.weight": torch.zeros(512, 9)}
    torch.save(ir50, "weights/ir50.pth")
    landmarks = official(marks, "encoder.landmarks.")
    head = {n: t for n, t in whole.state_dict().items() if n.startswith("output_layer.")}
    parallel = {f"module.{n}": t for n, t in (landmarks | head).items()}
    torch.save({"state_dict": parallel, "epoch": 9}, "weights/mobilefacenet_model_best.pth.tar")
    model = PosterV2(7)
    reports = load_pretrained(model, {"face": "ir50", "landmarks": "mobilefacenet"})
    for name, tensor in face.state_dict().items():
        assert torch.equal(model.encoder.face.state_dict()[name], tensor), name
    for name, tensor in marks.state_dict().items():
        assert torch.equal(model.encoder.landmarks.state_dict()[name], tensor), name
    assert all(report.complete for report in reports.values())
    assert len(reports["landmarks"].set_aside) == len(head)
    with pytest.raises(CheckpointError, match=r"ir50.pth does not fit 'mobilefacenet'"):
        load_pretrained(model, {"landmarks": "weights/ir50.pth"})
    with pytest.raises(CheckpointError, match="no part 'ears': parts are face, landmarks"):
        load_pretrained(model, {"ears": "ir50"})
    with pytest.raises(CheckpointError, match=r"no weights 'poster-v2-7' in weights: put raf-db-model_best"):
        load_pretrained(model, {"whole": "poster-v2-7"})


def test_poster_v2_into_the_batch_transformer_network(tmp_path):
    source = PosterV2(7)
    torch.save({"state_dict": {f"module.{n}": t for n, t in official(source).items()}}, "p.pth")
    net = BatchTransformerNetwork(7)
    gain = net.levels.gain.detach().clone()
    report = load_pretrained(net, {"whole": "p.pth"})["whole"]
    assert report.part == "poster-v2" and torch.equal(net.levels.gain, gain)
    for name, tensor in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name
    save_file({n: t.clone() for n, t in source.state_dict().items()}, "ours.safetensors")  # converted
    assert load_pretrained(net, {"whole": "ours.safetensors"})["whole"].part == "poster-v2"
    load_pretrained(PosterV2(7), {"whole": "ours.safetensors"})
    with pytest.raises(CheckpointError, match=r"expected 8 x 768"):
        load_pretrained(PosterV2(8), {"whole": "p.pth"})
    with pytest.raises(CheckpointError, match=r"bias_table +3025 x 2, expected 169 x 2"):
        load_pretrained(PosterV2(7, windows=(7, 7, 7)), {"whole": "p.pth"})  # an option that changes shapes
    other = BatchTransformerNetwork(7, face_backbone="mobilenet-faces")
    before = {n: t.clone() for n, t in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"ir_back.input_layer"):
        load_pretrained(other, {"whole": "p.pth"})
    assert all(torch.equal(t, before[n]) for n, t in other.state_dict().items())


def test_the_face_network_that_anybody_can_have_loads_into_the_branch(shared):
    path = shared / "weights" / "mobilenet_faces.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path.name} among the reference material")
    options = {"landmark_input": "unit"}
    net = BatchTransformerNetwork(8, face_backbone="mobilenet-faces", encoder_options=options).eval()
    parts = {"face": "mobilenet-faces", "landmarks": "mobilefacenet"}
    reports = load_pretrained(net, parts, shared / "weights")
    assert all(report.complete for report in reports.values())
    for name, tensor in load_file(path).items():
        assert torch.equal(net.encoder.face.net.state_dict()[name], tensor.float()), name
    torch.manual_seed(0)
    unit = torch.rand(2, 3, 224, 224)
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in (IMAGENET_MEAN, IMAGENET_STD))
    normalized = (unit - mean) / std
    with torch.inference_mode():
        assert net(normalized).shape == (2, 8)
        frozen = net.encoder.frozen(normalized)
        small = torch.nn.functional.interpolate(unit, size=112)
        torch.testing.assert_close(frozen[2], net.encoder.landmarks.features(small)[2], rtol=1e-4, atol=1e-4)


def test_a_converted_part_counts_as_that_part():
    shapes = our_shapes("btn-7")
    whole = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    part = {name: tensor for name, tensor in whole.items() if not name.startswith("levels.")}
    for extra in ([], ["levels.query.weight"]):  # the latter placed by a mapping
        found = StateDict(part | {name: whole[name] for name in extra})
        report = place_official(found, "btn-7")[1]
        assert report.complete and report.part == "poster-v2"
        assert set(report.at_start) == set(whole) - set(found)
    report = place_official(StateDict(whole), "btn-7")[1]
    assert report.complete and report.part is None and not report.at_start
    del part["vit.head.bias"]
    report = place_official(StateDict(part), "btn-7")[1]
    assert not report.complete and "vit.head.bias" in report.missing
