"""SAMExplorer in a real browser without network: its steps are those of ``ferlib.training.SAM``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from traitlets import TraitError

from ferlib.training import SAM
from ferlib.widgets import SAMExplorer
from ferlib.widgets.sam import METHODS
from tests.explorers import CHECK, clean, opened, settle, slide
from tests.reader import says

SURFACES = {
    "a crack and a valley": [(-0.9, 0.0, 1.15, 0.06), (0.9, 0.0, 1.0, 1.6)],
    "two cracks": [(-0.4, 0.1, 0.7, 0.05), (0.3, -0.2, 0.9, 0.3)],
}


def explorer() -> SAMExplorer:
    return SAMExplorer(SURFACES, steps=60, marks=[(0.9, -0.6, "valley <b>")])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam") / "sam.html"
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>figure</title>'
        '<meta name="viewport" content="width=device-width"></head>'
        f"<body>{explorer().html()}</body></html>",
        encoding="utf-8",
    )
    return path


def surface_loss(wells: list, points: np.ndarray) -> np.ndarray:
    x, y, depth, width = np.array(wells).T
    distance = (points[..., None, 0] - x) ** 2 + (points[..., None, 1] - y) ** 2
    return -(depth * np.exp(-distance / width)).sum(-1)


def torch_walk(wells: list, start: list[float], rho: float | None, lr: float, steps: int) -> np.ndarray:
    """The library's optimizers on the same surface, in double precision: (steps + 1, 2)."""
    centres = torch.tensor([w[:2] for w in wells], dtype=torch.float64)
    depth, width = (torch.tensor([w[i] for w in wells], dtype=torch.float64) for i in (2, 3))
    w = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = SAM([w], torch.optim.SGD, rho=rho, lr=lr) if rho else torch.optim.SGD([w], lr=lr)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -(depth * torch.exp(-((w - centres) ** 2).sum(1) / width)).sum()
        loss.backward()
        return loss

    path = [w.detach().clone()]
    for _ in range(steps):
        optimizer.step(closure)
        path.append(w.detach().clone())
    return torch.stack(path).numpy()


def shown(page, selector: str) -> np.ndarray:
    settle(page)
    return np.array(json.loads(page.locator(selector).get_attribute("data-values")))


@pytest.mark.parametrize("width", [1280, 380])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figure_reads_offline(browser, page: Path, scheme: str, width: int) -> None:
    with opened(browser, page, width=width, scheme=scheme) as reader:
        assert reader.page.locator(".fer-sam[role=group][aria-label]").count() == 1
        assert reader.page.locator(".fer-fallback").count() == 0, "the fallback is still there"
        assert reader.page.evaluate(CHECK) == {"faint": [], "nameless": [], "small": []}
        assert reader.page.get_by_text("valley <b>").count() == 1
        clean(reader)


@pytest.mark.parametrize(
    ("surface", "start", "rho", "lr"),
    [
        ("a crack and a valley", [-1.05, 0.25], 0.5, 0.05),
        ("a crack and a valley", [-0.6, -0.4], 0.07, 0.13),
        ("two cracks", [0.15, 0.45], 0.31, 0.02),
    ],
)
def test_steps_are_those_of_the_library(browser, page: Path, surface: str, start, rho, lr) -> None:
    """Twenty steps of both walks within 1e-6, and the quantities of the first SAM step."""
    with opened(browser, page) as reader:
        view = reader.page
        view.get_by_role("radio", name=surface).check()
        slide(view, "ρ", rho)
        slide(view, "η", lr)
        mark = view.get_by_role("application", name="starting point")
        mark.focus()
        for key, steps in (
            ("ArrowRight", round((start[0] + 1.05) / 0.05)),
            ("ArrowUp", round((start[1] - 0.25) / 0.05)),
        ):
            for _ in range(abs(steps)):
                view.keyboard.press(key if steps > 0 else key.replace("Right", "Left").replace("Up", "Down"))
        for kind, radius in (("gd", None), ("sam", rho)):
            want = torch_walk(SURFACES[surface], start, radius, lr, 20)
            np.testing.assert_allclose(shown(view, f".fer-near.fer-{kind}")[:21], want, atol=1e-6)
        view.get_by_role("button", name="back to the start").click()
        settle(view)
        numbers = json.loads(view.locator(".fer-reading").get_attribute("data-values"))
        first = torch_walk(SURFACES[surface], start, rho, lr, 1)
        np.testing.assert_allclose(start - lr * np.array(numbers["up"]), first[1], atol=1e-9)
        assert abs(np.hypot(*numbers["climb"]) - rho) < 1e-9
        clean(reader)


