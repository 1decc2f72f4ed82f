"""LossExplorer in a browser: six losses, their targets and pulls are those of ``ferlib.losses``."""

import numpy as np
import torch

from ferlib.losses import FERPLUS_PRIOR, CompensatedFocalPDLSLoss, FocalPDLSLoss, LabelSmoothingLoss, PDLSLoss
from tests.explorers import FACE, clean, opened, settle, slide, values
from tests.reader import says

SHOWN = """() => {
  const all = (name) => [...document.querySelectorAll(name)].map((e) => Number(e.dataset.value));
  return {p: all('.fer-p .fer-bar'), q: all('.fer-q .fer-bar'), pull: all('.fer-pull .fer-bar'),
    loss: all('.fer-verdict')[0]};
}"""


def expected_loss(name: str, alpha: float, gamma: float):
    return {
        "cross-entropy": lambda: torch.nn.CrossEntropyLoss(),
        "label smoothing": lambda: LabelSmoothingLoss(alpha),
        "PDLS": lambda: PDLSLoss(alpha, FERPLUS_PRIOR),
        "focal": lambda: FocalPDLSLoss(1.0, gamma, FERPLUS_PRIOR),
        "F-PDLS": lambda: FocalPDLSLoss(alpha, gamma, FERPLUS_PRIOR),
        "compensated": lambda: CompensatedFocalPDLSLoss(alpha, FERPLUS_PRIOR),
    }[name]()


def test_losses_and_pulls_are_those_of_ferlib(browser) -> None:
    """Six losses at several settings, on several faces: value, target, probability and pull within 1e-5."""
    with opened(browser, "loss") as reader:
        page = reader.page
        faces = {
            "the hard face": FACE,
            "sure and right": [6.0 * (c == 3) for c in range(8)],
            "sure and wrong": [6.0 * (c == 0) for c in range(8)],  # sadness is most often taken for neutral
        }
        for face, label, alpha, gamma in [
            ("the hard face", 6, 0.8, 2),
            ("the hard face", 2, 0.35, 0.5),
            ("sure and right", 3, 0.6, 3.5),
            ("sure and wrong", 3, 0.9, 1),
        ]:
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
                settle(page)
                shown = {k: np.array(v) for k, v in page.evaluate(SHOWN).items()}
                where = f"{name}, {face}, label {label}, alpha {alpha}, gamma {gamma}"
                assert abs(shown["loss"] - loss.item()) < 1e-5, where
                np.testing.assert_allclose(shown["pull"], -gradient[0].numpy(), atol=1e-5, err_msg=where)
                np.testing.assert_allclose(shown["p"], logits.detach().softmax(1)[0].numpy(), atol=1e-9)
                if hasattr(criterion, "soft_targets"):
                    np.testing.assert_allclose(shown["q"], criterion.soft_targets[label].numpy(), atol=1e-6)
        clean(reader)


def test_losses_follow_the_keyboard(browser) -> None:
    with opened(browser, "loss", width=360) as reader:
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
        says(page.locator("[role=status]"), "The focal loss")
        assert page.get_by_role("slider", name="α").is_disabled(), "the usual focal loss has no alpha"
