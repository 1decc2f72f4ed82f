"""Random numbers are functions of where they are needed; bars begin where a run goes on."""

import itertools
import random

import numpy as np
import pytest
import torch

from ferlib.training import make_progress
from ferlib.training.batches import draw_seed, drawing, generator


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


def test_a_bar_begins_where_a_resumed_run_goes_on(capsys):
    record = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "valid_loss": 1.0, "valid_accuracy": 0.5}
    bar = make_progress("terminal")
    bar.start(5, 3, [record], 2)
    assert (bar.bar.n, bar.bar.total) == (7, 15)
    bar.step(2, 3, 0.5)
    assert bar.bar.n == 8
    bar.close("stopped")
    assert "8/15" in capsys.readouterr().err
