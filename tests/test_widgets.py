"""The interactive figures, in a real browser without network: by keyboard, wide and narrow, light and dark.

What the page computes is compared with what ferlib computes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ferlib.data import EMOTIONS_FERPLUS as CLASSES
from ferlib.losses import FERPLUS_PRIOR, CompensatedFocalPDLSLoss, FocalPDLSLoss, LabelSmoothingLoss, PDLSLoss
from ferlib.models import class_batch_attention
from ferlib.widgets import BatchAttentionExplorer, LossExplorer, ResizerExplorer
from ferlib.widgets.packing import MAX_BYTES, as_image, class_colours, pack
from ferlib.widgets.resizer import radial_spectrum
from tests.reader import Reader

FACE = [0.4, -1.25, 2.31, 0.07, -0.6, -1.9, 1.84, -2.5]
KINDS = ("loss", "resizer", "batch")


def loss_explorer() -> LossExplorer:
    return LossExplorer(FERPLUS_PRIOR, CLASSES, logits=FACE)


def pictures(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Three ways to enlarge a small picture to 64 pixels, what they should give, and the small one."""
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
    truth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    small = torch.nn.functional.interpolate(truth, size=16, mode="area")
    ways = {
        mode: torch.nn.functional.interpolate(small, size=64, mode=mode)[0, 0].numpy()
        for mode in ("nearest", "bilinear", "bicubic")
    }
    return ways, truth[0, 0].numpy(), small[0, 0].numpy()


def resizer_explorer() -> ResizerExplorer:
    first, second = pictures(0), pictures(1)
    return ResizerExplorer(
        {"one": first[0], "two": second[0]},
        truth={"one": first[1], "two": second[1]},
        source={"one": first[2], "two": second[2]},
    )


def batch(count: int = 9) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    query, key = torch.randn(2, count, len(CLASSES), 49, generator=generator) * 0.6
    value = torch.randn(count, len(CLASSES), generator=generator)
    faces = torch.randint(0, 256, (count, 48, 48), generator=generator, dtype=torch.uint8)
    return {"faces": faces, "query": query, "key": key, "value": value, "labels": torch.arange(count) % 8}


def batch_explorer() -> BatchAttentionExplorer:
    return BatchAttentionExplorer(**batch(), classes=CLASSES, start=[2, 0, 5], presets={"pair": [2, 7]})


MAKE = {"loss": loss_explorer, "resizer": resizer_explorer, "batch": batch_explorer}


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory):
    """The file of a bare page that holds one explorer."""
    folder = tmp_path_factory.mktemp("explorers")

    def write(kind: str) -> Path:
        path = folder / f"{kind}.html"
        if not path.exists():
            path.write_text(
                '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>figure</title>'
                '<meta name="viewport" content="width=device-width"></head>'
                f"<body>{MAKE[kind]().html()}</body></html>",
                encoding="utf-8",
            )
        return path

    return write


def opened(browser, path: Path, **how) -> Reader:
    reader = Reader(browser, path, **how)
    reader.page.wait_for_selector(".fer-host[data-ready=yes] .fer-widget", timeout=10_000)
    reader.page.wait_for_timeout(50)
    return reader


def clean(reader: Reader) -> None:
    assert reader.outside == [], "the figure asks the network"
    assert reader.errors == []
    assert reader.overflow() <= 0, "the figure is wider than its page"


def settle(page) -> None:
    """Figures draw once a frame: wait for two."""
    page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")


def values(page, selector: str) -> np.ndarray:
    settle(page)
    found = page.eval_on_selector_all(selector, "all => all.map(e => Number(e.dataset.value))")
    assert found, selector
    return np.array(found)


def slide(page, label: str, value: float) -> None:
    page.get_by_role("slider", name=label).fill(str(value))


