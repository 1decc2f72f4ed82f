"""BatchAttentionExplorer in a browser: what it recomputes is ``ferlib.models.class_batch_attention``."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ferlib.data import EMOTIONS_FERPLUS as CLASSES
from ferlib.models import class_batch_attention
from tests.explorers import batch, clean, opened, settle, values
from tests.reader import says


def agrees(page, data: dict, members: list[int], attending: int, cls: int, scale: float) -> None:
    """Matrix, shares and class scores of the page are torch's, in single precision, within 1e-4."""
    inputs = (data[name][members] for name in ("query", "key", "value"))
    cba, weights = class_batch_attention(*inputs, scale=scale, return_weights=True)
    row, value = members.index(attending), data["value"][members]
    ways = torch.stack([x[row] for x in (value, cba, cba + value)], 1)  # (C, 3): alone, the batch, both
    bars = values(page, ".fer-batch .fer-row .fer-bar").reshape(len(CLASSES), 3)
    np.testing.assert_allclose(bars, ways.softmax(0), atol=1e-4)
    scores = page.eval_on_selector_all(".fer-batch .fer-bar", "all => all.map(e => Number(e.dataset.score))")
    np.testing.assert_allclose(np.reshape(scores, (len(CLASSES), 3)), ways, atol=1e-4)
    cells = values(page, ".fer-cells rect[data-value]").reshape(len(members), len(members))
    np.testing.assert_allclose(cells, weights[cls], atol=1e-4)
    shares = page.eval_on_selector_all(".fer-card", "all => all.map(e => e.dataset.value)")
    assert [i for i, v in enumerate(shares) if v] == members
    np.testing.assert_allclose([float(v) for v in shares if v], weights[cls, row], atol=1e-4)


def test_batch_attention_is_that_of_ferlib(browser) -> None:
    """Put faces in and out, change who attends, class and scale: matrix and scores stay those of ferlib."""
    data = batch()
    with opened(browser, "batch") as reader:
        page = reader.page
        c, e = 8**-0.5, 49**-0.5
        agrees(page, data, [0, 2, 5], 2, 2, c)
        page.get_by_role("button", name="neutral 2").click()  # face 8 comes in
        agrees(page, data, [0, 2, 5, 8], 2, 2, c)
        page.get_by_role("radio", name=re.compile("^disgust 1 attends")).check()
        page.get_by_role("radio", name="anger", exact=True).check()
        page.get_by_role("radio", name="√E = √49").check()
        agrees(page, data, [0, 2, 5, 8], 5, 4, e)
        page.get_by_role("button", name="disgust 1").click()  # who attends is taken out: the first attends
        agrees(page, data, [0, 2, 8], 0, 4, e)
        page.get_by_role("button", name="everyone").click()
        agrees(page, data, list(range(9)), 0, 4, e)
        page.get_by_role("button", name="pair").click()
        agrees(page, data, [2, 7], 2, 4, e)
        page.get_by_role("button", name="alone").click()
        agrees(page, data, [2], 2, 4, e)
        page.get_by_role("button", name="surprise 1").click()  # a batch keeps its last face
        agrees(page, data, [2], 2, 4, e)
        clean(reader)


def test_batch_follows_the_keyboard(browser) -> None:
    with opened(browser, "batch", width=360) as reader:
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
        query, key, value = (batch()[name][[0, 2, 5, 6]] for name in ("query", "key", "value"))
        want = class_batch_attention(query, key, value, return_weights=True)[1][2]
        expected = f"Surprise 1 gives itself the weight {want[1, 1]:.2f}."
        assert says(page.locator(".fer-pair p"), expected) == expected


