"""AttentionExplorer: what the bytes keep, and what the page shows and scores, patch by patch."""

import re

import numpy as np
import pytest
import timm
import torch

from book.figures.token_attention import TokenAttention, computed
from ferlib.data import EMOTIONS_FERPLUS as CLASSES
from ferlib.explain import AttentionRecorder, attention_score
from ferlib.widgets import AttentionExplorer
from ferlib.widgets.codec import pack_rows, unpack
from tests.explorers import (
    attention,
    attention_explorer,
    clean,
    go_live,
    inputs,
    map_of,
    network,
    opened,
    page_with,
    regions,
    settle,
    shown,
    slide,
)
from tests.reader import Reader, says

FACES = ("hard", "twin", "friend")
KEPT = attention_explorer()


def test_a_byte_keeps_shares_to_a_255th_of_their_maximum_and_its_place() -> None:
    rows = torch.randn(500, 49, generator=torch.Generator().manual_seed(8)).softmax(-1).numpy()
    rows[0], rows[1] = 0, 1 / 49
    coded = unpack(pack_rows(rows))
    top = rows.max(-1, keepdims=True)
    assert (np.abs(coded - rows) <= top / 255 * (1 + 1e-6)).all()
    assert (coded.argmax(-1) == rows.argmax(-1)).all()
    small = (rows > 0) & (rows < top / 100)  # small shares keep their order of magnitude
    assert small.any() and (np.abs(coded - rows)[small] < top.max() / 2000).all()
    np.testing.assert_array_equal(unpack(pack_rows(coded)), coded)  # coding again changes nothing


def test_maps_are_means_over_heads_and_rows_and_sums_over_levels() -> None:
    """Against torch on what was given, which the bytes keep to 1/255 of each row's maximum."""
    scores = attention()
    vit, levels = scores["vit"]["second"].softmax(-1), scores["levels"]["mixer"].softmax(-1)
    place = 1 + 2 * 7 + 3  # (0.5, 0.4): row 2, column 3
    wanted = {
        (None, None, (0.5, 0.4)): vit[1, :, place, 1:].mean(0),
        (2, None, (0.5, 0.4)): vit[1, 2, place, 1:],
        (None, None, "token"): vit[1, :, 0, 1:].mean(0),
        (None, None, "all"): vit[1, :, 1:, 1:].mean((0, 1)),
    }
    for (head, level, query), want in wanted.items():
        got = shown(KEPT, "ViT", "twin", head=head, level=level, query=query)
        assert np.abs(got.ravel() - want.numpy()).max() <= vit[1].max() / 255, (head, query)
    cells = [2 + level * 49 + 17 for level in range(3)]
    each = levels[2][:, :, 2:].unflatten(2, (3, 49))
    both = {None: each[:, cells].mean((0, 1)).sum(0), "14": each[:, cells[1]].mean(0)[1]}
    for level, want in both.items():
        got = shown(KEPT, "levels", "friend", level=level, query=(0.5, 0.4))
        assert np.abs(got.ravel() - want.numpy()).max() <= 3 * levels[2].max() / 255
    raw = scores["vit"]["first"][0, 1, 9, 1:].numpy()  # row 8 - 1: the first of the second row
    got = shown(KEPT, "ViT", "hard", layer="first", head=1, step="scores", query=(0.2, 0.2)).ravel()
    seen = np.isfinite(got)  # a share too small for a byte is shown as none
    apart = (got - raw)[seen & (raw > raw.max() - 3)]  # the same up to one constant a row
    assert np.ptp(apart) < 0.15 and seen.mean() > 0.8
    window = shown(KEPT, "windows", "hard", step="scores", query=(0.1, 0.1))
    assert np.isneginf(window[:, 4:]).all() and np.isfinite(window[:4, :4]).all()


