"""One door to all maps: name a method, get a map in the picture's own pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.explain.answer import answer, undisturbed
from ferlib.explain.cam import CAMS, grad_cam, input_gradient
from ferlib.explain.gradient_rollout import gradient_rollout
from ferlib.explain.picture import enlarge, stretch, unwarp
from ferlib.explain.recorder import Attention, AttentionRecorder
from ferlib.explain.rollout import chain, output_rows, pull, rollout_rows

#: Methods of :func:`attention_map`, and what each shows.
METHODS = {
    "attention-last": "the last layer: what the class token (else the mean place) attends to",
    "rollout": "attention through all layers, half of each step the shortcut",
    "gradient-rollout": "attention through all layers, where more of it raises the class's score",
    "grad-cam": "feature maps weighted by their mean gradient",
    "grad-cam++": "feature maps weighted by their positive gradients",
    "hires-cam": "feature maps times gradient, place by place",
    "layer-cam": "feature maps times positive gradient, place by place",
    "eigen-cam": "the first principal component of the feature maps; asks no class",
    "gradient": "how much the class's score moves with each pixel",
}
#: Maps that know nothing of the network: what a method has to beat.
BASELINES = {
    "edges": "where the picture changes from pixel to pixel (Sobel)",
    "centre": "a blob in the middle of the picture",
    "noise": "random numbers, always the same",
}


def attention_map(
    model: nn.Module, images: Tensor, classes: Tensor | None = None, method: str = "rollout", *,
    output: str = "vit",
) -> Tensor:  # fmt: skip
    """A map by its name, for any network of this book and any picture.

    Parameters
    ----------
    model: a classifier; afterwards as before. Of timm's ViT, DeiT, Swin, alone or behind a resizer, of POSTER
        V2 and the Batch Transformer Network every method gives a map; of a network without attention, those
        that need none (the last six).
    classes: whom to ask about; None asks about the predicted class. Attention itself, rollout and eigen-cam
        ask about none and give one map for all classes.
    method: a key of ``METHODS``, or of ``BASELINES``.
    output: which answer of a Batch Transformer Network; "vit" looks at each image alone.

    Rollouts of the Batch Transformer Network and POSTER V2 follow its transformer, whose tokens are three
    levels of 7 x 7 places; those of a resized transformer are brought back through its spatial transformer.

    Shape: images (B, 3, H, W), classes (B,) -> (B, H, W), each map stretched to [0, 1] (a constant one is 0
    everywhere). Raises ``ValueError`` for an unknown method, and where a network has no such map, saying why.
    Chapter 8.
    """
    if method in BASELINES:
        return stretch(_baseline(images, method))
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join((*METHODS, *BASELINES))}")
    if method in CAMS:
        return stretch(grad_cam(model, images, classes, method=method, output=output))
    if method == "gradient":
        return stretch(input_gradient(model, images, classes, output=output))
    read = readout(model)
    if method == "gradient-rollout":
        maps = gradient_rollout(model, images, classes, output=output, read=read)
    else:
        maps = _attended(model, images, method, output, read)
    return stretch(unwarp(model, images, enlarge(maps.float(), tuple(images.shape[2:]))))


def readout(model: nn.Module) -> str | None:
    """From which tokens a timm transformer reads its answer, as :func:`output_rows` names it.

    Shape: a module -> "token", "prefix", "mean" or None (a pooling head, or not timm's).
    """
    for module in model.modules():
        if hasattr(module, "patch_embed") and hasattr(module, "global_pool"):
            if hasattr(module, "head_dist"):
                return "prefix"
            return {"token": "token", "avg": "mean", "avgmax": "mean", "max": "mean"}.get(module.global_pool)
    return None


def _attended(model: nn.Module, images: Tensor, method: str, output: str, read: str | None) -> Tensor:
    """Attention of the last layer, or rollout: (B, rows, columns)."""
    with undisturbed(model), torch.no_grad(), AttentionRecorder(model, heads="mean") as recorder:
        answer(model, images, output)
    start = output_rows(recorder.records, read)
    records: list[Attention] = chain(recorder.records)
    if method == "rollout":
        return records[0].layout.pictures(rollout_rows(recorder.records, start)[:, 0])
    last = records[-1]
    pooled = read is None and any(record.kind == "pool" for record in recorder.records)
    rows = start if pooled else pull(start, last.weights.mean(1), last.layout)
    return last.layout.pictures(rows[:, 0])


def _baseline(images: Tensor, name: str) -> Tensor:
    batch, _, height, width = images.shape
    if name == "noise":
        draw = torch.Generator().manual_seed(0)
        return torch.rand(batch, height, width, generator=draw).to(images.device)
    if name == "centre":
        y = torch.linspace(-1, 1, height, device=images.device)
        x = torch.linspace(-1, 1, width, device=images.device)
        return torch.exp(-2 * (y[:, None] ** 2 + x[None] ** 2)).expand(batch, -1, -1)
    grey = F.pad(images.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    sobel = grey.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    return F.conv2d(grey, torch.stack([sobel, sobel.T])[:, None]).square().sum(1).sqrt()
