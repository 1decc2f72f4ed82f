"""One optimiser step: gradients of one batch or several, once or (SAM) twice, then the move. Chapter 6."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ferlib.training.device import autocast
from ferlib.training.processes import unsynchronised
from ferlib.training.tally import logits_of


class TrainingError(RuntimeError):
    """Training that cannot go on (the loss is no number any more); the message says where and what to try.

    Shape: takes one message string. Chapter 6.
    """


def train_step(
    model: nn.Module,
    criterion: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    target: Tensor,
    *,
    clip: float | None = None,
    precision: str = "fp32",
) -> tuple[float, Tensor]:
    """One optimiser step on one batch; returns the loss and the logits before it.

    What a network says it does not learn (its method ``frozen``, such as a landmark branch) is computed once
    for both passes of SAM.

    Shape: images (B, 3, S, S), target (B,) or (B, K) -> a number and (B, K). Raises ``TrainingError`` for a
    loss that is NaN or infinite, before any weight has moved. Chapter 6.
    """
    one = [(images, target)]
    return accumulated_step(model, criterion, optimiser, one, clip=clip, precision=precision)[0]


def accumulated_step(
    model: nn.Module,
    criterion: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    weights: Sequence[float] | None = None,
    network: nn.Module | None = None,
    clip: float | None = None,
    precision: str = "fp32",
) -> list[tuple[float, Tensor]]:
    r"""One optimiser step on several batches, whose gradients are added up before it.

    .. math:: g = \sum_m \omega_m \nabla_w L(f_w(x_m), y_m), \qquad \omega_m = B_m / \textstyle\sum_n B_n

    For a network that answers face by face, g is the gradient of one large batch in the memory of a small
    one. **Not so for batch attention and batch norm**: each batch is a batch of its own, whose faces attend
    to (and are normalised by) each other only. Four batches of 16 are then another network than one of 64.
    SAM climbs by the g of all batches and descends by the g of all batches up there.

    ``weights`` are the :math:`\omega_m`; ``network`` is ``model``, or what stands before it where several
    processes share the batch.

    Shape: M pairs (B, 3, S, S) and (B,) or (B, K) -> M pairs of the loss and the logits (B, K) before the
    step. Raises ``TrainingError`` (its ``batch`` is m) for a loss that is no number, before any weight has
    moved. Chapter 6.
    """
    network = network or model
    if weights is None:
        weights = [len(images) / sum(len(x) for x, _ in batches) for images, _ in batches]
    answers = []  # SAM calls the closure twice; the first pass is the one at the weights themselves
    frozen = [_frozen(model, images, precision) for images, _ in batches]

    def closure() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        for m, (images, target) in enumerate(batches):
            last = m == len(batches) - 1
            with nullcontext() if last else unsynchronised(network):
                with autocast(precision, images.device):
                    output = network(images, **frozen[m])
                    loss = criterion(output, target)
                if not torch.isfinite(loss):
                    error = TrainingError(f"the loss is {loss.item()}")
                    error.batch = m
                    raise error
                (loss * weights[m]).backward()
            answers.append((loss.item(), logits_of(output)))
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        return loss

    optimiser.step(closure)
    return answers[: len(batches)]


def _frozen(model: nn.Module, images: Tensor, precision: str) -> dict[str, Tensor]:
    if not hasattr(model, "frozen"):
        return {}
    with autocast(precision, images.device):
        found = model.frozen(images)
    return {} if found is None else {"frozen": found}
