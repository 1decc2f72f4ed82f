r"""Losses that use which expressions people confuse: label smoothing, PDLS and F-PDLS.

All have one form. With :math:`p = \mathrm{softmax}(z)`, a target distribution :math:`q` and a weight per
class,

.. math:: L = -\sum_c q_c \, w_c(p) \, \log p_c , \qquad q = \alpha\, t + (1 - \alpha)\, D^\top t

where :math:`t` is the label (one-hot, or a distribution of votes) and row :math:`y` of the prior :math:`D`
is how annotators vote on faces whose majority label is :math:`y`. Autograd computes the gradients: with one
``log_softmax`` for p and log p, F-PDLS takes as long as it did with a gradient written by hand.

Source: Hwang et al., "Vision Transformer Equipped with Neural Resizer on Facial Expression Recognition Task",
ICASSP 2022, section 2.3. Chapter 3 derives the losses from cross-entropy, one change at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "FERPLUS_PRIOR",
    "PRIOR_CLASSES",
    "BatchTransformerLoss",
    "CompensatedFocalPDLSLoss",
    "FocalPDLSLoss",
    "LabelSmoothingLoss",
    "PDLSLoss",
    "prior_for",
]

#: The classes of the published prior, in its order.
PRIOR_CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

#: Mean vote share per majority class on the FER+ training images, (8, 8); rows and columns in the order
#: neutral, happiness, surprise, sadness, anger, disgust, fear, contempt. Constants of the released Neural
#: Resizer (utils/losses.py:6-15); chapter 1 recomputes them from the votes in fer2013new.csv to within 1e-4.
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


def prior_for(classes: Sequence[str]) -> Tensor:
    """The published FER+ prior for another data set, matched by the names of its classes.

    It fits RAF-DB's seven classes and AffectNet's seven or eight, in their own orders. Rows and columns are
    picked together and each row is divided by its sum. They still describe FER+'s annotators; where a data
    set has votes of its own, ``ferlib.data.confusion_prior`` of those is the better prior. The released code
    uses FER+'s class order for every data set. Chapter 3.

    Args:
        classes: K names out of ``PRIOR_CLASSES``.

    Returns:
        (K, K) tensor; every row sums to 1.

    Raises:
        ValueError: For a name that the published prior does not have, or that comes twice.
    """
    unknown = [name for name in classes if name not in PRIOR_CLASSES]
    if unknown or len(set(classes)) < len(classes):
        raise ValueError(
            f"expected different classes out of {', '.join(PRIOR_CLASSES)}, got {', '.join(classes)}: "
            "for other classes make a prior from votes"
        )
    order = [PRIOR_CLASSES.index(name) for name in classes]
    picked = FERPLUS_PRIOR[order][:, order]
    return picked / picked.sum(1, keepdim=True)


class LabelSmoothingLoss(nn.Module):
    r"""Cross-entropy with a share of the label spread evenly over all classes.

    .. math:: L = -\sum_c \Big(\alpha\, t_c + \frac{1 - \alpha}{K}\Big) \log p_c

    ``loss(logits, target)`` takes logits (B, K), and as target int64 labels (B,), or distributions or vote
    counts (B, K), whose rows are divided by their sums. Half-precision logits are read as float32.

    Source: Szegedy et al. 2016, section 7. Chapter 3.

    Args:
        alpha: The share in [0, 1] that the label keeps; 1 is cross-entropy. The released code has 0.9 (in a
            class that cannot run).
        reduction: "mean", "sum", or "none" for one loss per face (B,).

    Raises:
        ValueError: For alpha outside [0, 1] or another reduction; when called, for a target of another shape
            or type, and on the CPU for labels outside 0 ... K-1 and for votes that are negative, not finite
            or all 0.
    """

    def __init__(self, alpha: float = 0.9, *, reduction: str = "mean") -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is the share the label keeps and lies in [0, 1], got {alpha}")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction is {reduction!r}, expected mean, sum or none")
        self.alpha, self.reduction = alpha, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.dtype in (torch.float16, torch.bfloat16):  # 1 - p and log p would round to 0 and overflow
            logits = logits.float()
        count = len(logits) if self.reduction == "mean" else 1
        q = self.targets(logits, target) / -count  # here and not at the end, where autograd would follow
        log_p = logits.log_softmax(1)
        terms = self.weigh(q, log_p) * log_p
        if self.reduction == "none":
            return terms.sum(1)
        return terms.sum() if count else terms.mean()  # the mean of no face is NaN, as everywhere in torch

    def targets(self, logits: Tensor, target: Tensor) -> Tensor:
        """The distributions q (B, K) that the predictions are compared with."""
        rows, reason = self.rows(logits), ""
        try:
            if target.ndim == 1:
                q = rows.index_select(0, target)
            else:
                with torch.autocast(logits.device.type, enabled=False):
                    q = _shares(target, logits) @ rows.to(logits.dtype)
            if q.shape == logits.shape:
                return q
        except (IndexError, RuntimeError) as error:
            reason = f" ({error})"
        found = f" from {target.min()} to {target.max()}" if target.numel() else ""
        raise ValueError(
            f"expected logits (B, {len(rows)}) with int64 labels (B,) in 0 ... {len(rows) - 1} or votes "
            f"(B, {len(rows)}), got logits {tuple(logits.shape)} and a target {tuple(target.shape)} of "
            f"{target.dtype}{found}; a prior is in the data set's own class order (prior_for){reason}"
        )

    def rows(self, logits: Tensor) -> Tensor:
        """The soft target of each hard label, (K, K)."""
        count = logits.shape[1]
        return self.alpha * torch.eye(count, device=logits.device) + (1 - self.alpha) / count

    def weigh(self, q: Tensor, log_p: Tensor) -> Tensor:
        """The targets times the weight of each class, (B, K)."""
        return q


def _shares(votes: Tensor, logits: Tensor) -> Tensor:
    """Votes divided by their sum, in the logits' type; on a GPU a check would wait for the numbers."""
    votes = votes.to(logits.dtype)
    sums = votes.sum(-1, keepdim=True)
    checked = logits.device.type == "cpu" and not torch.compiler.is_compiling()
    if (
        checked
        and votes.shape == logits.shape
        and not ((votes >= 0).all() and (sums > 0).all() and sums.isfinite().all())
    ):
        raise ValueError("votes (B, K) must be finite and at least 0, and not all 0 for a face")
    return votes / sums


