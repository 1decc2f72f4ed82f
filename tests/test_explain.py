"""Recorded attention is the attention that was used; maps find what they should; models stay as they were."""

import math

import pytest
import torch
from torch import nn

from ferlib.explain import (
    AttentionRecorder,
    attention_score,
    grad_cam,
    rollout,
    token_map,
)
from ferlib.models import BatchTransformerNetwork, btn_small
from ferlib.models.attention import ScaledDotProduct


def _small() -> BatchTransformerNetwork:
    torch.manual_seed(0)
    return btn_small(8).eval()


def test_gradients_can_be_taken_where_the_network_talks():
    attention = ScaledDotProduct()
    model = nn.ModuleDict({"a": attention})
    x = torch.randn(1, 1, 3, 4, requires_grad=True)
    with AttentionRecorder(model, keep_graph=True) as recorder:
        out = attention(x, x, x)
    weights = recorder.records[0].weights
    gradient = torch.autograd.grad(out.sum(), weights)[0]
    torch.testing.assert_close(gradient, torch.ones(1, 1, 3, 4) @ x.transpose(-2, -1))


def test_rollout_by_hand():
    torch.manual_seed(0)
    first, second = torch.rand(2, 2, 3, 4, 4).softmax(-1)
    eye = torch.eye(4)
    expected = (eye + second.mean(1)) / 2 @ ((eye + first.mean(1)) / 2)
    torch.testing.assert_close(rollout([first, second]), expected)
    torch.testing.assert_close(rollout([first, second]).sum(-1), torch.ones(2, 4))
    torch.testing.assert_close(rollout([first], residual=0), first.mean(1))
    torch.testing.assert_close(rollout([first], residual=1), eye.expand(2, 4, 4))
    for wrong in ([], [torch.rand(2, 3, 4, 5)], [first, torch.rand(2, 3, 5, 5)]):
        with pytest.raises(ValueError):
            rollout(wrong)


def test_a_token_map_puts_each_token_in_its_place():
    attention = torch.zeros(1, 9, 9)
    attention[0, 0, 1 + 2] = 0.25  # level 1, row 1, column 0
    attention[0, 0, 1 + 4 + 2] = 0.5  # the same place of level 2
    expected = torch.tensor([[[0.0, 0.0], [0.75, 0.0]]])
    torch.testing.assert_close(token_map(attention, grid=2), expected)
    with pytest.raises(ValueError, match="do not fill a 3 x 3"):
        token_map(attention, grid=3)


def test_grad_cam_of_the_small_network_looks_at_each_face_by_itself():
    model, images = _small(), torch.randn(3, 3, 48, 48)
    together = grad_cam(model, images, torch.tensor([1, 2, 3]))
    alone = torch.cat([grad_cam(model, images[i : i + 1], torch.tensor([i + 1])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    assert together.shape == (3, 48, 48)


def test_scores_by_hand():
    truth = torch.zeros(3, 4, 4)
    truth[:, :2, :2] = 1
    heat = torch.zeros(3, 4, 4)
    heat[0, 0, 0], heat[0, 3, 3] = 3.0, 1.0  # points right, three quarters of the energy
    heat[1, 3, 3], heat[1, 0, 1] = 3.0, 1.0  # points wrong
    heat[1, 2, 2] = -9.0  # negative heat counts as none
    scores = attention_score(heat, truth)  # the third map is empty: as good as knowing nothing
    torch.testing.assert_close(scores["pointing"], torch.tensor([1.0, 0.0, 0.25]))
    torch.testing.assert_close(scores["energy"], torch.tensor([0.75, 0.25, 0.25]))
    torch.testing.assert_close(scores["area"], torch.tensor([0.25, 0.25, 0.25]))
    small = attention_score(torch.eye(2).expand(3, 2, 2), truth)
    assert small["energy"].shape == (3,)


def test_maps_that_cannot_be_scored_are_told():
    truth = torch.ones(1, 4, 4)
    with pytest.raises(ValueError, match="heat"):
        attention_score(torch.ones(4, 4), truth)
    with pytest.raises(ValueError, match="NaN"):
        attention_score(torch.full((1, 4, 4), math.nan), truth)
    with pytest.raises(ValueError, match="face 0 has no true region"):
        attention_score(torch.ones(1, 4, 4), truth * 0.1)
