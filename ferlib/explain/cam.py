"""Grad-CAM and its kin, by the grad-cam package.

Which layer Grad-CAM reads, and how its output becomes a picture, no package knows for these networks; that,
and the way back through a spatial transformer, is done here. Chapter 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.errors import choose
from ferlib.explain.recorder import grid_of, output_logits, undisturbed
from ferlib.models.btn import LEVELS
from ferlib.models.common import evaluating
from ferlib.models.poster_v2 import TokenTransformer
from ferlib.models.resized_transformer import ResizedTransformer
from ferlib.models.spatial_transformer import SpatialTransformer, warp

Reshape = Callable[[Tensor], Tensor]

CAMS = {
    "grad-cam": pytorch_grad_cam.GradCAM,
    "grad-cam++": pytorch_grad_cam.GradCAMPlusPlus,
    "hires-cam": pytorch_grad_cam.HiResCAM,
    "layer-cam": pytorch_grad_cam.LayerCAM,
    "eigen-cam": pytorch_grad_cam.EigenCAM,
}


def check_classes(logits: Tensor, classes: Tensor | None) -> Tensor:
    """Class indices, int64 (B,): those given, or the predicted ones of logits (B, C) for None.

    Raises:
        ValueError: They do not fit the logits.
    """
    if classes is None:
        return logits.argmax(1)
    classes = torch.as_tensor(classes, device=logits.device).long()
    if classes.shape != logits.shape[:1] or not all(0 <= c < logits.shape[1] for c in classes.tolist()):
        raise ValueError(
            f"classes are {classes.tolist()}, expected {len(logits)} numbers from 0 to {logits.shape[1] - 1}"
        )
    return classes


def grad_cam(
    model: nn.Module,
    images: Tensor,
    classes: Tensor | None = None,
    *,
    layer: nn.Module | None = None,
    method: str = "grad-cam",
    reshape: Reshape | None = None,
    output: str = "vit",
) -> Tensor:
    r"""Where a class is read from: the feature maps of a layer, weighted by their effect on that class.

    .. math:: M(p) = \max\Bigl(0, \sum_k \bar g_k F_k(p)\Bigr), \qquad
              \bar g_k = \tfrac{1}{|P|} \sum_{p \in P} \partial z_c / \partial F_k(p)

    Source: Selvaraju et al. 2017, equations 1 and 2. Chapter 8.

    Args:
        model: A classifier; its weights, gradients, modes and hooks are afterwards as before.
        images: (B, 3, H, W).
        classes: (B,); None takes the predicted class.
        layer: The module whose output is the feature map; None takes ``target_layer(model, images)``.
        method: "grad-cam", "grad-cam++", "hires-cam", "layer-cam" or "eigen-cam" (the same for all classes).
        reshape: Brings the layer's output to (B, channels, h, w) where it is not (see ``tokens_to_map``).
        output: Of a Batch Transformer Network, as in :func:`output_logits`.

    Returns:
        (B, H, W), each map stretched between its least and greatest value to [0, 1].

    Raises:
        ValueError: The method is unknown, the network does not have the classes, or the layer's output is no
            picture or has no influence on the score.
    """
    choose("method", method, CAMS)
    if layer is None:
        layer, reshape, _ = target_layer(model, images[:1])
    elif not any(layer is module for module in model.modules()):
        raise ValueError(f"the layer given, {type(layer).__name__}, is no part of {type(model).__name__}")
    seen: list[Tensor] = []  # the layer's output, then its gradient

    def picture(maps: Tensor) -> Tensor:
        seen.append(maps)
        maps = maps if reshape is None else reshape(maps)
        if maps.ndim != 4 or len(maps) != len(images):
            raise ValueError(
                f"the layer outputs {tuple(maps.shape)} for {len(images)} images, not (B, channels, h, w): "
                "give another layer, or a reshape=, such as tokens_to_map(1) or channels_last_to_map"
            )
        return maps

    with undisturbed(model), torch.enable_grad():
        targets = None
        if classes is not None:
            with torch.no_grad():
                first = output_logits(model, images[:1], output).expand(len(images), -1)
            targets = [ClassifierOutputTarget(c) for c in check_classes(first, classes).tolist()]
        cam = CAMS[method](_OneOutput(model, output), [layer], reshape_transform=picture)
        try:
            maps = cam(input_tensor=images.detach().clone().requires_grad_(), targets=targets)
        except (AttributeError, TypeError, IndexError) as error:
            if len(seen) > 1:
                raise
            raise ValueError(
                "the class's score has no gradient at this layer: choose an earlier one"
            ) from error
        finally:
            cam.activations_and_grads.release()
    found = torch.from_numpy(maps).to(images.device, torch.float32)
    return unwarp(model, images, found, layer)


class _OneOutput(nn.Module):
    """A network of which one output is taken: (B, 3, H, W) -> (B, C)."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, images: Tensor) -> Tensor:
        return output_logits(self.model, images, self.output)


class TargetLayer(NamedTuple):
    """A layer whose output is a feature map, the reshape that makes it (B, channels, h, w) (None where it has
    that shape), and its name.
    """

    layer: nn.Module
    reshape: Reshape | None
    name: str


