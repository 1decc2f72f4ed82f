"""Weights of the original programs: all of them, in the right shape, or one clear error."""

import pytest
import torch

from ferlib.models import NeuralResizer
from ferlib.weights import CheckpointError, from_official, place_official
from tests.contract_fill import fill_state_dict, read_rows


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return fill_state_dict(read_rows("nr_resizer"))


def test_the_original_names_arrive_at_ours(weights):
    ours = from_official(weights, "neural-resizer")
    assert list(ours) == list(NeuralResizer().state_dict())
    assert ours["features.lift.weight"] is weights["conv1.weight"]
    assert ours["blocks.0.norm2.running_var"] is weights["resblock.0.bn2.running_var"]
    NeuralResizer().load_state_dict(ours, strict=True)
    bare = {f"module.{key}": value for key, value in weights.items() if not key.endswith("tracked")}
    ours = from_official({"state_dict": bare, "epoch": 3}, "neural-resizer")
    assert ours["to_image.bias"] is weights["conv4.bias"] and ours["fuse.norm.num_batches_tracked"] == 0
    for given, named in (([torch.zeros(1)], "mapping"), ({"epoch": 3}, "no tensors")):
        with pytest.raises(CheckpointError, match=named):
            from_official(given, "neural-resizer")
    with pytest.raises(CheckpointError, match=r"'resnet'.*spatial-transformer"):
        from_official({}, "resnet")


def test_everything_that_does_not_fit_is_listed(weights):
    weights["conv9.weight"] = weights.pop("conv2.weight")
    del weights["bn2.running_mean"]
    weights["conv4.bias"] = torch.zeros(4)
    with pytest.raises(CheckpointError) as error:
        from_official(weights, "neural-resizer")
    text = str(error.value)
    assert "missing in the file:" in text and "bn2.running_mean  16" in text
    assert "without a place here:\n    conv9.weight  16 x 16 x 1 x 1" in text
    assert "of another shape:\n    conv4.bias  4, expected 3" in text


def meta_state_dict(name: str) -> dict[str, torch.Tensor]:
    """Shapes of 90 million weights without the weights."""
    return {row.key: torch.empty(row.shape, device="meta") for row in read_rows(name)}


def test_a_whole_checkpoint_with_the_swin_names_of_older_timm():
    official = meta_state_dict("nr_vanilla_swint_timm1.0.31")
    old = {}
    for key, value in official.items():
        for stage in (1, 2, 3):
            key = key.replace(f"model.layers.{stage}.downsample", f"model.layers.{stage - 1}.downsample")
        old[key] = value
    old["model.layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    old["model.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    ours = from_official(old, "vt-nr-swin-base")
    trained = [name for name in ours if not name.endswith(("running_mean", "running_var", "tracked"))]
    assert sum(ours[name].numel() for name in trained) == 89_997_139
    assert ours["spatial_transformer.regressor.0.weight"] is official["stn.fc_loc.0.weight"]
    reduction = official["model.layers.2.downsample.reduction.weight"]
    assert ours["backbone.layers.2.downsample.reduction.weight"] is reduction


def btn_file(prefix: str = "module.") -> dict[str, torch.Tensor]:
    """What a released BTN checkpoint may hold: POSTER V2's names, and others that nobody here knows."""
    official = meta_state_dict("posterv2_7cls")
    extra = {"mla.q.weight": (768, 768), "mla.q.bias": (768,), "mla.scale": (1,), "bt.table": (7, 49)}
    official |= {name: torch.empty(shape, device="meta") for name, shape in extra.items()}
    return {prefix + name: tensor for name, tensor in official.items()}


def test_the_poster_v2_part_of_a_btn_checkpoint():
    with pytest.raises(CheckpointError, match=r"mla\.q\.weight +768 x 768"):
        from_official(btn_file(), "btn-7")
    ours, report = place_official(btn_file(), "btn-7", part="poster-v2")
    assert report.complete and all(name.startswith(("encoder.", "vit.")) for name in ours)
    assert list(report.unexpected) == ["mla.q.weight", "mla.q.bias", "mla.scale", "bt.table"]
    assert "levels.query.weight" in report.at_start and "levels.gain" in report.at_start
    text = str(report)
    assert "the part 'poster-v2' is whole" in text and "bt.table  7 x 49" in text
    assert "levels.query.* (2)" in text and "ir_back.output_layer.*" in text
    with pytest.raises(CheckpointError, match="'face'"):
        place_official({}, "btn-7", part="face")


def test_a_mapping_places_what_the_architecture_does_not_know():
    mapping = {"mla.q": "levels.query", "mla.scale": None}
    ours, report = place_official(btn_file(), "btn-7", part="poster-v2", mapping=mapping)
    assert tuple(ours["levels.query.weight"].shape) == (768, 768) and "mla.scale" in report.set_aside
    assert list(report.unexpected) == ["bt.table"] and "levels.query.weight" not in report.at_start
    for wrong, words in (
        ({"mla.q": "levels.question"}, "'levels.question.weight', which the network does not have"),
        ({"attention": "levels"}, "'attention' is no name or prefix in the file"),
        ({"mla.q.bias": "levels.gain", "mla.scale": "levels.gain"}, "are both to become 'levels.gain'"),
    ):
        with pytest.raises(CheckpointError, match=words):
            place_official(btn_file(), "btn-7", part="poster-v2", mapping=wrong)
    _, report = place_official(btn_file(), "btn-7", part="poster-v2", mapping={"bt.table": "levels.gain"})
    assert not report.complete and report.misshaped == {"bt.table": ((7, 49), (768,))}


@pytest.mark.parametrize("classes", [7, 8])
def test_every_name_of_poster_v2_is_known(classes):
    official = meta_state_dict(f"posterv2_{classes}cls")
    parallel = {"state_dict": {f"module.{name}": tensor for name, tensor in official.items()}, "epoch": 1}
    ours, report = place_official(parallel, f"poster-v2-{classes}")
    assert report.complete and not report.at_start and len(report.set_aside) + len(ours) == len(official)
    other = f"poster-v2-{15 - classes}"
    report = place_official(official, other)[1]
    assert list(report.misshaped) == ["VIT.head.linear.weight", "VIT.head.linear.bias"]
    assert f"{classes} x 768, expected {15 - classes} x 768" in str(report)
