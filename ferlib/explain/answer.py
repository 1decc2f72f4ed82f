"""Asking a network about a class, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ferlib.models import evaluating

OUTPUTS = ("vit", "bt", "cba")


def answer(model: nn.Module, images: Tensor, output: str = "vit") -> Tensor:
    """One tensor of logits, also out of a network that has several answers.

    ``output`` chooses among those of a Batch Transformer Network: "vit" looks at each image alone, "bt" and
    "cba" at the batch. Shape: (B, 3, H, W) -> (B, C). Raises ``ValueError`` for another name.
    """
    if not hasattr(model, "outputs"):
        return model(images)
    if output not in OUTPUTS:
        raise ValueError(f"output is one of {', '.join(OUTPUTS)}, got {output!r}")
    return getattr(model.outputs(images), output)


def chosen(logits: Tensor, classes: Tensor | None) -> Tensor:
    """The classes asked about, int64 (B,): those given, or the predicted ones where None was given.

    Shape: logits (B, C), classes (B,) or None -> (B,). Raises ``ValueError`` where they do not fit.
    """
    if classes is None:
        return logits.argmax(1)
    classes = torch.as_tensor(classes, device=logits.device).long()
    if classes.shape != logits.shape[:1]:
        raise ValueError(
            f"classes have shape {tuple(classes.shape)}, expected one for each of {len(logits)} images"
        )
    if classes.min() < 0 or classes.max() >= logits.shape[1]:
        raise ValueError(
            f"classes go from {int(classes.min())} to {int(classes.max())}, the network has {logits.shape[1]}"
        )
    return classes


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of weights inside; modes, flags and gradients as before afterwards.

    Shape: a module; nothing else. Whatever happens in the block.
    """
    weights = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    with evaluating(model):
        try:
            for weight, _, _ in weights:
                weight.requires_grad_(False)
                weight.grad = None
            yield
        finally:
            for weight, needed, gradient in weights:
                weight.requires_grad_(needed)
                weight.grad = gradient