CHECK = """() => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
  const pixel = canvas.getContext('2d', {willReadFrequently: true});
  const rgba = (css) => { pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = css; pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data].map((v, i) => i === 3 ? v / 255 : v); };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const ground = (e) => { const layers = [];
    for (; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]); };
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => rgb.map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const faint = [], nameless = [], small = [];
  for (const e of document.querySelectorAll('.fer-widget *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (own && e.checkVisibility() && !e.closest('.fer-off, .fer-said, option')) {
      const css = getComputedStyle(e), below = ground(e);
      const ink = over(rgba(e.closest('svg') ? css.fill : css.color), below);
      const [a, b] = [light(ink), light(below)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) faint.push(`${e.textContent}: ${ratio.toFixed(2)}`);
    }
    if (e.matches('input, select, button, [tabindex]') && e.checkVisibility()) {
      const labels = [...(e.labels || [])].map((l) => l.textContent).join('');
      const name = e.getAttribute('aria-label') || labels || e.textContent;
      if (!name.trim()) nameless.push(e.outerHTML);
      const box = (e.closest('label') || e).getBoundingClientRect();
      if (!e.classList.contains('fer-lens') && box.height < 24) small.push(`${e.outerHTML} ${box.height}`);
    }
  }
  return {faint, nameless, small};
}"""


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_figure_reads_offline(browser, page_of, kind: str, scheme: str, width: int) -> None:
    with opened(browser, page_of(kind), width=width, scheme=scheme) as reader:
        assert reader.page.locator(".fer-widget[role=group][aria-label]").count() == 1
        assert reader.page.locator(".fer-host img, .fer-fallback").count() == 0, "the fallback is still there"
        assert reader.page.evaluate(CHECK) == {"faint": [], "nameless": [], "small": []}
        clean(reader)


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_is_reached_by_tab_and_shows_it(browser, page_of, kind: str) -> None:
    """Going through the figure by the Tab key alone visits each control (a group of radios once)."""
    with opened(browser, page_of(kind)) as reader:
        page = reader.page
        wanted = page.evaluate(
            """new Set([...document.querySelectorAll('.fer-widget :is(input, select, button, [tabindex])')]
              .filter((e) => !e.disabled && e.checkVisibility())
              .map((e) => e.type === 'radio' ? e.name : e)).size"""
        )
        seen = 0
        for _ in range(wanted + 1):
            page.keyboard.press("Tab")
            state = page.evaluate(
                "(() => { const e = document.activeElement; if (!e.closest('.fer-widget')) return null;"
                "const shown = e.type === 'radio' && e.nextElementSibling?.tagName === 'SPAN'"
                " && e.closest('.fer-pills') ? e.nextElementSibling : e;"
                "return getComputedStyle(shown).outlineStyle; })()"
            )
            if state is None:
                break
            assert state != "none", "the focus cannot be seen"
            seen += 1
        assert seen == wanted


def expected_loss(name: str, alpha: float, gamma: float):
    return {
        "cross-entropy": lambda: torch.nn.CrossEntropyLoss(),
        "label smoothing": lambda: LabelSmoothingLoss(alpha),
        "PDLS": lambda: PDLSLoss(alpha, FERPLUS_PRIOR),
        "focal": lambda: FocalPDLSLoss(1.0, gamma, FERPLUS_PRIOR),
        "F-PDLS": lambda: FocalPDLSLoss(alpha, gamma, FERPLUS_PRIOR),
        "compensated": lambda: CompensatedFocalPDLSLoss(alpha, FERPLUS_PRIOR),
    }[name]()


def test_losses_and_pulls_are_those_of_ferlib(browser, page_of) -> None:
    """Six losses at several settings, on several faces: value, target, probability and pull within 1e-5."""
    with opened(browser, page_of("loss")) as reader:
        page = reader.page
        faces = {
            "the hard face": FACE,
            "knows nothing": [0.0] * 8,
            "sure and right": [6.0 * (c == 3) for c in range(8)],
            "sure and wrong": [6.0 * (c == 0) for c in range(8)],  # sadness is most often taken for neutral
        }
        for face, label, alpha, gamma in [
            ("the hard face", 6, 0.8, 2), ("the hard face", 2, 0.35, 0.5), ("the hard face", 4, 1, 0),
            ("sure and right", 3, 0.6, 3.5), ("sure and wrong", 3, 0.9, 1), ("knows nothing", 7, 0, 5),
        ]:  # fmt: skip
            page.get_by_label("the label says").select_option(index=label)
            page.get_by_role("button", name=face).click()
            for name in ("F-PDLS", "cross-entropy", "label smoothing", "PDLS", "focal", "compensated"):
                page.get_by_role("radio", name=name, exact=True).check()
                if name == "F-PDLS":
                    settle(page)
                    slide(page, "α", alpha)
                    slide(page, "γ", gamma)
                logits = torch.tensor([faces[face]], dtype=torch.float64, requires_grad=True)
                criterion = expected_loss(name, alpha, gamma).double()
                loss = criterion(logits, torch.tensor([label]))
                (gradient,) = torch.autograd.grad(loss, logits)
                shown = {k: values(page, f".fer-{k} .fer-bar") for k in ("p", "q", "pull")}
                where = f"{name}, {face}, label {label}, alpha {alpha}, gamma {gamma}"
                assert abs(values(page, ".fer-verdict")[0] - loss.item()) < 1e-5, where
                np.testing.assert_allclose(shown["pull"], -gradient[0].numpy(), atol=1e-5, err_msg=where)
                np.testing.assert_allclose(shown["p"], logits.detach().softmax(1)[0].numpy(), atol=1e-9)
                if hasattr(criterion, "soft_targets"):
                    np.testing.assert_allclose(shown["q"], criterion.soft_targets[label].numpy(), atol=1e-6)
        clean(reader)


