"""One criterion on three outputs: the loss of the Batch Transformer Network. Chapter 5."""

from __future__ import annotations

import torch
from torch import nn


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
