"""The paper's networks by name, in this library and in timm's registry."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch

import ferlib.models
from book.figures.costs import part_costs
from ferlib.models import ResizedTransformer, vt_nr_small

MEMBERS = (
    "vt_nr_swin_tiny",
    "vt_nr_swin_base",
)


@pytest.mark.parametrize("order", ["import ferlib.models, timm", "import timm, ferlib.models"])
def test_the_registry_knows_the_names_in_either_order(order):
    code = f"{order}; print(timm.create_model('vt_nr_small', num_classes=5).head[-1].out_features)"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip() == "5", done.stderr


def test_importing_the_package_is_quick_and_changes_nothing():
    code = (
        "import os, sys; before = dict(os.environ), list(sys.meta_path)\n"
        "import ferlib; assert callable(ferlib.load_network)\n"
        "assert (dict(os.environ), list(sys.meta_path)) == before\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_is_listed():
    assert set(timm.list_models("vt_nr_*")) == {*MEMBERS, "vt_nr_small"}


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_constructs_for_its_classes(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
        assert model(torch.empty(2, 3, 384, 384)).shape == (2, 7)
    assert isinstance(model, ResizedTransformer) and model.num_classes == 7
    assert model.head[0].in_features == model.num_features == model.backbone.num_features


def test_options_in_timms_words_and_in_ours():
    with torch.device("meta"):
        model = timm.create_model(
            "vt_nr_swin_tiny",
            num_classes=4,
            img_size=192,
            out_size=112,
            drop_rate=0.1,
            drop_path_rate=0.3,
            resizer="bilinear",
            spatial_transformer=False,
        )
        assert model(torch.empty(2, 3, 192, 192)).shape == (2, 4)
    assert model.head[3].p == 0.1
    assert model.backbone.layers[-1].blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)
    with pytest.raises(TypeError, match="no_such_option"):
        timm.create_model("vt_nr_small", no_such_option=1)


@pytest.mark.parametrize(
    "backbone", ["coatnet_pico_rw_224", "pvt_v2_b0", "convnextv2_atto", "deit_tiny_patch16_224"]
)
def test_other_families_learn_at_the_papers_size(backbone):
    torch.manual_seed(0)
    model = ResizedTransformer(backbone, 3)
    logits = model(torch.randn(2, 3, 384, 384))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    assert model.resizer.to_image.weight.grad.abs().max() > 0


def test_the_small_member_learns_a_batch_by_heart():
    torch.manual_seed(0)
    model = vt_nr_small(num_classes=3, dropout=0.0, drop_path_rate=0.0)
    assert sum(p.numel() for p in model.parameters()) < 2_500_000
    costs = part_costs(model, torch.randn(1, 3, 96, 96), repeats=0)
    assert sum(cost.multiply_adds for cost in costs) < 110e6
    torch.testing.assert_close(  # it begins as plain bilinear interpolation of the face as it is
        model.eval().resize(torch.ones(1, 3, 96, 96)), torch.ones(1, 3, 56, 56), rtol=0, atol=1e-5
    )
    model.train()
    images, labels = torch.randn(12, 3, 96, 96), torch.arange(12) % 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    assert ferlib.models.vt_nr_small is vt_nr_small


def test_the_small_member_in_other_settings():
    for options in ({"resizer": "antialiased"}, {"spatial_transformer": False}, {"img_size": 112}):
        model = timm.create_model("vt_nr_small", num_classes=7, **options).eval()
        side = options.get("img_size", 96)
        assert model(torch.randn(2, 3, side, side)).shape == (2, 7)
    with pytest.raises(ValueError, match="patches of 8 pixels, not 2"):
        vt_nr_small(patch_size=2)
