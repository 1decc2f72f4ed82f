r"""Losses that know which expressions people confuse: label smoothing, PDLS and focal PDLS.

All have one form. With :math:`p = \mathrm{softmax}(z)`, a target distribution :math:`q` and a weight per
class,

.. math:: L = -\sum_c q_c \, w_c(p) \, \log p_c , \qquad q = \alpha\, t + (1 - \alpha)\, D^\top t

where :math:`t` is the label (one-hot, or a distribution of votes) and row :math:`y` of the prior :math:`D`
says how annotators vote on faces whose majority label is :math:`y`.

Source: Hwang et al., "Vision Transformer Equipped with Neural Resizer on Facial Expression Recognition Task",
ICASSP 2022, section 2.3. Chapter 3 derives them from cross-entropy, one change at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

REDUCTIONS = ("mean", "sum", "none")

# Mean vote share per majority class on the FER+ training images; rows and columns in the order neutral,
# happiness, surprise, sadness, anger, disgust, fear, contempt. Constants of the released Neural Resizer
# (utils/losses.py:6-15); chapter 1 recomputes them from the votes in fer2013new.csv to within 1e-4.
FERPLUS_PRIOR = torch.tensor(
    [
        [0.777334, 0.032610, 0.017447, 0.114091, 0.026224, 0.007145, 0.004379, 0.020772],
        [0.042842, 0.917618, 0.023221, 0.004816, 0.004217, 0.001969, 0.001755, 0.003563],
        [0.058354, 0.035775, 0.787254, 0.010370, 0.014319, 0.003015, 0.088513, 0.002400],
        [0.170124, 0.013292, 0.008632, 0.747902, 0.022808, 0.011237, 0.015923, 0.010082],
        [0.074781, 0.025350, 0.060215, 0.031924, 0.740551, 0.034938, 0.023251, 0.008989],
        [0.089590, 0.017445, 0.016911, 0.088629, 0.125152, 0.620813, 0.007788, 0.033671],
        [0.042815, 0.012239, 0.169483, 0.072557, 0.027228, 0.013045, 0.658964, 0.003671],
        [0.147933, 0.022174, 0.009890, 0.042923, 0.033551, 0.059924, 0.005507, 0.678099],
    ]
)


def check_prior(prior: torch.Tensor | Sequence[Sequence[float]]) -> torch.Tensor:
    """A prior as a float32 tensor, after checking that it is one.

    Shape: ``(K, K)`` in and out; every entry at least 0, every row sums to 1 within 1e-4.
    Raises ``ValueError`` naming the shape, entry or row that is wrong. Chapter 3.
    """
    prior = torch.as_tensor(prior, dtype=torch.float32).detach().clone()
    if prior.ndim != 2 or prior.shape[0] != prior.shape[1]:
        raise ValueError(f"a prior is a square matrix (K, K), got shape {tuple(prior.shape)}")
    if not torch.isfinite(prior).all() or (prior < 0).any():
        raise ValueError("a prior holds probabilities: every entry must be finite and at least 0")
    sums = prior.sum(1)
    worst = int((sums - 1).abs().argmax())
    if abs(float(sums[worst]) - 1) > 1e-4:
        raise ValueError(
            f"every row of a prior must sum to 1; row {worst} sums to {float(sums[worst]):.6f}: "
            "divide each row by its sum (prior / prior.sum(1, keepdim=True))"
        )
    return prior


class LabelSmoothingLoss(nn.Module):
    r"""Cross-entropy with a share of the label spread evenly over all classes.

    .. math:: L = -\sum_c \Big(\alpha\, t_c + \frac{1 - \alpha}{K}\Big) \log p_c

    ``alpha`` in [0, 1] is what the label keeps (0.9 in the released code, whose class cannot run); 1 is
    cross-entropy.

    Shape: logits ``(B, K)``; target int64 ``(B,)``, or distributions or vote counts ``(B, K)``, whose rows
    are divided by their sums. Out: a scalar, ``(B,)`` with ``reduction="none"``.
    Raises ``ValueError`` for a target of another shape or type, a label outside 0 ... K-1 (checked on the
    CPU; on a GPU torch itself stops), alpha outside [0, 1], an unknown reduction.
    Source: Szegedy et al. 2016, section 7. Chapter 3.
    """

    def __init__(self, alpha: float = 0.9, *, reduction: str = "mean") -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is the share the label keeps and lies in [0, 1], got {alpha}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction={reduction!r} is unknown; choose one of {', '.join(REDUCTIONS)}")
        self.alpha, self.reduction = float(alpha), reduction

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = _full_precision(logits)
        _check_target(logits, target)
        if target.ndim == 2:
            target = _distribution(target, logits.dtype)
        elif target.device.type == "cpu":  # cross_entropy would pass over the label -100 in silence
            _check_labels(logits, target)
        return F.cross_entropy(logits, target, reduction=self.reduction, label_smoothing=1 - self.alpha)

    def extra_repr(self) -> str:
        shown = {key: value for key, value in vars(self).items() if key in ("alpha", "gamma", "reduction")}
        return ", ".join(f"{key}={value!r}" for key, value in shown.items())


class PDLSLoss(LabelSmoothingLoss):
    r"""Prior-distribution label smoothing: the share goes where people really put it.

    .. math:: L = -\sum_c q_c \log p_c, \qquad q = \alpha\, t + (1 - \alpha)\, D^\top t

    For a hard label :math:`y`, :math:`D^\top t` is row :math:`y` of the prior.

    Shape: prior ``(K, K)``, row-stochastic (default: the FER+ constants, FER+ class order); logits ``(B,
    K)``; target int64 ``(B,)`` or votes ``(B, K)``. Out: a scalar, ``(B,)`` with ``reduction="none"``.
    ``alpha`` is 0.5 in the released code. The soft target of every hard label is a row of the buffer
    ``soft_targets`` ``(K, K)``.
    Raises ``ValueError`` as ``LabelSmoothingLoss``, for a bad prior, and for logits of other classes.
    Source: Hwang et al. 2022, section 2.3. Chapter 3.
    """

    soft_targets: torch.Tensor

    def __init__(
        self, alpha: float = 0.5, prior: torch.Tensor | None = None, *, reduction: str = "mean"
    ) -> None:
        super().__init__(alpha, reduction=reduction)
        prior = check_prior(FERPLUS_PRIOR if prior is None else prior)
        table = self.alpha * torch.eye(len(prior)) + (1 - self.alpha) * prior
        self.register_buffer("soft_targets", table, persistent=False)

    def targets(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The distributions q that the logits are compared with: ``(B, K)``, in the logits' type."""
        _check_target(logits, target)
        table = self.soft_targets if logits.dtype == torch.float32 else self.soft_targets.to(logits.dtype)
        if logits.shape[1] != len(table):
            raise ValueError(
                f"the logits have {logits.shape[1]} classes, the prior {len(table)}: "
                "give prior= a matrix (K, K) in the data set's own class order"
            )
        if target.ndim == 2:
            with torch.autocast(logits.device.type, enabled=False):
                return _distribution(target, logits.dtype) @ table
        try:
            return table.index_select(0, target)
        except (IndexError, RuntimeError):  # torch looks at every label anyway: no check of ours to pay for
            _check_labels(logits, target)
            raise

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = _full_precision(logits)
        return F.cross_entropy(logits, self.targets(logits, target), reduction=self.reduction)


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
        logits = _full_precision(logits)
        return _focal(logits, self.targets(logits, target), self.gamma, self.reduction)


