"""From attention of several layers to one map over the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ferlib.explain.layout import Layout
from ferlib.explain.recorder import Attention


def rollout(weights: Sequence[Tensor], *, residual: float = 0.5) -> Tensor:
    r"""Attention rollout: how much of each input token arrives at each output token through all layers.

    .. math:: R = \tilde A_L \cdots \tilde A_1, \qquad
              \tilde A_l = r I + (1 - r) \tfrac1H \sum_h A_{l,h}

    The identity stands for the shortcut around each attention, r = ``residual`` for its share. Rows of R sum
    to one. What it leaves out: values, MLPs and the sign of any contribution; chapter 8 tests what that
    costs.

    Shape: L tensors (B, heads, N, N), first layer first -> (B, N, N). Raises ``ValueError`` for an empty
    list, for weights that are not square or of several sizes, and for r outside [0, 1].
    Abnar and Zuidema 2020, equation 1. Chapter 8.
    """
    if not weights:
        raise ValueError("no attention weights: record a forward pass first")
    _check_residual(residual)
    sizes = {tuple(layer.shape) for layer in weights}
    first = weights[0]
    if first.ndim != 4 or first.shape[-1] != first.shape[-2] or len({(s[0], *s[2:]) for s in sizes}) > 1:
        raise ValueError(
            f"weights have shapes {sorted(sizes)}, expected (B, heads, N, N) with one B and one N"
        )
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
    padding is divided among the places that the same place asks.

    ``start``: what is asked for, by default the class token where there is one, else the mean of all places.

    Shape: records of the layers, first layer first; start (B, rows, N of the last layer) -> (B, rows, N of
    the first layer), or (B, N) without start. Rows sum to one. Raises ``ValueError`` where the records are no
    chain of self-attentions. Abnar and Zuidema 2020; windows and merging are ours. Chapter 8.
    """
    _check_residual(residual)
    kept = chain(records)
    matrices = [(_mean_heads(record), record.layout) for record in kept]
    rows = output_rows(records) if start is None else start
    rows = propagate(rows, matrices, residual, 1 - residual)
    return rows[:, 0] if start is None else rows


def propagate(
    rows: Tensor, matrices: Sequence[tuple[Tensor, Layout]], keep: float = 0.5, take: float = 0.5
) -> Tensor:
    r"""Carry rows from the last layer to the first: :math:`\rho \leftarrow k\,\rho + t\,\rho A_l`.

    Shape: rows (B, R, N of the last layer), matrices (B, N, N) or in windows, each with its layout, first
    layer first -> (B, R, N of the first layer). Grids are joined as in :func:`rollout_rows`.
    """
    for n in range(len(matrices) - 1, -1, -1):
        matrix, layout = matrices[n]
        rows = keep * rows + take * pull(rows, matrix, layout)
        if n and matrices[n - 1][1].grid != layout.grid:
            rows = divide(rows, layout.grid, matrices[n - 1][1].grid)
    return rows


def rollout_layers(records: Sequence[Attention], *, residual: float = 0.5) -> list[Tensor]:
    """Rollout after each layer: what each of its tokens is made of, in tokens of the first layer.

    As :func:`rollout_rows`, forwards and whole: the tokens that Swin merges are averaged.

    Shape: L records -> L tensors (B, N of that layer, N of the first layer), rows sum to one. Raises
    ``ValueError`` where the records are no chain of self-attentions. Chapter 8.
    """
    _check_residual(residual)
    kept = chain(records)
    eye = torch.eye(kept[0].layout.tokens, device=kept[0].weights.device, dtype=kept[0].weights.dtype)
    before, grid = eye.expand(_images(kept[0]), -1, -1), kept[0].layout.grid
    found = []
    for record in kept:
        if record.layout.grid != grid:
            before, grid = merge(before, grid, record.layout.grid), record.layout.grid
        before = residual * before + (1 - residual) * push(before, _mean_heads(record), record.layout)
        found.append(before)
    return found


def token_map(attention: Tensor, *, grid: int, query: int = 0, prefix: int = 1) -> Tensor:
    """The share of one output token (by default the class token) that comes from each place in the image.

    Tokens after the ``prefix`` are read row by row on a square grid; where there are several levels of the
    same grid one after the other (3 x 49 tokens in the Batch Transformer Network), their shares are added.

    Shape: (B, N, N) with N = prefix + levels * grid^2 -> (B, grid, grid), not negative. Raises ``ValueError``
    where N does not fit. Chapter 8.
    """
    row = attention[:, query, prefix:]
    if row.shape[1] == 0 or row.shape[1] % (grid * grid):
        raise ValueError(f"{row.shape[1]} tokens after the first {prefix} do not fill a {grid} x {grid} grid")
    return row.unflatten(1, (-1, grid, grid)).sum(1)


def chain(records: Sequence[Attention]) -> list[Attention]:
    """The self-attentions, first layer first, that follow one another. Shape: records -> records.

    Multi-level attention, landmark attention and class batch attention are left out: theirs is another
    question. Raises ``ValueError`` where nothing is left, or tokens do not fit together.
    """
    kept = [record for record in records if record.kind in ("tokens", "window")]
    names = [record.name for record in kept]
    if not kept:
        raise ValueError("no self-attention of places was recorded: a rollout needs a vision transformer")
    if len(set(names)) != len(names):
        raise ValueError("records of several forward passes: clear() the recorder between them")
    if len({record.kind for record in kept}) > 1:
        raise ValueError(f"windows and whole pictures in one chain: {', '.join(names)}")
    for record in kept:
        if record.layout is None or record.weights.shape[-2] != record.weights.shape[-1]:
            raise ValueError(f"{record.name}: its tokens do not lie on a picture")
    if kept[0].kind == "tokens" and len({record.weights.shape[-1] for record in kept}) > 1:
        raise ValueError(f"layers of several sizes in one chain: {', '.join(names)}")
    return kept


