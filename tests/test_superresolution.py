"""Enlarging: four interpolations, and a place that a learned network can take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ferlib.data.base import DataError
from ferlib.data.superresolution import METHODS, make_upscaler, register, upscale
from ferlib.data.transforms import resize


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


def test_bilinear_is_what_torch_computes() -> None:
    assert (upscale(faces(), 4, "bilinear").int() - resize(faces(), 48, "bilinear").int()).abs().max() <= 1


def test_a_learned_network_joins_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferlib.data.superresolution.METHODS", dict(METHODS))
    seen = []

    def factory(weights: Path | None):
        if weights is None:
            raise DataError("brighter: needs --weights")
        seen.append(weights)
        return lambda images, scale: resize(images, images.shape[-1] * scale).clamp(min=100)

    register("brighter", factory)
    (tmp_path / "w").touch()
    assert make_upscaler("brighter", 2, tmp_path / "w")(faces()).min() >= 100 and seen == [tmp_path / "w"]
    with pytest.raises(DataError, match="needs --weights"):
        make_upscaler("brighter", 2)
    with pytest.raises(DataError, match="already registered"):
        register("brighter", factory)


def test_an_address_is_imported_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferlib.data.superresolution.METHODS", dict(METHODS))
    register("theirs", "tests.test_superresolution:colouring")
    run = make_upscaler("theirs", 3)
    assert run.channels == 3 and run.at_once is None
    assert torch.equal(run(faces()), resize(faces(), 36, "nearest").repeat(1, 3, 1, 1))
    with pytest.raises(DataError, match="'theirs' enlarges 2 or 3 times, not 4; give --upscale 2 or 3"):
        make_upscaler("theirs", 4)
    with pytest.raises(DataError, match="'theirs': too dark"):
        run(torch.zeros_like(faces()))


def colouring(weights: Path | None):
    def upscaler(images: torch.Tensor, scale: int) -> torch.Tensor:
        if images.max() == 0:
            raise ValueError("too dark")
        return resize(images, images.shape[-1] * scale, "nearest").repeat(1, 3, 1, 1)

    upscaler.scales, upscaler.channels = (2, 3), 3
    return upscaler


def test_a_method_that_breaks_its_word_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ferlib.data.superresolution.METHODS", {"bad": lambda w: lambda images, scale: images}
    )
    with pytest.raises(
        DataError, match=r"gave torch.uint8 \(3, 1, 12, 12\); expected uint8 \(3, 1, 24, 24\)"
    ):
        upscale(faces(), 2, "bad")


def test_refusals() -> None:
    with pytest.raises(
        DataError, match=r"'cubic' is not known; choose one of bicubic, bilinear, dic, lanczos, nearest"
    ):
        upscale(faces(), 8, "cubic")
    with pytest.raises(DataError, match="from 1 to 16"):
        upscale(faces(), 32)
    with pytest.raises(DataError, match="from 1 to 16"):
        upscale(faces(), 1.5)
    with pytest.raises(DataError, match="expected uint8"):
        upscale(faces().float(), 2)
    with pytest.raises(DataError, match="interpolation takes no weights"):
        make_upscaler("bicubic", 2, __file__)