class CompensatedFocalPDLSLoss(PDLSLoss):
    r"""F-PDLS with exponent 1 and the factor that makes up for it when nothing is known yet.

    .. math:: L = -\sum_c q_c \,(1 - p_c)\,\frac{K}{K - 1}\, \log p_c

    A network that knows nothing has :math:`p_c = 1/K`; then the weight is 1 and the loss equals PDLS.

    Shape: as ``PDLSLoss``, and the same errors. ``alpha`` is 0.5 in the released code.
    Source: released code of the Neural Resizer (utils/losses.py:152). Chapter 3.
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = _full_precision(logits)
        classes = logits.shape[1]
        return _focal(logits, self.targets(logits, target), 1.0, self.reduction) * (classes / (classes - 1))


class BatchTransformerLoss(nn.Module):
    r"""The loss of the Batch Transformer Network: one criterion on each of its three outputs.

    .. math:: L = \lambda\, L_\mathrm{VIT} + L_\mathrm{BT} + L_\mathrm{CBA}

    Shape: an output with the fields ``vit``, ``bt``, ``cba``, each logits ``(B, K)``, and a target the
    criterion takes. A plain tensor of logits (what the network gives in evaluation) goes through the
    criterion alone. ``vit_weight`` is lambda; the paper does not state it.

    Source: Her et al., "Batch Transformer", IEEE Access 13, 2025. Chapter 5.
    """

    def __init__(self, criterion: nn.Module | None = None, vit_weight: float = 1.0) -> None:
        super().__init__()
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self.vit_weight = float(vit_weight)

    def forward(self, output: torch.Tensor | tuple, target: torch.Tensor) -> torch.Tensor:
        if isinstance(output, torch.Tensor):
            return self.criterion(output, target)
        if not all(hasattr(output, name) for name in ("vit", "bt", "cba")):
            raise ValueError(
                f"expected logits or an output with fields vit, bt, cba, got {type(output).__name__}"
            )
        vit, bt, cba = (self.criterion(part, target) for part in (output.vit, output.bt, output.cba))
        return self.vit_weight * vit + bt + cba


def _full_precision(logits: torch.Tensor) -> torch.Tensor:
    """Half-precision logits (autocast) as float32: 1 - p and log p would round to 0 and overflow."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _check_target(logits: torch.Tensor, target: torch.Tensor) -> None:
    if target.ndim == 1 and logits.ndim == 2 and target.dtype == torch.int64 and len(target) == len(logits):
        return
    if target.ndim == 2 and target.shape == logits.shape:
        return
    raise ValueError(
        "expected logits (B, K) with labels (B,) of type int64, or with distributions (B, K); "
        f"got logits {tuple(logits.shape)} and a target {tuple(target.shape)} of type {target.dtype}"
    )