def test_pooling_adds_keys_and_averages_queries() -> None:
    fine = torch.rand(2, 2, 17, 17, generator=torch.Generator().manual_seed(1)).softmax(-1)
    coarse = TokenAttention({"a": fine}, prefix=1, grid=2).packed
    got = map_of(coarse, 1, query=(0.9, 0.1))
    asking = fine[1].mean(0)[[3, 4, 7, 8]].mean(0)[1:].reshape(2, 2, 2, 2).sum((1, 3))
    np.testing.assert_allclose(got, asking, atol=fine.max().item() * 4 / 255)
    assert coarse["layers"][0]["softmax"]["codes"]["shape"] == [2, 2, 5, 5]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_recorded_attention_is_taken_as_it_lies(name: str) -> None:
    """A ViT with a class token, a Swin whose windows are shifted: the row of a place, out of the recorder."""
    small = {"vit": {"img_size": 64, "depth": 2, "embed_dim": 12, "num_heads": 2}}.get(
        name[:3], {"img_size": 56, "depths": (2, 2), "embed_dim": 12, "num_heads": (1, 2)}
    )
    torch.manual_seed(4)
    model = timm.create_model(name, pretrained=False, **small).eval()
    with torch.no_grad(), AttentionRecorder(model) as recorder:
        model(torch.randn(2, 3, small["img_size"], small["img_size"]))
    taken = TokenAttention.of(recorder.records, [f"layer {i}" for i in range(len(recorder.records))]).packed
    for index, record in enumerate(recorder.records):
        rows, columns = record.layout.grid
        place = record.layout.prefix + (rows // 2) * columns + columns - 1
        want = record.to_image()[1, :, place].mean(0).numpy()
        got = map_of(taken, 1, layer=f"layer {index}", query=(1.0, 0.5))
        assert got.shape == want.shape and np.abs(got - want).max() <= record.weights.max().item() / 255
    with pytest.raises(ValueError, match="no record"):
        TokenAttention.of([])


class Page:
    """A page with the explorer, read side by side."""

    def __init__(self, reader) -> None:
        self.page = reader.page

    def side(self, name: str):
        return self.page.get_by_role("region", name=f"{name} map")

    def map(self, name: str) -> np.ndarray:
        settle(self.page)
        values = "...Array.from(e.map.values, (v) => Math.max(v, -1e300))"
        box = self.side(name).get_by_role("application")
        found = box.evaluate(f"e => [e.map.height, e.map.width, {values}]")
        return np.array(found[2:]).reshape(int(found[0]), int(found[1]))

    def scores(self, name: str) -> np.ndarray:
        settle(self.page)
        bars = self.side(name).locator(".fer-scores .fer-bar")
        return np.array(bars.evaluate_all("all => all.map((e) => e.dataset.value ? +e.dataset.value : NaN)"))

    def agrees(self, name: str, source: str, face: str, **how) -> None:
        """The side's map is the one that Python gives, and its scores are Python's of that map."""
        want, got = shown(KEPT, source, face, **how), self.map(name)
        np.testing.assert_allclose(got, np.where(np.isneginf(want), -1e300, want), rtol=1e-6, atol=1e-9)
        if how.get("step") == "scores":
            assert np.isnan(self.scores(name)).all()
            return
        truth = regions()[FACES.index(face)][None]
        python = attention_score(torch.from_numpy(want)[None].float(), truth)
        seen = dict(zip(("pointing", "energy", "auc"), self.scores(name), strict=True))
        for key, value in seen.items():
            assert abs(value - python[key].item()) < (1e-3 if key == "auc" else 1e-5), (key, how)

    def hover(self, name: str, x: float, y: float) -> None:
        box = self.side(name).get_by_role("application").bounding_box()
        self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_pointer_and_controls_show_the_maps_that_python_holds(browser) -> None:
    with opened(browser, "attention") as reader:
        view, page = Page(reader), reader.page
        left, right = view.side("left"), view.side("right")
        view.agrees("left", "ViT", "hard", query=(0.5, 0.4))
        view.agrees("right", "levels", "hard", query=(0.5, 0.4))
        view.hover("left", 0.9, 0.2)
        view.agrees("left", "ViT", "hard", query=(0.9, 0.2))
        view.agrees("right", "levels", "hard", query=(0.9, 0.2))
        left.get_by_role("radio", name="second, head 3").check()
        view.agrees("left", "ViT", "hard", query=(0.9, 0.2), head=2)
        left.get_by_role("radio", name="scores").check()
        view.agrees("left", "ViT", "hard", query=(0.9, 0.2), head=2, step="scores")
        left.get_by_role("radio", name="rollout").check()
        left.get_by_role("radio", name="first, head 3").check()
        view.agrees("left", "ViT", "hard", query=(0.9, 0.2), layer="first", step="rollout")
        page.get_by_role("radio", name="class token").check()
        view.agrees("left", "ViT", "hard", query="token", layer="first", step="rollout")
        view.agrees("right", "levels", "hard", query="token")
        right.get_by_role("radio", name="28", exact=True).check()
        page.get_by_role("radio", name="all patches").check()
        view.agrees("right", "levels", "hard", query="all", level="28")
        page.get_by_role("radio", name="friend").check()
        says(left, "reads surprise")
        view.agrees("right", "levels", "friend", query="all", level="28")
        right.get_by_label("right map").select_option("windows")
        view.hover("right", 0.3, 0.6)
        view.agrees("right", "windows", "friend", query=(0.3, 0.6))
        right.get_by_role("radio", name="scores").check()
        view.agrees("right", "windows", "friend", query=(0.3, 0.6), step="scores")
        right.get_by_label("right map").select_option("Grad-CAM")
        view.agrees("right", "Grad-CAM", "friend")
        clean(reader)


def test_fingers_and_arrow_keys_move_the_patch_and_a_screen_reader_is_told(browser) -> None:
    with opened(browser, "attention", width=380, has_touch=True) as reader:
        view, page = Page(reader), reader.page
        box = view.side("right").get_by_role("application").bounding_box()
        page.touchscreen.tap(box["x"] + 0.7 * box["width"], box["y"] + 0.8 * box["height"])
        view.agrees("left", "ViT", "hard", query=(0.7, 0.8))
        page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 0.4 * box["height"])
        view.side("left").get_by_role("application").focus()
        for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowLeft"):  # stops at the upper edge
            page.keyboard.press(key)
        view.agrees("left", "ViT", "hard", query=(2.5 / 7, 0.01))
        peak = shown(KEPT, "ViT", "hard", query=(2.5 / 7, 0.01))
        row, column = divmod(int(peak.argmax()), 7)
        expected = f"row 1, column 3 gives most to row {row + 1}, column {column + 1}: {peak.max():.3f}."
        said = says(page.locator("[role=status]"), expected)
        assert re.search(r"levels: The patch in row 1, column 3 .* Pointing \d\.\d\d, energy", said)
        clean(reader)


