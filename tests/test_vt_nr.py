"""The paper's networks by name, in this library and in timm's registry."""

import subprocess
import sys

import pytest
import timm
import torch

from book.figures.costs import part_costs
from ferlib.models import ResizedTransformer, vt_nr_small

MEMBERS = ("vt_nr_swin_tiny", "vt_nr_swin_base")


def test_the_registry_knows_the_names():
    assert set(timm.list_models("vt_nr_*")) == {*MEMBERS, "vt_nr_small"}
    model = timm.create_model("vt_nr_small", num_classes=5, resizer="antialiased", img_size=112).eval()
    assert model(torch.randn(2, 3, 112, 112)).shape == (2, 5)
    with pytest.raises(ValueError, match="patches of 8 pixels, not 2"):
        vt_nr_small(patch_size=2)


def test_importing_the_package_is_quick_and_changes_nothing():
    code = (
        "import os, sys; before = dict(os.environ), list(sys.meta_path)\n"
        "import ferlib; assert callable(ferlib.load_network)\n"
        "assert (dict(os.environ), list(sys.meta_path)) == before\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_constructs_for_its_classes(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
        assert model(torch.empty(2, 3, 384, 384)).shape == (2, 7)
    assert isinstance(model, ResizedTransformer) and model.num_classes == 7
    assert model.head[0].in_features == model.num_features == model.backbone.num_features


def test_options_in_timms_words_and_in_ours():
    with torch.device("meta"):
        options = {"img_size": 192, "out_size": 112, "drop_rate": 0.1, "drop_path_rate": 0.3}
        options |= {"resizer": "bilinear", "spatial_transformer": False}
        model = timm.create_model("vt_nr_swin_tiny", num_classes=4, **options)
        assert model(torch.empty(2, 3, 192, 192)).shape == (2, 4)
    assert model.head[3].p == 0.1
    assert model.backbone.layers[-1].blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)
    with pytest.raises(TypeError, match="no_such_option"):
        timm.create_model("vt_nr_small", no_such_option=1)


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
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.9