def test_a_cell_is_computed_step_by_step(browser) -> None:
    """Every step shows torch's numbers: product, score, weight, weighted value, and their sum."""
    data, members, cls, scale = batch(), [0, 2, 5], 2, 8**-0.5
    query, key, value = (data[name][members] for name in ("query", "key", "value"))
    cba, weights = class_batch_attention(query, key, value, return_weights=True)
    with opened(browser, "batch") as reader:
        page = reader.page
        page.get_by_role("application").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")  # row and column of face 2
        settle(page)
        step = page.locator(".fer-step")
        dot = float(query[1, cls] @ key[1, cls])
        shown = {"dot": dot, "score": dot * scale, "weight": weights[cls, 1, 1], "value": value[1, cls]}
        for name, want in shown.items():
            assert float(step.get_attribute(f"data-{name}")) == pytest.approx(float(want), abs=1e-4)
        assert step.locator("canvas").count() == 3  # query, key and their product
        for _ in range(4):
            page.get_by_role("button", name="next").click()
        assert float(step.get_attribute("data-cba")) == pytest.approx(float(cba[1, cls]), abs=1e-4)
        assert float(step.get_attribute("data-bt")) == pytest.approx(float((cba + value)[1, cls]), abs=1e-4)
        assert page.get_by_role("button", name="next").is_disabled()
        clean(reader)


def test_attention_can_be_edited_and_a_task_says_when_it_is_done(browser) -> None:
    data, members, cls = batch(), [0, 2, 5], 2
    value = data["value"][members]
    inputs = (data[name][members] for name in ("query", "key", "value"))
    weights = class_batch_attention(*inputs, return_weights=True)[1]
    with opened(browser, "batch") as reader:
        page = reader.page
        page.get_by_role("application").focus()
        page.keyboard.press("ArrowDown")  # the row of the attending face
        page.get_by_role("radio", name="3 softmax along the row").check()
        page.locator(".fer-weights input").first.fill("0.9")
        settle(page)
        row = weights[cls, 1].clone()
        row[1:] *= 0.1 / row[1:].sum()  # the others make room
        row[0] = 0.9
        cells = values(page, ".fer-cells rect[data-value]").reshape(3, 3)
        np.testing.assert_allclose(cells[1], row, atol=1e-4)
        read = "all => all.map(e => Number(e.dataset.score))"
        scores = page.eval_on_selector_all(".fer-batch .fer-bar", read)
        assert scores[3 * cls + 1] == pytest.approx(float(row @ value[:, cls]), abs=1e-4)
        page.get_by_role("button", name="attention as computed").click()
        settle(page)
        cells = values(page, ".fer-cells rect[data-value]").reshape(3, 3)
        np.testing.assert_allclose(cells, weights[cls], atol=1e-4)
        page.get_by_role("button", name="pair").click()
        page.get_by_role("button", name="reset").click()
        agrees(page, data, members, 2, 2, 8**-0.5)
        clean(reader)


def picture() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (48, 64), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def test_the_reader_s_own_face_joins_the_batch_and_the_page_closes(browser) -> None:
    """It takes part in the attention, can be taken out again, and nothing can be sent any more."""
    with opened(browser, "batch") as reader:
        page = reader.page
        assert page.get_by_role("button", name="your face").count() == 0
        assert page.locator("meta[data-fer-policy]").count() == 0
        chosen = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"}
        page.locator("input[type=file]").set_input_files(chosen)
        says(page.locator("[role=status]"), "notes.txt is not a picture that this browser can read")
        page.locator("input[type=file]").dispatch_event("click")
        assert "connect-src 'none'" in page.locator("meta[data-fer-policy]").get_attribute("content")
        page.locator("input[type=file]").set_input_files(
            {"name": "me.png", "mimeType": "image/png", "buffer": picture()}
        )
        page.get_by_role("button", name="your face").wait_for()
        cells = values(page, ".fer-cells rect[data-value]").reshape(4, 4)
        np.testing.assert_allclose(cells.sum(1), 1, atol=1e-6)
        says(page.locator("[role=status]"), "your face attends most to")
        before = values(page, ".fer-batch .fer-row .fer-bar")
        page.get_by_role("slider", name="closer").fill("2")
        assert np.abs(values(page, ".fer-batch .fer-row .fer-bar") - before).max() > 1e-4
        page.get_by_role("button", name="your face").click()
        agrees(page, batch(), [0, 2, 5], 0, 2, 8**-0.5)
        page.get_by_role("button", name="everyone").click()
        assert len(values(page, ".fer-cells rect[data-value]")) == 100
        assert page.evaluate("fetch('https://example.org').catch(() => 'refused')") == "refused"
        assert reader.outside == []