def _check_labels(logits: torch.Tensor, target: torch.Tensor) -> None:
    wrong = (target < 0) | (target >= logits.shape[1])
    if wrong.any():
        first = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"label {int(target[first])} at position {first} is outside 0 ... {logits.shape[1] - 1}: "
            "the labels and the logits disagree on the number of classes"
        )


def _distribution(target: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Votes or shares ``(B, K)`` as rows that sum to 1."""
    return target.to(dtype) / target.sum(1, keepdim=True)


def _focal_plain(logits: torch.Tensor, q: torch.Tensor, gamma: float) -> torch.Tensor:
    """The equation as it stands: -sum_c q_c (1 - p_c)^gamma log p_c for each face, ``(B,)``."""
    log_p = F.log_softmax(logits, dim=1)
    rest = -log_p.expm1()  # 1 - p without losing digits where p is near 1
    if gamma < 1:  # the slope of rest ** gamma is infinite at 0, though its product with log p is not
        rest = rest.clamp_min(torch.finfo(rest.dtype).eps)
    return -(q * rest.pow(gamma) * log_p).sum(1)


def _focal(logits: torch.Tensor, q: torch.Tensor, gamma: float, reduction: str) -> torch.Tensor:
    if reduction == "none":
        return _focal_plain(logits, q, gamma)
    share = 1 / len(logits) if reduction == "mean" else 1.0
    if torch.compiler.is_compiling() or q.requires_grad:  # a compiler fuses the plain form by itself
        return _focal_plain(logits, q, gamma).sum() * share
    return _Focal.apply(logits, q, gamma, share)


class _Focal(torch.autograd.Function):
    r"""The same sum with its gradient written out, at half the time of autograd's twenty small steps.

    With :math:`g_c = q_c (1-p_c)^{\gamma-1} (1 - p_c - \gamma\, p_c \log p_c)`, the slope in each
    log-probability, the gradient in the logits is :math:`p_c \sum_k g_k - g_c`. Chapter 3 derives it.
    """

    @staticmethod
    def forward(ctx, logits, q, gamma, share):
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
    def backward(ctx, outer):
        logits, q, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants the gradient of the gradient: let autograd do it
            loss = _focal_plain(logits, q, ctx.gamma).sum() * ctx.share
            (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
        return gradient * outer, None, None, None
