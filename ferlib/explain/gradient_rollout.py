"""Rollout that asks a class: attention counts only where more of it would raise the class's score."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ferlib.explain.answer import answer, chosen, undisturbed
from ferlib.explain.recorder import Attention, AttentionRecorder
from ferlib.explain.rollout import chain, output_rows, propagate


def gradient_rollout(
    model: nn.Module, images: Tensor, classes: Tensor | None = None, *, output: str = "vit",
    read: str | None = None,
) -> Tensor:  # fmt: skip
    r"""Gradient-weighted attention rollout.

    .. math:: \bar A_l = \tfrac1H \sum_h (\nabla A_{l,h} \odot A_{l,h})^+, \qquad
              R \leftarrow R + \bar A_l R, \quad R_0 = I

    with the gradient of the class's score. What is given is the row of R from which the answer is read (the
    class token's; the mean of all rows where the network averages), without the identity it began with.
    Attention is computed explicitly while this runs, since fused attention has no weights to take gradients
    of. Swin's windows and merging are treated as in :func:`rollout_rows`.

    Parameters: ``classes`` None asks about the predicted class; ``output`` and ``read`` as in
    :func:`attention_map` and :func:`output_rows`.

    Shape: images (B, 3, H, W), classes (B,) -> (B, rows, columns), not negative, the places of the first
    layer. Raises ``ValueError`` for a network without self-attention of places.
    Chefer, Gur and Wolf 2021 ("Generic Attention-model Explainability"), equations 5 and 6. Chapter 8.
    """
    with undisturbed(model), torch.enable_grad():
        with AttentionRecorder(model, keep_graph=True) as recorder:
            scores = answer(model, images.detach().clone().requires_grad_(), output)
        records = chain(recorder.records)
        score = scores.gather(1, chosen(scores, classes)[:, None]).sum()
        gradients = torch.autograd.grad(score, [record.weights for record in records])
    with torch.no_grad():
        matrices = [
            ((gradient * record.weights).clamp(min=0).mean(1), record.layout)
            for gradient, record in zip(gradients, records, strict=True)
        ]
        start = output_rows([_detached(record) for record in recorder.records], read)
        rows = propagate(start, matrices, 1, 1) - propagate(start, matrices, 1, 0)
        return matrices[0][1].pictures(rows[:, 0]).clamp(min=0)


def _detached(record: Attention) -> Attention:
    return Attention(record.name, record.weights.detach(), record.axes, record.kind, record.layout)
