"""Enlarging: four interpolations, and networks."""

from pathlib import Path

import pytest
import torch

from ferlib.data.base import DataError
from ferlib.data.ferplus import FERPlus
from ferlib.data.prepare import prepare, upscale
from ferlib.data.transforms import resize
from tests import data_files


def faces(channels: int = 1) -> torch.Tensor:
    return torch.randint(
        0, 256, (3, channels, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("channels", [1, 3])
def test_interpolations(method: str, channels: int) -> None:
    large = upscale(faces(channels), 8, method)
    assert large.shape == (3, channels, 96, 96) and large.dtype == torch.uint8
    if method == "nearest":
        assert torch.equal(large, faces(channels).repeat_interleave(8, 2).repeat_interleave(8, 3))
    flat = torch.full((1, channels, 6, 6), 77, dtype=torch.uint8)
    assert (upscale(flat, 4, method) == 77).all()


class Coloring:
    """A network of someone else's."""

    name, scales, channels, at_once = "coloring", (2, 3), 3, None

    def __call__(self, images: torch.Tensor, scale: int) -> torch.Tensor:
        if images.max() == 0:
            raise ValueError("too dark")
        return resize(images, images.shape[-1] * scale, "nearest").repeat(1, 3, 1, 1)


def test_a_learned_network_is_given_as_an_object(tmp_path: Path) -> None:
    expected = resize(faces(), 36, "nearest").repeat(1, 3, 1, 1)
    assert torch.equal(upscale(faces(), 3, Coloring()), expected)
    with pytest.raises(DataError, match="2, 3"):
        upscale(faces(), 4, Coloring())
    with pytest.raises(DataError, match="too dark"):
        upscale(torch.zeros_like(faces()), 2, Coloring())
    root = data_files.microsoft(tmp_path / "in", {"train": 3})
    prepare("ferplus", root, tmp_path / "out", upscale=2, method=Coloring(), progress=False)
    prepared = FERPlus(tmp_path / "out", "train")[1]["image"]
    assert torch.equal(prepared, upscale(FERPlus(root, "train")[1]["image"][None], 2, Coloring())[0])


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"'cubic'.*nearest, bilinear, bicubic, lanczos"):
        upscale(faces(), 8, "cubic")
    for factor in (32, 1.5):
        with pytest.raises(DataError, match=str(factor)):
            upscale(faces(), factor)
    with pytest.raises(DataError, match=r"torch\.float32"):
        upscale(faces().float(), 2)
