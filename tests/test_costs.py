"""What parts cost: multiply-adds counted by hand, parameters, and a network left as it was."""

import pytest
import torch
from torch import nn

from book.figures.costs import part_costs
from ferlib.models import NeuralResizer, ResizedTransformer


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_multiply_adds_are_those_of_a_calculation_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(2), nn.Linear(64, 32), Attention())
    costs = part_costs(model, torch.randn(2, 3, 8, 8), repeats=2)
    conv, flatten, linear, attention = costs
    assert conv.multiply_adds == 2 * 9 * 3 * 5 * 64 and conv.parameters == 9 * 3 * 5 + 5
    assert linear.multiply_adds == 2 * 5 * 64 * 32 and linear.name == "2"
    assert attention.multiply_adds == 2 * 2 * 5 * 5 * 32
    assert flatten.multiply_adds == 0
    assert all(cost.milliseconds > 0 for cost in costs)


def test_the_parts_of_the_whole_system_without_computing_anything():
    with torch.device("meta"):
        model = ResizedTransformer()
        costs = {cost.name: cost for cost in part_costs(model, torch.empty(1, 3, 384, 384), repeats=0)}
    assert sum(cost.parameters for cost in costs.values()) == 89_997_139
    assert costs["resizer"].parameters == 12_083
    large, small = 384**2, 224**2
    resizer = large * (49 * 3 * 16 + 16 * 16) + small * (3 * 9 * 16 * 16 + 49 * 16 * 3)
    assert costs["resizer"].multiply_adds == resizer
    assert costs["head"].multiply_adds == 1024 * 512 + 512 * 8
    assert all(cost.milliseconds == 0 for cost in costs.values())


def test_the_network_is_left_as_it_was():
    model = NeuralResizer(48, 28).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.randn(2, 3, 48, 48)
    part_costs(model, image, repeats=1)
    assert model.training and not any(child._forward_hooks for child in model.children())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError):
        part_costs(nn.Sequential(nn.Linear(3, 3)), image)
