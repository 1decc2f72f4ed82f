"""Grad-CAM: which places of a feature map speak for a class, by the grad-cam package."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

METHODS = {
    "grad-cam": pytorch_grad_cam.GradCAM,
    "grad-cam++": pytorch_grad_cam.GradCAMPlusPlus,
    "hires-cam": pytorch_grad_cam.HiResCAM,
    "layer-cam": pytorch_grad_cam.LayerCAM,
    "eigen-cam": pytorch_grad_cam.EigenCAM,
}
Reshape = Callable[[Tensor], Tensor]


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
    model: a classifier; its weights, gradients, mode and hooks are afterwards as before.
    classes: the class to ask about for each image; None asks about the predicted one.
    layer: the module whose output is the feature map; None takes ``target_layer(model, images)``.
    method: a key of ``METHODS``.
    reshape: brings the layer's output to (B, channels, h, w) where it is not (see ``tokens_to_map``).
    output: which answer of a Batch Transformer Network is explained; "vit" looks at each image alone.

    Shape: images (B, 3, S, S), classes (B,) -> (B, S, S) in [0, 1], each map scaled by its own maximum.
    Raises ``ValueError`` for an unknown method. Selvaraju et al. 2017, equations 1 and 2. Chapter 8.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    layer = layer if layer is not None else target_layer(model, images[:1])
    answer = _Answer(model, output)
    targets = None if classes is None else [ClassifierOutputTarget(int(c)) for c in classes]
    modes = {module: module.training for module in model.modules()}
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = None
    try:
        with torch.enable_grad(), METHODS[method](answer, [layer], reshape_transform=reshape) as cam:
            maps = cam(input_tensor=images.detach().clone().requires_grad_(), targets=targets)
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, mode in modes.items():
            module.training = mode
    return torch.from_numpy(maps)


def target_layer(model: nn.Module, images: Tensor) -> nn.Module:
    """The last module whose output is still a picture: (B, channels, h, w) with h and w above 1.

    Shape: images (B, 3, S, S) in, a module out. Raises ``ValueError`` where there is none (a pure vision
    transformer: name the layer and a ``reshape``). Chapter 8.
    """
    found: list[nn.Module] = []

    def note(module: nn.Module, _: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1 and any(
            isinstance(part, nn.Conv2d) for part in module.modules()
        ):  # fmt: skip
            found.append(module)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if not found or found[-1].__class__.__name__ == "PatchEmbed":
        raise ValueError(
            f"{type(model).__name__} has no convolutional feature map: give layer=, such as "
            "model.blocks[-1].norm1, and reshape=tokens_to_map(1)"
        )
    return found[-1]


def tokens_to_map(prefix: int = 1) -> Reshape:
    """A reshape for vision transformers: tokens without the first ``prefix`` on a square grid.

    Shape: returns a function (B, prefix + h*h, channels) -> (B, channels, h, h). Chapter 8.
    """

    def reshape(tokens: Tensor) -> Tensor:
        grid = round((tokens.shape[1] - prefix) ** 0.5)
        return tokens[:, prefix:].transpose(1, 2).unflatten(2, (grid, grid))

    return reshape


class _Answer(nn.Module):
    """One tensor of logits out of a network that may have several answers."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, images: Tensor) -> Tensor:
        if hasattr(self.model, "outputs"):
            return getattr(self.model.outputs(images), self.output)
        return self.model(images)
