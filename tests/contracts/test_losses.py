"""The four losses and their gradients against the numbers of the original program."""

import pytest
import torch

from ferlib.losses import (
    FERPLUS_PRIOR,
    CompensatedFocalPDLSLoss,
    FocalPDLSLoss,
    LabelSmoothingLoss,
    PDLSLoss,
)
from tests.contract_fill import fill_input, reference

LOSSES = {
    "LabelSmoothingLoss": lambda alpha, gamma, **more: LabelSmoothingLoss(alpha, **more),
    "LabelSmoothingLossDis": lambda alpha, gamma, **more: PDLSLoss(alpha, **more),
    "FocalLabelSmoothingLossDis": lambda alpha, gamma, **more: FocalPDLSLoss(alpha, gamma, **more),
    "CompFocalLabelSmoothingLossDis": lambda alpha, gamma, **more: CompensatedFocalPDLSLoss(alpha, **more),
}
SETTINGS = ("default", "a0.3_g1", "a0.65_g3.5")


@pytest.fixture(scope="module")
def expected():
    return reference("nr_losses")


def test_the_published_constants(expected):
    torch.testing.assert_close(
        FERPLUS_PRIOR, torch.from_numpy(expected["dist_matrix"]).float(), rtol=0, atol=0
    )


def test_the_inputs_are_the_stored_ones(expected):
    logits = fill_input("logits", (16, 8)) * 2.0
    torch.testing.assert_close(logits, torch.from_numpy(expected["logits"]), rtol=1e-7, atol=0)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("suffix", ["", "_float64"])
def test_value_and_gradient(expected, name, setting, suffix):
    stored = {key: expected[f"{name}__{setting}__{key}"] for key in ("alpha", "gamma")}
    alpha, gamma = float(stored["alpha"]), float(stored["gamma"])
    logits = torch.from_numpy(expected["logits"])
    logits = (logits.double() if suffix else logits.clone()).requires_grad_()
    target = torch.from_numpy(expected["targets"])
    loss = LOSSES[name](alpha, gamma)(logits, target)
    loss.backward()
    # in the float64 runs of the original the soft targets are still formed in float32: 1e-7, not 1e-12
    tolerance = {"rtol": 2e-7, "atol": 2e-9} if suffix else {"rtol": 1e-5, "atol": 1e-7}
    torch.testing.assert_close(loss, torch.tensor(expected[f"{name}__{setting}__loss{suffix}"]), **tolerance)
    gradient = torch.from_numpy(expected[f"{name}__{setting}__grad{suffix}"])
    torch.testing.assert_close(logits.grad, gradient, **tolerance)