def test_the_outline_is_the_edge_of_the_true_region(browser) -> None:
    with opened(browser, "attention") as reader:
        page = reader.page
        for face, truth in zip(FACES, regions().numpy() >= 0.5, strict=True):
            page.get_by_role("radio", name=face, exact=True).check()
            settle(page)
            path = page.locator(".fer-region path").first.get_attribute("d")
            runs = re.findall(r"M(\d+) (\d+)([HV])(\d+)", path)
            inked = sum(int(to) - int(x if way == "H" else y) for x, y, way, to in runs)
            framed = np.pad(truth, 1).astype(int)
            assert inked == sum(np.abs(np.diff(framed, axis=axis)).sum() for axis in (0, 1))
        assert page.locator(".fer-region").first.is_visible()
        page.get_by_role("checkbox", name="outline the true region").uncheck()
        settle(page)
        assert not page.locator(".fer-region").first.is_visible()


def test_with_a_kernel_python_chooses_and_hears_what_is_chosen(browser) -> None:
    with opened(browser, "attention") as reader:
        view, page = Page(reader), reader.page
        go_live(page, KEPT)
        page.evaluate("model.set('left', 3)")  # a source that nobody has looked at yet
        page.wait_for_function("document.querySelector('.fer-look').map.width === 24")
        view.agrees("left", "Grad-CAM", "hard")
        view.hover("right", 0.2, 0.9)
        settle(page)
        saved = page.evaluate("saved.at(-1)")
        assert saved["asks"] == "patch" and np.allclose(saved["query"], [1.5 / 7, 6.5 / 7])
        view.side("right").get_by_role("radio", name="14", exact=True).check()
        settle(page)
        assert page.evaluate("saved.at(-1).right_view")["level"] == 1
        page.evaluate("stop()")
        clean(reader)


def test_heat_is_drawn_where_the_attention_is(browser) -> None:
    with opened(browser, "attention") as reader:
        view, page = Page(reader), reader.page
        slide(page, "heat over face", 1)
        settle(page)
        pixels = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        flat = page.eval_on_selector(".fer-heat", pixels)
        alpha = np.array(flat).reshape(7, 7, 4)[..., 3]
        want = view.map("left")
        np.testing.assert_allclose(alpha, 255 * (0.2 + 0.8 * np.sqrt(want / want.max())), atol=0.51)


def test_a_pressed_patch_stays_until_it_is_pressed_again(browser) -> None:
    with opened(browser, "attention") as reader:
        view, page = Page(reader), reader.page
        view.hover("left", 0.9, 0.2)
        page.mouse.down()
        page.mouse.up()
        view.hover("left", 0.1, 0.9)
        view.agrees("left", "ViT", "hard", query=(0.9, 0.2))
        view.hover("left", 0.9, 0.2)
        page.mouse.down()
        page.mouse.up()
        view.hover("left", 0.5, 0.9)
        view.agrees("left", "ViT", "hard", query=(0.5, 0.9))
        assert page.locator(".fer-links path").count() > 0
        page.get_by_role("button", name="reset").click()
        view.agrees("left", "ViT", "hard", query=(0.5, 0.4))