def test_the_number_line_tells_loss_and_the_worst_nearby(browser, page: Path) -> None:
    with opened(browser, page) as reader:
        view = reader.page
        slide(view, "step", 7)
        path = torch_walk(SURFACES["a crack and a valley"], [-1.05, 0.25], 0.5, 0.05, 7)
        loss, worst = shown(view, ".fer-lossrow.fer-sam")
        wells = SURFACES["a crack and a valley"]
        angle = np.linspace(0, 2 * np.pi, 721)[None]
        disc = path[-1] + 0.5 * np.linspace(0, 1, 200)[:, None, None] * np.stack(
            [np.cos(angle), np.sin(angle)], -1
        )
        assert abs(loss - surface_loss(wells, path[-1])) < 1e-9
        assert abs(worst - surface_loss(wells, disc).max()) < 2e-3


def test_by_keyboard_and_button(browser, page: Path) -> None:
    with opened(browser, page, width=380) as reader:
        view = reader.page
        view.get_by_role("radio", name="both").focus()
        view.keyboard.press("ArrowLeft")  # SAM alone
        settle(view)
        assert view.locator(".fer-lossrow.fer-gd").is_hidden()
        view.get_by_role("button", name="back to the start").click()
        for _ in range(3):
            view.get_by_role("button", name="one step").press("Enter")
        said = says(view.locator("[role=status]"), "After 3 steps SAM stands at")
        assert said.startswith("After 3 steps SAM stands at") and "gradient descent" not in said
        before = shown(view, ".fer-near.fer-sam")[0]
        view.get_by_role("application", name="starting point").press("Shift+ArrowDown")
        np.testing.assert_allclose(shown(view, ".fer-near.fer-sam")[0], before - [0, 0.01], atol=1e-9)
        view.get_by_role("button", name="play").click()
        view.wait_for_function("document.querySelector('.fer-slider:last-child output').textContent > 5")
        view.get_by_role("button", name="pause").click()
        box = view.locator(".fer-surface").bounding_box()
        view.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
        np.testing.assert_allclose(shown(view, ".fer-near.fer-sam")[0], [0.1, 0.0], atol=0.02)
        clean(reader)


def test_every_control_is_reached_by_tab(browser, page: Path) -> None:
    with opened(browser, page) as reader:
        stops = []
        while len(stops) < 20:
            reader.page.keyboard.press("Tab")
            outline = reader.page.evaluate(
                "(() => { const e = document.activeElement, c = getComputedStyle("
                "e.type === 'radio' ? e.nextElementSibling : e);"
                "return e.closest('.fer-widget') ? c.outlineStyle : null; })()"
            )
            if outline is None:
                break
            stops.append(outline)
        assert stops == ["solid"] * 9  # two choices, three sliders, three buttons, the start


def test_figure_is_small_and_reads_without_scripts() -> None:
    html = explorer().html()
    assert len(html.encode()) < 60_000
    still = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    assert "<table" in still and "1.15" in still
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|import\s*\(|@import", html)


def test_a_kernel_s_traits_are_there_and_clear_words_for_wrong_arguments() -> None:
    figure = SAMExplorer()
    assert figure.state()["rho"] == 0.5 and figure.state()["method"] in METHODS
    for wrong, match in [
        ({"surfaces": {}}, "at least one surface"),
        ({"surfaces": {"flat": [(0, 0, 1, 0)]}}, "flat.*width > 0"),
        ({"surfaces": {"odd": [(0, 0, 1)]}}, r"odd.*shape \(1, 3\)"),
        ({"start": (5, 0)}, "outside the view"),
        ({"rho": 0}, "rho"),
        ({"steps": 0}, "steps=0"),
    ]:
        with pytest.raises((ValueError, TraitError), match=match):
            SAMExplorer(**wrong)
