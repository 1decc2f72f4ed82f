"""Maps of where a network looks, by name, and what they are compared with. Chapter 8.

Grad-CAM and its kin are ``ferlib.explain``'s; attention of the last layer, rollout through windows, rollout
weighted by gradients, the gradient of the pixels, and maps that know nothing of the network are made here. No
library rolls out windows that are shifted and merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.explain import Attention, AttentionRecorder, grad_cam, output_logits
from ferlib.explain.cam import CAMS, check_classes, enlarge, unwarp
from ferlib.explain.recorder import Layout, undisturbed

#: Methods of :func:`attention_map`, and what each shows.
METHODS = {
    "attention-last": "the last layer: what the class token (else the mean place) attends to",
    "rollout": "attention through all layers, half of each step the shortcut",
    "gradient-rollout": "attention through all layers, where more of it raises the class's score",
    "grad-cam": "feature maps weighted by their mean gradient",
    "grad-cam++": "feature maps weighted by their positive gradients",
    "hires-cam": "feature maps times gradient, place by place",
    "layer-cam": "feature maps times positive gradient, place by place",
    "eigen-cam": "the first principal component of the feature maps, the same for every class",
    "gradient": "how much the class's score changes with each pixel",
}
#: Maps that do not depend on the network: what a method has to beat.
BASELINES = {
    "edges": "where the picture changes from pixel to pixel (Sobel)",
    "centre": "a blob in the middle of the picture",
    "noise": "random numbers, always the same",
}


def attention_map(
    model: nn.Module,
    images: Tensor,
    classes: Tensor | None = None,
    method: str = "rollout",
    *,
    output: str = "vit",
) -> Tensor:
    """A map by its name, for any network of this book and any picture.

    Of timm's ViT, DeiT and Swin, alone or behind a resizer, of POSTER V2 and the Batch Transformer Network
    every method returns a map; of a network without attention, the last six do. Rollouts of the Batch
    Transformer Network and POSTER V2 follow its transformer, whose tokens are three levels of 7 x 7 places;
    those of a resized transformer are brought back through its spatial transformer.

    Args:
        model: A classifier; afterwards it is as before.
        images: (B, 3, H, W).
        classes: (B,); None takes the predicted class. Attention itself, rollout and eigen-cam return the same
            map for all classes.
        method: A key of ``METHODS``, or of ``BASELINES``.
        output: Of a Batch Transformer Network, as in :func:`output_logits`.

    Returns:
        (B, H, W), each map stretched to [0, 1] (a constant one is 0 everywhere).

    Raises:
        ValueError: The method is unknown, or the network has no such map.
    """
    if method in BASELINES:
        return stretch(_baseline(images, method))
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join((*METHODS, *BASELINES))}")
    if method in CAMS:
        return stretch(grad_cam(model, images, classes, method=method, output=output))
    if method == "gradient":
        return stretch(_input_gradient(model, images, classes, output))
    read = _readout(model)
    if method == "gradient-rollout":
        maps = gradient_rollout(model, images, classes, output=output, read=read)
    else:
        maps = _attended(model, images, method, output, read)
    return stretch(unwarp(model, images, enlarge(maps.float(), tuple(images.shape[2:]))))


def _readout(model: nn.Module) -> str | None:
    """Which tokens a timm transformer reads, as :func:`output_rows` names them; None for other networks."""
    for module in model.modules():
        if hasattr(module, "patch_embed") and hasattr(module, "global_pool"):
            pools = {"token": "token", "avg": "mean", "avgmax": "mean", "max": "mean"}
            return "prefix" if hasattr(module, "head_dist") else pools.get(module.global_pool)
    return None


def _attended(model: nn.Module, images: Tensor, method: str, output: str, read: str | None) -> Tensor:
    """Attention of the last layer, or rollout: (B, rows, columns)."""
    with undisturbed(model), torch.no_grad(), AttentionRecorder(model, heads="mean") as recorder:
        output_logits(model, images, output)
    records, start = chain(recorder.records), output_rows(recorder.records, read)
    if method == "rollout":
        return records[0].layout.pictures(rollout_rows(records, start)[:, 0])
    last = records[-1]
    return last.layout.pictures(pull(start, last.weights.mean(1), last.layout)[:, 0])


def _input_gradient(model: nn.Module, images: Tensor, classes: Tensor | None, output: str) -> Tensor:
    r""":math:`M(p) = \max_k \lvert \partial z_c / \partial x_k(p) \rvert` over the colors k: (B, H, W).

    Source: Simonyan et al. 2014.
    """
    with undisturbed(model), torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        logits = output_logits(model, pixels, output)
        score = logits.gather(1, check_classes(logits, classes)[:, None]).sum()
        return torch.autograd.grad(score, pixels)[0].abs().amax(1)


def _baseline(images: Tensor, name: str) -> Tensor:
    batch, _, height, width = images.shape
    if name == "noise":
        draw = torch.Generator().manual_seed(0)
        return torch.rand(batch, height, width, generator=draw).to(images.device)
    if name == "centre":
        y = torch.linspace(-1, 1, height, device=images.device)
        x = torch.linspace(-1, 1, width, device=images.device)
        return torch.exp(-2 * (y[:, None] ** 2 + x[None] ** 2)).expand(batch, -1, -1)
    gray = F.pad(images.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    sobel = gray.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    return F.conv2d(gray, torch.stack([sobel, sobel.T])[:, None]).square().sum(1).sqrt()


def rollout_rows(
    records: Sequence[Attention], start: Tensor | None = None, *, residual: float = 0.5
) -> Tensor:
    r"""Rows of the rollout without the whole matrix: from the output back to the first layer.

    .. math:: \rho \leftarrow \rho\,\tilde A_l, \quad l = L, \ldots, 1

    A row times a matrix costs 1/N of a matrix times a matrix, and windows stay windows. Where two layers lie
    on different grids (Swin merges 2 x 2 places into one), a place's share is divided among the places that
    were merged: an approximation, since the merging learns its own weights. A share that Swin gives to
    padding is divided among the other keys of the same query. Source: Abnar and Zuidema 2020; windows and
    merging are ours. Chapter 8.

    Args:
        records: Those of the layers, first layer first.
        start: Shares of the last layer's tokens (B, rows, N); by default the class token where there is one,
            else the mean of all places.
        residual: The share of the shortcut.

    Returns:
        Shares of the first layer's tokens, (B, rows, N), or (B, N) without ``start``; rows sum to one.

    Raises:
        ValueError: The records are no chain of self-attentions.
    """
    matrices = [(_mean_heads(record), record.layout) for record in chain(records)]
    rows = output_rows(records) if start is None else start
    rows = _propagate(rows, matrices, residual, 1 - residual)
    return rows[:, 0] if start is None else rows


def gradient_rollout(
    model: nn.Module,
    images: Tensor,
    classes: Tensor | None = None,
    *,
    output: str = "vit",
    read: str | None = None,
) -> Tensor:
    r"""Rollout in which attention counts only where more of it would raise the class's score.

    .. math:: \bar A_l = \tfrac1H \sum_h (\nabla A_{l,h} \odot A_{l,h})^+, \qquad
              R \leftarrow R + \bar A_l R, \quad R_0 = I

    with the gradient of the class's score. The result is the row of R from which the network reads (the class
    token's; the mean of all rows where the network averages), without the identity it began with. Windows and
    merging are treated as in :func:`rollout_rows`. Source: Chefer, Gur and Wolf 2021 ("Generic
    Attention-model Explainability"), equations 5 and 6. Chapter 8.

    Args:
        model: A network with self-attention of places.
        images: (B, 3, H, W).
        classes: (B,); None takes the predicted class.
        output: Of a Batch Transformer Network, as in :func:`output_logits`.
        read: As in :func:`output_rows`.

    Returns:
        (B, rows, columns), not negative, on the places of the first layer.
    """
    with undisturbed(model), torch.enable_grad():
        with AttentionRecorder(model, keep_graph=True) as recorder:
            logits = output_logits(model, images.detach().clone().requires_grad_(), output)
        records = chain(recorder.records)
        score = logits.gather(1, check_classes(logits, classes)[:, None]).sum()
        gradients = torch.autograd.grad(score, [record.weights for record in records])
    with torch.no_grad():
        matrices = [
            ((gradient * record.weights).clamp(min=0).mean(1), record.layout)
            for gradient, record in zip(gradients, records, strict=True)
        ]
        start = output_rows([replace(record, weights=record.weights.detach()) for record in records], read)
        rows = _propagate(start, matrices, 1, 1) - _propagate(start, matrices, 1, 0)
        return matrices[0][1].pictures(rows[:, 0]).clamp(min=0)


def chain(records: Sequence[Attention]) -> list[Attention]:
    """The self-attentions of one forward pass that follow one another, first layer first.

    Multi-level attention, landmark attention and class batch attention are left out.

    Raises:
        ValueError: Nothing is left, or the tokens of two layers do not fit together.
    """
    strange = [record.name for record in records if record.kind == "other"]
    kept = [record for record in records if record.kind in ("tokens", "window")]
    shapes = {(record.kind, record.kind == "tokens" and record.weights.shape[-2:]) for record in kept}
    names = ", ".join(record.name for record in kept)
    if strange or not kept:
        raise ValueError(
            f"a rollout needs attention between all places of the picture, as in timm's ViT, DeiT and Swin: "
            f"{', '.join(strange) or 'nothing recorded'} has another kind"
        )
    if len({record.name for record in kept}) != len(kept):
        raise ValueError("records of several forward passes: clear() the recorder between them")
    if len(shapes) > 1:
        raise ValueError(f"windows and whole pictures, or layers of several sizes, in one chain: {names}")
    return kept


def output_rows(records: Sequence[Attention], read: str | None = None) -> Tensor:
    """Which tokens of the last layer the network reads, as shares (B, 1, N).

    ``read``: "token", the class token; "prefix", all tokens in front; "mean", all places; None takes the
    class token where there is one, else the mean.

    Raises:
        ValueError: There is no such token.
    """
    last = chain(records)[-1]
    layout = last.layout
    images = len(last.weights if layout.window is None else layout.per_image(last.weights))
    rows = last.weights.new_zeros(images, 1, layout.tokens)
    if read == "mean" or (read is None and not layout.prefix):
        rows[..., layout.prefix :] = 1 / (layout.tokens - layout.prefix)
    elif layout.prefix:
        count = layout.prefix if read == "prefix" else 1
        rows[..., :count] = 1 / count
    else:
        raise ValueError(f"{last.name} has no class token to read from")
    return rows


def _propagate(rows: Tensor, matrices: Sequence[tuple[Tensor, Layout]], keep: float, take: float) -> Tensor:
    """Carry rows (B, R, N) from the last layer to the first: rows <- keep * rows + take * rows A_l."""
    for n in range(len(matrices) - 1, -1, -1):
        matrix, layout = matrices[n]
        rows = keep * rows + take * pull(rows, matrix, layout)
        if n and matrices[n - 1][1].grid != layout.grid:
            rows = _divide(rows, layout.grid, matrices[n - 1][1].grid)
    return rows


def pull(rows: Tensor, matrix: Tensor, layout: Layout) -> Tensor:
    """Rows (B, R, N) times a layer's matrix, (B, N, N) or in windows (B * windows, w * w, w * w)."""
    if layout.window is None:
        return rows @ matrix
    pulled = _cut(layout, rows).transpose(1, 2) @ layout.per_image(matrix)  # (B, windows, R, K)
    return _join(layout, pulled.transpose(1, 2))


def _cut(layout: Layout, rows: Tensor) -> Tensor:
    """Tokens on the grid (B, ..., places) -> tokens in windows (B, ..., windows, w * w).

    Padding, where a window reaches over the edge, gets 0.
    """
    padded = torch.cat([rows, rows.new_zeros(*rows.shape[:-1], 1)], dim=-1)
    return padded[..., layout.index(rows.device)]


def _join(layout: Layout, windows: Tensor) -> Tensor:
    """Undo ``_cut``: (B, ..., windows, w * w) -> (B, ..., places). What lies on padding is dropped."""
    out = windows.new_zeros(*windows.shape[:-2], layout.places + 1)
    out[..., layout.index(windows.device).flatten()] = windows.flatten(-2)
    return out[..., :-1]


def _divide(rows: Tensor, coarse: tuple[int, int], fine: tuple[int, int]) -> Tensor:
    """Divide each coarse place's share among the 2 x 2 fine places, fewer at an odd edge, merged into it."""
    if any(-(-f // 2) != c for f, c in zip(fine, coarse, strict=True)):
        raise ValueError(f"a grid of {fine} is not merged to {coarse} by joining 2 x 2 places")
    row, column = (torch.arange(side, device=rows.device) // 2 for side in fine)
    parents = (row[:, None] * coarse[1] + column[None]).flatten()
    counts = torch.bincount(parents, minlength=coarse[0] * coarse[1])
    return rows[..., parents] / counts[parents].to(rows.dtype)


def _mean_heads(record: Attention) -> Tensor:
    """The mean over heads; what goes to padding is divided among the other keys, so rows sum to one."""
    matrix, layout = record.weights.mean(1), record.layout
    if layout.window is None:
        return matrix
    real = _cut(layout, torch.ones(1, layout.places, device=matrix.device))[0]  # (windows, w * w)
    if bool(real.all()):
        return matrix
    kept = layout.per_image(matrix) * real[:, None].to(matrix.dtype)
    return (kept / kept.sum(-1, keepdim=True).clamp(min=1e-12)).flatten(0, 1)


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation of two stacks of maps (B, H, W), face by face: (B,); 0 for a constant map."""
    ranks = [torch.from_numpy(rankdata(maps.flatten(1).numpy(), axis=1)) for maps in (one, other)]
    return F.cosine_similarity(*(rank - rank.mean(1, keepdim=True) for rank in ranks)).float()


def stretch(maps: Tensor) -> Tensor:
    """Each map (B, H, W) from 0 to 1, its least to its greatest value; a constant map becomes 0."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    top = maps.amax((1, 2), keepdim=True)
    return torch.where(top > 0, maps / top.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)
