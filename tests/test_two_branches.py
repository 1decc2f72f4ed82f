"""The network of two pretrained branches for a CPU: what learns in it, what does not, and what it takes."""

from __future__ import annotations

import copy

import pytest
import torch

from ferlib.models import BranchFeatures, TwoBranchNet, load_pretrained
from ferlib.training import build_model, load_recipe
from ferlib.training.start import start_from

WEIGHTS = ("face_recognition_dlib.safetensors", "mobilefacenet_landmarks68.safetensors")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TwoBranchNet(5, hidden=16, face_size=80)


@pytest.mark.parametrize("size", [48, 100])
def test_images_of_any_size_become_one_vector_and_logits(model, size):
    with torch.no_grad():
        features = model.encoder(torch.zeros(2, 3, size, size))
        assert features.shape == (2, model.encoder.width) == (2, 5952)
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 5)


def test_no_level_is_louder_than_another(model, images, monkeypatch):
    shapes = ((64, 28), (128, 14), (512, 7))
    loud = [10.0**n * torch.randn(3, width, side, side) for n, (width, side) in enumerate(shapes)]
    monkeypatch.setattr(model.encoder.landmarks, "features", lambda pictures: loud)
    with torch.no_grad():
        features = model.encoder(images)
    for level in features.split([64 * 9 + 128 * 9 + 256 * 4, 128 * 9, 512 * 4], dim=1)[1:]:
        torch.testing.assert_close(level.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(level.var(1, correction=0), torch.ones(3), atol=1e-2, rtol=0)


def test_faces_learn_and_landmarks_stay(model, images):
    model = copy.deepcopy(model).train()
    before = copy.deepcopy(model.encoder.landmarks.state_dict())
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    start = model.encoder.face.stem.conv.weight.detach().clone()
    model(images).logsumexp(1).sum().backward()
    optimiser.step()
    assert not torch.equal(model.encoder.face.stem.conv.weight, start)
    for name, tensor in model.encoder.landmarks.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the frozen branch moved"
    lost = [n for n, p in model.encoder.face.named_parameters() if p.grad is None or not p.grad.any()]
    assert not lost, f"nothing reaches {lost}"


def test_an_answer_does_not_hang_on_the_company(model, images):
    model.eval()
    with torch.no_grad():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone)


def test_a_face_too_small_for_the_branch_is_refused():
    with pytest.raises(ValueError, match="face_size is 48, expected at least 70"):
        BranchFeatures(face_size=48)


def test_the_recipe_starts_from_both_published_branches(shared):
    folder = shared / "weights"
    if not all((folder / name).is_file() for name in WEIGHTS):
        pytest.skip(f"no published weights in {folder}")
    recipe = load_recipe("two-branches-ferplus")
    model = build_model(recipe, num_classes=8)
    assert len(start_from(model, recipe, folder)) == 2
    other = TwoBranchNet()
    reports = load_pretrained(other, {"face": "dlib-face", "landmarks": "mobilefacenet"}, folder)
    assert all(report.complete for report in reports.values())
    for part in (lambda m: m.encoder.face.stem.conv.weight, lambda m: m.encoder.landmarks.conv1.conv.weight):
        assert torch.equal(part(model), part(other))