def test_losses_follow_the_keyboard(browser, page_of) -> None:
    with opened(browser, page_of("loss"), width=360) as reader:
        page = reader.page
        before = values(page, ".fer-p .fer-bar")
        page.get_by_role("slider", name="logit of fear").focus()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        after = values(page, ".fer-p .fer-bar")
        logits = torch.tensor(FACE)
        logits[6] = 2.8  # ten steps of 0.1 from 1.8, the step nearest to the face's 1.84
        np.testing.assert_allclose(after, logits.double().softmax(0).numpy(), atol=2e-3)
        assert after[6] > before[6]
        page.get_by_role("radio", name="F-PDLS").focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(400)
        assert "The focal loss" in page.locator("[role=status]").text_content()
        assert page.get_by_role("slider", name="α").is_disabled(), "the usual focal loss has no alpha"


def expected_batch(members: list[int], asking: int, cls: int, scale: float) -> dict[str, np.ndarray]:
    data = batch()
    query, key = (data[n].half().double()[members] for n in ("query", "key"))  # what travels to the page
    value = data["value"].double()[members]
    cba, weights = class_batch_attention(query, key, value, scale=scale, return_weights=True)
    row = members.index(asking)
    scores = [s[row].softmax(0).numpy() for s in (value, cba, cba + value)]
    return {"matrix": weights[cls].numpy(), "row": weights[cls, row].numpy(), "scores": np.stack(scores, 1)}


def test_batch_attention_is_that_of_ferlib(browser, page_of) -> None:
    """Put faces in and out, change who asks, class and scale: matrix and scores stay those of ferlib."""
    with opened(browser, page_of("batch")) as reader:
        page = reader.page

        def agrees(members: list[int], asking: int, cls: int, scale: float) -> None:
            want = expected_batch(members, asking, cls, scale)
            bars = values(page, ".fer-batch .fer-row .fer-bar").reshape(len(CLASSES), 3)
            np.testing.assert_allclose(bars, want["scores"], atol=1e-6)
            cells = values(page, ".fer-cells rect[data-value]").reshape(len(members), len(members))
            np.testing.assert_allclose(cells, want["matrix"], atol=1e-6)
            shares = page.eval_on_selector_all(".fer-card", "all => all.map(e => e.dataset.value)")
            assert [i for i, v in enumerate(shares) if v] == members
            np.testing.assert_allclose([float(v) for v in shares if v], want["row"], atol=1e-6)
            # and float16 moves nothing that a reader could see
            data = batch()
            exact = class_batch_attention(
                *(data[n][members] for n in ("query", "key", "value")), scale=scale, return_weights=True
            )[1]
            np.testing.assert_allclose(cells, exact[cls].numpy(), atol=5e-3)

        c, e = 8**-0.5, 49**-0.5
        agrees([0, 2, 5], 2, 2, c)
        page.get_by_role("button", name="neutral 2").click()  # face 8 comes in
        agrees([0, 2, 5, 8], 2, 2, c)
        page.get_by_role("radio", name=re.compile("^disgust 1 asks")).check()
        page.get_by_role("radio", name="anger", exact=True).check()
        page.get_by_role("radio", name="√E = √49").check()
        agrees([0, 2, 5, 8], 5, 4, e)
        page.get_by_role("button", name="disgust 1").click()  # who asks is taken out: the first asks
        agrees([0, 2, 8], 0, 4, e)
        page.get_by_role("button", name="everyone").click()
        agrees(list(range(9)), 0, 4, e)
        page.get_by_role("button", name="pair").click()
        agrees([2, 7], 2, 4, e)
        page.get_by_role("button", name="alone").click()
        agrees([2], 2, 4, e)
        page.get_by_role("button", name="surprise 1").click()  # a batch keeps its last face
        agrees([2], 2, 4, e)
        clean(reader)