def output_rows(records: Sequence[Attention], read: str | None = None) -> Tensor:
    """Which tokens of the last layer the answer is read from, as shares: (B, 1, N).

    ``read``: "token" (the class token), "prefix" (all tokens in front, as distilled DeiT does), "mean" (all
    places); None takes a pooling head's weights where one was recorded, else the class token where there is
    one, else the mean. Shape: records -> (B, 1, N).
    """
    last = chain(records)[-1]
    layout, pools = last.layout, [record for record in records if record.kind == "pool"]
    rows = last.weights.new_zeros(_images(last), 1, layout.tokens)
    if read is None and pools:
        asked = pools[-1].weights.mean((1, 2))  # its keys may leave the prefix out
        rows[:, 0, layout.tokens - asked.shape[-1] :] = asked
    elif read == "mean" or (read is None and not layout.prefix):
        rows[..., layout.prefix :] = 1 / (layout.tokens - layout.prefix)
    elif layout.prefix:
        count = layout.prefix if read == "prefix" else 1
        rows[..., :count] = 1 / count
    else:
        raise ValueError(f"{last.name} has no class token to read from")
    return rows


def pull(rows: Tensor, matrix: Tensor, layout: Layout) -> Tensor:
    """Rows times a layer's matrix, in windows where it has them.

    Shape: rows (B, R, N), matrix (B, N, N) or (B * windows, w * w, w * w) -> (B, R, N).
    """
    if layout.window is None:
        return rows @ matrix
    windows = layout.per_image(matrix[:, None])[:, :, 0]  # (B, windows, Q, K)
    pulled = layout.cut(rows).transpose(1, 2) @ windows  # (B, windows, R, K)
    return layout.join(pulled.transpose(1, 2))


def push(columns: Tensor, matrix: Tensor, layout: Layout) -> Tensor:
    """A layer's matrix times columns. Shape: matrix as in :func:`pull`, columns (B, N, M) -> (B, N, M)."""
    if layout.window is None:
        return matrix @ columns
    windows = layout.per_image(matrix[:, None])[:, :, 0]
    cut = layout.cut(columns.transpose(1, 2))  # (B, M, windows, K)
    pushed = windows @ cut.permute(0, 2, 3, 1)  # (B, windows, Q, M)
    return layout.join(pushed.permute(0, 3, 1, 2)).transpose(1, 2)


def divide(rows: Tensor, coarse: tuple[int, int], fine: tuple[int, int]) -> Tensor:
    """Each coarse place's share, divided equally among the 2 x 2 fine places it was merged from.

    Shape: (..., coarse places) -> (..., fine places), equal sums. At an odd edge fewer places were merged.
    """
    children, counts = _parents(coarse, fine, rows.device)
    return rows[..., children] / counts[children].to(rows.dtype)


def merge(columns: Tensor, fine: tuple[int, int], coarse: tuple[int, int]) -> Tensor:
    """The mean of the fine places each coarse place was merged from.

    Shape: (B, fine places, M) -> (B, coarse places, M).
    """
    parents, counts = _parents(coarse, fine, columns.device)
    total = columns.new_zeros(len(columns), len(counts), columns.shape[-1]).index_add(1, parents, columns)
    return total / counts[:, None].to(columns.dtype)


def _parents(coarse: tuple[int, int], fine: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """For each fine place its coarse place, and how many children each coarse place has."""
    if any(-(-f // 2) != c for f, c in zip(fine, coarse, strict=True)):
        raise ValueError(f"a grid of {fine} is not merged to {coarse} by joining 2 x 2 places")
    row, column = (torch.arange(side, device=device) // 2 for side in fine)
    parents = (row[:, None] * coarse[1] + column[None]).flatten()
    return parents, torch.bincount(parents, minlength=coarse[0] * coarse[1])


def _mean_heads(record: Attention) -> Tensor:
    matrix = record.weights.mean(1)
    return _without_padding(matrix, record.layout) if record.layout.window else matrix


def _without_padding(matrix: Tensor, layout: Layout) -> Tensor:
    """Windows over the edge: what goes to padding is divided among the other keys; rows sum to one."""
    real = layout.cut(torch.ones(1, layout.places, device=matrix.device))[0]  # (windows, w * w)
    if bool(real.all()):
        return matrix
    kept = matrix.unflatten(0, (-1, len(real))) * real[:, None].to(matrix.dtype)
    return (kept / kept.sum(-1, keepdim=True).clamp(min=1e-12)).flatten(0, 1)


def _images(record: Attention) -> int:
    whole = record.layout.window is None
    return len(record.weights) if whole else len(record.layout.per_image(record.weights))


def _check_residual(residual: float) -> None:
    if not 0 <= residual <= 1:
        raise ValueError(f"residual is {residual}, expected a share between 0 and 1")
