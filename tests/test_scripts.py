"""The scripts behind the records: their measures by hand, their pairing, who chooses, and what is kept."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from book.experiments import ablation, loss_ablation, resizer_ablation
from book.experiments import batch_attention_ablation as batches
from book.experiments import best_classifiers as best
from book.experiments.keep import keep
from ferlib.commands.networks import Network
from ferlib.data import EMOTIONS_FERPLUS
from ferlib.data.base import FaceDataset
from ferlib.training import Recipe, build_model
from ferlib.weights import checkpoints


def test_reliability_and_both_calibration_errors_by_hand() -> None:
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.35, 0.65]])
    labels = torch.tensor([0, 1, 1, 1])
    shares = torch.tensor([[1.0, 0.0], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    table = torch.tensor(ablation.reliability(p, labels, shares, bins=10))
    filled = table[table[:, 0] > 0]
    torch.testing.assert_close(filled, torch.tensor([[2.0, 1.3, 2.0, 1.4], [2.0, 1.8, 1.0, 1.4]]))
    assert ablation.judged(p.log(), labels, shares) == pytest.approx(
        {
            "accuracy": 0.75,
            "mean class accuracy": (1 + 2 / 3) / 2,
            "calibration error": (0.7 + 0.8) / 4,
            "calibration error to the votes": (0.1 + 0.4) / 4,
            "cross-entropy to the votes": F.cross_entropy(p.log(), shares).item(),
        }
    )


def test_turned_faces_turn_back() -> None:
    axis = torch.linspace(-1, 1, 33)
    faces = torch.exp(-12 * ((axis - 0.3) ** 2 + (axis[:, None] + 0.2) ** 2)).expand(2, 1, 33, 33)
    angles = torch.tensor([25.0, -25.0])
    there = ablation.turned(faces, angles)
    assert (there - faces).abs().max() > 0.2
    torch.testing.assert_close(ablation.turned(there, -angles), faces, atol=0.05, rtol=0)


def test_runs_are_paired() -> None:
    x, y = torch.randn(96, 1, 28, 28), torch.arange(96) % 8
    ends = []
    for _ in range(2):
        torch.manual_seed(3)
        model = ablation.SmallTransformer(8, dim=16, depth=1)
        torch.rand(17)  # what happens in between must not matter
        ablation.train(model, x, y, nn.CrossEntropyLoss(), seed=3, epochs=1, rate=1e-3, tilt=30.0)
        ends.append(ablation.logits(model, x))
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_three_kinds_of_label() -> None:
    labels = torch.arange(4000) % 8
    shares = 0.7 * F.one_hot(labels, 8) + 0.3 * F.one_hot((labels + 1) % 8, 8)
    kinds = loss_ablation.label_kinds(labels, shares.float(), 0.4)
    wrong = {kind: (hard != labels).float().mean().item() for kind, hard in kinds.items()}
    assert wrong == pytest.approx({"majority": 0, "one annotator": 0.3, "at random": 0.4}, abs=0.03)
    others = torch.bincount((kinds["at random"] - labels) % 8, minlength=8)[1:]
    assert others.min() > 150  # of some 229 each


def test_every_front_shares_backbone_and_head() -> None:
    backbone = ablation.SmallTransformer(8, dim=16, depth=1).eval()
    faces, answers = torch.randn(2, 1, 48, 48), {}
    for front, stn in resizer_ablation.CASES:
        system = resizer_ablation.System(front, stn, backbone, seed=5).eval()
        answers[front, stn] = system(faces)
        learned = sum(len(group["params"]) for group in system.groups())
        assert learned == len(list(system.parameters()))
    # an untrained spatial transformer changes nothing, and the resizer begins as bilinear by factor 0.584
    for front in ("bilinear", "bicubic", "antialiased", "neural resizer"):
        torch.testing.assert_close(answers[front, True], answers[front, False], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(answers[resizer_ablation.AFTER, False], answers["bilinear", False])


@pytest.fixture
def faces() -> batches.Faces:
    return batches.Faces(torch.randint(0, 120, (64, 1, 48, 48), dtype=torch.uint8), torch.arange(64) % 8)


def test_corruptions_and_wrong_labels_have_their_size(faces) -> None:
    changed = batches.covered(faces.images, 25, seed=0)
    share = (changed == 128).float().mean((1, 2, 3))
    torch.testing.assert_close(share, torch.full_like(share, 0.25), atol=0.01, rtol=0)
    assert torch.equal(changed[changed != 128], faces.images[changed != 128])
    small = batches.shrunk(faces.images, 16)
    assert small.dtype == torch.uint8 and small.float().std() < 0.7 * faces.images.float().std()
    labels = torch.arange(8000) % 8
    noisy = batches.wrong(labels, 40, seed=0)
    assert abs((noisy != labels).float().mean() - 0.4) < 0.03


def test_both_arms_start_from_one_network_and_measure_all_answers(faces) -> None:
    options = Namespace(steps=1, vit_weight=5.0, noise_only=True)
    data = {"train": faces, "valid": faces}
    one, other = (batches.run(arm, "as they are", "sqrt(C)", 3, data, options) for arm in ("alone", "batch"))
    assert one["before"] == other["before"]
    assert set(other["as they are"]) == {"vit", "bt", "cba"}
    assert 1 <= one["before"]["images listened to"] <= 64


class Blank(FaceDataset):
    """Faces that are told apart by their labels alone."""

    classes = EMOTIONS_FERPLUS
    labels = torch.arange(400) % 8

    def __getitem__(self, index):
        image = torch.zeros(1, 4, 4, dtype=torch.uint8)
        return {"image": image, "label": int(self.labels[index]), "name": str(index)}


def test_one_half_of_the_faces_selects_and_the_other_is_reported() -> None:
    data, wrong = Blank(), torch.zeros(2, 400, dtype=torch.bool)
    first, second = best.halves(data)
    wrong[0, first[:50]] = wrong[0, second[:10]] = True
    wrong[1, first[:20]] = wrong[1, second[:80]] = True
    fair, lucky = (9.0 * torch.eye(8)[(data.labels + shift) % 8] for shift in wrong.long())
    record = best.judge({"a kind": {"fair": fair, "lucky": lucky}}, data)
    assert record.extra["chosen"] == {"a kind": "lucky"}
    found = {part: record.get("accuracy", "lucky", part).value for part in record.extra["faces"]}
    assert found == pytest.approx({"first half": 0.9, "second half": 0.6, "all": 0.75})
    assert record.difference("lucky", "fair", condition="second half").value == pytest.approx(-0.35)


def test_candidates_average_probabilities() -> None:
    one, two = (torch.randn(5, 8).log_softmax(1) for _ in range(2))
    alone = {"a, seed 0": two, "a, seed 0, mirrored": one, "a, seed 1": one, "a, seed 1, mirrored": two}
    ((name, mean),) = best.mean_of(alone).items()
    assert name == "mean of 2 of a, mirrored"
    torch.testing.assert_close(mean.exp(), (one.exp() + two.exp()) / 2)
    half, quarter = best.beside({"three, mirrored": one}, mean).values()
    torch.testing.assert_close(half.exp(), 0.75 * one.exp() + 0.25 * two.exp())
    torch.testing.assert_close(quarter.exp(), 0.625 * one.exp() + 0.375 * two.exp())


TINY = {"in_size": 16, "out_size": 16, "widths": (4, 4, 8, 8), "blocks": (1, 1, 1, 1), "resizer": "bilinear"}
POCKET = Recipe(name="tiny", model="PocketNet", model_options=TINY, image_size=16)


def a_run(path: Path, seed: int, recipe: Recipe = POCKET, classes: list[str] | None = None) -> nn.Module:
    torch.manual_seed(seed)
    model = build_model(recipe.replace(seed=seed), num_classes=5).eval()
    state = {"epoch": 3, "recipe": vars(recipe.replace(seed=seed)), "record": {"epoch": 3}}
    state |= {"classes": list("abcde")} if classes is None else {"classes": classes}
    checkpoints.save(path, model, state | {"optimizer": torch.zeros(7)})
    return model


def test_what_is_kept_of_runs_predicts_as_they_did(tmp_path: Path) -> None:
    images, files = torch.randn(2, 3, 16, 16), [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    models = [a_run(path, seed) for seed, path in enumerate(files)]
    network = Network.find(str(keep(tmp_path / "one.safetensors", [str(files[1])])))
    assert network.recipe == POCKET.replace(seed=1) and "optimizer" not in network.stored[0]
    assert network.stored[0]["made of"] == [{"recipe": "tiny", "seed": 1, "epoch": 3}]
    assert network.classes == tuple("abcde")
    torch.testing.assert_close(network.build(5)(images), models[1](images), rtol=0, atol=0)

    kept = keep(tmp_path / "three.safetensors", [str(path) for path in files], half=True)
    mean = sum(model(view).softmax(1) for model in models for view in (images, images.flip(-1))) / 6
    torch.testing.assert_close(Network.find(str(kept)).build(5)(images).softmax(1), mean, rtol=0, atol=2e-3)
    floats = {tensor.dtype for tensor in load_file(kept).values() if tensor.is_floating_point()}
    assert floats == {torch.float16}
    for classes in (list("abced"), []):
        a_run(files[0], 0, classes=classes)
        with pytest.raises(SystemExit, match="names of their classes"):
            keep(tmp_path / "no.safetensors", [str(path) for path in files])
    a_run(files[0], 0, POCKET.replace(image_size=20))
    with pytest.raises(SystemExit, match="different sizes"):
        keep(tmp_path / "no.safetensors", [str(path) for path in files])
