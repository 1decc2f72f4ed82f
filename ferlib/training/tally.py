"""Counting over an epoch: loss and accuracy, per face as it should be or per batch as once released."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Tally:
    r"""Mean loss and accuracy of the faces seen so far.

    .. math:: \frac{\sum_b w_b \, m_b}{\sum_b w_b}

    over batches b with the batch means :math:`m_b`; :math:`w_b` is the number of faces in the batch, which
    gives the mean over faces, or 1 with ``by_batch``, as in the released code of the Neural Resizer
    (``utils/train_model.py:45-82``), where the faces of a small last batch count for more.

    Shape: ``add`` takes a number, logits ``(B, K)`` and a target ``(B,)`` or ``(B, K)``; ``means(prefix)``
    gives ``{prefix_loss, prefix_accuracy}``, accuracy in [0, 1]. Chapter 6.
    """

    def __init__(self, by_batch: bool = False) -> None:
        self.by_batch = by_batch
        self.loss = self.right = self.weight = 0.0

    def add(self, loss: float, logits: Tensor, target: Tensor) -> None:
        """Count one batch: (B, K) logits and (B,) or (B, K) targets with their mean loss."""
        labels = target if target.ndim == 1 else target.argmax(1)
        share = 1 / len(labels) if self.by_batch else 1
        self.loss += loss * len(labels) * share
        self.right += int((logits.argmax(1) == labels).sum()) * share
        self.weight += len(labels) * share

    def state(self) -> list[float]:
        """The three sums, for a checkpoint. Shape: -> loss, right, weight."""
        return [self.loss, self.right, self.weight]

    def restore(self, sums: list[float]) -> None:
        """Go on from three sums. Shape: loss, right, weight in."""
        self.loss, self.right, self.weight = map(float, sums)

    def means(self, prefix: str) -> dict[str, float]:
        """``{prefix_loss, prefix_accuracy}`` so far. Shape: a word in, two numbers out."""
        return {f"{prefix}_loss": self.loss / self.weight, f"{prefix}_accuracy": self.right / self.weight}


def logits_of(output: Any) -> Tensor:
    """The one set of logits to judge by: the batch transformer's where a network returns several.

    Shape: (B, K), or a named tuple with a field ``bt`` -> (B, K), in 32 bits. Chapter 5.
    """
    logits = (output if isinstance(output, Tensor) else output.bt).detach()
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
