"""The Neural Resizer at any pair of sizes, its two samplings, its rivals."""

import pytest
import torch
import torch.nn.functional as F

from ferlib.models import FixedResizer, NeuralResizer, bilinear, published_scale_factor


@pytest.mark.parametrize(
    ("sizes", "factor"),
    [((384, 224), 0.584), ((192, 112), 0.584), ((96, 56), 0.584), ((48, 24), 0.5), ((48, 96), 2)],
)
def test_the_published_rule_for_the_factor(sizes, factor):
    assert published_scale_factor(*sizes) == factor
    for in_size, out_size in (sizes, (7, 29), (100, 1), (384, 777)):  # any pair gives the size asked for
        image = torch.zeros(1, 1, in_size, in_size)
        for sampling in ("scale-factor", "exact-size"):
            assert bilinear(image, in_size, out_size, sampling).shape == (1, 1, out_size, out_size)


def test_the_two_samplings_read_other_places():
    ramp = torch.arange(384.0).expand(1, 1, 384, 384)
    position = torch.arange(224) + 0.5
    for sampling, step in (("scale-factor", 1 / 0.584), ("exact-size", 384 / 224)):
        read = bilinear(ramp, 384, 224, sampling)[0, 0, 0]
        torch.testing.assert_close(read, (position * step - 0.5).clamp(0, 383), rtol=0, atol=1e-4)


def naive(resizer: NeuralResizer, x: torch.Tensor) -> torch.Tensor:
    """The published order of layers with nothing but functions."""

    def norm(layer, x):
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    def conv(layer, x, padding):
        return F.conv2d(x, layer.weight, layer.bias, padding=padding)

    f = F.leaky_relu(conv(resizer.features.lift, x, 3), 0.2)
    f = norm(resizer.features.norm, F.leaky_relu(conv(resizer.features.mix, f, 0), 0.2))
    f = F.interpolate(f, scale_factor=0.5, mode="bilinear")
    y = f
    for block in resizer.blocks:
        inner = F.leaky_relu(norm(block.norm1, conv(block.conv1, y, 1)), 0.2)
        y = y + norm(block.norm2, conv(block.conv2, inner, 1))
    y = f + norm(resizer.fuse.norm, conv(resizer.fuse.conv, y, 1))
    return conv(resizer.to_image, y, 3) + F.interpolate(x, scale_factor=0.5, mode="bilinear")


@pytest.mark.parametrize("blocks", [0, 2])
def test_it_equals_a_naive_version_with_gradients(blocks):
    torch.manual_seed(0)
    resizer = NeuralResizer(32, 16, channels=5, blocks=blocks).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    ours, theirs = resizer(x), naive(resizer, x)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    parts = [x, *resizer.parameters()]
    gradients = (torch.autograd.grad(out, parts, weight) for out in (ours, theirs))
    torch.testing.assert_close(*gradients)


def test_parameters_by_formula():
    for n, r in ((16, 1), (16, 2), (8, 1), (4, 0)):
        lift, mix, back = 3 * n * 49 + n, n * n + n, n * 3 * 49 + 3
        block, norm = 2 * (9 * n * n + n) + 2 * 2 * n, 2 * n
        count = lift + mix + norm + r * block + (9 * n * n + n) + norm + back
        assert sum(p.numel() for p in NeuralResizer(channels=n, blocks=r).parameters()) == count
    assert sum(p.numel() for p in NeuralResizer().parameters()) == 12_083


def test_it_is_bilinear_plus_a_residual_and_can_begin_as_bilinear():
    x = torch.rand(2, 1, 48, 48)
    resizer = NeuralResizer(48, 28, in_channels=1).eval()
    torch.testing.assert_close(resizer(x) - resizer.residual(x), resizer.downsample(x), rtol=0, atol=1e-5)
    assert resizer.residual(x).abs().max() > 0
    start = NeuralResizer(48, 28, in_channels=1, start_bilinear=True)
    torch.testing.assert_close(start(x), bilinear(x, 48, 28, "scale-factor"), rtol=0, atol=0)
    start(x).square().mean().backward()
    assert start.to_image.weight.grad.abs().max() > 0  # it can leave its start


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"expected images \(B, 3, 48, 48\), got \(1, 3, 50, 48\)"):
        NeuralResizer(48, 24)(torch.zeros(1, 3, 50, 48))
    with pytest.raises(ValueError, match="exact-size"):
        NeuralResizer(48, 24, sampling="exact")
    with pytest.raises(ValueError, match="at least one pixel"):
        NeuralResizer(48, 0)
    with pytest.raises(ValueError, match="antialiased"):
        FixedResizer(24, "lanczos")


def test_only_antialiasing_forgets_what_the_small_picture_cannot_hold():
    stripes = torch.tensor([0.0, 1.0]).repeat(48).expand(1, 1, 96, 96)  # one pixel dark, one bright
    left = {method: float(FixedResizer(36, method)(stripes).std()) for method in FixedResizer.METHODS}
    for method in FixedResizer.METHODS:
        flat = FixedResizer(24, method)(torch.full((2, 3, 50, 50), 0.25))
        torch.testing.assert_close(flat, torch.full((2, 3, 24, 24), 0.25))
    assert left["antialiased"] < 0.05 < min(left[method] for method in ("nearest", "bilinear", "bicubic"))
