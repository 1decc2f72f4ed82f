"""SAMExplorer in a real browser without network: its steps are those of ``ferlib.training.SAM``."""

import json

import numpy as np
import pytest
import torch
from traitlets import TraitError

from ferlib.training import SAM
from ferlib.widgets import SAMExplorer
from ferlib.widgets.sam import METHODS
from tests.explorers import SURFACES, clean, opened, settle, slide
from tests.reader import says


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


@pytest.mark.parametrize(
    ("surface", "start", "rho", "lr"),
    [
        ("a crack and a valley", [-1.05, 0.25], 0.5, 0.05),
        ("two cracks", [0.15, 0.45], 0.31, 0.02),
    ],
)
def test_steps_are_those_of_the_library(browser, surface: str, start, rho, lr) -> None:
    """Twenty steps of both walks within 1e-6, and the quantities of the first SAM step."""
    with opened(browser, "sam") as reader:
        view = reader.page
        view.get_by_role("radio", name=surface).check()
        slide(view, "ρ", rho)
        slide(view, "η", lr)
        mark = view.get_by_role("application", name="starting point")
        mark.focus()
        for key, steps in (("ArrowRight", (start[0] + 1.05) / 0.05), ("ArrowUp", (start[1] - 0.25) / 0.05)):
            for _ in range(round(steps)):
                view.keyboard.press(key)
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


def test_the_number_line_tells_loss_and_the_worst_nearby(browser) -> None:
    with opened(browser, "sam") as reader:
        view = reader.page
        slide(view, "step", 7)
        path = torch_walk(SURFACES["a crack and a valley"], [-1.05, 0.25], 0.5, 0.05, 7)
        loss, worst = shown(view, ".fer-lossrow.fer-sam")
        wells = SURFACES["a crack and a valley"]
        angle = np.linspace(0, 2 * np.pi, 721)[None]
        circle = np.stack([np.cos(angle), np.sin(angle)], -1)
        disc = path[-1] + 0.5 * np.linspace(0, 1, 200)[:, None, None] * circle
        assert abs(loss - surface_loss(wells, path[-1])) < 1e-9
        assert abs(worst - surface_loss(wells, disc).max()) < 2e-3


def test_by_keyboard_and_button(browser) -> None:
    with opened(browser, "sam", width=380) as reader:
        view = reader.page
        assert view.get_by_text("valley <b>").count() == 1
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
