r"""Losses that know which expressions people confuse: label smoothing, PDLS and focal PDLS.

All have one form. With :math:`p = \mathrm{softmax}(z)`, a target distribution :math:`q` and a weight per
class,

.. math:: L = -\sum_c q_c \, w_c(p) \, \log p_c , \qquad q = \alpha\, t + (1 - \alpha)\, D^\top t

where :math:`t` is the label (one-hot, or a distribution of votes) and row :math:`y` of the prior :math:`D`
says how annotators vote on faces whose majority label is :math:`y`.

Source: Hwang et al., "Vision Transformer Equipped with Neural Resizer on Facial Expression Recognition Task",
ICASSP 2022, section 2.3. Chapter 3 derives them from cross-entropy, one change at a time.
"""

from ferlib.losses.batch_transformer import BatchTransformerLoss
from ferlib.losses.focal import CompensatedFocalPDLSLoss, FocalPDLSLoss
from ferlib.losses.prior import FERPLUS_PRIOR, PRIOR_CLASSES, check_prior, prior_for, reorder_prior
from ferlib.losses.smoothing import LabelSmoothingLoss, PDLSLoss

__all__ = [
    "FERPLUS_PRIOR",
    "PRIOR_CLASSES",
    "BatchTransformerLoss",
    "CompensatedFocalPDLSLoss",
    "FocalPDLSLoss",
    "LabelSmoothingLoss",
    "PDLSLoss",
    "check_prior",
    "prior_for",
    "reorder_prior",
]
