"""Transforms against torchvision's, drawn parameters against their ranges, and repeatability."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from ferlib.data.base import DataError
from ferlib.data.transforms import IMAGENET_MEAN, Augment, model_input, normalize, resize, to_float, to_rgb


def batch(count: int = 4, channels: int = 3, side: int = 32) -> torch.Tensor:
    images = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))
    return F.avg_pool2d(images, 3, 1, 1)


def still(count: int, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Parameters that change nothing, but for the given ones."""
    nothing = {
        "flip": torch.zeros(count, dtype=torch.bool),
        "angle": torch.zeros(count),
        "zoom": torch.ones(count),
        "shift": torch.zeros(count, 2),
        "factors": torch.ones(count, 3),
        "order": torch.arange(3).expand(count, 3),
        "erase": torch.zeros(count, 4),
    }
    return nothing | changes


def test_pixels_to_network_input() -> None:
    pixels = torch.randint(0, 256, (2, 1, 48, 48), dtype=torch.uint8)
    found = model_input(pixels, 64)
    assert found.shape == (2, 3, 64, 64) and found.dtype == torch.float32
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    torch.testing.assert_close(
        model_input(pixels), reference.normalize(pixels.float().expand(-1, 3, -1, -1) / 255, mean, std)
    )


def test_resize_agrees_with_torchvision_and_stays_in_range() -> None:
    smooth = (F.avg_pool2d(batch(side=48), 9, 1) * 255).to(torch.uint8)
    for size in (20, 80):
        found = resize(smooth, size)
        expected = reference.resize(smooth, [size, size], InterpolationMode.BICUBIC, antialias=True)
        assert found.dtype == torch.uint8 and (found.int() - expected.int()).abs().max() <= 1
        pixels = (smooth > 127).to(torch.uint8) * 255  # bicubic overshoots at such edges
        assert resize(to_float(pixels), size).max() <= 1 and resize(to_float(pixels), size).min() >= 0
    assert torch.equal(resize(pixels, 80, "nearest"), pixels.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_geometry_is_torchvisions_affine() -> None:
    images = batch(4)
    angle, zoom = torch.tensor([30.0, -50.0, 10.0, 0.0]), torch.tensor([1.2, 1.0, 0.8, 1.0])
    shift = torch.tensor([[0.0, 0.0], [0.125, -0.25], [0.0, 0.125], [0.25, 0.0]])
    flip = torch.tensor([False, True, False, True])
    found = Augment().apply(images, still(4, angle=angle, zoom=zoom, shift=shift, flip=flip))
    for i in range(4):
        one = images[i].flip(-1) if flip[i] else images[i]
        moved = (32 * shift[i]).tolist()
        # torchvision turns clockwise, and so does its sign
        expected = reference.affine(
            one, -float(angle[i]), moved, float(zoom[i]), [0.0, 0.0], InterpolationMode.BILINEAR
        )
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=0)


def test_colour_is_torchvisions_in_each_faces_own_order() -> None:
    images = batch(6)
    factors = torch.tensor([[1.4, 0.6, 1.3], [0.7, 1.4, 0.6]]).repeat(3, 1)
    order = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    found = Augment(brightness=0.4, contrast=0.4, saturation=0.4).apply(
        images, still(6, factors=factors, order=order)
    )
    steps = [reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation]
    for i in range(6):
        expected = images[i]
        for k in order[i].tolist():
            expected = steps[k](expected, float(factors[i, k]))
        torch.testing.assert_close(
            found[i], expected, atol=2e-3, rtol=0
        )  # its grey weights have three digits


def test_grey_faces_change_as_equal_channels_do() -> None:
    grey = batch(5, channels=1)
    augment = Augment.neural_resizer()
    parameters = augment.sample(5, torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        to_rgb(augment.apply(grey, parameters)), augment.apply(to_rgb(grey), parameters), atol=2e-3, rtol=0
    )


