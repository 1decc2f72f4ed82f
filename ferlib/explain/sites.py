"""Which modules of a network are attention, of what kind, and where their tokens lie.

Knows the attentions of ``ferlib.models`` and those of timm's ViT, DeiT and Swin (both versions).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from ferlib.explain.layout import Layout
from ferlib.models.batch_transformer import ClassBatchAttention
from ferlib.models.btn import LEVELS, MultiLevelAttention
from ferlib.models.poster_v2 import LevelFusion, TokenTransformer

#: Kind of attention -> who asks, and whom.
KINDS = {
    "tokens": "class token and places of the picture ask all of them",
    "window": "each place asks the places of its window",
    "window-cross": "each place of the landmark map asks the places of the face map in its window",
    "levels": "each place of each feature level asks all places of all levels",
    "class-batch": "for each class, each image of the batch asks all images of the batch",
    "pool": "learned queries ask all tokens",
    "other": "queries ask keys",
}


@dataclass
class Site:
    """One attention inside a network.

    ``module`` computes it. ``watched`` is the module whose input tells how large the picture is.
    ``layout(shape of the weights, inputs of watched)`` says where the tokens lie, or None where that is not
    known. ``listens``: the module has listeners and computes its weights for them.

    Shape: none; a description. Chapter 8.
    """

    name: str
    module: nn.Module
    kind: str
    listens: bool
    watched: nn.Module | None = None
    layout: Callable[[torch.Size, tuple], Layout | None] = field(default=lambda shape, inputs: None)


def find_sites(model: nn.Module) -> list[Site]:
    """Every attention of a network. Shape: a module in, a list out, empty for a network without attention.

    Kinds are those of ``KINDS``. Chapter 8.
    """
    names = {module: name for name, module in model.named_modules()}
    sites = []
    for module, name in names.items():
        ancestors = _ancestors(model, name)
        if hasattr(module, "listeners"):
            sites.append(_ours(module, name, ancestors))
        elif _is_silent_attention(module):
            sites.append(_timms(module, name, ancestors))
    return sites


def _ancestors(model: nn.Module, name: str) -> list[nn.Module]:
    """The modules around one, from the nearest to the whole network."""
    parts = name.split(".") if name else []
    return [model.get_submodule(".".join(parts[:n])) for n in range(len(parts) - 1, -1, -1)]


def _first(ancestors: list[nn.Module], kind: type) -> nn.Module | None:
    return next((module for module in ancestors if isinstance(module, kind)), None)


def _ours(module: nn.Module, name: str, ancestors: list[nn.Module]) -> Site:
    if isinstance(module, ClassBatchAttention):
        return Site(name, module, "class-batch", True)
    if (fusion := _first(ancestors, LevelFusion)) is not None:

        def window(shape: torch.Size, inputs: tuple) -> Layout:
            grid = tuple(inputs[1].shape[-2:])  # the landmark map
            return Layout(grid, window=(fusion.window, fusion.window))

        return Site(name, module, "window-cross", True, fusion, window)
    if _first(ancestors, MultiLevelAttention) is not None:
        return Site(name, module, "levels", True, None, lambda shape, _: _square(shape[-1], 0))
    if _first(ancestors, TokenTransformer) is not None:
        return Site(name, module, "tokens", True, None, lambda shape, _: _square(shape[-1], 1))
    return Site(name, module, "other", True)


def _square(tokens: int, prefix: int) -> Layout | None:
    """Three levels of a square grid, or one, behind a prefix."""
    for levels in (LEVELS, 1):
        side = round(((tokens - prefix) / levels) ** 0.5)
        if side and levels * side * side == tokens - prefix:
            return Layout((side, side), prefix, levels)
    return None


def _is_silent_attention(module: nn.Module) -> bool:
    """timm's attention: it projects queries, keys and values, and tells nobody its weights."""
    projects = any(hasattr(module, name) for name in ("qkv", "q_proj", "kv"))
    named = "Attention" in type(module).__name__ or hasattr(module, "fused_attn")
    return named and projects and not any(hasattr(part, "listeners") for part in module.modules())


def _timms(module: nn.Module, name: str, ancestors: list[nn.Module]) -> Site:
    block = ancestors[0] if ancestors else None
    if hasattr(module, "window_size") and hasattr(block, "shift_size"):

        def window(shape: torch.Size, inputs: tuple) -> Layout:
            grid = tuple(inputs[0].shape[1:3])  # (B, rows, columns, channels)
            return Layout(grid, window=_pair(block.window_size), shift=_pair(block.shift_size))

        return Site(name, module, "window", False, block, window)
    embed = next((a.patch_embed for a in ancestors if hasattr(a, "patch_embed")), None)
    kind = "pool" if hasattr(module, "latent") else "tokens"

    def tokens(shape: torch.Size, inputs: tuple) -> Layout | None:
        grid = _embedded_grid(embed, inputs)
        if grid is None or shape[-1] < grid[0] * grid[1]:  # unknown, or some patches were dropped
            return None
        return Layout(grid, shape[-1] - grid[0] * grid[1])

    return Site(name, module, kind, False, embed, tokens)


def _embedded_grid(embed: nn.Module | None, inputs: tuple) -> tuple[int, int] | None:
    if embed is None:
        return None
    if hasattr(embed, "dynamic_feat_size") and inputs and inputs[0].ndim == 4:
        return tuple(embed.dynamic_feat_size(tuple(inputs[0].shape[-2:])))
    return tuple(embed.grid_size) if getattr(embed, "grid_size", None) else None


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
