"""The losses: what they equal, what they refuse, and that they stay finite."""

import re
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F

from ferlib.data import EMOTIONS_AFFECTNET, EMOTIONS_FERPLUS, EMOTIONS_RAFDB
from ferlib.losses import (
    FERPLUS_PRIOR,
    PRIOR_CLASSES,
    BatchTransformerLoss,
    CompensatedFocalPDLSLoss,
    FocalPDLSLoss,
    LabelSmoothingLoss,
    PDLSLoss,
    prior_for,
)

ALL = [LabelSmoothingLoss, PDLSLoss, FocalPDLSLoss, CompensatedFocalPDLSLoss]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(32, 8, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(0, 8, (32,), generator=generator)


def by_the_book(logits, target, alpha, gamma, prior):
    """Face by face, class by class, from the equation."""
    total = 0.0
    for z, y in zip(logits, target.tolist(), strict=True):
        p = torch.softmax(z, 0)
        for c in range(len(z)):
            q = alpha * (c == y) + (1 - alpha) * float(prior[y, c])
            total = total - q * (1 - p[c]) ** gamma * torch.log(p[c])
    return total / len(logits)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_pdls_is_its_equation_with_its_gradient(batch, gamma):
    logits, target = batch
    loss = FocalPDLSLoss(0.7, gamma)(logits, target)
    expected = by_the_book(logits, target, 0.7, gamma, FERPLUS_PRIOR)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(loss, logits)
    (wanted,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-9)


def test_the_gradient_passes_gradcheck_twice(batch):
    logits, target = batch
    criterion = FocalPDLSLoss(0.8, 2.0).double()
    few = logits[:4].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: criterion(z, target[:4]), few)
    assert torch.autograd.gradgradcheck(lambda z: criterion(z, target[:4]), few)


def test_each_loss_becomes_the_simpler_one(batch):
    logits, target = batch
    cross_entropy = F.cross_entropy(logits, target)
    torch.testing.assert_close(LabelSmoothingLoss(1.0)(logits, target), cross_entropy)
    torch.testing.assert_close(PDLSLoss(1.0)(logits, target), cross_entropy)
    torch.testing.assert_close(FocalPDLSLoss(0.6, 0.0)(logits, target), PDLSLoss(0.6)(logits, target))
    uniform = torch.full((8, 8), 1 / 8)
    smooth = LabelSmoothingLoss(0.6)(logits, target)
    torch.testing.assert_close(PDLSLoss(0.6, uniform)(logits, target), smooth, rtol=1e-6, atol=0)
    ignorant = torch.zeros(32, 8, dtype=torch.float64)
    torch.testing.assert_close(
        CompensatedFocalPDLSLoss(0.5)(ignorant, target), PDLSLoss(0.5)(ignorant, target)
    )


