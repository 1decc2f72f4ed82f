"""Recipes are read strictly, written back whole, and their schedules are PyTorch's."""

import json
import math

import pytest
import torch
import yaml

from ferlib.data import SyntheticFaces
from ferlib.data.faces import KeptFaces
from ferlib.training import (
    SAM,
    Recipe,
    RecipeError,
    build_augment,
    build_criterion,
    build_model,
    build_optimizer,
    bundled,
    load_recipe,
    recipe_from,
    train_step,
)
from ferlib.training.batches import Batches
from ferlib.weights import PRETRAINED


def test_every_bundled_recipe_loads_and_comes_back(tmp_path):
    assert {"btn-small-ferplus", "btn-small-synthetic"} <= set(bundled())
    for name in bundled():
        recipe = load_recipe(name)
        assert recipe.name == name
        copy = tmp_path / "copy.yaml"
        copy.write_text(recipe.to_yaml())
        assert load_recipe(copy) == recipe


def test_numbers_as_yaml_reads_them(tmp_path):
    path = tmp_path / "numbers.yaml"
    path.write_text("lr: 1e-3\nclip: null\nepochs: 3.0\nsam_rho: 5e-2\n")
    recipe = load_recipe(path)
    assert (recipe.lr, recipe.clip, recipe.epochs, recipe.sam_rho) == (1e-3, None, 3, 0.05)
    with pytest.raises(RecipeError, match="btn-small-ferplus"):
        load_recipe("no-such-recipe")
    with pytest.raises(RecipeError, match="'speed'"):
        recipe.replace(speed=1)


@pytest.mark.parametrize("schedule", ["step", "exponential", "cosine", "constant"])
def test_schedules_are_pytorchs(schedule):
    """Whole epochs, no warm-up: the learning rates of torch.optim.lr_scheduler, stepped after each epoch."""
    recipe = Recipe(schedule=schedule, warmup=0, decay=0.25, step_size=3, epochs=10, lr=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = {
        "step": lambda: torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.25),
        "exponential": lambda: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.25),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
    }[schedule]()
    for epoch in range(10):
        assert recipe.lr_at(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_the_warm_up_is_a_ramp():
    recipe = Recipe(lr=1.0, warmup=2, epochs=10, floor=0.1)
    assert [recipe.lr_at(t) for t in (0, 0.5, 1, 2)] == [0, 0.25, 0.5, 1]
    assert recipe.lr_at(10) == pytest.approx(0.1)
    steps = [recipe.lr_at(epoch + (step + 1) / 7) for epoch in range(10) for step in range(7)]
    assert max(steps) <= 1 and min(steps) > 0
    drops = Recipe(schedule="step", warmup=0, step_size=3, epochs=9, decay=0.5, lr=1.0)
    assert drops.lr_at(2 + 7 / 7 - 1e-12) == 0.5  # a sum of steps counts as the whole epoch it is


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_recipe_builds(name):
    """On the meta device: names, options and sizes fit, and no memory is taken."""
    recipe = load_recipe(name)
    classes = {"rafdb": 7, "affectnet7": 7}.get(recipe.data, 8)
    with torch.device("meta"):
        model = build_model(recipe, num_classes=classes)
        size = recipe.image_size or 48
        images = torch.empty(2, 3, size, size)
        output = model.train()(images)
    outputs = [output] if isinstance(output, torch.Tensor) else list(output)
    assert {tuple(logits.shape) for logits in outputs} == {(2, classes)}
    optimizer = build_optimizer(recipe, model)
    assert isinstance(optimizer, SAM) == (recipe.sam_rho is not None)
    build_criterion(recipe)
    build_augment(recipe)
    assert set(recipe.weights) <= {"backbone", "landmarks", "face"}
    assert set(recipe.weights.values()) <= set(PRETRAINED)


def test_recipes_say_what_the_papers_say():
    found = {n: load_recipe(n) for n in ("btn-rafdb", "btn-affectnet7", "btn-affectnet8")}
    settings = [(2e-5, 64, 300), (0.8e-6, 144, 100), (1e-6, 144, 100)]
    assert [(r.lr, r.batch_size, r.epochs) for r in found.values()] == settings
    for name, recipe in found.items():
        assert (recipe.optimizer, recipe.sam_rho, recipe.weight_decay) == ("adam", 0.05, 0)
        assert (recipe.schedule, recipe.decay, recipe.warmup, recipe.clip) == ("exponential", 0.98, 0, None)
        assert recipe.balance == ("affectnet" in name) and recipe.image_size == 224
        augment = build_augment(recipe)
        erase = (1.0, (0.05, 0.05)) if "affectnet" in name else (0.5, (0.02, 0.1))
        assert (augment.flip, augment.erase, augment.erase_area) == (0.5, *erase)
    for name in ("vt-nr-ferplus", "vt-nr-rafdb", "vt-nr-affectnet8"):
        recipe = load_recipe(name)
        assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.seed) == (1e-4, 64, 100, 1111)
        assert recipe.loss_options == {"alpha": 0.8, "gamma": 2.0} and recipe.protocol == "paper"


