"""Recipes are read strictly, written back whole, and their schedules are PyTorch's."""

from __future__ import annotations

import pytest
import torch

from ferlib.training import Recipe, RecipeError, bundled, load_recipe


def test_every_bundled_recipe_loads_and_comes_back(tmp_path):
    assert {"btn-small-ferplus", "btn-small-synthetic"} <= set(bundled())
    for name in bundled():
        recipe = load_recipe(name)
        assert recipe.name == name
        copy = tmp_path / "copy.yaml"
        copy.write_text(recipe.to_yaml())
        assert load_recipe(copy) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1", "unknown key 'learning_rate'"),
        ("lr: fast", "lr is 'fast', expected float"),
        ("epochs: 2.5", "epochs is 2.5, expected int"),
        ("epochs: 0", "epochs is 0, which is out of range"),
        ("lr: -1", "out of range"),
        ("schedule: zigzag", "schedule is 'zigzag'"),
        ("ema: 1.0", "ema is 1.0"),
        ("- a list", "found list"),
        ("a: [", "not a YAML file"),
    ],
)
def test_a_wrong_recipe_is_told(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")):
        load_recipe(path)


def test_numbers_as_yaml_reads_them(tmp_path):
    path = tmp_path / "numbers.yaml"
    path.write_text("lr: 1e-3\nclip: null\nepochs: 3.0\nsam_rho: 5e-2\n")
    recipe = load_recipe(path)
    assert (recipe.lr, recipe.clip, recipe.epochs, recipe.sam_rho) == (1e-3, None, 3, 0.05)
    with pytest.raises(RecipeError, match="btn-small-ferplus"):
        load_recipe("no-such-recipe")
    with pytest.raises(RecipeError, match="unknown key 'speed'"):
        recipe.but(speed=1)


@pytest.mark.parametrize("schedule", ["step", "exponential", "cosine", "constant"])
def test_schedules_are_pytorchs(schedule):
    """Whole epochs, no warm-up: the learning rates of torch.optim.lr_scheduler, stepped after each epoch."""
    recipe = Recipe(schedule=schedule, warmup=0, decay=0.25, step_size=3, epochs=10, lr=0.1)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = {
        "step": lambda: torch.optim.lr_scheduler.StepLR(optimiser, 3, 0.25),
        "exponential": lambda: torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.25),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10),
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimiser, 1.0),
    }[schedule]()
    for epoch in range(10):
        assert recipe.lr_at(epoch) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        theirs.step()


def test_the_warm_up_is_a_ramp():
    recipe = Recipe(lr=1.0, warmup=2, epochs=10, floor=0.1)
    assert [recipe.lr_at(t) for t in (0, 0.5, 1, 2)] == [0, 0.25, 0.5, 1]
    assert recipe.lr_at(10) == pytest.approx(0.1)
    steps = [recipe.lr_at(epoch + (step + 1) / 7) for epoch in range(10) for step in range(7)]
    assert max(steps) <= 1 and min(steps) > 0
    drops = Recipe(schedule="step", warmup=0, step_size=3, epochs=9, decay=0.5, lr=1.0)
    assert drops.lr_at(2 + 7 / 7 - 1e-12) == 0.5  # a sum of steps counts as the whole epoch it is
