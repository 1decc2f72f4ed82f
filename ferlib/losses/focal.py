"""Losses that turn away from what is known already: focal PDLS and its compensated variant. Chapter 3."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ferlib.losses.smoothing import PDLSLoss, full_precision


class FocalPDLSLoss(PDLSLoss):
    r"""F-PDLS: every class is weighted down by its own probability, so that easy classes stop pulling.

    .. math:: L = -\sum_c q_c \,(1 - p_c)^\gamma \log p_c

    Unlike the usual focal loss, which has one weight :math:`(1 - p_y)^\gamma` per face, each class
    :math:`c` has its own, and the gradient flows through it. ``gamma`` 0 gives PDLS.

    Shape: as ``PDLSLoss``. ``alpha`` 0.8 and ``gamma`` 2 in the released code.
    Raises ``ValueError`` as ``PDLSLoss``, and for a negative gamma.
    Source: Hwang et al. 2022, section 2.3, equation of F-PDLS; Lin et al. 2017 for the focus. Chapter 3.
    """

    def __init__(
        self,
        alpha: float = 0.8,
        gamma: float = 2.0,
        prior: torch.Tensor | None = None,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, prior, reduction=reduction)
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        self.gamma = float(gamma)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = full_precision(logits)
        return _focal(logits, self.targets(logits, target), self.gamma, self.reduction)


class CompensatedFocalPDLSLoss(PDLSLoss):
    r"""F-PDLS with exponent 1 and the factor that makes up for it when nothing is known yet.

    .. math:: L = -\sum_c q_c \,(1 - p_c)\,\frac{K}{K - 1}\, \log p_c

    A network that knows nothing has :math:`p_c = 1/K`; then the weight is 1 and the loss equals PDLS.

    Shape: as ``PDLSLoss``, and the same errors. ``alpha`` is 0.5 in the released code.
    Source: released code of the Neural Resizer (utils/losses.py:152). Chapter 3.
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = full_precision(logits)
        classes = logits.shape[1]
        return _focal(logits, self.targets(logits, target), 1.0, self.reduction) * (classes / (classes - 1))


def focal_terms(logits: torch.Tensor, q: torch.Tensor, gamma: float) -> torch.Tensor:
    """The equation as it stands: -sum_c q_c (1 - p_c)^gamma log p_c for each face, ``(B,)``."""
    log_p = F.log_softmax(logits, dim=1)
    rest = -log_p.expm1()  # 1 - p without losing digits where p is near 1
    if gamma < 1:  # the slope of rest ** gamma is infinite at 0, though its product with log p is not
        rest = rest.clamp_min(torch.finfo(rest.dtype).eps)
    return -(q * rest.pow(gamma) * log_p).sum(1)


def _focal(logits: torch.Tensor, q: torch.Tensor, gamma: float, reduction: str) -> torch.Tensor:
    if reduction == "none":
        return focal_terms(logits, q, gamma)
    share = 1.0
    if reduction == "mean":  # of no face: not a number, as everywhere in torch
        share = 1 / len(logits) if len(logits) else float("nan")
    if torch.compiler.is_compiling() or q.requires_grad:  # a compiler fuses the plain form by itself
        return focal_terms(logits, q, gamma).sum() * share
    return _Focal.apply(logits, q, gamma, share)


class _Focal(torch.autograd.Function):
    r"""The same sum with its gradient written out, at half the time of autograd's twenty small steps.

    With :math:`g_c = q_c (1-p_c)^{\gamma-1} (1 - p_c - \gamma\, p_c \log p_c)`, the slope in each
    log-probability, the gradient in the logits is :math:`p_c \sum_k g_k - g_c`. Chapter 3 derives it.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, q: torch.Tensor, gamma: float, share: float) -> torch.Tensor:
        log_p = torch.log_softmax(logits, 1)
        p, rest = log_p.exp(), log_p.expm1().neg_()
        if gamma < 1:
            rest.clamp_min_(torch.finfo(rest.dtype).eps)
        g = q * rest if gamma == 2 else q * rest.pow(gamma - 1)
        loss = (g * rest).mul_(log_p).sum().mul_(-share)
        if ctx.needs_input_grad[0]:
            g.mul_(rest.addcmul_(p, log_p, value=-gamma))
            ctx.save_for_backward(logits, q, p.mul_(g.sum(1, keepdim=True)).sub_(g).mul_(share))
            ctx.gamma, ctx.share = gamma, share
        return loss

    @staticmethod
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        logits, q, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants the gradient of the gradient: let autograd do it
            loss = focal_terms(logits, q, ctx.gamma).sum() * ctx.share
            (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
        return gradient * outer, None, None, None
