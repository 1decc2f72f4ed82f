"""The scripts behind the records: who chooses, and what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from book.experiments import best_classifiers as best
from book.experiments.keep import keep
from ferlib.commands.networks import Network
from ferlib.data import EMOTIONS_FERPLUS
from ferlib.data.base import FaceDataset
from ferlib.training import Recipe, build_model
from ferlib.weights import checkpoints


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
    assert network.recipe == POCKET.replace(seed=1) and "optimizer" not in network.stored
    assert network.stored["made of"] == [{"recipe": "tiny", "seed": 1, "epoch": 3}]
    assert tuple(network.classes("")) == tuple("abcde")
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
