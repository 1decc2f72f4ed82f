"""DIC: its parts by hand, its file of weights, and `ferlib prepare --method dic` from end to end."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ferlib.cli import main
from ferlib.data.ferplus import FERPlus
from ferlib.data.prepare import upscale
from ferlib.models import DIC
from ferlib.models.dic import (
    MEAN,
    AttentiveFusion,
    DICUpscaler,
    merge_heatmaps,
)
from ferlib.weights import ARCHITECTURES, CheckpointError, dic_upscaler, from_official
from tests.data_files import microsoft


def small(**options) -> DIC:
    torch.manual_seed(0)
    return DIC(**{"channels": 4, "projections": 3, "fusions": 2, "landmark_channels": 16} | options).eval()


def test_merging_maps_by_hand():
    maps = torch.zeros(1, 68, 2, 2)
    maps[0, 36, 0, 1] = 4.0  # an eye's corner: divided by its maximum
    maps[0, 41, 0, 1] = 0.01  # a weak one: divided by 0.05
    maps[0, 60] = torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    maps[0, 20, 1, 1] = 1.0  # a brow belongs to the outline
    merged = merge_heatmaps(maps)
    assert merged.shape == (1, 5, 2, 2)
    torch.testing.assert_close(merged[0, 0], torch.tensor([[0.0, 1.2], [0.0, 0.0]]))
    torch.testing.assert_close(merged[0, 3], torch.tensor([[1.0, 0.5], [0.0, 0.0]]))
    torch.testing.assert_close(merged[0, 4], torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert merged[0, 1:3].abs().max() == 0
    with pytest.raises(ValueError, match=r"landmark maps \(B, 68, any, any\)"):
        merge_heatmaps(maps[:, :5])


def test_fusion_takes_the_region_that_the_maps_point_at():
    torch.manual_seed(0)
    fusion = AttentiveFusion(channels=3, blocks=1)
    features, maps = torch.randn(1, 3, 4, 4), torch.full((1, 5, 4, 4), -50.0)
    maps[:, 2] = 50.0
    spread = fusion.blocks(torch.nn.functional.leaky_relu(fusion.spread(features), 0.2))
    torch.testing.assert_close(fusion(features, maps), spread[:, 6:9])


def test_the_call_is_the_last_step_and_steps_differ():
    network, face = small(), torch.randn(2, 3, 8, 16)
    with torch.no_grad():
        steps = list(network.steps(face))
        assert len(steps) == 4
        assert all(large.shape == (2, 3, 64, 128) and maps.shape == (2, 68, 16, 32) for large, maps in steps)
        torch.testing.assert_close(network(face), steps[-1][0])
        assert (steps[2][0] - steps[3][0]).abs().max() > 0
    torch.testing.assert_close(
        network(face), steps[-1][0], rtol=1e-5, atol=1e-5
    )  # another way, for gradients
    network(face).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.feedback.parameters())


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 3, 12, 16), (3, 16, 16), (1, 3, 0, 16)])
def test_other_shapes_are_told(shape):
    with pytest.raises(ValueError, match="multiples of 8 pixels"):
        small()(torch.zeros(shape))


def test_grey_faces_and_neighbours():
    method = DICUpscaler(small())
    faces = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.manual_seed(0))
    large = method(faces)
    assert large.shape == (3, 3, 64, 64) and large.dtype == torch.uint8
    assert torch.equal(large, method(faces.expand(-1, 3, -1, -1)))  # grey is three equal channels
    assert torch.equal(large[1:2], method(faces[1:2]))
    with torch.no_grad():
        mean = torch.tensor(MEAN).view(1, 3, 1, 1)
        exact = 255 * (method.network(faces[:1].expand(-1, 3, -1, -1) / 255 - mean) + mean)
    assert torch.equal(large[:1], exact.clamp(0, 255).round().to(torch.uint8))
    with pytest.raises(ValueError, match="scale=4"):
        method(faces, 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file as the original program saves it: its names, inside the record of a training run."""
    torch.manual_seed(0)
    named = ARCHITECTURES["dic"].official_name
    tensors = {named(name): tensor for name, tensor in DIC().state_dict().items()}
    assert len(tensors) == 296
    path = tmp_path_factory.mktemp("dic") / "DIC_HELEN.pth"
    torch.save({"step": 7, "state_dict": tensors, "best_pred": 26.7, "records": {"psnr": [26.7]}}, path)
    return path