def target_layer(model: nn.Module, images: Tensor) -> TargetLayer:
    """The layer that the Grad-CAM family should read, for the networks of this book and for others.

    * timm's ViT and DeiT: ``norm1`` of the last block. Behind the last attention only the class token is
      read, so that later outputs have no gradient at the other places.
    * timm's Swin: ``norm2`` of the last block, behind the last attention, where places are no longer mixed.
      Beware: ``norm1`` outputs (B, h, w, channels) there, ``norm2`` (B, h * w, channels). In version 2 both
      norms stand inside their branches, and the block's output is taken. Which of ``norm1``, ``norm2`` and
      the output finds the true region best was measured: ``book/results/cam_layers.json``.
    * the Batch Transformer Network and POSTER V2: ``norm1`` of the transformer's last block, where all three
      levels still stand beside each other; their channels are stacked.
    * any other network: the last module with a convolution in it whose output is a picture of each image,
      (B, channels, h, w) or (B, h, w, channels) with h, w > 1, unless tokens come after it.

    Args:
        model: A classifier.
        images: (B, 3, H, W).

    Raises:
        ValueError: There is none: give a layer and a reshape yourself.
    """
    names = {module: name for name, module in model.named_modules()}
    for module in names:
        layer = None
        if isinstance(module, TokenTransformer):
            layer, tokens = module.blocks[-1].norm1, module.pos_embed.shape[1] - 1
            levels = LEVELS if round((tokens / LEVELS) ** 0.5) ** 2 * LEVELS == tokens else 1
            reshape = tokens_to_map(1, levels=levels)
        elif isinstance(module, SwinTransformer):
            block = module.layers[-1].blocks[-1]
            layer, reshape = block.norm2, tokens_to_map(0, grid=tuple(block.input_resolution))
        elif isinstance(module, SwinTransformerV2):
            layer, reshape = module.layers[-1].blocks[-1], channels_last_to_map
        elif isinstance(module, VisionTransformer | Eva):
            layer = module.blocks[-1].norm1
            reshape = tokens_to_map(module.num_prefix_tokens, grid=grid_of(module.patch_embed, images))
        if layer is not None:
            return TargetLayer(layer, reshape, names[layer])
    layer, reshape = _last_picture(model, images)
    return TargetLayer(layer, reshape, names[layer])


def _last_picture(model: nn.Module, images: Tensor) -> tuple[nn.Module, Reshape | None]:
    """The last module whose output is a picture of each image, and how it becomes (B, channels, h, w)."""
    found: list[tuple[nn.Module, Tensor]] = []
    tokens: list[str] = []

    def note(module: nn.Module, _: tuple, output: object) -> None:
        if not isinstance(output, Tensor) or len(output) != len(images):
            return
        if output.ndim == 3 and min(output.shape[1:]) > 1:
            tokens.append(type(module).__name__)
        convolves = any(isinstance(part, nn.Conv2d) for part in module.modules())
        if output.ndim == 4 and min(output.shape[1:3]) > 1 and min(output.shape[2:]) > 1 and convolves:
            tokens.clear()
            found.append((module, output))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with evaluating(model), torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found or tokens:
        raise ValueError(
            f"{type(model).__name__} has no feature map of the whole picture behind its last block: give "
            "layer= and a reshape= that makes its output (B, channels, h, w), such as tokens_to_map(1)"
        )
    layer, output = found[-1]
    channels = getattr(model, "num_features", output.shape[1])
    last = output.shape[1] != channels and output.shape[3] == channels
    return layer, channels_last_to_map if last else None


def tokens_to_map(prefix: int = 1, *, levels: int = 1, grid: tuple[int, int] | None = None) -> Reshape:
    """A reshape for vision transformers: tokens without the first ``prefix`` on their grid.

    ``levels`` grids one after the other are laid on top of each other, each with channels of its own.
    ``grid``: rows and columns; None takes a square one.

    Returns:
        A function (B, prefix + levels * h * w, channels) -> (B, levels * channels, h, w); it raises
        ``ValueError`` for tokens that do not fill the grid.
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
    """A reshape for Swin: (B, h, w, channels) -> (B, channels, h, w)."""
    return maps.permute(0, 3, 1, 2)


def unwarp(model: nn.Module, images: Tensor, maps: Tensor, layer: nn.Module | None = None) -> Tensor:
    r"""Undo the spatial transformer: maps over what the backbone saw -> maps (B, H, W) over the picture.

    .. math:: M_\mathrm{picture} = \mathrm{warp}(M, \theta^{-1})

    Networks without a spatial transformer in front, and layers inside it, see the picture as it is; their
    maps are returned unchanged. What the backbone did not see gets 0.

    Args:
        model: The network.
        images: (B, 3, H, W).
        maps: (B, H, W).
        layer: The layer that the maps were taken from, if it is one.
    """
    front = getattr(model, "spatial_transformer", None)
    if not isinstance(model, ResizedTransformer) or not isinstance(front, SpatialTransformer):
        return maps
    if layer is not None and any(layer is part for part in front.modules()):
        return maps
    with evaluating(front), torch.no_grad():
        theta = front.theta(images).double()
    last = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=theta.dtype, device=theta.device)
    inverse = torch.linalg.pinv(torch.cat([theta, last.expand(len(theta), -1, -1)], dim=1))[:, :2]
    return warp(maps[:, None], inverse.to(maps.dtype))[:, 0].clamp(min=0)


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of places (B, h, w) -> maps of pixels (B, H, W), bilinearly."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
