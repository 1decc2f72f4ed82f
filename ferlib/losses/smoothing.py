"""Softer labels: evenly softened, and softened the way people really disagree. Chapter 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ferlib.losses.prior import FERPLUS_PRIOR, check_prior

REDUCTIONS = ("mean", "sum", "none")


class LabelSmoothingLoss(nn.Module):
    r"""Cross-entropy with a share of the label spread evenly over all classes.

    .. math:: L = -\sum_c \Big(\alpha\, t_c + \frac{1 - \alpha}{K}\Big) \log p_c

    ``alpha`` in [0, 1] is what the label keeps (0.9 in the released code, whose class cannot run); 1 is
    cross-entropy.

    Shape: logits ``(B, K)``; target int64 ``(B,)``, or distributions or vote counts ``(B, K)``, whose rows
    are divided by their sums. Out: a scalar, ``(B,)`` with ``reduction="none"``.
    Raises ``ValueError`` for a target of another shape or type, a label outside 0 ... K-1 or votes that are
    negative, not finite or all 0 (checked on the CPU; on a GPU torch itself stops at a label), alpha outside
    [0, 1], an unknown reduction.
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
        logits = full_precision(logits)
        _check_target(logits, target)
        if target.ndim == 2:
            target = _distribution(target, logits.dtype)
        elif target.device.type == "cpu" and not torch.compiler.is_compiling():
            # cross_entropy would pass over the label -100 in silence
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
                "give prior= a matrix in the data set's own class order (prior_for makes one)"
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
        logits = full_precision(logits)
        return F.cross_entropy(logits, self.targets(logits, target), reduction=self.reduction)


def full_precision(logits: torch.Tensor) -> torch.Tensor:
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
    """Votes or shares ``(B, K)`` as rows that sum to 1; on the CPU rows that cannot are an error."""
    target = target.to(dtype)
    sums = target.sum(1, keepdim=True)
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = ~(torch.isfinite(target).all(1) & (target >= 0).all(1) & (sums[:, 0] > 0))
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"row {row} of the target is no distribution of votes: {target[row].tolist()}; expected "
                "finite numbers of at least 0 that do not all vanish (leave out faces without a vote)"
            )
    return target / sums
