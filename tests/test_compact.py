"""The network of two pretrained branches for a CPU: what learns in it, what does not, and what it takes."""

from __future__ import annotations

import copy

import pytest
import torch

from ferlib.models import CompactEncoder, btn_compact, load_pretrained
from ferlib.training import build_model, load_recipe
from ferlib.training.start import start_from

WEIGHTS = ("face_recognition_dlib.safetensors", "mobilefacenet_landmarks68.safetensors")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return btn_compact(dim=16, heads=2, depth=1, face_size=80)


@pytest.mark.parametrize("size", [48, 100])
def test_images_of_any_size_become_three_levels_of_49_tokens(model, size):
    with torch.no_grad():
        assert model.encoder(torch.zeros(2, 3, size, size)).shape == (2, 147, 16)


def test_faces_learn_and_landmarks_stay(model, images):
    model = copy.deepcopy(model).train()
    before = copy.deepcopy(model.encoder.landmarks.state_dict())
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    start = model.encoder.face.stem.conv.weight.detach().clone()
    sum(answer.logsumexp(1).sum() for answer in model(images)).backward()
    optimiser.step()
    assert not torch.equal(model.encoder.face.stem.conv.weight, start)
    for name, tensor in model.encoder.landmarks.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the frozen branch moved"
    lost = [n for n, p in model.encoder.face.named_parameters() if p.grad is None or not p.grad.any()]
    assert not lost, f"nothing reaches {lost}"


def test_landmark_maps_can_be_kept_for_a_second_pass(model, images):
    model.eval()
    with torch.no_grad():
        kept = model.encoder.frozen(images)
        assert [tuple(level.shape) for level in kept] == [(3, 64, 7, 7), (3, 128, 7, 7), (3, 512, 7, 7)]
        torch.testing.assert_close(model(images, kept), model(images), rtol=0, atol=0)


def test_a_face_alone_gets_its_own_class_from_the_batch(model, images):
    model.eval()
    for image in images:
        own, both, batch = model.outputs(image[None])
        assert own.argmax() == both.argmax() == batch.argmax()


def test_a_face_too_small_for_the_branch_is_refused():
    with pytest.raises(ValueError, match="face_size is 48, expected at least 70"):
        CompactEncoder(face_size=48)


def test_the_recipe_starts_from_both_published_branches(shared):
    folder = shared / "weights"
    if not all((folder / name).is_file() for name in WEIGHTS):
        pytest.skip(f"no published weights in {folder}")
    recipe = load_recipe("btn-compact-ferplus")
    model = build_model(recipe, num_classes=8)
    assert len(start_from(model, recipe, folder)) == 2
    other = btn_compact()
    reports = load_pretrained(other, {"face": "dlib-face", "landmarks": "mobilefacenet"}, folder)
    assert all(report.complete for report in reports.values())
    for part in (lambda m: m.encoder.face.stem.conv.weight, lambda m: m.encoder.landmarks.conv1.conv.weight):
        assert torch.equal(part(model), part(other))
