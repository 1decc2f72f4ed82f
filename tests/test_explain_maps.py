"""Maps by name: rollout through windows, gradients, target layers, scores, and whether learning matters."""

import copy

import pytest
import timm
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from book.experiments.attention_maps import read_by_the_batch
from book.experiments.perturbation import deletion_insertion
from book.figures import maps as maps_by_name
from ferlib import explain
from ferlib.data.transforms import model_input
from ferlib.explain import AttentionRecorder
from ferlib.explain.cam import unwarp
from ferlib.models import ResizedTransformer, btn_small, class_batch_attention
from ferlib.training import Recipe, fit
from tests.test_explain_recorder import as_is, fuse, swin, unchanged
from tests.tiny import Spots, net


def vit(**options) -> nn.Module:
    torch.manual_seed(0)
    options = dict(img_size=48, num_classes=5, depth=3, embed_dim=24, num_heads=2, pretrained=False) | options
    return timm.create_model("vit_tiny_patch16_224", **options).eval()


def recorded(model: nn.Module, images: Tensor, **options) -> list:
    with torch.no_grad(), AttentionRecorder(model, **options) as recorder:
        explain.output_logits(model, images)
    return recorder.records


def test_a_row_of_the_rollout_is_a_row_of_the_matrix():
    records = recorded(vit(), torch.randn(2, 3, 48, 48))
    whole = explain.rollout([record.weights for record in records], residual=0.4)
    torch.testing.assert_close(maps_by_name.rollout_rows(records, residual=0.4), whole[:, 0])
    every = torch.eye(10).expand(2, -1, -1)
    torch.testing.assert_close(maps_by_name.rollout_rows(records, every, residual=0.4), whole)
    mean = recorded(fuse(vit(), True), torch.randn(2, 3, 48, 48), heads="mean")
    assert mean[0].weights.shape == (2, 1, 10, 10)
    torch.testing.assert_close(mean[0].weights.sum(-1), torch.ones(2, 1, 10))


