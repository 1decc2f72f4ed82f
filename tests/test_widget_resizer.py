"""ResizerExplorer in a browser: pictures wiped, subtracted and magnified pixel for pixel; their spectra."""

import json

import numpy as np

from ferlib.style import as_image
from ferlib.widgets.resizer import radial_spectrum
from tests.explorers import canvas, clean, opened, pictures, settle, values


def stage(page) -> np.ndarray:
    settle(page)
    return canvas(page, ".fer-stage canvas")


def test_resizers_are_wiped_flipped_and_subtracted(browser) -> None:
    ways, truth, _ = pictures(0)
    near, cubic, truth = (as_image(x, "x") for x in (ways["nearest"], ways["bicubic"], truth))
    with opened(browser, "resizer") as reader:
        page = reader.page
        shown = stage(page)[..., 0]
        assert (shown[:, :32] == near[:, :32]).all() and (shown[:, 32:] == cubic[:, 32:]).all()
        page.get_by_role("slider", name="divider").focus()
        for _ in range(25):
            page.keyboard.press("ArrowRight")  # to 75 %
        shown = stage(page)[..., 0]
        assert (shown[:, :48] == near[:, :48]).all() and (shown[:, 48:] == cubic[:, 48:]).all()
        box = page.locator(".fer-stage").bounding_box()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 90, steps=3)
        page.mouse.up()
        shown = stage(page)[..., 0]
        assert (shown[:, :16] == near[:, :16]).all() and (shown[:, 16:] == cubic[:, 16:]).all(), "dragged"
        page.get_by_role("radio", name="wipe").focus()
        page.keyboard.press("ArrowRight")
        assert (stage(page)[..., 0] == cubic).all(), "right only"
        page.keyboard.press("ArrowRight")
        gap = cubic.astype(float) - near
        shown = stage(page).astype(int)
        redder = shown[..., 0] - shown[..., 2]
        assert (np.sign(redder)[np.abs(gap) > 3] == np.sign(gap)[np.abs(gap) > 3]).all(), "difference"
        rms = np.sqrt((gap**2).mean())
        assert abs(values(page, ".fer-verdict")[0] - rms) < 1e-9
        distance = [np.sqrt(((x.astype(float) - truth) ** 2).mean()) for x in (near, cubic)]
        text = page.locator(".fer-verdict").text_content()
        assert f"nearest {distance[0]:.1f}; bicubic {distance[1]:.1f}" in text
        assert page.locator(".fer-diff span").first.text_content() == f"−{np.abs(gap).max():.0f}"
        clean(reader)


def test_resizer_lens_spectra_and_faces(browser) -> None:
    with opened(browser, "resizer", width=360) as reader:
        page = reader.page
        page.get_by_label("left", exact=True).select_option("bilinear")
        page.get_by_label("right", exact=True).select_option("the truth")
        ways, truth, _ = pictures(0)
        pair = [as_image(x, "x") for x in (ways["bilinear"], truth)]
        lens = page.get_by_role("application")
        lens.focus()
        for _ in range(30):
            page.keyboard.press("ArrowUp")
            page.keyboard.press("ArrowLeft")
        page.keyboard.press("Shift+ArrowRight")
        settle(page)
        for n, image in enumerate(pair):
            pixels = canvas(page, f".fer-pane:nth-child({n + 1}) canvas")[..., 0]
            assert (pixels == image[:8, :8]).all(), "the lens shows other pixels than those in the corner"
        spectra = json.loads(page.locator("svg[data-values]").get_attribute("data-values"))
        for shown, image in zip(spectra, pair, strict=True):
            np.testing.assert_allclose(shown, radial_spectrum(image), atol=5e-3)
        clean(reader)


def test_spectrum_finds_a_wave_where_it_is() -> None:
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * 22 / 96 * np.arange(96))[None].repeat(96, 0)
    assert int(radial_spectrum(wave).argmax()) == 22  # band k of 48 begins at k cycles in 96 pixels
    assert radial_spectrum(np.zeros((32, 32))).max() == -12
    noise = np.random.default_rng(0).random((28, 28))
    assert radial_spectrum(noise).min() > -4, "a small picture has no empty rings"
