"""From the attention of several layers to one map: rollout, and rollout weighted by gradients.

No library rolls out windows that are shifted and merged, so it is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ferlib.explain.recorder import Attention, AttentionRecorder, Layout, output_logits, undisturbed


def rollout(weights: Sequence[Tensor], *, residual: float = 0.5) -> Tensor:
    r"""Attention rollout: how much of each input token arrives at each output token through all layers.

    .. math:: R = \tilde A_L \cdots \tilde A_1, \qquad
              \tilde A_l = r I + (1 - r) \tfrac1H \sum_h A_{l,h}

    The identity stands for the shortcut around each attention, r = ``residual`` for its share. What it leaves
    out: values, MLPs and the sign of any contribution. Source: Abnar and Zuidema 2020, equation 1. Chapter 8.

    Args:
        weights: L tensors (B, heads, N, N), first layer first.
        residual: r, between 0 and 1.

    Returns:
        (B, N, N), whose rows sum to one.

    Raises:
        ValueError: There are no weights, they are not square or of several sizes, or r is outside [0, 1].
    """
    shapes = {tuple(layer.shape[-2:]) for layer in weights}
    first = weights[0] if weights else None
    if len(shapes) != 1 or first.ndim != 4 or first.shape[-1] != first.shape[-2]:
        raise ValueError(f"weights have shapes {sorted(shapes)}, expected (B, heads, N, N) with one N")
    identity = torch.eye(first.shape[-1], device=first.device, dtype=first.dtype)
    result = identity.expand(len(first), -1, -1)
    for layer in weights:
        result = (residual * identity + (1 - residual) * layer.mean(1)) @ result
    return result


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


def token_map(attention: Tensor, *, grid: int, query: int = 0, prefix: int = 1) -> Tensor:
    """The share of one output token (by default the class token) that comes from each place of the picture.

    Tokens after the ``prefix`` are read row by row on a square grid; the shares of several levels of the same
    grid, one after the other, are added.

    Args:
        attention: (B, N, N) with N = prefix + levels * grid^2.
        grid: Places on a side.
        query: The output token.
        prefix: Tokens in front that stand for no place.

    Returns:
        (B, grid, grid).

    Raises:
        ValueError: N does not fit.
    """
    row = attention[:, query, prefix:]
    if row.shape[1] == 0 or row.shape[1] % (grid * grid):
        raise ValueError(f"{row.shape[1]} tokens after the first {prefix} do not fill a {grid} x {grid} grid")
    return row.unflatten(1, (-1, grid, grid)).sum(1)


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
    pulled = layout.cut(rows).transpose(1, 2) @ layout.per_image(matrix)  # (B, windows, R, K)
    return layout.join(pulled.transpose(1, 2))


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
    real = layout.cut(torch.ones(1, layout.places, device=matrix.device))[0]  # (windows, w * w)
    if bool(real.all()):
        return matrix
    kept = layout.per_image(matrix) * real[:, None].to(matrix.dtype)
    return (kept / kept.sum(-1, keepdim=True).clamp(min=1e-12)).flatten(0, 1)
