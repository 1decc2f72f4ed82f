"""BatchAttentionExplorer in a browser: what it recomputes is ``ferlib.models.class_batch_attention``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ferlib.data import EMOTIONS_FERPLUS as CLASSES
from ferlib.models import class_batch_attention
from ferlib.widgets import BatchAttentionExplorer
from tests.explorers import batch, batch_explorer, clean, opened, page_with, settle, values


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_with(batch_explorer(), tmp_path_factory.mktemp("batch"))


def expected_batch(members: list[int], asking: int, cls: int, scale: float) -> dict[str, np.ndarray]:
    data = batch()
    query, key = (data[n].half().double()[members] for n in ("query", "key"))  # what travels to the page
    value = data["value"].double()[members]
    cba, weights = class_batch_attention(query, key, value, scale=scale, return_weights=True)
    row = members.index(asking)
    scores = [s[row].softmax(0).numpy() for s in (value, cba, cba + value)]
    return {"matrix": weights[cls].numpy(), "row": weights[cls, row].numpy(), "scores": np.stack(scores, 1)}


def test_batch_attention_is_that_of_ferlib(browser, file: Path) -> None:
    """Put faces in and out, change who asks, class and scale: matrix and scores stay those of ferlib."""
    with opened(browser, file) as reader:
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


def test_batch_follows_the_keyboard(browser, file: Path) -> None:
    with opened(browser, file, width=360) as reader:
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
