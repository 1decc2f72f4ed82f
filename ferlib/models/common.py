"""What several networks share: evaluation mode for a while, and how they refuse a shape or an option."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ferlib.errors import FerlibError


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


def divisors(width: int) -> list[int]:
    """Into how many equal heads a width can be cut."""
    return [count for count in range(1, width + 1) if width % count == 0]


def expect(tensor: Tensor, *shape: int | None, of: str = "images") -> None:
    """Stop unless a tensor has the shape (B, *shape), in which None stands for any length.

    Raises:
        FerlibError: Another shape.
    """
    fits = (want in (None, got) for want, got in zip(shape, tensor.shape[1:], strict=False))
    if tensor.ndim != len(shape) + 1 or not all(fits):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise FerlibError(
            f"expected {of} (B, {wanted}), got {tuple(tensor.shape)}: resize or convert them first"
        )


def stem(channels_in: int, channels: int) -> nn.Sequential:
    """A first convolution that halves the image: (B, channels_in, H, W) -> (B, channels, H/2, W/2)."""
    convolution = nn.Conv2d(channels_in, channels, 3, 2, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