def test_batch_follows_the_keyboard(browser, page_of) -> None:
    with opened(browser, page_of("batch"), width=360) as reader:
        page = reader.page
        face = page.get_by_role("button", name="fear 1")
        assert face.get_attribute("aria-pressed") == "false"
        face.focus()
        page.keyboard.press("Enter")
        settle(page)
        assert face.get_attribute("aria-pressed") == "true"
        page.get_by_role("application").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(400)
        want = expected_batch([0, 2, 5, 6], 2, 2, 8**-0.5)["matrix"]
        said = page.locator("[role=status]").text_content()
        assert said == f"Surprise 1 gives {want[1, 1]:.2f} of its attention to itself."


def stage(page) -> np.ndarray:
    settle(page)
    return canvas(page, ".fer-stage canvas")


def canvas(page, selector: str) -> np.ndarray:
    """The pixels of a canvas: (H, W, 3) uint8."""
    flat = page.eval_on_selector(
        selector,
        "c => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]",
    )
    return np.array(flat[2:], dtype=np.uint8).reshape(flat[0], flat[1], 4)[..., :3]


def test_resizers_are_wiped_flipped_and_subtracted(browser, page_of) -> None:
    ways, truth, _ = pictures(0)
    near, cubic, truth = (as_image(x, "x") for x in (ways["nearest"], ways["bicubic"], truth))
    with opened(browser, page_of("resizer")) as reader:
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


def test_resizer_lens_spectra_and_faces(browser, page_of) -> None:
    with opened(browser, page_of("resizer"), width=360) as reader:
        page = reader.page
        page.get_by_role("radio", name="two").check()
        page.get_by_label("left", exact=True).select_option("bilinear")
        page.get_by_label("right", exact=True).select_option("the truth")
        ways, truth, _ = pictures(1)
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
    assert int(radial_spectrum(wave, 48).argmax()) == 22  # band k of 48 begins at k cycles in 96 pixels
    assert radial_spectrum(np.zeros((32, 32))).max() == -12
    noise = np.random.default_rng(0).random((28, 28))
    assert radial_spectrum(noise).min() > -4, "a small picture has no empty rings"


@pytest.mark.parametrize("kind", KINDS)
def test_figure_is_small_and_reads_without_scripts(kind: str) -> None:
    html = MAKE[kind]().html()
    assert len(html.encode()) <= MAX_BYTES
    still = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    assert re.search(r"<table|<img alt=\"[^\"]{20,}\"", still), "nothing for readers without JavaScript"
    assert not re.search(
        r"(src|href)=\"(?!data:)|https?://(?!www\.w3\.org/2000/svg)|import\s*\(|@import", html
    )


def test_a_figure_too_large_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"kB to its page.*fewer or smaller"):
        ResizerExplorer({str(i): image for i, image in enumerate(noise)})