@pytest.mark.parametrize("name", [name for name in bundled() if "small" in name])
def test_the_first_steps_of_every_small_recipe(name):
    """Two: where a last layer begins at zero, what is before it moves in the second."""
    recipe = load_recipe(name).replace(batch_size=8)
    faces = KeptFaces(SyntheticFaces(8, size=48, seed=1, framing="ferplus"))
    model = build_model(recipe, num_classes=8).train()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    images, target = next(Batches(faces, recipe, torch.device("cpu"), shuffle=True).epoch(1))
    criterion, optimizer = build_criterion(recipe), build_optimizer(recipe, model)
    for _ in range(2):
        loss, logits = train_step(model, criterion, optimizer, images, target, clip=recipe.clip)
    assert math.isfinite(loss) and logits.shape == (8, 8)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(f'*{a}' for _ in range(10))}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        *(f"name: {json.dumps(name)}" for name in ("../x", "/tmp/x", "..", "", "a\0b", "x" * 200, "C:\\x")),
        "learning_rate: 1",
        "lr: -1",
        "lr: .inf",
        "epochs: 2.5",
        "schedule: zigzag",
        "ema: 1.0",
        "- a list",
        "a: [",
        "compile: sometimes",
        "model_options: [1]",
        "name: 5",
        "data: imagenet",
        "1: 2",
        LAUGHS,
        "model_options: &a {x: *a}",
        "model_options: " + "[" * 5000,
        "model_options: " + "[" * 100_000,
        "weights: {face: [a]}",
        "lr_scale: {e: abc}",
        "image_size: 100000",
        "weight_decay: .inf",
        "ema: .nan",
        "seed: 1e300",
        "? [1]\n: 2",
    ],
    ids=lambda text: text[:30],
)
def test_a_wrong_recipe_is_one_short_error_that_names_the_key(tmp_path, text):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    shown, key = str(error.value), text.partition(":")[0]
    assert len(shown) < 800 and "\0" not in shown
    assert "wrong.yaml" in shown or key in shown


@pytest.mark.parametrize(
    "text",
    [
        "name: a..b",
        'name: "vt-nr 2+3, x=1"',
        "name: été_1",
        "model_options: &a {x: 1}",
        "lr_scale: {e: 1e-1}",
        "image_size: 4096",
        "decay: 0",
        "seed: 1.0e+9",
    ],
)
def test_the_nearest_valid_ones_are_read(tmp_path, text):
    path = tmp_path / "right.yaml"
    path.write_text(text)
    assert load_recipe(path) == recipe_from(yaml.safe_load(load_recipe(path).to_yaml()), "copy")


def test_a_recipe_chooses_a_networks_shape_and_nothing_else():
    """What a file may not set: tests/test_load_network.py; here it is a recipe's error."""
    inside = {"members": [{"model": "vt_nr_small", "model_options": {"pretrained": True}}]}
    for model, options in (("vt_nr_small", {"backbone": "hf-hub:a/b"}), ("Ensemble", inside)):
        with pytest.raises(RecipeError):
            build_model(Recipe(model=model, model_options=options))
    for large in ({"backbone_options": {"depth": 100_000}}, {"out_size": 10**9}):
        with pytest.raises(RecipeError, match="too large"):
            build_model(Recipe(model="vt_nr_small", model_options=large))
    with pytest.raises(RecipeError, match="'colour'"):
        build_model(Recipe(model_options={"colour": "blue"}))
    with torch.device("meta"):
        build_model(Recipe(model="vt_nr_small", model_options={"backbone_options": {"depth": 1}}))


def test_a_kept_recipe_with_a_key_of_before_is_read():
    assert recipe_from({"optimiser": "sgd"}, "kept").optimizer == "sgd"