def test_rollout_of_swin_by_matrices_on_the_grid():
    """Windows, shift and merging: the same as whole matrices, the merging one that averages 2 x 2 places."""
    records = recorded(swin(), torch.randn(2, 3, 32, 32))
    place = torch.arange(64)
    merging = torch.zeros(16, 64)
    merging[(place // 8 // 2) * 4 + place % 8 // 2, place] = 0.25
    expected = torch.eye(64).expand(2, -1, -1)
    for n, record in enumerate(records):
        if n == 2:
            expected = merging @ expected
        mixed = record.on_grid().mean(1)
        expected = 0.5 * expected + 0.5 * mixed @ expected
        every = torch.eye(len(expected[0])).expand(2, -1, -1)
        torch.testing.assert_close(maps_by_name.rollout_rows(records[: n + 1], every), expected)
    torch.testing.assert_close(maps_by_name.rollout_rows(records), expected.mean(1))


def test_the_gradient_rollout_follows_its_equations():
    """By hand for a class token: R <- R + mean((gradient * A)+) R, the class token's row, without itself."""
    model, images, classes = vit(), torch.randn(2, 3, 48, 48), torch.tensor([1, 3])
    fuse(model, False)
    found = maps_by_name.gradient_rollout(fuse(copy.deepcopy(model), True), images, classes)
    kept: list[Tensor] = []
    hooks = [
        block.attn.attn_drop.register_forward_hook(lambda m, args, out: kept.append(out))
        for block in model.blocks
    ]
    score = model(images)[[0, 1], classes].sum()
    for hook in hooks:
        hook.remove()
    relevance = torch.eye(10).expand(2, -1, -1)
    for weights, gradient in zip(kept, torch.autograd.grad(score, kept), strict=True):
        relevance = relevance + (weights * gradient).clamp(min=0).mean(1) @ relevance
    torch.testing.assert_close(found.flatten(1), relevance[:, 0, 1:], rtol=1e-3, atol=1e-9)
    other = maps_by_name.gradient_rollout(model, images, torch.tensor([0, 2]))
    assert not torch.allclose(other, found)


MAKERS = {
    "vit": (vit, 48, "blocks.2.norm1"),
    "vit, pool": (lambda: vit(global_pool="map", class_token=False), 48, "blocks.2.norm1"),
    "swin": (swin, 32, "layers.1.blocks.1.norm2"),
    "swin v2": (lambda: swin(version=2), 32, "layers.1.blocks.1"),
    "btn": (lambda: btn_small(5).eval(), 48, "vit.blocks.1.norm1"),
    "resized": (lambda: resized(), 40, "backbone.layers.0.blocks.1.norm2"),
}


def resized() -> nn.Module:
    torch.manual_seed(0)
    return ResizedTransformer(
        "swin_tiny_patch4_window7_224",
        5,
        in_size=40,
        out_size=32,
        hidden=16,
        resizer_options={"channels": 4},
        backbone_options=dict(embed_dim=8, depths=(2,), num_heads=(2,), window_size=4),
    ).eval()


@pytest.mark.parametrize("name", MAKERS)
def test_every_method_gives_a_map_of_every_architecture(name):
    make, size, layer = MAKERS[name]
    model, images, classes = make(), torch.randn(2, 3, size, size), torch.tensor([1, 4])
    assert explain.target_layer(model, images).name == layer
    before = as_is(model)
    for method in (*maps_by_name.METHODS, *maps_by_name.BASELINES):
        maps = maps_by_name.attention_map(model, images, classes, method)
        assert maps.shape == (2, size, size) and torch.isfinite(maps).all(), method
        assert maps.min() >= 0 and maps.max() <= 1 and not maps.requires_grad, method
        if not (name == "swin v2" and method == "gradient-rollout"):  # its branches begin at zero
            assert maps.std() > 0, method
    assert unchanged(model, before)


def test_what_a_network_cannot_give_is_told():
    images = torch.randn(1, 3, 16, 16)
    with pytest.raises(ValueError, match="no attention"):
        maps_by_name.attention_map(net(), images, method="rollout")
    with pytest.raises(ValueError, match="'sharp'"):
        maps_by_name.attention_map(net(), images, method="sharp")
    with pytest.raises(ValueError, match="'shiny'"):
        explain.grad_cam(net(), images, method="shiny")
    with pytest.raises(ValueError, match="9"):
        maps_by_name.attention_map(net(), images, torch.tensor([9]), "grad-cam")
    model, images = vit(), torch.randn(1, 3, 48, 48)
    with pytest.raises(ValueError, match=r"not \(B, channels, h, w\)"):
        explain.grad_cam(model, images, layer=model.norm)
    with pytest.raises(ValueError, match="no part of"):
        explain.grad_cam(model, images, layer=vit().norm)
    with pytest.raises(ValueError, match="no gradient at this layer"):
        model.unused = nn.Conv2d(3, 3, 1)
        explain.grad_cam(model, images, layer=model.unused)
    with pytest.raises(ValueError, match="several forward passes"):
        records = recorded(vit(), torch.randn(1, 3, 48, 48))
        maps_by_name.rollout_rows(records + records)


TIMM = {  # what Grad-CAM and rollout do with other networks of timm: a map that is right, or an error
    "sequencer2d_s": (True, False),  # its stages are channels-last
    "mvitv2_tiny": (False, False),
    "mixer_s32_224": (False, False),
}


@pytest.mark.parametrize("name", TIMM)
def test_maps_of_other_networks_are_right_or_refused(name):
    model = timm.create_model(name, num_classes=5, pretrained=False).eval()
    images = torch.randn(2, 3, 224, 224)
    for method, works in zip(("grad-cam", "rollout"), TIMM[name], strict=True):
        if works:
            layer = explain.target_layer(model, images[:1])
            kept = []
            hook = layer.layer.register_forward_hook(lambda m, i, out, kept=kept: kept.append(out))
            assert maps_by_name.attention_map(model, images, torch.tensor([1, 4]), method).shape == (
                2,
                224,
                224,
            )
            hook.remove()
            maps = kept[-1] if layer.reshape is None else layer.reshape(kept[-1])
            assert maps.shape[:2] == (2, model.num_features) and maps.shape[2] == maps.shape[3]
        else:
            with pytest.raises(ValueError):
                maps_by_name.attention_map(model, images, torch.tensor([1, 4]), method)


def test_maps_come_back_through_the_spatial_transformer():
    """A bright place of the picture, read through a known turn, is found again where it was."""
    model = resized()
    with torch.no_grad():
        model.spatial_transformer.regressor[2].bias.copy_(torch.tensor([0.0, -1.0, 0.0, 1.0, 0.0, 0.0]))
    picture = torch.zeros(1, 40, 40)
    picture[0, 4:9, 25:31] = 1
    seen = model.spatial_transformer(picture[:, None].expand(-1, 3, -1, -1))[:, 0].detach()
    assert (seen - picture).abs().max() > 0.9
    back = unwarp(model, picture[:, None].expand(-1, 3, -1, -1), seen)
    torch.testing.assert_close(back, picture, atol=1e-4, rtol=0)


def test_class_batch_attention_can_be_computed_again_from_what_is_given():
    torch.manual_seed(0)
    model, images = btn_small(5), torch.randn(6, 3, 48, 48)
    before = as_is(model)
    query, key, value = read_by_the_batch(model, images)
    assert unchanged(model, before)
    with torch.no_grad():
        expected = model.eval().outputs(images)
    torch.testing.assert_close(class_batch_attention(query, key, value), expected.cba)
    torch.testing.assert_close(value, expected.vit)


def test_rank_correlation_is_scipys_and_a_constant_map_resembles_nothing():
    one, other = (5 * torch.rand(2, 4, 9, 9)).round()
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(maps_by_name.rank_correlation(one, other), torch.tensor(expected).float())
    assert (maps_by_name.rank_correlation(one, torch.ones(4, 9, 9)) == 0).all()


def test_auc_is_scikit_learns_also_with_ties():
    torch.manual_seed(0)
    heat, truth = (5 * torch.rand(6, 9, 9)).round(), (torch.rand(6, 9, 9) > 0.7).float()
    found = explain.attention_score(heat, truth)["auc"]
    expected = [roc_auc_score(t.flatten(), h.flatten()) for h, t in zip(heat, truth, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected).float())
    assert (explain.attention_score(torch.zeros(6, 9, 9), truth)["auc"] == 0.5).all()  # whatever the region
    half = torch.zeros(6, 9, 9)
    half[:, :4] = 1  # a Grad-CAM that is zero in most places
    expected = [roc_auc_score(t.flatten(), h.flatten()) for h, t in zip(half, truth, strict=True)]
    found = explain.attention_score(half, truth)["auc"]
    torch.testing.assert_close(found, torch.tensor(expected).float())
    assert explain.attention_score(torch.rand(1, 3, 3), torch.ones(1, 3, 3))["auc"].isnan().all()


def test_deletion_and_insertion_of_a_network_that_reads_known_pixels():
    """Scores that can be worked out: only the upper left quarter speaks for class 1."""

    class Quarter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            lit = x[:, :, :4, :4].mean((1, 2, 3))
            return torch.stack([torch.zeros_like(lit), 20 * (lit - 0.5)], 1)

    images, classes = torch.ones(2, 3, 8, 8), torch.tensor([1, 1])
    right = torch.zeros(2, 8, 8)
    right[:, :4, :4] = 1 + torch.rand(4, 4)
    options = dict(steps=8)
    good = deletion_insertion(Quarter(), images, right, classes, **options)
    share = torch.linspace(0, 1, 9)
    lit = (1 - share / 0.25).clamp(min=0)
    expected = torch.sigmoid(20 * (lit - 0.5))
    torch.testing.assert_close(good["deletion_curve"][0], expected)
    torch.testing.assert_close(good["deletion"][0], torch.trapezoid(expected, share))
    bad = deletion_insertion(Quarter(), images, 2 - right, classes, **options)
    assert (bad["deletion"] > good["deletion"] + 0.3).all()
    blurred = deletion_insertion(Quarter(), images, right, classes, steps=2)
    torch.testing.assert_close(blurred["insertion"], torch.full((2,), torch.sigmoid(torch.tensor(10.0))))


def test_a_trained_networks_map_finds_the_spot():
    """HiResCAM finds the quarter that makes the class; Grad-CAM averages over places and has to fail here."""
    model = net()
    recipe = Recipe(loss="cross-entropy", epochs=6, batch_size=16, lr=1e-2, augment="none", warmup=0)
    fit(model, nn.CrossEntropyLoss(), Spots(96), Spots(16), recipe, progress=None, device="cpu")
    data = Spots(24, seed=5)
    images = model_input(data.images)
    truth = torch.zeros(24, 16, 16)
    for i, label in enumerate(data.labels.tolist()):
        truth[i, 8 * (label // 2) : 8 * (label // 2) + 8, 8 * (label % 2) : 8 * (label % 2) + 8] = 1
    model.train().conv.weight.grad = torch.ones_like(model.conv.weight)
    before = as_is(model)
    found = explain.attention_score(explain.grad_cam(model, images, data.labels, method="hires-cam"), truth)
    assert found["area"].mean() == 0.25 and found["energy"].mean() > 0.35 and found["pointing"].mean() > 0.9
    averaged = explain.attention_score(explain.grad_cam(model, images, data.labels), truth)
    assert averaged["pointing"].mean() < 0.25
    assert unchanged(model, before) and model.conv.weight.grad.eq(1).all()
