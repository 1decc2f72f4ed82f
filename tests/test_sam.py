"""SAM against the released POSTER V2 optimizer's numbers, and its state against loss."""

import copy

import pytest
import torch
from torch import nn

from ferlib.training import SAM
from tests.contract_fill import fill_input, reference


def _sam(model: nn.Module, **options) -> SAM:
    return SAM(model.parameters(), torch.optim.Adam, lr=3.5e-5, rho=0.05, **options)


def _closure(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor):
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


def test_sam_takes_the_reference_steps():
    """Weights of the released training loop, float64, over three steps: equal to 1e-10."""
    expected = reference("posterv2_sam")
    model = nn.Linear(10, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(expected["init_weight"]))
        model.bias.copy_(torch.from_numpy(expected["init_bias"]))
    optimizer = _sam(model)
    target = torch.from_numpy(expected["targets"])
    for step in (1, 2, 3):
        x = fill_input(f"sam_x{step - 1}", (12, 10)).double()
        closure = _closure(model, optimizer, x, target)
        assert abs(closure().item() - expected[f"loss_first_step{step}_float64"]) < 1e-10
        optimizer.first_step(zero_grad=True)
        if step == 1:
            for name in ("weight", "bias"):
                stored = torch.from_numpy(expected[f"perturbed_{name}_step1_float64"])
                torch.testing.assert_close(getattr(model, name).data, stored, rtol=0, atol=1e-10)
        assert abs(closure().item() - expected[f"loss_perturbed_step{step}_float64"]) < 1e-10
        optimizer.second_step(zero_grad=True)
        for name in ("weight", "bias"):
            stored = torch.from_numpy(expected[f"{name}_after_step{step}_float64"])
            torch.testing.assert_close(getattr(model, name).data, stored, rtol=0, atol=1e-10)


def _problem(seed: int = 0):
    torch.manual_seed(seed)
    return nn.Linear(6, 4).double(), torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])


def test_step_with_a_closure_equals_the_two_halves():
    model, x, y = _problem()
    twin = copy.deepcopy(model)
    whole, halves = _sam(model), _sam(twin)
    whole.step(_closure(model, whole, x, y))
    _closure(twin, halves, x, y)()
    halves.first_step(zero_grad=True)
    _closure(twin, halves, x, y)()
    halves.second_step(zero_grad=True)
    torch.testing.assert_close(model.weight, twin.weight, rtol=0, atol=0)


def test_a_resumed_sam_goes_on_exactly():
    """State after two steps, loaded into a fresh optimizer: the third step is the same to the last bit."""
    model, x, y = _problem()
    optimizer = _sam(model)
    for _ in range(2):
        optimizer.step(_closure(model, optimizer, x, y))
    twin = copy.deepcopy(model)
    resumed = _sam(twin)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fresh_model = copy.deepcopy(model)
    fresh = _sam(fresh_model)
    for net, opt in ((model, optimizer), (twin, resumed), (fresh_model, fresh)):
        opt.step(_closure(net, opt, x, y))
    torch.testing.assert_close(model.weight, twin.weight, rtol=0, atol=0)
    assert not torch.equal(model.weight, fresh_model.weight)  # Adam's moments do matter


def test_a_schedule_reaches_the_base_optimizer():
    model, x, y = _problem()
    optimizer = _sam(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step(_closure(model, optimizer, x, y))
    schedule.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(3.5e-5 / 2)


def test_wrong_use_is_told():
    model, x, y = _problem()
    with pytest.raises(ValueError, match="rho is 0"):
        SAM(model.parameters(), torch.optim.SGD, rho=0.0, lr=0.1)
    optimizer = _sam(model)
    with pytest.raises(RuntimeError, match="closure"):
        optimizer.step()
    with pytest.raises(RuntimeError, match="first_step"):
        optimizer.second_step()
    with pytest.raises(RuntimeError, match="backward"):
        optimizer.first_step()
    with pytest.raises(ValueError, match="'base'"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})
    before = model.weight.detach().clone()
    calls = []

    def failing() -> torch.Tensor:
        if calls:
            raise FloatingPointError("stop")
        calls.append(1)
        return _closure(model, optimizer, x, y)()

    with pytest.raises(FloatingPointError):
        optimizer.step(failing)
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=0)
