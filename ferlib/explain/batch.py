"""What the batch says: the matrices of class batch attention, and what it takes to compute them again."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ferlib.explain.answer import undisturbed
from ferlib.explain.recorder import AttentionRecorder
from ferlib.models.batch_transformer import ClassBatchAttention


class BatchAttention(NamedTuple):
    """Class batch attention of one batch.

    ``weights[c] = softmax(scale * query[:, c] @ key[:, c].T)``: which image (row) listens to which (column)
    about class c. ``cba[:, c] = weights[c] @ value[:, c]``, ``bt = cba + value``. ``query`` and ``key`` hold
    the channel encoding; ``value`` are the scores of each image alone ("vit").

    Shape: weights (C, B, B), rows sum to one; query and key (B, C, 49); value, cba, bt (B, C). Chapters 4, 8.
    """

    weights: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    cba: Tensor
    bt: Tensor
    scale: float


def batch_attention(model: nn.Module, images: Tensor) -> BatchAttention:
    """The class batch attention of a Batch Transformer Network on a batch, in evaluation mode.

    Shape: images (B, 3, H, W) -> :class:`BatchAttention`; the model is afterwards as before. Raises
    ``ValueError`` for a network without a batch transformer, and for one that asks fixed reference images
    instead of the batch (``set_reference(None)`` lets it ask the batch again).
    """
    parts = [module for module in model.modules() if isinstance(module, ClassBatchAttention)]
    if not parts or not hasattr(model, "outputs"):
        raise ValueError(
            f"{type(model).__name__} has no batch transformer: expected a Batch Transformer Network"
        )
    kept: list[tuple[Tensor, ...]] = []
    hook = parts[0].register_forward_pre_hook(lambda _, inputs: kept.append(inputs))
    try:
        with undisturbed(model), torch.no_grad(), AttentionRecorder(model) as recorder:
            outputs = model.outputs(images)
    finally:
        hook.remove()
    if not kept:
        raise ValueError("this network asks reference images, not its batch: call set_reference(None) first")
    (weights,) = [record.weights for record in recorder.records if record.kind == "class-batch"]
    query, key, value = kept[0]
    return BatchAttention(weights, query, key, value, outputs.cba, outputs.bt, 1 / math.sqrt(query.shape[1]))
