"""Grad-CAM: which places of a feature map speak for a class, by the grad-cam package."""

from __future__ import annotations

import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from ferlib.explain.answer import answer, chosen, undisturbed
from ferlib.explain.picture import unwarp
from ferlib.explain.target import Reshape, target_layer

CAMS = {
    "grad-cam": pytorch_grad_cam.GradCAM,
    "grad-cam++": pytorch_grad_cam.GradCAMPlusPlus,
    "hires-cam": pytorch_grad_cam.HiResCAM,
    "layer-cam": pytorch_grad_cam.LayerCAM,
    "eigen-cam": pytorch_grad_cam.EigenCAM,
}


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
    r"""Where a class is read from: the feature maps of a layer, weighted by what they do for that class.

    .. math:: M(p) = \max\Bigl(0, \sum_k \bar g_k F_k(p)\Bigr), \qquad
              \bar g_k = \tfrac{1}{|P|} \sum_{p \in P} \partial z_c / \partial F_k(p)

    Parameters
    ----------
    model: a classifier; its weights, gradients, modes and hooks are afterwards as before.
    classes: the class to ask about for each image; None asks about the predicted one.
    layer: the module whose output is the feature map; None takes ``target_layer(model, images)``.
    method: "grad-cam", "grad-cam++", "hires-cam", "layer-cam" or "eigen-cam" (which asks no class).
    reshape: brings the layer's output to (B, channels, h, w) where it is not (see ``tokens_to_map``).
    output: which answer of a Batch Transformer Network is explained; "vit" looks at each image alone.

    Shape: images (B, 3, H, W), classes (B,) -> (B, H, W) in [0, 1], in the picture's own pixels, each map
    stretched between its least and greatest value. Raises ``ValueError`` for an unknown method, for classes
    that the network does not have, and for a layer whose output is no picture.
    Selvaraju et al. 2017, equations 1 and 2. Chapter 8.
    """
    if method not in CAMS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(CAMS)}")
    if layer is None:
        layer, reshape, _ = target_layer(model, images[:1])
    elif not any(layer is module for module in model.modules()):
        raise ValueError(f"the layer given, {type(layer).__name__}, is no part of {type(model).__name__}")
    seen: list[Tensor] = []  # the layer's output, then its gradient

    def picture(maps: Tensor) -> Tensor:
        maps = maps if reshape is None else reshape(maps)
        seen.append(maps)
        if maps.ndim != 4:
            raise ValueError(
                f"the layer gives {tuple(maps.shape)}, not (B, channels, h, w): give a reshape=, such as "
                "tokens_to_map(1) or channels_last_to_map"
            )
        return maps

    with undisturbed(model), torch.enable_grad():
        targets = _targets(model, images, classes, output)
        cam = CAMS[method](_Answer(model, output), [layer], reshape_transform=picture)
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


def input_gradient(
    model: nn.Module, images: Tensor, classes: Tensor | None = None, *, output: str = "vit"
) -> Tensor:
    r"""How much the score of a class moves with each pixel.

    .. math:: M(p) = \max_{k} \lvert \partial z_c / \partial x_k(p) \rvert \quad (k\text{: colour})

    Shape: images (B, 3, H, W), classes (B,) -> (B, H, W), not negative. Simonyan et al. 2014. Chapter 8.
    """
    with undisturbed(model), torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        scores = answer(model, pixels, output)
        score = scores.gather(1, chosen(scores, classes)[:, None]).sum()
        return torch.autograd.grad(score, pixels)[0].abs().amax(1)


def _targets(model: nn.Module, images: Tensor, classes: Tensor | None, output: str) -> list | None:
    if classes is None:
        return None
    with torch.no_grad():
        count = answer(model, images[:1], output)
    return [ClassifierOutputTarget(int(c)) for c in chosen(count.expand(len(images), -1), classes)]


class _Answer(nn.Module):
    """One tensor of logits out of a network that may have several answers."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, images: Tensor) -> Tensor:
        return answer(self.model, images, self.output)