class PDLSLoss(LabelSmoothingLoss):
    r"""Prior-distribution label smoothing: the share goes where annotators' votes go.

    .. math:: L = -\sum_c q_c \log p_c, \qquad q = \alpha\, t + (1 - \alpha)\, D^\top t

    For a hard label :math:`y`, :math:`D^\top t` is row :math:`y` of the prior. It is called as
    :class:`LabelSmoothingLoss`; the buffer ``soft_targets`` (K, K) holds q for each hard label.

    Source: Hwang et al. 2022, section 2.3. Chapter 3.

    Args:
        alpha: The share that the label keeps; 0.5 in the released code.
        prior: D, (K, K), non-negative, each row with the sum 1, in the data set's own class order
            (:func:`prior_for`). By default ``FERPLUS_PRIOR``.
        reduction: As in :class:`LabelSmoothingLoss`.

    Raises:
        ValueError: As :class:`LabelSmoothingLoss`; for a prior that is none; for logits of other classes.
    """

    soft_targets: Tensor

    def __init__(self, alpha: float = 0.5, prior: Tensor | None = None, *, reduction: str = "mean") -> None:
        super().__init__(alpha, reduction=reduction)
        prior = torch.as_tensor(FERPLUS_PRIOR if prior is None else prior, dtype=torch.float32)
        if prior.ndim != 2 or prior.shape[0] != prior.shape[1] or len(prior) < 2:
            raise ValueError(f"a prior is a square matrix (K, K), K at least 2, got {tuple(prior.shape)}")
        if not (prior >= 0).all() or ((prior.sum(1) - 1).abs() > 1e-4).any():
            raise ValueError(
                "every row of a prior is a distribution, but the rows sum to "
                f"{[round(x, 4) for x in prior.sum(1).tolist()]} and the smallest entry is {prior.min():.4f}"
            )
        table = self.alpha * torch.eye(len(prior)) + (1 - self.alpha) * prior
        self.register_buffer("soft_targets", table, persistent=False)

    def rows(self, logits: Tensor) -> Tensor:
        return self.soft_targets


