"""Class batch attention against its definition; the batch transformer and its encoding."""

import math

import pytest
import torch

from ferlib.models import batch_transformer as module
from ferlib.models.batch_transformer import BatchTransformer, ChannelPositionalEncoding, class_batch_attention


def triple(batch: int, classes: int, size: int = 49, dtype=torch.float32, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    shapes = (batch, classes, size), (batch, classes, size), (batch, classes)
    return [torch.randn(s, generator=draw, dtype=dtype).requires_grad_() for s in shapes]


def by_definition(query, key, value, scale):
    """Three nested loops, one sum each: as slow and as plain as the equation."""
    batch, classes, _ = query.shape
    out = torch.zeros(batch, classes, dtype=query.dtype)
    for c in range(classes):
        for i in range(batch):
            scores = torch.stack([scale * (query[i, c] * key[j, c]).sum() for j in range(batch)])
            weights = scores.exp() / scores.exp().sum()
            out[i, c] = sum(weights[j] * value[j, c] for j in range(batch))
    return out


@pytest.mark.parametrize("scale", [None, 0.1])
def test_equals_its_definition(scale):
    query, key, value = triple(5, 3, 4, torch.float64)
    expected = by_definition(query, key, value, 1 / math.sqrt(3) if scale is None else scale)
    torch.testing.assert_close(class_batch_attention(query, key, value, scale=scale), expected)


@pytest.mark.parametrize("batch", [3, 130])
def test_the_fused_path_equals_the_explicit_one_with_gradients(batch, monkeypatch):
    results = []
    for limit in (0, 10**9):  # always fused, never fused
        monkeypatch.setattr(module, "EXPLICIT_BATCH", limit)
        inputs = triple(batch, 8)
        out = class_batch_attention(*inputs)
        weight = torch.linspace(-1, 1, out.numel()).view_as(out)
        results.append([out, *torch.autograd.grad((out * weight).sum(), inputs)])
    for fused, explicit in zip(*results, strict=True):
        torch.testing.assert_close(fused, explicit, rtol=1e-5, atol=2e-6)


def test_gradients_by_finite_differences():
    assert torch.autograd.gradcheck(class_batch_attention, triple(4, 2, 3, torch.float64))


def test_alone_in_its_batch_an_image_hears_itself():
    query, key, value = triple(1, 7)
    assert torch.equal(class_batch_attention(query, key, value), value)
    cba, bt = BatchTransformer(7)(query, key, value)
    assert torch.equal(cba, value) and torch.equal(bt, 2 * value)


@pytest.mark.parametrize(
    "shapes", [((4, 3, 5), (4, 3, 6), (4, 3)), ((4, 3, 5), (4, 3, 5), (3, 4)), ((4, 3), (4, 3), (4, 3))]
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match=r"\(B, C, E\)"):
        class_batch_attention(*[torch.zeros(s) for s in shapes])


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_only_the_querys_encoding_matters(kind):
    torch.manual_seed(0)
    query, key, value = triple(5, 4)
    encoding = ChannelPositionalEncoding(4, kind=kind)
    moved_query, moved_key = encoding(query, key)
    both = class_batch_attention(moved_query, moved_key, value)
    torch.testing.assert_close(class_batch_attention(moved_query, key, value), both, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(class_batch_attention(query, moved_key, value), both, atol=1e-3)


def test_sinusoids_by_hand_and_choices():
    table = ChannelPositionalEncoding(3, 49).encoding
    torch.testing.assert_close(table[0, :4], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(table[2, :2], torch.tensor([math.sin(2), math.cos(2)]))
    torch.testing.assert_close(table[2, 48], torch.tensor(math.sin(2 * 10000 ** (-48 / 49))))
    query, key, _ = triple(2, 3)
    assert ChannelPositionalEncoding(3, kind="none")(query, key) == (query, key)
    assert not list(BatchTransformer(8).parameters())
    assert sum(p.numel() for p in BatchTransformer(8, encoding="learned").parameters()) == 8 * 49
    with pytest.raises(ValueError, match="rotary"):
        ChannelPositionalEncoding(3, kind="rotary")
    with pytest.raises(ValueError, match=r"\(B, 3, 49\)"):
        ChannelPositionalEncoding(3)(torch.zeros(2, 7, 49), torch.zeros(2, 7, 49))


def test_listeners_hear_the_weights_and_change_nothing():
    transformer = BatchTransformer(4).eval()
    inputs = triple(6, 4)
    silent = transformer(*inputs)
    heard = []
    transformer.attention.listeners.append(heard.append)
    loud = transformer(*inputs)
    assert heard[0].shape == (4, 6, 6)
    for a, b in zip(silent, loud, strict=True):
        torch.testing.assert_close(a, b)


def test_others_may_answer():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 7), torch.randn(6, 4, 7), torch.randn(6, 4)
    out, weights = class_batch_attention(query, key, value, return_weights=True)
    assert weights.shape == (4, 3, 6)
    torch.testing.assert_close(out, torch.einsum("cij,jc->ic", weights, value))
    with pytest.raises(ValueError, match=r"key \(M, C, E\)"):
        class_batch_attention(query, key, value[:5])
