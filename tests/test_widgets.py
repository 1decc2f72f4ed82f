"""What every explorer keeps to, in a real browser without network: by keyboard, wide, narrow, light, dark."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from traitlets import TraitError

from ferlib.data import EMOTIONS_FERPLUS as CLASSES
from ferlib.losses import FERPLUS_PRIOR
from ferlib.widgets import BatchAttentionExplorer, LossExplorer, ResizerExplorer
from ferlib.widgets.base import MAX_BYTES, class_colors
from ferlib.widgets.codec import pack, unpack
from tests.explorers import CHECK, MAKE, batch, clean, go_live, loss_explorer, opened, pictures, settle, slide

KINDS = tuple(MAKE)


@pytest.mark.parametrize("kind", KINDS)
def test_figure_reads_offline(browser, kind: str) -> None:
    """Text has contrast, controls have names and room for a finger, nothing sticks out: light and dark."""
    with opened(browser, kind, width=380) as reader:
        page = reader.page
        assert page.locator(".fer-widget[role=group][aria-label]").count() == 1
        assert page.locator(".fer-host > img, .fer-fallback").count() == 0, "the fallback is still there"
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            settle(page)
            assert page.evaluate(CHECK) == {"faint": [], "nameless": [], "small": []}, scheme
        clean(reader)


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_is_reached_by_tab_and_shows_it(browser, kind: str) -> None:
    """Going through the figure by the Tab key alone visits each control (a group of radios once)."""
    with opened(browser, kind) as reader:
        page = reader.page
        wanted = page.evaluate(
            """new Set([...document.querySelectorAll(
                '.fer-widget :is(input, select, button, summary, [tabindex])')]
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


@pytest.mark.parametrize("kind", KINDS)
def test_figure_is_small_and_reads_without_scripts(kind: str) -> None:
    html = MAKE[kind]().html()
    assert len(html.encode()) <= MAX_BYTES
    still = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    assert re.search(r"<table|<img alt=\"[^\"]{20,}\"", still), "nothing for readers without JavaScript"
    assert not re.search(
        r"(src|href)=\"(?!data:)|https?://(?!www\.w3\.org/2000/svg)|import\s*\((?!blob\))|@import", html
    )


WAYS, BATCH = pictures()[0], batch() | {"classes": CLASSES}
WRONG = [
    (ResizerExplorer, {"pictures": {**WAYS, "small": WAYS["nearest"][:32]}}, "one size"),
    (ResizerExplorer, {"pictures": {"nearest": WAYS["nearest"]}}, "nearest"),
    (ResizerExplorer, {"pictures": WAYS, "left": "lanczos"}, "none of the methods"),
    (LossExplorer, {"prior": FERPLUS_PRIOR * 2, "classes": CLASSES}, "distribution"),
    (LossExplorer, {"prior": FERPLUS_PRIOR, "classes": CLASSES[:7]}, r"\(8, 8\)"),
    (LossExplorer, {"prior": FERPLUS_PRIOR, "classes": CLASSES, "label": "joy"}, "joy"),
    (LossExplorer, {"prior": FERPLUS_PRIOR, "classes": CLASSES, "logits": [0.0] * 7}, r"\(7,\)"),
    (BatchAttentionExplorer, BATCH | {"value": BATCH["value"][:, :7]}, "need query, key"),
    (BatchAttentionExplorer, BATCH | {"labels": BATCH["labels"] + 1}, "labels: 9 numbers"),
    (BatchAttentionExplorer, BATCH | {"start": [0, 0]}, "different faces"),
    (BatchAttentionExplorer, BATCH | {"presets": {"far": [99]}}, "far: different faces"),
    (BatchAttentionExplorer, BATCH | {"names": ["one"]}, "9 names"),
    (BatchAttentionExplorer, BATCH | {"query": BATCH["query"] * float("nan")}, "query holds values"),
]


@pytest.mark.parametrize(("explorer", "arguments", "named"), WRONG, ids=[named for _, _, named in WRONG])
def test_clear_words_for_wrong_arguments(explorer, arguments: dict, named: str) -> None:
    with pytest.raises((ValueError, TraitError), match=named):
        explorer(**arguments)


def test_a_figure_too_large_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"kB to its page.*fewer or smaller"):
        ResizerExplorer({str(i): image for i, image in enumerate(noise)})
    with pytest.raises(ValueError, match=r"1e\+06.* float16"):
        pack([1e6], "float16")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_arrays_come_back_as_they_went(dtype: str) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (3, 5, 7)).astype(dtype)
    for array in (noise, np.zeros((40, 40), dtype)):  # as they are, and deflated
        there = json.loads(json.dumps(pack(array, dtype)))
        assert unpack(there).dtype == dtype
        np.testing.assert_array_equal(unpack(there), array)


def test_classes_keep_their_colors_and_unknown_ones_get_one() -> None:
    colors = class_colors(["fear", "joy", "anger", "rage"])
    assert colors[0] == "#CC79A7" and colors[2] == "#D55E00"
    assert len(set(colors)) == 4


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


def test_the_live_module_and_python_keep_each_other_in_step(browser) -> None:
    """The ES module as anywidget loads it, with a model like its own: either side moves the other."""
    with opened(browser, "loss") as reader:
        page = reader.page
        go_live(page, loss_explorer())
        page.evaluate("model.set('alpha', 0.25)")  # as Python does
        settle(page)
        assert page.get_by_role("slider", name="α").input_value() == "0.25"
        slide(page, "γ", 3)  # as the reader does
        settle(page)
        assert page.evaluate("saved.at(-1).gamma") == 3
        page.evaluate("stop()")
        clean(reader)
