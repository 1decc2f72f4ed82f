"""The spatial transformer: identity at the start, true geometry, any size, strict weights."""

import pytest
import torch

from ferlib.models import SpatialTransformer, warp


@pytest.mark.parametrize("size", [18, 97])
def test_a_new_one_changes_nothing(size):
    x = torch.rand(2, 3, size, size)
    module = SpatialTransformer(size)
    torch.testing.assert_close(module.theta(x), torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3))
    torch.testing.assert_close(module(x), x, rtol=0, atol=1e-4)


def test_parameters_by_formula():
    for size in (48, 384):
        left = ((size - 6) // 2 - 4) // 2
        count = (3 * 8 * 49 + 8) + (8 * 10 * 25 + 10) + (10 * left**2 * 32 + 32) + (32 * 6 + 6)
        assert sum(p.numel() for p in SpatialTransformer(size).parameters()) == count
    assert count == 2_711_904


def test_warp_moves_by_pixels_and_shows_zero_outside():
    x = torch.rand(1, 1, 11, 11)
    one_pixel = 2 / 10  # ten steps from the first pixel's centre to the last one's
    shifted = warp(x, torch.tensor([[[1.0, 0, one_pixel], [0, 1, 0]]]))
    torch.testing.assert_close(shifted[..., :-1], x[..., 1:], rtol=0, atol=1e-5)
    assert shifted[..., -1].abs().max() < 1e-5
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    torch.testing.assert_close(warp(x, quarter), torch.rot90(x, 1, (2, 3)), rtol=0, atol=1e-5)


def test_gradients_reach_picture_and_map():
    torch.manual_seed(0)
    module = SpatialTransformer(20).double()
    x = torch.rand(1, 3, 20, 20, dtype=torch.float64, requires_grad=True)
    torch.nn.init.normal_(module.regressor[2].weight, std=0.05)
    assert torch.autograd.gradcheck(
        lambda theta: warp(x.detach(), theta), module.theta(x).detach().mul(0.9).requires_grad_(), atol=1e-4
    )
    module(x).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


def test_half_precision_keeps_the_map_exact():
    module = SpatialTransformer(64)
    x = torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.theta(x).dtype == torch.float32
        torch.testing.assert_close(module(x).float(), x, rtol=0, atol=1e-3)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="at least 18"):
        SpatialTransformer(17)
    with pytest.raises(ValueError, match=r"\(B, 3, 48, 48\), got \(2, 3, 64, 64\)"):
        SpatialTransformer(48)(torch.zeros(2, 3, 64, 64))