def test_names_are_taken_back_strictly(weights, tmp_path):
    tensors = torch.load(weights, weights_only=True)["state_dict"]
    ours = from_official(tensors, "dic")
    assert list(ours) == list(DIC().state_dict())
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "plain.pth")
    loaded = dic_upscaler(tmp_path / "plain.pth").network.state_dict()
    assert all(torch.equal(loaded[name].cpu(), tensor) for name, tensor in ours.items())
    tensors.pop("HG.hg.res2_3.conv_block.3.bias")
    tensors["conv_in.0.weight"] = torch.zeros(192, 1, 3, 3)
    with pytest.raises(CheckpointError) as error:
        from_official(tensors, "dic")
    assert "HG.hg.res2_3.conv_block.3.bias" in str(error.value)  # missing
    assert "conv_in.0.weight" in str(error.value)  # of another shape
    assert "HG.hg.res2_3.conv_block.3.weight" not in str(error.value)


def prepare(root: Path, out: Path, weights: Path, *more: str) -> int:
    words = ["--upscale", "8", "--method", "dic", "--weights", str(weights), *more]
    return main(["prepare", "ferplus", "--source", str(root), "--out", str(out), *words])


def test_a_data_set_from_end_to_end(tmp_path, weights, monkeypatch, capsys):
    root = microsoft(tmp_path / "in", {"train": 3}, side=8)
    assert prepare(root, tmp_path / "once", weights) == 0
    printed = capsys.readouterr()
    assert "64 x 64 px" in printed.out and "train: 100%" in printed.err
    faces = FERPlus(tmp_path / "once", "train")
    assert faces[0]["image"].shape == (3, 64, 64)
    by_hand = upscale(FERPlus(root, "train")[2]["image"][None], 8, dic_upscaler(weights))
    assert torch.equal(faces[2]["image"], by_hand[0])

    done = []
    call = DICUpscaler.__call__

    def interrupted(self, images, scale=8):
        if done:
            raise KeyboardInterrupt
        done.append(len(images))
        return call(self, images, scale)

    monkeypatch.setattr(DICUpscaler, "__call__", interrupted)
    assert prepare(root, tmp_path / "twice", weights) == 130
    assert done == [1]  # face by face, so little is lost
    monkeypatch.setattr(DICUpscaler, "__call__", call)
    assert prepare(root, tmp_path / "twice", weights) == 0
    assert "going on at face 1 of 3" in capsys.readouterr().err
    once, twice = (np.load(tmp_path / name / "train.images.npy") for name in ("once", "twice"))
    assert np.array_equal(once, twice)


def test_what_cannot_be_is_one_line(tmp_path, weights, capsys):
    root = microsoft(tmp_path / "in", {"train": 1}, side=20)
    start = ["prepare", "ferplus", "--source", str(root), "--out", str(tmp_path / "out"), "--method", "dic"]
    other = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(2)}, other)
    cases = [
        (["--upscale", "8"], "get DIC_HELEN.pth", "--method bicubic"),
        (["--upscale", "4", "--weights", str(weights)], "upscale=4"),
        (["--upscale", "8", "--weights", str(other)], "conv_in.0.weight", "conv.weight"),
        (["--upscale", "8", "--weights", str(tmp_path / "no.pth")], "weights file is not there", "no.pth"),
        (["--upscale", "8", "--weights", str(weights)], "multiples of 8 pixels", "20, 20"),
    ]
    for words, *messages in cases:
        assert main([*start, *words]) == 1
        printed = capsys.readouterr().err
        assert all(message in printed for message in messages), printed
        assert "Traceback" not in printed
