"""The folded copy of a network gives what the network gives, and leaves the network alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.inference import JoinedConvolution, for_inference
from ferlib.models import BatchTransformerNetwork, PosterV2, btn_small
from ferlib.models.poster_v2 import TokenTransformer


def stir(model: nn.Module) -> nn.Module:
    """Statistics, gains and slopes that are no special values."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1)
    for name, parameter in model.named_parameters():
        if "gain" in name:
            parameter.data.normal_(0, 0.3)
    return model.eval()


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: btn_small(7), 48),
        (lambda: PosterV2(7), 112),
        (lambda: BatchTransformerNetwork(8, face_backbone="mobilenet-faces"), 112),
    ],
    ids=["small", "poster-v2", "btn-mobilenet"],
)
def test_the_fast_copy_gives_the_same(make, size):
    model = stir(make())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(3, 3, size, size)
    fast = for_inference(model)
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), model(images), rtol=1e-3, atol=1e-4)
    assert not fast.training and not any(p.requires_grad for p in fast.parameters())
    count = [sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (fast, model)]
    assert count[0] < count[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_two_convolutions_are_one_at_every_edge():
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3, 2, 1).double(), nn.Conv2d(6, 5, 3, 2, 1).double()
    for size in (4, 8, 28):
        joined = JoinedConvolution(first, second, size)
        maps = torch.randn(2, 3, size, size, dtype=torch.float64)
        torch.testing.assert_close(joined(maps), second(first(maps)))


@pytest.mark.parametrize("depth", [1, 2])
def test_the_lean_transformer_gives_the_same_and_the_same_gradients(depth):
    torch.manual_seed(0)
    net = TokenTransformer(5, dim=12, tokens=9, depth=depth, heads=3).double()
    tokens = torch.randn(2, 9, 12, dtype=torch.float64, requires_grad=True)
    found = []
    for lean in (False, True):
        net.lean = lean
        net.zero_grad()
        tokens.grad = None
        logits = net(tokens)
        logits.square().sum().backward()
        found.append([logits, tokens.grad, *[p.grad.clone() for p in net.parameters()]])
    torch.testing.assert_close(found[1], found[0])
    recorded = []
    net.blocks[-1].attn.attention.listeners.append(recorded.append)
    torch.testing.assert_close(net(tokens), found[0][0])
    assert recorded[0].shape == (2, 3, 10, 10), "who listens hears all tokens"


def test_lean_is_chosen_by_mode():
    net = TokenTransformer(5, dim=12, tokens=9, heads=3)
    seen = []
    net.blocks[-1].register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    for mode in (net.train, net.eval):
        mode()
        net(torch.randn(1, 9, 12))
    assert seen == [1, 10]
