"""Class batch attention against the numbers of the published formulation, values and gradients."""

import pytest
import torch

from ferlib.models import batch_transformer as module
from ferlib.models.batch_transformer import class_batch_attention
from tests.contract_fill import SALT, fill_input, reference

SIZES = [(2, 8), (8, 7), (64, 8)]


def inputs(batch: int, classes: int, dtype: torch.dtype):
    salt = f"{SALT}:B{batch}:C{classes}"
    shapes = {"q": (batch, classes, 49), "k": (batch, classes, 49), "v": (batch, classes)}
    return [fill_input(name, shape, salt=salt).to(dtype).requires_grad_() for name, shape in shapes.items()]


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
@pytest.mark.parametrize(("batch", "classes"), SIZES)
def test_values(monkeypatch, batch, classes, fused):
    monkeypatch.setattr(module, "EXPLICIT_BATCH", 0 if fused else 10**9)
    expected = reference("btn_class_batch_attention")
    for dtype, suffix in ((torch.float32, ""), (torch.float64, "_float64")):
        stored = torch.from_numpy(expected[f"B{batch}_C{classes}_out{suffix}"])
        out = class_batch_attention(*inputs(batch, classes, dtype))
        torch.testing.assert_close(out.detach(), stored.to(dtype), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
def test_gradients_of_the_sum(monkeypatch, fused):
    monkeypatch.setattr(module, "EXPLICIT_BATCH", 0 if fused else 10**9)
    expected = reference("btn_class_batch_attention")
    tensors = inputs(8, 7, torch.float32)
    gradients = torch.autograd.grad(class_batch_attention(*tensors).sum(), tensors)
    for name, gradient in zip("qkv", gradients, strict=True):
        key = next(k for k in expected if k.endswith(f"grad_{name}"))
        torch.testing.assert_close(gradient, torch.from_numpy(expected[key]), rtol=1e-5, atol=1e-5)