class FocalPDLSLoss(PDLSLoss):
    r"""F-PDLS: each class is weighted down by its own probability, so that easy classes stop pulling.

    .. math:: L = -\sum_c q_c \,(1 - p_c)^\gamma \log p_c

    The focal loss has one weight :math:`(1 - p_y)^\gamma` per face; here each class :math:`c` has its own,
    and the gradient flows through it. With ``gamma`` 0 it is PDLS.

    Source: Hwang et al. 2022, section 2.3; Lin et al. 2017 for the focal weight. Chapter 3.

    Args:
        alpha: The share that the label keeps; 0.8 in the released code.
        gamma: At least 0; 2 in the released code.
        prior: As in :class:`PDLSLoss`.
        reduction: As in :class:`LabelSmoothingLoss`.

    Raises:
        ValueError: As :class:`PDLSLoss`, and for a negative gamma.
    """

    def __init__(
        self,
        alpha: float = 0.8,
        gamma: float = 2.0,
        prior: Tensor | None = None,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, prior, reduction=reduction)
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        self.gamma = gamma

    def weigh(self, q: Tensor, log_p: Tensor) -> Tensor:
        less = log_p.expm1()  # p - 1, without losing digits where p is near 1
        if self.gamma == 2:  # as pow would have it, in a quarter less time
            return q * less * less
        rest = (-less).clamp_min(
            torch.finfo(less.dtype).eps
        )  # where p is 1 the power's slope may be infinite
        return q * rest.pow(self.gamma)


class CompensatedFocalPDLSLoss(PDLSLoss):
    r"""F-PDLS with exponent 1 and a factor that makes up for the weights of a uniform prediction.

    .. math:: L = -\sum_c q_c \,(1 - p_c)\,\frac{K}{K - 1}\, \log p_c

    For the uniform prediction :math:`p_c = 1/K` the weight is 1 and the loss equals PDLS. It takes the
    arguments of :class:`PDLSLoss`; alpha is 0.5 in the released code.

    Source: released code of the Neural Resizer (utils/losses.py:152). Chapter 3.
    """

    def weigh(self, q: Tensor, log_p: Tensor) -> Tensor:
        count = log_p.shape[1]
        return q * log_p.expm1() * (count / (1 - count))


class BatchTransformerLoss(nn.Module):
    r"""The loss of the Batch Transformer Network: one criterion on each of its three outputs.

    .. math:: L = \lambda\, L_\mathrm{VIT} + L_\mathrm{BT} + L_\mathrm{CBA}

    ``loss(output, target)`` takes an output with the fields ``vit``, ``bt`` and ``cba``, each logits (B, K).
    Plain logits (what the network returns in evaluation mode) go through the criterion alone.

    Source: Her et al., "Batch Transformer", IEEE Access 13, 2025. Chapter 5.

    Args:
        criterion: What each output is measured by; by default cross-entropy.
        vit_weight: Lambda; the paper does not state it.
    """

    def __init__(self, criterion: nn.Module | None = None, vit_weight: float = 1.0) -> None:
        super().__init__()
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self.vit_weight = vit_weight

    def forward(self, output: Tensor | tuple, target: Tensor) -> Tensor:
        if isinstance(output, Tensor):
            return self.criterion(output, target)
        vit, bt, cba = (self.criterion(part, target) for part in (output.vit, output.bt, output.cba))
        return self.vit_weight * vit + bt + cba
