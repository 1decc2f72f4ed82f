"""The whole system around several backbones: shapes, gradients, weights from files."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from ferlib.models import FixedResizer, NeuralResizer, ResizedTransformer, SpatialTransformer
from ferlib.weights import CheckpointError, load_pretrained

SMALL = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}


def tiny(**options) -> ResizedTransformer:
    """Swin, made small: 48 pixels in, 28 to the backbone."""
    backbone = {**SMALL, "window_size": 7, "patch_size": 1}
    options = {"in_size": 48, "out_size": 28, "backbone_options": backbone} | options
    return ResizedTransformer("swin_tiny_patch4_window7_224", 7, hidden=16, **options)


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "pvt_v2_b0", "convnext_atto"])
def test_backbones_run_forward_and_backward(backbone):
    torch.manual_seed(0)
    model = ResizedTransformer(backbone, num_classes=7, in_size=96, out_size=64)
    assert model.resize(torch.zeros(1, 3, 96, 96)).shape == (1, 3, 64, 64)
    logits = model(torch.randn(2, 3, 96, 96))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert model.resizer.to_image.weight.grad.abs().max() > 0
    assert model.spatial_transformer.regressor[2].weight.grad is not None
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("resizer", "straighten"), [("neural", True), ("bicubic", False)])
def test_each_front_end(resizer, straighten):
    model = tiny(resizer=resizer, spatial_transformer=straighten).eval()
    assert isinstance(model.resizer, NeuralResizer if resizer == "neural" else FixedResizer)
    assert isinstance(model.spatial_transformer, SpatialTransformer if straighten else nn.Identity)
    x = torch.randn(3, 3, 48, 48)
    by_hand = model.head(model.backbone(model.resizer(model.spatial_transformer(x))))
    torch.testing.assert_close(model(x), by_hand)


def test_the_head_fits_a_backbone_with_a_hidden_layer_of_its_own():
    with torch.device("meta"):
        options = {"spatial_transformer": False, "in_size": 96, "out_size": 64}
        model = ResizedTransformer("mobilenetv3_small_050", 8, **options)
        assert model.head[0].in_features == 1024  # 288 channels, then the network's own 1024
        assert model(torch.empty(2, 3, 96, 96)).shape == (2, 8)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return timm.create_model("vit_tiny_patch16_224", depth=1).state_dict()


def vit(**options) -> ResizedTransformer:
    return ResizedTransformer(
        "vit_tiny_patch16_224",
        resizer="bilinear",
        spatial_transformer=False,
        backbone_options={"depth": 1},
        **options,
    )


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_weights_from_a_file_arrive(tmp_path, published, kind):
    path = tmp_path / f"vit.{kind}"
    if kind == "pth":
        torch.save({"model": published}, path)
    else:
        save_file(published, path)
    model = vit()
    load_pretrained(model, {"backbone": path})
    loaded = model.backbone.state_dict()
    assert loaded
    for key, value in loaded.items():
        torch.testing.assert_close(value, published[key], rtol=0, atol=0)


def test_weights_in_part_are_an_error_that_lists_them(tmp_path, published):
    path = tmp_path / "part.safetensors"
    part = {key: value for key, value in published.items() if key != "norm.weight"}
    part["extra.weight"] = torch.zeros(1)
    part["cls_token"] = torch.zeros(1, 1, 100)
    save_file(part, path)
    with pytest.raises(CheckpointError) as error:
        load_pretrained(vit(), {"backbone": path})
    assert path.name in str(error.value)
    assert "norm.weight" in str(error.value) and "extra.weight" in str(error.value)
    save_file({**published, "cls_token": torch.zeros(1, 1, 100)}, path)
    with pytest.raises(CheckpointError, match=r"cls_token.*\(1, 1, 100\).*\(1, 1, 192\)"):
        load_pretrained(vit(), {"backbone": path})


def test_what_cannot_be_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"nearest names are .*swin_tiny"):
        ResizedTransformer("swin_tinny_patch4_window7_224")
    with pytest.raises(ValueError, match="resizer='lanczos'"):
        ResizedTransformer("vit_tiny_patch16_224", resizer="lanczos")
    with pytest.raises(CheckpointError, match=r"nothing\.pth"):
        load_pretrained(vit(), {"backbone": tmp_path / "nothing.pth"})
