"""What is kept of a run answers as the run did: alone, with others, in 16 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from book.experiments.keep import keep
from ferlib.commands.networks import Network
from ferlib.training import Recipe, build_model
from ferlib.weights import checkpoints

TINY = {"in_size": 16, "out_size": 16, "widths": (4, 4, 8, 8), "blocks": (1, 1, 1, 1), "resizer": "bilinear"}
POCKET = Recipe(name="tiny", model="PocketNet", model_options=TINY, image_size=16)


def a_run(path: Path, recipe: Recipe, seed: int):
    torch.manual_seed(seed)
    model = build_model(recipe.replace(seed=seed), num_classes=5).eval()
    state = {"epoch": 3, "recipe": vars(recipe.replace(seed=seed)), "record": {"epoch": 3}}
    checkpoints.save(path, model, state | {"optimizer": torch.zeros(7)})
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_one_run_is_kept_as_it_is(tmp_path, images):
    model = a_run(tmp_path / "last.safetensors", POCKET, seed=4)
    kept = keep(tmp_path / "kept.safetensors", [str(tmp_path / "last.safetensors")])
    network = Network.find(str(kept))
    assert network.recipe == POCKET.replace(seed=4) and "optimizer" not in network.stored[0]
    assert network.stored[0]["made of"] == [{"recipe": "tiny", "seed": 4, "epoch": 3}]
    torch.testing.assert_close(network.build(5)(images), model(images), rtol=0, atol=0)


def test_one_run_is_asked_with_its_mirror_image(tmp_path, images):
    model = a_run(tmp_path / "last.safetensors", POCKET, seed=4)
    kept = keep(tmp_path / "kept.safetensors", [str(tmp_path / "last.safetensors")], mirror=True)
    said = (model(images).softmax(1) + model(images.flip(-1)).softmax(1)) / 2
    torch.testing.assert_close(Network.find(str(kept)).build(5)(images).exp(), said)


def test_several_answer_as_one_in_half_the_bytes(tmp_path, images):
    apart = [a_run(tmp_path / f"{seed}.safetensors", POCKET, seed) for seed in range(3)]
    runs = [str(tmp_path / f"{seed}.safetensors") for seed in range(3)]
    kept = keep(tmp_path / "three.safetensors", runs, half=True)
    said = sum(model(view).softmax(1) for model in apart for view in (images, images.flip(-1))) / 6
    network = Network.find(str(kept))
    torch.testing.assert_close(network.build(5)(images).softmax(1), said, rtol=0, atol=2e-3)
    assert {made["seed"] for made in network.stored[0]["made of"]} == {0, 1, 2}
    floats = [tensor.dtype for tensor in load_file(kept).values() if tensor.is_floating_point()]
    assert set(floats) == {torch.float16}


def test_members_of_an_ensemble_take_one_size(tmp_path):
    a_run(tmp_path / "a.safetensors", POCKET, 0)
    a_run(tmp_path / "b.safetensors", POCKET.replace(image_size=20), 1)
    with pytest.raises(SystemExit, match="different sizes"):
        keep(tmp_path / "c.safetensors", [str(tmp_path / f"{n}.safetensors") for n in "ab"])
