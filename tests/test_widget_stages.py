"""StagesExplorer: stages of the network, one map enlarged, and the file that a page computes them with."""

import numpy as np
import onnxruntime
import pytest
import torch

from book.figures.stages import OUTPUTS, stages_explorer
from ferlib.data import EMOTIONS_FERPLUS as CLASSES
from ferlib.data.transforms import to_float
from ferlib.widgets import StagesExplorer, unpack
from tests.explorers import clean, inputs, network, opened, settle, stages, values


def test_stages_are_those_of_the_network() -> None:
    """The last three are what the network returns, and the levels those of its encoder."""
    image = (stages()["pixels"][None].expand(-1, 3, -1, -1) - MEAN) / STD
    with torch.no_grad():
        want, levels = network().outputs(image), network().encoder.maps(image)
    for name, logits in zip(("vit", "bt", "cba"), want, strict=True):
        torch.testing.assert_close(stages()[name], logits[0], atol=1e-4, rtol=1e-4)
    for n, level in enumerate(levels, 1):
        torch.testing.assert_close(stages()[f"level {n}"], level[0], atol=1e-4, rtol=1e-4)


MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def test_a_channel_is_enlarged_and_read_by_pointer_and_keys(browser) -> None:
    with opened(browser, "stages") as reader:
        page = reader.page
        page.get_by_role("radio", name="level 2").check()
        page.get_by_role("radio", name="channel 3", exact=True).check()
        zoom = page.get_by_role("application", name="one map")
        for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
            zoom.press(key)
        settle(page)
        seen = float(page.locator(".fer-stages p[data-value]").get_attribute("data-value"))
        assert seen == pytest.approx(stages()["level 2"][2, 1, 2].item(), abs=2e-3)
        bars = values(page, ".fer-stages .fer-row .fer-bar").reshape(len(CLASSES), 3)
        for n, name in enumerate(OUTPUTS):
            np.testing.assert_allclose(bars[:, n], stages()[name].softmax(0), atol=1e-4)
        page.locator(".fer-tasks summary").click()
        page.get_by_role("radio", name="level 3").check()
        page.locator(".fer-tasks li.fer-done").first.wait_for()
        page.get_by_role("button", name="reset").click()
        settle(page)
        assert page.get_by_role("radio", name="pixels").is_checked()
        clean(reader)


def test_the_file_gives_the_stages_that_are_stored() -> None:
    """What a page computes for the same face is what stands in it, in half precision."""
    face = torch.randint(0, 256, (1, 48, 48), generator=torch.Generator().manual_seed(8), dtype=torch.uint8)
    explorer = stages_explorer(network(), face, inputs(), CLASSES)
    session = onnxruntime.InferenceSession(unpack(explorer.data["model"]).tobytes())
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"face": to_float(face[None]).numpy()}), strict=True))
    for name, logits in explorer.data["outputs"].items():
        np.testing.assert_allclose(found[name], logits, atol=1e-4)
    for stage in explorer.data["stages"]:
        got, kept = found[stage["key"]], unpack(stage["values"])
        assert np.abs(got - kept).max() <= 1e-3 * max(1, np.abs(kept).max()), stage["name"]


def test_clear_words_for_wrong_arguments() -> None:
    maps = {"pixels": torch.zeros(1, 8, 8)}
    with pytest.raises(ValueError, match="first is the gray face"):
        StagesExplorer({"level": torch.zeros(3, 8, 8)}, {}, ["a"])
    with pytest.raises(ValueError, match="'vit' has 2 logits for 1 classes"):
        StagesExplorer(maps, {"vit": [0.0, 1.0]}, ["a"])