@pytest.mark.parametrize("loss", ALL)
def test_a_one_hot_target_is_a_label_and_votes_are_shares(batch, loss):
    logits, target = batch
    criterion = loss(0.7)
    hard = criterion(logits, target)
    one_hot = F.one_hot(target, 8)
    torch.testing.assert_close(criterion(logits, one_hot.double()), hard, rtol=1e-6, atol=0)
    torch.testing.assert_close(criterion(logits, 10 * one_hot), hard, rtol=1e-6, atol=0)
    many = torch.full((32, 8), 4e4, dtype=torch.float16)  # their sum is no float16
    torch.testing.assert_close(criterion(logits, many), criterion(logits, many.double()))
    other = (target + 1) % 8
    halves = criterion(logits, one_hot + F.one_hot(other, 8))
    torch.testing.assert_close(halves, (hard + criterion(logits, other)) / 2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", ALL)
def test_reductions_agree(batch, loss):
    logits, target = batch
    each = loss(reduction="none")(logits, target)
    assert each.shape == (32,)
    gradients = []
    for reduction, value in (("mean", each.mean()), ("sum", each.sum())):
        reduced = loss(reduction=reduction)(logits, target)
        torch.testing.assert_close(reduced, value)
        gradients.append(torch.autograd.grad(reduced, logits)[0])
    (from_each,) = torch.autograd.grad(each.sum(), logits)
    torch.testing.assert_close(gradients[1], from_each)
    torch.testing.assert_close(gradients[0] * 32, gradients[1])
    none = torch.zeros(0, 8), torch.zeros(0, dtype=torch.long)
    assert loss()(*none).isnan() and loss(reduction="sum")(*none) == 0


@pytest.mark.parametrize("loss", [*ALL, lambda: FocalPDLSLoss(0.8, 0.5), lambda: FocalPDLSLoss(0.8, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sure_and_extreme_logits_stay_finite(loss, dtype):
    logits = torch.zeros(4, 8, dtype=dtype)
    logits[0, 0], logits[1, 1], logits[2, 2], logits[3, 3] = 6e4, -6e4, 40.0, 1e-3
    logits.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):  # which changes nothing
        value = loss()(logits, torch.arange(4))
    torch.testing.assert_close(value, loss()(logits, torch.arange(4)), rtol=1e-6, atol=0)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", ALL)
def test_targets_and_settings_that_cannot_be_are_refused(loss):
    for shape, dtype in (
        ((3,), torch.long),
        ((4,), torch.float32),
        ((4, 7), torch.float32),
        ((4, 1, 8), None),
    ):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            loss()(torch.zeros(4, 8), torch.zeros(shape, dtype=dtype))
    for label in (8, -1, -100):
        with pytest.raises(ValueError, match=str(label)):
            loss()(torch.zeros(3, 8), torch.tensor([0, label, 2]))
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        votes = torch.ones(3, 8)
        votes[1] = torch.tensor([bad] + 7 * [0.0])
        with pytest.raises(ValueError, match="votes"):
            loss()(torch.zeros(3, 8), votes)
    with pytest.raises(ValueError, match="alpha"):
        loss(1.5)
    with pytest.raises(ValueError, match="reduction"):
        loss(0.5, reduction="average")
    with pytest.raises(ValueError, match="gamma"):
        FocalPDLSLoss(0.8, -1.0)
    with pytest.raises(ValueError, match=r"\(B, 8\).*\(2, 7\)"):
        FocalPDLSLoss()(torch.zeros(2, 7), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "prior",
    [
        torch.full((8, 7), 1 / 7),
        torch.full((8,), 1 / 8),
        torch.ones(1, 1),
        torch.ones(8, 8),
        torch.eye(8) * float("nan"),
        2 * torch.eye(8) - torch.full((8, 8), 1 / 8),
    ],
    ids=["wide", "flat", "one class", "sums to 8", "NaN", "negative"],
)
def test_a_bad_prior_is_refused(prior):
    with pytest.raises(ValueError, match="prior"):
        PDLSLoss(0.5, prior)
    own = torch.eye(3)
    criterion = PDLSLoss(0.5, own)
    own[0, 0] = 5  # a loss does not follow later changes of its prior
    assert criterion.soft_targets[0, 0] == 1


def test_a_prior_by_the_names_of_the_classes():
    assert PRIOR_CLASSES == EMOTIONS_FERPLUS
    torch.testing.assert_close(prior_for(EMOTIONS_FERPLUS), FERPLUS_PRIOR, rtol=1e-5, atol=0)
    for classes in (EMOTIONS_RAFDB, EMOTIONS_AFFECTNET, EMOTIONS_AFFECTNET[:7]):
        prior = prior_for(classes)
        assert FocalPDLSLoss(prior=prior)(torch.zeros(2, len(classes)), torch.tensor([0, 6])).isfinite()
        torch.testing.assert_close(prior.sum(1), torch.ones(len(classes)))
        fear, surprise = classes.index("fear"), classes.index("surprise")
        others = [k for k, name in enumerate(classes) if name not in ("fear", "contempt")]
        assert max(others, key=lambda k: float(prior[fear, k])) == surprise
    row = FERPLUS_PRIOR[6]  # fear; RAF-DB: surprise, fear, ..., without contempt
    torch.testing.assert_close(prior_for(EMOTIONS_RAFDB)[1, 0], row[2] / (row.sum() - row[7]))
    for bad in (("neutral", "boredom"), ("fear", "fear")):
        with pytest.raises(ValueError, match=bad[1]):
            prior_for(bad)


def test_batch_transformer_loss_adds_three(batch):
    logits, target = batch
    output = namedtuple("Output", "vit bt cba")(logits, 2 * logits, 3 * logits)
    criterion = FocalPDLSLoss()
    vit, bt, cba = (criterion(part, target) for part in output)
    torch.testing.assert_close(BatchTransformerLoss(criterion, 0.5)(output, target), 0.5 * vit + bt + cba)
    torch.testing.assert_close(BatchTransformerLoss(criterion)(logits, target), vit)
    torch.testing.assert_close(BatchTransformerLoss()(logits, target), F.cross_entropy(logits, target))


@pytest.mark.parametrize("loss", ALL)
def test_each_loss_is_one_graph_to_the_compiler(batch, loss):
    logits, target = batch
    compiled = torch.compile(loss(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, target), loss()(logits, target))
