"""The kept checkpoints are the files their records tell of, and open as the commands open them."""

import hashlib
from pathlib import Path

import pytest
import torch

from ferlib.commands.networks import Network
from ferlib.data import FERPlus
from ferlib.data.faces import SomeFaces
from ferlib.evaluation import ResultRecord, predict
from ferlib.training import load_recipe, recipe_from

FOLDER = Path(__file__).resolve().parents[1] / "book" / "checkpoints"
FILES = sorted(FOLDER.glob("*.safetensors"))


def test_there_is_one_and_the_page_names_them_all():
    assert FILES
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.name}`" in page for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_the_file_that_was_measured_and_says_how_it_was_made(path):
    record = ResultRecord.load(f"checkpoint_{path.stem}")
    assert record.extra["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    network = Network.find(str(path))
    made = network.stored["made of"]
    assert record.extra["made of"] == made
    bundled = [load_recipe(one["recipe"]).replace(seed=one["seed"]) for one in made]
    if network.recipe.model == "Ensemble":  # each of its members is what a bundled recipe makes
        members = network.recipe.model_options["members"]
        assert members == [{"model": r.model, "model_options": r.model_options} for r in bundled]
    else:
        assert bundled == [recipe_from(network.stored["recipe"], path.name)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_answers_real_faces_as_recorded(path, ferplus_real):
    valid = FERPlus(ferplus_real, "valid")
    some = SomeFaces(valid, torch.arange(0, len(valid), 16))
    network = Network.find(str(path))
    logits, labels = predict(network.build(len(valid.classes)), some, **network.inputs())
    known = ResultRecord.load(f"checkpoint_{path.stem}").get("accuracy").value
    right = (logits.argmax(1) == labels).double().mean().item()
    assert abs(right - known) < 4 * (known * (1 - known) / len(some)) ** 0.5
