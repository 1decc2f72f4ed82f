"""Parts of the loop: what is frozen is computed once, classes are evened, 16-bit numbers, the compiler."""

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ferlib.data import Augment
from ferlib.data.transforms import IMAGENET_MEAN
from ferlib.training import (
    Recipe,
    RecipeError,
    build_augment,
    build_criterion,
    build_optimizer,
    fit,
    train_step,
)
from ferlib.training.batches import Batches, draw_seed, drawing, generator
from ferlib.training.build import set_lr
from ferlib.training.device import autocast, compiler_problem, computes_bf16, move
from tests.tiny import Net, Spots, net

RECIPE = Recipe(
    name="tiny", loss="cross-entropy", epochs=2, batch_size=16, lr=1e-2, warmup=0, augment="light"
)
CPU = torch.device("cpu")


class WithLandmarks(nn.Module):
    """A network with a branch that does not learn, as POSTER V2 has one."""

    def __init__(self, whole: bool = True) -> None:
        super().__init__()
        self.landmarks = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
        self.look = nn.Conv2d(7, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.whole = whole

    @torch.no_grad()
    def frozen(self, images: Tensor) -> Tensor | None:
        return torch.relu(self.landmarks(images)) if self.whole else None

    def forward(self, images: Tensor, frozen: Tensor | None = None) -> Tensor:
        if frozen is None:
            with torch.no_grad():
                frozen = torch.relu(self.landmarks(images))
        maps = torch.relu(self.norm(self.look(torch.cat([images, frozen], 1))))
        return self.head(maps.mean((2, 3)))


@pytest.mark.parametrize("rho", [None, 0.05])
def test_the_landmark_branch_runs_once_a_step(rho):
    """And the weights after three steps are those of two full passes each."""
    torch.manual_seed(0)
    once = WithLandmarks()
    twice = copy.deepcopy(once)
    twice.whole = False
    runs = {}
    for name, model in (("once", once), ("twice", twice)):
        calls: list[int] = []
        model.landmarks.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        optimizer = build_optimizer(RECIPE.replace(optimizer="adam", sam_rho=rho), model)
        draw = torch.Generator().manual_seed(1)
        for _ in range(3):
            images, target = torch.randn(8, 3, 12, 12, generator=draw), torch.arange(8) % 4
            train_step(model.train(), nn.CrossEntropyLoss(), optimizer, images, target)
        runs[name] = len(calls)
    assert runs == {"once": 3, "twice": 3 if rho is None else 6}
    for a, b in zip(once.state_dict().values(), twice.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_balance_evens_the_classes_and_is_the_same_again():
    data = Spots(400)
    data.labels = torch.arange(4).repeat_interleave(torch.tensor([360, 30, 9, 1]))
    recipe = RECIPE.replace(balance=True, augment="none")
    batches = Batches(data, recipe, CPU, shuffle=True)
    drawn = torch.cat([target for epoch in range(1, 11) for _, target in batches.epoch(epoch)])
    assert len(drawn) == 10 * 400
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert (shares - 0.25).abs().max() < 0.03  # four standard deviations of 4000 draws
    first, again, other = (torch.cat([x for x, _ in batches.epoch(e)]) for e in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    judged = torch.cat([target for _, target in Batches(data, recipe, CPU).epoch(1)])
    assert torch.equal(judged, data.labels)  # what is judged is never resampled


def test_bf16_computes_in_16_bits_and_keeps_weights_in_32():
    seen = []
    histories = {}
    for precision in ("fp32", "bf16"):
        model = net()
        model.head.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
        recipe = RECIPE.replace(precision=precision, augment="none", epochs=4)
        sets, options = (Spots(64, 1), Spots(40, 2)), {"progress": None, "device": "cpu"}
        histories[precision] = fit(model, nn.CrossEntropyLoss(), *sets, recipe, **options)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert set(seen) == {torch.float32, torch.bfloat16}
    with autocast("auto", CPU):
        assert (net()(torch.zeros(2, 3, 16, 16)).dtype == torch.bfloat16) == computes_bf16("cpu")
    wide, narrow = (histories[p][-1] for p in ("fp32", "bf16"))
    assert wide["valid_loss"] != narrow["valid_loss"]
    assert narrow["valid_loss"] == pytest.approx(wide["valid_loss"], rel=0.1, abs=0.02)


def test_compiling_keeps_names_and_says_where_it_cannot(tmp_path, monkeypatch, capsys):
    with torch.compiler.set_stance("force_eager"):
        compiler_problem.cache_clear()
        model = net()
        options = {"progress": None, "device": "cpu", "run_dir": tmp_path}
        recipe = RECIPE.replace(compile="always", ema=0.9)
        fit(model, nn.CrossEntropyLoss(), Spots(32), Spots(16), recipe, **options)
    assert model._compiled_call_impl is not None
    plain, options["run_dir"] = net(), tmp_path / "plain"
    fit(plain, nn.CrossEntropyLoss(), Spots(32), Spots(16), RECIPE.replace(ema=0.9), **options)
    assert list(model.state_dict()) == list(plain.state_dict())
    for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    capsys.readouterr()

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    torch.compiler.reset()
    compiler_problem.cache_clear()
    model = move(net(), RECIPE.replace(compile="always"), CPU)
    compiler_problem.cache_clear()
    told = capsys.readouterr().err
    assert told.startswith("not compiled, so somewhat slower: ") and told.count("\n") == 1
    assert model._compiled_call_impl is None
    assert move(net(), RECIPE.replace(compile="gpu"), CPU)._compiled_call_impl is None
    assert not capsys.readouterr().err  # nothing was asked for here


def test_the_memory_format_is_the_recipes():
    for channels_last in (True, False):
        recipe = RECIPE.replace(channels_last=channels_last)
        model = move(Net(), recipe, CPU)
        images, _ = next(Batches(Spots(16), recipe, CPU, shuffle=True).epoch(1))
        for tensor in (images, model.conv.weight):
            assert tensor.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_augmentation_with_options():
    options = {"erase": 1.0, "erase_area": [0.05, 0.05]}
    augment = build_augment(RECIPE.replace(augment="flip-erase", augment_options=options))
    assert augment == Augment(erase=1.0, erase_area=(0.05, 0.05), erase_fill=IMAGENET_MEAN)
    with pytest.raises(RecipeError, match="erase_aera"):
        build_augment(RECIPE.replace(augment_options={"erase_aera": 1}))
    with pytest.raises(RecipeError, match="augment_options of 'light'"):
        build_augment(RECIPE.replace(augment="light", augment_options={"flip": "abc"}))
    for loss, options in (
        ("cross-entropy", {"label_smoothing": 2}),
        ("cross-entropy", {"label_smoothing": "a"}),
        ("cross-entropy", {"weight": [1, 2]}),
        ("cross-entropy", {"reduction": "none"}),
        ("label-smoothing", {"alpha": [0.5]}),
        ("pdls", {"alpha": float("nan")}),
        ("f-pdls", {"gamma": "two"}),
    ):
        with pytest.raises(RecipeError, match=f"loss_options do not fit {loss}"):
            build_criterion(RECIPE.replace(loss=loss, loss_options=options))
    build_criterion(RECIPE.replace(loss_options={"label_smoothing": 1.0}))
    with pytest.raises(RecipeError, match="augment_options of 'none'"):
        build_augment(RECIPE.replace(augment="none", augment_options={"erase": 1}))


def test_a_part_can_learn_more_slowly():
    model = torch.nn.ModuleDict({"front": torch.nn.Linear(3, 4), "rest": torch.nn.Linear(4, 2)})
    recipe = Recipe(lr=0.1, lr_scale={"front": 0.03}, weight_decay=0.5, sam_rho=0.05)
    optimizer = build_optimizer(recipe, model)
    set_lr(optimizer, 0.2)
    lr_of = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(lr_of) == 4
    assert [lr_of[p] for p in model["front"].parameters()] == pytest.approx([0.006] * 2)
    assert {lr_of[p] for p in model["rest"].parameters()} == {0.2}
    with pytest.raises(RecipeError, match="lr_scale names 'back'"):
        build_optimizer(recipe.replace(lr_scale={"back": 0.5}), model)
    with pytest.raises(RecipeError, match="lr_scale"):
        recipe.replace(lr_scale={"front": 0.0})


def draws() -> tuple[float, ...]:
    return torch.rand(1).item(), np.random.rand(), random.random()


def test_inside_all_numbers_follow_the_seed_and_outside_nothing_has_happened():
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    found = []
    for seed in (3, 3, 4):
        with drawing(seed):
            found.append(draws())
    with pytest.raises(ZeroDivisionError), drawing(3):
        draws()
        raise ZeroDivisionError
    assert found[0] == found[1] and not set(found[0]) & set(found[2])
    assert torch.equal(before[0], torch.random.get_rng_state()) and before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])


def test_seeds_of_neighbouring_steps_have_nothing_in_common():
    words = itertools.product(range(9), ["step"], range(9), range(99))
    seeds = {draw_seed(*some) for some in words}
    assert len(seeds) == 9 * 9 * 99 and all(0 <= seed < 2**63 for seed in seeds)
    assert draw_seed(1, 2) != draw_seed(2, 1) != draw_seed(12) and draw_seed("a", 1) == draw_seed("a", 1)
    first = torch.stack([torch.rand(4, generator=generator(0, step)) for step in range(500)])
    assert (first.mean(0) - 0.5).abs().max() < 0.06  # four standard deviations of 500 draws
