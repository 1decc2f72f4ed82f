"""Which layer Grad-CAM should look at, and how its output becomes a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ferlib.models import evaluating
from ferlib.models.poster_v2 import TokenTransformer

Reshape = Callable[[Tensor], Tensor]


class TargetLayer(NamedTuple):
    """A layer whose output is a feature map, the reshape that makes it (B, channels, h, w), and its name.

    Shape: ``reshape`` is None where the output has that shape already. Chapter 8.
    """

    layer: nn.Module
    reshape: Reshape | None
    name: str


def target_layer(model: nn.Module, images: Tensor) -> TargetLayer:
    """The layer that the Grad-CAM family should look at, for the networks of this book and for others.

    * timm's ViT and DeiT: ``norm1`` of the last block. Behind the last attention only the class token is
      read, so that later outputs have no gradient at the other places.
    * timm's Swin: ``norm2`` of the last block, behind the last attention, where places are no longer mixed.
      Beware: ``norm1`` gives (B, h, w, channels) there, ``norm2`` (B, h * w, channels). In version 2 both
      norms stand inside their branches, and the block's output is taken. Which of ``norm1``, ``norm2`` and
      the output finds the true region best was measured: ``book/results/cam_layers.json``.
    * the Batch Transformer Network and POSTER V2: ``norm1`` of the transformer's last block, where all three
      levels still stand beside each other; their channels are stacked.
    * a network of convolutions: the last module whose output is a picture, (B, channels, h, w) with h, w > 1.

    Shape: images (B, 3, H, W) in, a :class:`TargetLayer` out. Raises ``ValueError`` where there is none: give
    a layer and a reshape yourself. Chapter 8.
    """
    names = {module: name for name, module in model.named_modules()}
    for module in names:
        if isinstance(module, TokenTransformer):
            layer = module.blocks[-1].norm1
            tokens = module.pos_embed.shape[1] - 1
            levels = 3 if tokens % 3 == 0 and round((tokens // 3) ** 0.5) ** 2 == tokens // 3 else 1
            return TargetLayer(layer, tokens_to_map(1, levels=levels), names[layer])
        if hasattr(module, "patch_embed") and hasattr(module, "blocks"):  # timm's ViT
            layer = module.blocks[-1].norm1
            return TargetLayer(layer, tokens_to_map(_prefix(module)), names[layer])
        if hasattr(module, "patch_embed") and hasattr(module, "layers"):  # timm's Swin
            block = module.layers[-1].blocks[-1]
            if hasattr(block.attn, "logit_scale"):  # version 2
                return TargetLayer(block, channels_last_to_map, names[block])
            grid = tuple(block.input_resolution)
            return TargetLayer(block.norm2, tokens_to_map(0, grid=grid), names[block.norm2])
    layer = _last_picture(model, images)
    return TargetLayer(layer, None, names[layer])


def _prefix(vit: nn.Module) -> int:
    return int(getattr(vit, "num_prefix_tokens", 1))


def _last_picture(model: nn.Module, images: Tensor) -> nn.Module:
    found: list[nn.Module] = []

    def note(module: nn.Module, _: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1 and any(
            isinstance(part, nn.Conv2d) for part in module.modules()
        ):  # fmt: skip
            found.append(module)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad(), evaluating(model):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no convolutional feature map: give layer= and a reshape= that makes "
            "its output (B, channels, h, w), such as tokens_to_map(1)"
        )
    return found[-1]


def tokens_to_map(prefix: int = 1, *, levels: int = 1, grid: tuple[int, int] | None = None) -> Reshape:
    """A reshape for vision transformers: tokens without the first ``prefix`` on their grid.

    ``levels`` grids one after the other are laid on top of each other, each with channels of its own.
    ``grid``: rows and columns; None takes a square one.

    Shape: returns a function (B, prefix + levels * h * w, channels) -> (B, levels * channels, h, w). The
    function raises ``ValueError`` for tokens that do not fill the grid. Chapter 8.
    """

    def reshape(tokens: Tensor) -> Tensor:
        places = tokens.shape[1] - prefix
        side = round((places / levels) ** 0.5)
        rows, columns = grid or (side, side)
        if levels * rows * columns != places:
            raise ValueError(
                f"{places} tokens after the first {prefix} do not fill {levels} grid(s) of {rows} x {columns}"
            )
        split = tokens[:, prefix:].unflatten(1, (levels, rows, columns))  # (B, levels, h, w, channels)
        return split.permute(0, 1, 4, 2, 3).flatten(1, 2)

    return reshape


def channels_last_to_map(maps: Tensor) -> Tensor:
    """A reshape for Swin: (B, h, w, channels) -> (B, channels, h, w). Chapter 8."""
    return maps.permute(0, 3, 1, 2)