def test_neural_resizer_parameters_have_the_papers_ranges() -> None:
    p = Augment.neural_resizer().sample(4000, torch.Generator().manual_seed(0))
    assert 0.45 < p["flip"].float().mean() < 0.55
    assert 55 < p["angle"].abs().max() <= 60 and abs(p["angle"].mean()) < 1.5
    assert abs(p["angle"].std() - ((90**2 + 30**2) / 12) ** 0.5) < 1  # two uniform angles, added
    assert (p["zoom"] == 1.2).all() and (p["shift"] == 0).all() and (p["erase"] == 0).all()
    assert p["factors"].min() >= 0.6 and p["factors"].max() <= 1.4
    assert len({tuple(order) for order in p["order"].tolist()}) == 6


def test_erasing_takes_the_share_it_says() -> None:
    augment = Augment(flip=0, erase=0.5, erase_area=(0.1, 0.2))
    images = augment(torch.zeros(2000, 1, 32, 32), torch.Generator().manual_seed(0))
    share = images.gt(0).float().mean((1, 2, 3))
    assert 0.45 < (share > 0).float().mean() < 0.55
    assert share[share > 0].min() > 0.07 and share.max() < 0.23
    assert set(images.unique().tolist()) == {0.0, 0.5}


def test_a_generator_repeats_and_faces_differ() -> None:
    images = batch(1).expand(8, -1, -1, -1)
    for augment in (Augment.neural_resizer(), Augment.light()):
        first = augment(images, torch.Generator().manual_seed(7))
        assert torch.equal(first, augment(images, torch.Generator().manual_seed(7)))
        assert not torch.equal(first, augment(images, torch.Generator().manual_seed(8)))
        assert all(not torch.equal(first[0], first[i]) for i in range(1, 8))
        assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1
    torch.testing.assert_close(Augment(flip=0)(images), images, rtol=0, atol=1e-6)


def test_wrong_input_is_one_clear_error() -> None:
    pixels = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    for call, named in (
        (lambda: Augment()(pixels), "to_float"),
        (lambda: normalize(pixels), "to_float"),
        (lambda: to_float(pixels.float()), "uint8"),
        (lambda: to_rgb(torch.zeros(1, 2, 8, 8)), "B, 1, H, W"),
        (lambda: resize(pixels, 8, "lanczos"), "modes"),
    ):
        with pytest.raises(DataError, match=named):
            call()


@pytest.mark.parametrize(
    ("key", "wrong", "nearest"),
    [
        ("flip", 2, 1),
        ("flip", float("nan"), 0.0),
        ("erase", -0.1, 0),
        ("rotation", float("inf"), 360),
        ("zoom", (0.0, 1.0), (0.01, 1.0)),
        ("zoom", (1.2, 1.1), (1.1, 1.1)),
        ("erase_area", (0.1, 1.5), (0.1, 1.0)),
        ("erase_fill", (0.5, 0.5), (0.5, 0.5, 0.5)),
        ("contrast", 1.5, 1.0),
    ],
)
def test_what_no_face_can_be_changed_by_is_refused(key, wrong, nearest) -> None:
    with pytest.raises(DataError, match="expected"):
        Augment(**{key: wrong})
    assert Augment(**{key: nearest})(torch.rand(2, 3, 8, 8)).isfinite().all()


def test_flip_and_erase_as_poster_v2_has_them():
    """Pixels are kept or mirrored as they are; the erased share and its colour are what was asked for."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(400, 3, 60, 60, generator=draw) * 0.1 + 0.7
    out = Augment.flip_erase()(images, draw)
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    erased = (out == mean).all(1)
    kept = torch.where(erased[:, None], out, images)
    mirrored = torch.where(erased[:, None], out, images.flip(3))
    as_it_is, flipped = ((out == other).flatten(1).all(1) for other in (kept, mirrored))
    assert (as_it_is | flipped).all() and 150 < flipped.sum() < 250
    share = erased.float().mean((1, 2))
    hit = share[share > 0]
    assert 160 < len(hit) < 240 and hit.min() > 0.012 and hit.max() < 0.12
    fixed = replace(Augment.flip_erase(), erase=1.0, erase_area=(0.05, 0.05))
    share = (fixed(images, draw) == mean).all(1).float().mean((1, 2))
    assert (share > 0).all() and abs(share.mean() - 0.05) < 0.002
    grey = fixed(images[:, :1], draw)
    assert torch.isclose(grey, mean.mean()).flatten(1).any(1).all()
