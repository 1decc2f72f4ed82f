"""Maps in the pixels of the picture that was given, whatever the network did to it first."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.explain.answer import undisturbed
from ferlib.models.resized_transformer import ResizedTransformer
from ferlib.models.spatial_transformer import SpatialTransformer, warp


def unwarp(model: nn.Module, images: Tensor, maps: Tensor, layer: nn.Module | None = None) -> Tensor:
    r"""Undo the spatial transformer: maps over what the backbone saw -> maps over the picture.

    .. math:: M_\mathrm{picture} = \mathrm{warp}(M, \theta^{-1})

    Networks without a spatial transformer in front, and layers inside it, see the picture as it is; their
    maps are given back unchanged. What the backbone did not see gets 0.

    Shape: images (B, 3, H, W), maps (B, H, W) -> (B, H, W). Chapter 8.
    """
    front = getattr(model, "spatial_transformer", None)
    if not isinstance(model, ResizedTransformer) or not isinstance(front, SpatialTransformer):
        return maps
    if layer is not None and any(layer is part for part in front.modules()):
        return maps
    with undisturbed(front), torch.no_grad():
        theta = front.theta(images).double()
    last = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=theta.dtype, device=theta.device)
    inverse = torch.linalg.pinv(torch.cat([theta, last.expand(len(theta), -1, -1)], dim=1))[:, :2]
    return warp(maps[:, None], inverse.to(maps.dtype))[:, 0].clamp(min=0)


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of places -> maps of pixels, bilinearly: (B, h, w) -> (B, H, W)."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def stretch(maps: Tensor) -> Tensor:
    """Each map from 0 to 1, its least to its greatest value; a constant map becomes 0. Shape: (B, H, W)."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    top = maps.amax((1, 2), keepdim=True)
    return torch.where(top > 0, maps / top.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)
