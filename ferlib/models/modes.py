"""Evaluation mode for a while, and every part of a network back in the mode it had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode inside the block; after it, also after an error, each sub-module has its own mode
    again.

    ``model.train(model.training)`` would not do: it gives all parts one mode, also those that were frozen in
    evaluation mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training
