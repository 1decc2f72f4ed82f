"""The scripts behind the records of chapters 2 and 3: their measures, their pairing, and what they wrote."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from book.experiments import ablation, loss_ablation, resizer_ablation


def test_reliability_and_both_calibration_errors_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.35, 0.65]])
    labels = torch.tensor([0, 1, 1, 1])
    shares = torch.tensor([[1.0, 0.0], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    table = torch.tensor(ablation.reliability(p, labels, shares, bins=10))
    filled = table[table[:, 0] > 0]
    torch.testing.assert_close(filled, torch.tensor([[2.0, 1.3, 2.0, 1.4], [2.0, 1.8, 1.0, 1.4]]))
    found = ablation.judged(p.log(), labels, shares)
    assert found["accuracy"] == 0.75
    assert found["mean class accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["calibration error"] == pytest.approx((0.7 + 0.8) / 4)
    assert found["calibration error to the votes"] == pytest.approx((0.1 + 0.4) / 4)
    assert found["cross-entropy to the votes"] == pytest.approx(F.cross_entropy(p.log(), shares).item())


def test_intervals_over_seeds_are_students():
    found = ablation.difference([0.7, 0.8, 0.9], [0.6, 0.6, 0.6])
    half = 4.302653 * 0.1 / math.sqrt(3)  # t for 2 degrees of freedom
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)


def test_turned_faces_turn_back():
    axis = torch.linspace(-1, 1, 33)
    faces = torch.exp(-12 * ((axis - 0.3) ** 2 + (axis[:, None] + 0.2) ** 2)).expand(2, 1, 33, 33)
    angles = torch.tensor([25.0, -25.0])
    there = ablation.turned(faces, angles)
    assert (there - faces).abs().max() > 0.2
    torch.testing.assert_close(ablation.turned(there, -angles), faces, atol=0.05, rtol=0)
    torch.testing.assert_close(ablation.turned(faces, torch.zeros(2)), faces, atol=1e-5, rtol=0)


def test_runs_are_paired():
    x, y = torch.randn(96, 1, 28, 28), torch.arange(96) % 8
    ends = []
    for _ in range(2):
        torch.manual_seed(3)
        model = ablation.SmallTransformer(8, dim=16, depth=1)
        torch.rand(17)  # what happens in between must not matter
        ablation.train(model, x, y, nn.CrossEntropyLoss(), seed=3, epochs=1, rate=1e-3, tilt=30.0)
        ends.append(ablation.logits(model, x))
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    assert ends[0].shape == (96, 8)


def test_three_kinds_of_label():
    labels = torch.arange(4000) % 8
    shares = 0.7 * F.one_hot(labels, 8) + 0.3 * F.one_hot((labels + 1) % 8, 8)
    kinds = loss_ablation.label_kinds(labels, shares.float(), 0.4)
    wrong = {kind: (hard != labels).float().mean().item() for kind, hard in kinds.items()}
    assert wrong["majority"] == 0
    assert wrong["one annotator"] == pytest.approx(0.3, abs=0.03)
    assert wrong["at random"] == pytest.approx(0.4, abs=0.03)
    assert ((kinds["one annotator"] - labels) % 8 <= 1).all()
    others = torch.bincount((kinds["at random"] - labels) % 8, minlength=8)[1:]
    assert others.min() > 150  # of some 229 each


def test_every_front_shares_backbone_and_head():
    backbone = ablation.SmallTransformer(8, dim=16, depth=1).eval()
    faces = torch.randn(2, 1, 48, 48)
    answers = {}
    for front, stn in resizer_ablation.CASES:
        system = resizer_ablation.System(front, stn, backbone, seed=5).eval()
        answers[front, stn] = system(faces)
        learned = sum(len(group["params"]) for group in system.groups())
        assert learned == len(list(system.parameters()))
    # an untrained spatial transformer changes nothing, and the resizer begins as bilinear by factor 0.584
    for front in ("bilinear", "bicubic", "antialiased", "neural resizer"):
        torch.testing.assert_close(answers[front, True], answers[front, False], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(answers[resizer_ablation.AFTER, False], answers["bilinear", False])
