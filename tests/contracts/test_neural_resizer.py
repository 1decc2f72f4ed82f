"""The Neural Resizer's front and head against the numbers of the original program."""

import pytest
import torch

from ferlib.models import (
    NeuralResizer,
    SpatialTransformer,
    classification_head,
)
from ferlib.weights import from_official
from tests.contract_fill import assert_summary, fill_input, fill_state_dict, read_rows, reference


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return fill_input("image384", (2, 3, 384, 384))


def load(module: torch.nn.Module, rows: str, architecture: str, dtype=torch.float64) -> torch.nn.Module:
    module.load_state_dict(from_official(fill_state_dict(read_rows(rows)), architecture))
    return module.to(dtype)


@torch.no_grad()
def test_resizer_evaluation(image):
    resizer = load(NeuralResizer(384, 224), "nr_resizer", "neural-resizer").eval()
    expected = reference("nr_resizer")
    assert_summary(resizer(image.double()), expected, "eval_out", rtol=1e-6)
    assert_summary(
        resizer.float()(image), expected, "eval_out", rtol=1e-4
    )  # white noise: float32 loses digits


@torch.no_grad()
def test_resizer_training_and_running_statistics(image):
    resizer = load(NeuralResizer(384, 224), "nr_resizer", "neural-resizer").train()
    expected = reference("nr_resizer")
    assert_summary(resizer(image.double()), expected, "train_out", rtol=1e-6)
    norms = {
        "bn1": resizer.features.norm,
        "resblock.0.bn1": resizer.blocks[0].norm1,
        "resblock.0.bn2": resizer.blocks[0].norm2,
        "bn2": resizer.fuse.norm,
    }
    for name, norm in norms.items():
        for statistic in ("running_mean", "running_var"):
            stored = torch.from_numpy(expected[f"after_train_step.{name}.{statistic}"])
            torch.testing.assert_close(getattr(norm, statistic).float(), stored, rtol=1e-5, atol=1e-6)
        assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("case", ["fill", "mild", "identity"])
@torch.no_grad()
def test_spatial_transformer(image, case):
    expected = reference("nr_stn")
    module = load(SpatialTransformer(384), "nr_stn", "spatial-transformer", torch.float32)
    last = module.regressor[2]
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    if case == "mild":
        last.weight.mul_(0.1)
        last.bias.add_(identity)
    elif case == "identity":
        last.weight.zero_()
        last.bias.copy_(identity)
    assert_summary(module.localiser(image), expected, "localization", rtol=1e-5)
    torch.testing.assert_close(
        module.theta(image), torch.from_numpy(expected[f"{case}_theta"]), rtol=1e-5, atol=5e-5
    )
    double = module.double()
    theta = double.theta(image.double())
    torch.testing.assert_close(
        theta, torch.from_numpy(expected[f"{case}_theta_float64"]), rtol=1e-9, atol=1e-9
    )
    assert_summary(double(image.double()), expected, f"{case}_out", rtol=1e-6, statistics_rtol=1e-3)


@torch.no_grad()
def test_head():
    rows = read_rows("nr_swin_head")
    head = classification_head(1024, 8)
    head.load_state_dict(fill_state_dict(rows, drop_prefix="model.head."), strict=True)
    features = fill_input("head_features", (4, 1024))
    expected = reference("nr_head")
    head.eval()
    torch.testing.assert_close(head(features), torch.from_numpy(expected["eval_out"]), rtol=1e-5, atol=1e-5)
    double = head.double()(features.double())
    torch.testing.assert_close(double, torch.from_numpy(expected["eval_out_float64"]), rtol=1e-9, atol=1e-9)
