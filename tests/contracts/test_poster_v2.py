"""POSTER V2 against the numbers of the released code: tokens, features, logits, for 7 and 8 classes."""

import pytest
import torch

from ferlib.models import IResNet50, MobileFaceNet, PosterV2
from ferlib.weights import from_official
from tests.contract_fill import assert_summary, fill_input, fill_state_dict, read_rows, reference


@pytest.fixture(scope="module", params=[7, 8])
def classes(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def filled(classes):
    official = fill_state_dict(read_rows(f"posterv2_{classes}cls"))
    model = PosterV2(classes).eval()
    model.load_state_dict(from_official(official, f"poster-v2-{classes}"), strict=True)
    return model


def test_every_stage_and_the_logits(classes, filled):
    expected = reference(f"posterv2_{classes}cls")
    images = fill_input("image224", (2, 3, 224, 224))
    encoder = filled.encoder
    with torch.inference_mode():
        small = torch.nn.functional.interpolate(images, size=112)
        for n, level in enumerate(encoder.landmarks.features(small), 1):
            assert_summary(level, expected, f"mobilefacenet_feat{n}")
        for n, level in enumerate(encoder.face(images), 1):
            assert_summary(level, expected, f"ir50_feat{n}")
        for n, level in enumerate(encoder.levels(images), 1):
            assert_summary(level, expected, f"fusion_out{n}")
        tokens = encoder(images)
        assert_summary(tokens, expected, "vit_tokens")
        embedded = filled.vit.embed(tokens)
        gated = filled.vit.se_block(embedded)
        logits = filled(images)
    for value, name, atol in (
        (embedded, "vit_cls_after_norm", 5e-5),
        (gated, "vit_after_se", 5e-5),
        (logits, "logits", 1e-5),
    ):
        torch.testing.assert_close(value, torch.from_numpy(expected[name]), rtol=1e-5, atol=atol)


def test_parameters_are_those_that_matter(classes, filled):
    assert sum(p.numel() for p in filled.parameters()) == {7: 43_753_941, 8: 43_754_710}[classes]


def test_the_branches_load_alone():
    rows = read_rows("posterv2_7cls", "ir_back.")
    three = fill_state_dict(rows, drop_prefix="ir_back.")
    model = IResNet50().eval()
    model.load_state_dict(from_official(three, "ir50"), strict=True)
    single = {}  # ArcFace files count their units through, and have a fourth stage
    for name, tensor in three.items():
        if name.startswith("body"):
            body, unit, rest = name.split(".", 2)
            name = f"body.{int(unit) + {'body1': 0, 'body2': 3, 'body3': 7}[body]}.{rest}"
        single[name] = tensor
    single["body.21.res_layer.1.weight"] = torch.zeros(512, 256, 3, 3)
    again = from_official(single, "ir50")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again[name], tensor), name
    marks = fill_state_dict(read_rows("posterv2_7cls", "face_landback."), drop_prefix="face_landback.")
    MobileFaceNet().load_state_dict(from_official(marks, "mobilefacenet"), strict=True)