def test_clear_words_for_wrong_arguments() -> None:
    data = batch()
    for wrong, match in [
        ({"value": data["value"][:, :7]}, "need query, key"),
        ({"labels": data["labels"] + 1}, "labels: 9 numbers"),
        ({"start": [0, 0]}, "different faces"),
        ({"presets": {"far": [99]}}, "far: different faces"),
        ({"names": ["one"]}, "9 names"),
        ({"query": data["query"] * float("nan")}, "query holds values that are not finite"),
    ]:
        with pytest.raises(ValueError, match=match):
            BatchAttentionExplorer(**{**data, "classes": CLASSES, **wrong})
    for arguments, match in [
        ({"prior": FERPLUS_PRIOR * 2}, "distribution"),
        ({"classes": CLASSES[:7]}, "one row a class"),
        ({"loss": "hinge"}, "hinge"),
        ({"alpha": 1.5}, "alpha lies"),
        ({"label": "joy"}, "joy"),
        ({"logits": [0.0] * 7}, "one number a class"),
    ]:
        with pytest.raises(ValueError, match=match):
            LossExplorer(**{"prior": FERPLUS_PRIOR, "classes": CLASSES, **arguments})
    ways = pictures()[0]
    with pytest.raises(ValueError, match="one size"):
        ResizerExplorer({**ways, "small": ways["nearest"][:32]})
    with pytest.raises(ValueError, match="at least two"):
        ResizerExplorer({"nearest": ways["nearest"]})
    with pytest.raises(ValueError, match="none of the methods"):
        ResizerExplorer(ways, left="lanczos")
    with pytest.raises(ValueError, match="does not fit"):
        pack([1e6], "float16")


def test_classes_keep_their_colours_and_strangers_get_one() -> None:
    colours = class_colours(["fear", "joy", "anger", "rage"])
    assert colours[0] == "#CC79A7" and colours[2] == "#D55E00"
    assert len(set(colours)) == 4


SCRIPT = """
import json, sys
import numpy as np
from ferlib.widgets import LossExplorer
figure = LossExplorer(np.eye(3), ["a", "b", "c"])
figure.alpha = 0.5
bundle, _ = figure._repr_mimebundle_()
print(json.dumps({"keys": sorted(bundle), "anywidget": "anywidget" in sys.modules,
                  "torch": "torch" in sys.modules,
                  "bases": [b.__module__ + "." + b.__name__ for b in type(figure).__mro__],
                  "alpha": '"alpha":0.5' in bundle["text/html"], "esm": getattr(figure, "_esm", "")}))
"""


def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    settings = {k: v for k, v in os.environ.items() if k != "FERLIB_STATIC"} | env
    return subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True)


def test_with_a_kernel_it_is_an_anywidget_with_html_beside_it() -> None:
    found = json.loads(run(SCRIPT).stdout)
    assert "anywidget.widget.AnyWidget" in found["bases"]
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= set(found["keys"])
    assert found["alpha"] and "export default { render }" in found["esm"] and not found["torch"]


def test_for_a_page_it_is_html_alone() -> None:
    found = json.loads(run(SCRIPT, FERLIB_STATIC="1").stdout)
    assert found["keys"] == ["text/html", "text/plain"]
    assert found["alpha"] and not found["anywidget"] and not found["torch"]


def test_a_missing_anywidget_is_named_with_the_command() -> None:
    result = run("import sys; sys.modules['anywidget'] = None\nimport ferlib.widgets")
    assert result.returncode != 0 and "pip install anywidget" in result.stderr.splitlines()[-1]


def test_the_live_module_and_python_keep_each_other_in_step(browser, page_of) -> None:
    """The ES module as anywidget loads it, with a model like its own: either side moves the other."""
    figure = loss_explorer()
    source = f"{figure._source}\nexport default {{ render }};\n"
    with opened(browser, page_of("loss")) as reader:
        page = reader.page
        page.evaluate(
            """async ([source, state]) => {
              const url = URL.createObjectURL(new Blob([source], {type: 'text/javascript'}));
              const heard = {}, saved = window.saved = [];
              const model = window.model = { get: (n) => state[n], on: (n, f) => (heard[n] ||= []).push(f),
                off: (n, f) => { heard[n] = heard[n].filter((g) => g !== f); },
                set: (n, v) => { state[n] = v; (heard[`change:${n}`] || []).forEach((f) => f()); },
                save_changes: () => saved.push({...state}) };
              const el = document.createElement('div');
              el.id = 'live';
              document.body.replaceChildren(document.querySelector('style'), el);
              window.stop = await (await import(url)).default.render({ model, el });
            }""",
            [source, figure.state()],
        )
        page.evaluate("model.set('alpha', 0.25)")  # as Python does
        settle(page)
        assert page.get_by_role("slider", name="α").input_value() == "0.25"
        slide(page, "γ", 3)  # as the reader does
        assert page.evaluate("saved.at(-1).gamma") == 3
        page.evaluate("stop()")
        clean(reader)