def test_a_network_is_computed_stepped_through_and_edited(browser) -> None:
    """The prediction and one weight are torch's; covering a place and equal weights change them; reset."""
    with torch.no_grad():
        want = network().outputs(inputs()).vit
    with opened(browser, "attention") as reader:
        view, page = Page(reader), reader.page
        view.side("left").get_by_label("left map").select_option("network")
        lab = page.get_by_role("region", name="network, computed here")
        read = "all => all.map(e => Number(e.dataset.logit))"

        def logits() -> np.ndarray:
            settle(page)
            return np.array(lab.locator(".fer-bar").evaluate_all(read))

        np.testing.assert_allclose(logits(), want[0], atol=2e-3)  # tokens are rounded to half precision
        page.get_by_role("radio", name="friend").check()
        np.testing.assert_allclose(logits(), want[2], atol=2e-3)
        step = lab.locator(".fer-step")
        assert step.locator("canvas").count() == 3
        dot, score = (float(step.get_attribute(f"data-{name}")) for name in ("dot", "score"))
        assert score == pytest.approx(dot / 4, abs=1e-4)
        for _ in range(4):
            lab.get_by_role("button", name="next").click()
        assert len(re.findall(r"[\d.]+", step.get_attribute("data-sum"))) == 16
        lab.get_by_role("radio", name="3 softmax").check()
        lab.get_by_role("slider", name="weight of this place").fill("0.95")
        settle(page)
        assert float(step.get_attribute("data-weight")) == pytest.approx(0.95, abs=1e-6)
        assert np.abs(logits() - want[2].numpy()).max() > 1e-4
        lab.get_by_role("button", name="attention as computed").click()
        np.testing.assert_allclose(logits(), want[2], atol=2e-3)
        lab.get_by_role("application").press("ArrowRight")
        lab.get_by_role("button", name="cover this place").click()
        settle(page)
        assert lab.get_by_role("button", name="uncover this place").count() == 1
        assert np.abs(logits() - want[2].numpy()).max() > 1e-4
        page.get_by_role("button", name="reset").click()
        np.testing.assert_allclose(logits(), want[0], atol=2e-3)
        clean(reader)


def test_a_network_can_stand_alone(browser, tmp_path) -> None:
    """As in chapter 8: one source, which is computed, its class token attending."""
    sources = {"small": computed(network(), inputs(), CLASSES)}
    faces = dict.fromkeys(FACES, torch.zeros(48, 48))
    page_file = page_with(AttentionExplorer(faces, sources, truth=regions()), tmp_path)
    with Reader(browser, page_file) as reader:
        reader.page.wait_for_selector(".fer-host[data-ready=yes] .fer-lab")
        assert reader.page.get_by_role("radio", name="class token").is_checked()
        clean(reader)


def test_tasks_say_when_they_are_done(browser) -> None:
    with opened(browser, "attention") as reader:
        view, page = Page(reader), reader.page
        view.side("left").get_by_label("left map").select_option("network")
        page.locator(".fer-tasks summary").click()
        page.get_by_role("button", name="permute").click()
        says(page.locator("[role=status]"), "Task 2 done")
        assert "✓" in page.locator(".fer-tasks li").nth(1).text_content()


def test_clear_words_for_wrong_arguments() -> None:
    face, shares = {"a": torch.zeros(48, 48)}, torch.full((1, 2, 50, 50), 0.02)
    plain = {"x": torch.zeros(1, 7, 7)}
    for wrong, match in [
        (lambda: TokenAttention({}), "no layer"),
        (lambda: TokenAttention({"x": shares}), r"'x' has shape .*50"),
        (lambda: TokenAttention({"x": -shares}, prefix=1), r"'x' holds -0\.02"),
        (lambda: TokenAttention({"x": shares}, prefix=1, grid=3), "grid=3 .* 7 x 7"),
        (lambda: TokenAttention({"x": shares, "y": shares[[0, 0]]}, prefix=1), r"\[1, 2\]"),
        (lambda: AttentionExplorer(face, {"x": torch.zeros(2, 7, 7)}), "'x' is of 2 faces, 1 are shown"),
        (lambda: AttentionExplorer(face, plain, truth=torch.zeros(1, 9, 9)), "'a' has no true"),
        (lambda: AttentionExplorer(face, plain, answers={"x": []}), "0 answers .*'x'"),
    ]:
        with pytest.raises(ValueError, match=match):
            wrong()
    noise = torch.rand(1, 12, 196, 196, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"1\d{3} kB .*grid=7"):
        AttentionExplorer(face, {"x": TokenAttention({f"{i}": noise for i in range(2)}).packed})
    small = TokenAttention({f"{i}": noise for i in range(2)}, grid=7).packed
    assert len(AttentionExplorer(face, {"x": small}).html()) < 200_000
