"""The Batch Transformer Network in its small size, and the parts it is made of."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ferlib.models import (
    BatchTransformerNetwork,
    BTNOutput,
    MultiLevelAttention,
    PosterV2,
    btn_small,
)
from ferlib.models.attention import ScaledDotProduct, attention_weights
from ferlib.models.poster_v2 import SelfAttention, TokenTransformer
from ferlib.models.small import ResidualPyramid


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def small() -> BatchTransformerNetwork:
    torch.manual_seed(0)
    return btn_small()


def test_training_gives_three_answers_and_evaluation_the_chosen_one(small):
    faces = torch.randn(3, 3, 48, 48)
    out = small.train()(faces)
    assert isinstance(out, BTNOutput) and [t.shape for t in out] == [(3, 8)] * 3
    torch.testing.assert_close(out.bt, out.cba + out.vit)
    small.eval()
    every = small.outputs(faces)
    assert count(small) < 2_000_000
    for name in ("vit", "bt", "cba"):
        small.inference = name
        torch.testing.assert_close(small(faces), getattr(every, name))
    small.inference = "bt"
    with pytest.raises(ValueError, match="'mean'"):
        btn_small(inference="mean")


@pytest.mark.parametrize("size", [28, 100])
def test_any_size_of_face(size):
    net = btn_small(7, in_size=size).eval()
    assert net(torch.randn(2, 3, size, size)).shape == (2, 7)
    maps = net.encoder.maps(torch.randn(1, 3, size, size))
    cells = net.encoder.size // 8
    assert [m.shape[-1] for m in maps] == [4 * cells, 2 * cells, cells] and cells % 7 == 0


def test_the_vit_answer_ignores_the_neighbours_and_the_others_do_not(small):
    small.eval()
    faces = torch.randn(4, 3, 48, 48)
    with torch.no_grad():
        together, alone = small.outputs(faces), small.outputs(faces[:1])
    torch.testing.assert_close(together.vit[:1], alone.vit, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together.cba[:1], alone.cba, atol=1e-4)
    torch.testing.assert_close(alone.bt, 2 * alone.vit)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(small(faces[order]), small(faces)[order], rtol=1e-4, atol=1e-5)


def test_every_parameter_learns(small):
    small.train().zero_grad()
    out = small(torch.randn(4, 3, 48, 48))
    sum(torch.nn.functional.cross_entropy(t, torch.arange(4)) for t in out).backward()
    still = [n for n, p in small.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # A bias of the queries and of the class queries and keys may cancel in a softmax; weights may not.
    assert not [name for name in still if not name.endswith("bias")], still
    small.zero_grad()


def test_the_large_network_is_poster_v2_and_the_budget():
    with torch.device("meta"):
        net, baseline = BatchTransformerNetwork(7), PosterV2(7)
    assert count(baseline) == 43_753_941
    assert count(net.levels) == 2 * (768**2 + 768) + 2 * 7 * (768 + 1) + 5 * 768
    assert abs(count(net) - count(baseline) - 1.3e6) < 0.15e6
    inside = {name: tensor.shape for name, tensor in net.state_dict().items()}
    assert {name: tensor.shape for name, tensor in baseline.state_dict().items()}.items() <= inside.items()
    with FlopCounterMode(display=False) as counter:
        net.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    assert abs(counter.get_total_flops() / 2e9 - (8.6 + 0.2)) < 0.1


def test_multi_level_attention_by_hand_and_without_gain():
    torch.manual_seed(0)
    levels = MultiLevelAttention(3, dim=8, heads=2)
    tokens = torch.randn(2, 147, 8)
    normed = levels.norm(tokens)
    query, key = levels.query(normed), levels.key(normed)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(query[..., h] @ key[..., h].transpose(1, 2) / 2, dim=-1)
        heads.append(weights @ normed[..., h])
    out = levels(tokens)
    torch.testing.assert_close(out.tokens, tokens + 0.1 * torch.cat(heads, -1))
    grid = levels.map_norm(out.tokens.view(2, 3, 49, 8).mean(1))
    torch.testing.assert_close(out.query, levels.class_query(grid).transpose(1, 2))
    assert out.query.shape == out.key.shape == (2, 3, 49)
    assert torch.equal(MultiLevelAttention(3, dim=8, heads=2, gain=0.0)(tokens).tokens, tokens)
    with pytest.raises(ValueError, match="147"):
        levels(torch.zeros(2, 49, 8))


def test_self_attention_equals_torchs_own():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, 3), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    tokens = torch.randn(2, 5, 12)
    expected, weights = theirs(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(ours(tokens), expected)
    heard = []
    ours.attention.listeners.append(heard.append)
    torch.testing.assert_close(ours(tokens), expected)
    torch.testing.assert_close(heard[0], weights)


def test_attention_with_bias_and_scale():
    shapes = ((4, 5, 3), (4, 6, 3), (4, 6, 2), (5, 6))
    query, key, value, bias = (torch.randn(shape) for shape in shapes)
    expected = torch.softmax(0.3 * query @ key.transpose(1, 2) + bias, -1) @ value
    torch.testing.assert_close(ScaledDotProduct()(query, key, value, scale=0.3, bias=bias), expected)
    torch.testing.assert_close(attention_weights(query, key, scale=0.3, bias=bias) @ value, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TokenTransformer(7, dim=10, heads=3),
        lambda: MultiLevelAttention(7, dim=10, heads=3),
        lambda: ResidualPyramid(8, size=48),
        lambda: ResidualPyramid(8)(torch.zeros(1, 1, 48, 48)),
        lambda: TokenTransformer(7, dim=8, heads=2, tokens=4)(torch.zeros(1, 5, 8)),
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
