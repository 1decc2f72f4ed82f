"""Record attention: the weights of every layer, and where its tokens lie on the picture.

The networks of this library compute every attention in one small module that calls its listeners. Networks of
timm call PyTorch's fused attention, which never writes its weights down; while the recorder is active they
compute the explicit product, as timm's own ``AttentionExtract`` asks of them, and hooks in front of the
attention's dropout receive its weights. timm's class has no place for windows and levels, which are put back
on the picture here. Chapter 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ferlib.errors import choose
from ferlib.models.batch_transformer import ClassBatchAttention
from ferlib.models.btn import LEVELS, MultiLevelAttention
from ferlib.models.common import evaluating
from ferlib.models.poster_v2 import LevelFusion, TokenTransformer


def output_logits(model: nn.Module, images: Tensor, output: str = "vit") -> Tensor:
    """The logits (B, C) of images (B, 3, H, W), also of a network with several outputs.

    Of a Batch Transformer Network's outputs, "vit" depends on each image alone, "bt" and "cba" on the batch.

    Raises:
        ValueError: There is no such output.
    """
    if not hasattr(model, "outputs"):
        return model(images)
    return getattr(model.outputs(images), choose("output", output, ("vit", "bt", "cba")))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of weights inside; modes, flags and gradients as before afterwards."""
    weights = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    try:
        for weight, _, _ in weights:
            weight.requires_grad_(False)
            weight.grad = None
        with evaluating(model):
            yield
    finally:
        for weight, needed, gradient in weights:
            weight.requires_grad_(needed)
            weight.grad = gradient


@dataclass(frozen=True)
class Layout:
    """How the tokens of one attention lie on the picture.

    Attention over the whole picture has the shape (B, heads, N, N) with N = prefix + levels * rows * columns;
    in windows of w * w places, which stand in the batch axis row by row, (B * windows, heads, w * w, w * w).

    Attributes:
        grid: Rows and columns of places, counted from the upper left, row by row.
        prefix: Tokens in front that stand for no place (class token, registers).
        levels: How many whole grids follow one after the other (3 in the Batch Transformer Network).
        window: Rows and columns of a window; None without windows.
        shift: By how much the grid was rolled up and to the left before it was cut (Swin).
    """

    grid: tuple[int, int]
    prefix: int = 0
    levels: int = 1
    window: tuple[int, int] | None = None
    shift: tuple[int, int] = (0, 0)

    @property
    def places(self) -> int:
        """How many places the grid has."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """How many tokens the whole picture has."""
        return self.prefix + self.levels * self.places

    def per_image(self, weights: Tensor) -> Tensor:
        """Windows out of the batch axis: (B * windows, ...) -> (B, windows, ...)."""
        return weights.unflatten(0, (-1, len(self.index(weights.device))))

    def whole(self, weights: Tensor) -> Tensor:
        """Attention in windows -> over the picture (B, heads, places, places), 0 from window to window."""
        if self.window is None:
            return weights
        index = self.index(weights.device)
        split = self.per_image(weights).transpose(1, 2)  # (B, heads, windows, Q, K)
        n = self.places + 1  # one more for padding
        out = weights.new_zeros(*split.shape[:2], n, n)
        out[:, :, index[:, :, None], index[:, None, :]] = split
        return out[:, :, :-1, :-1]

    def pictures(self, keys: Tensor) -> Tensor:
        """The last axis as a picture, prefix dropped, levels added up: (..., tokens) -> (..., rows, columns).

        Raises:
            ValueError: The number of tokens is another.
        """
        if keys.shape[-1] != self.tokens:
            raise ValueError(f"{keys.shape[-1]} tokens do not lie on {self}: expected {self.tokens}")
        return keys[..., self.prefix :].unflatten(-1, (self.levels, *self.grid)).sum(-3)

    def index(self, device: torch.device) -> Tensor:
        """The place of each token of each window, (windows, w * w); padding has the number of places."""
        return _window_index(self.grid, self.window, self.shift).to(device)


@lru_cache(maxsize=64)
def _window_index(grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """Which place each token of each window is: (windows, w * w), the number of places where it is padding.

    The order of things is timm's: roll up and left by the shift, pad below and right, cut.
    """
    (rows, columns), (high, wide) = grid, window
    down, right = -(-rows // high), -(-columns // wide)  # windows, counting those that reach over the edge
    r, c = torch.arange(down * high), torch.arange(right * wide)
    row = torch.where(r < rows, (r + shift[0]) % rows, -1)
    column = torch.where(c < columns, (c + shift[1]) % columns, -1)
    place = row[:, None] * columns + column[None]
    place[(row < 0)[:, None] | (column < 0)[None]] = rows * columns
    return place.view(down, high, right, wide).transpose(1, 2).reshape(down * right, high * wide)


@dataclass(frozen=True)
class Attention:
    """Attention weights of one layer in one forward pass.

    Attributes:
        name: The module inside the model.
        weights: (B, heads, queries, keys) in transformers, (B * windows, heads, w * w, w * w) in windows, (C,
            B, B) in class batch attention; rows sum to one.
        axes: The axes in words.
        kind: "tokens" (ViT, DeiT, POSTER V2's head: class token, then places), "window" (Swin: places of a
            window), "window-cross" (POSTER V2: queries from the landmark map, keys from the face map),
            "levels" (multi-level attention: places of three levels), "class-batch" (per class, the images of
            the batch) or "other".
        layout: Where the tokens lie on the picture; None where they do not.
    """

    name: str
    weights: Tensor
    axes: str
    kind: str = "other"
    layout: Layout | None = None

    def on_grid(self) -> Tensor:
        """Attention over the whole picture: windows put back where they were cut, their shift undone.

        A place has weight 0 for what is not in its window. Where the picture had to be padded to fill its
        windows, what goes to the padding is dropped, and a row sums to less than one. Attention without
        windows is returned as it is.

        Returns:
            (B, heads, queries, keys), for windows both the places of the grid, row by row.
        """
        return self.weights if self.layout is None else self.layout.whole(self.weights)

    def to_image(self) -> Tensor:
        """For each query, its keys as a picture, prefix dropped and levels added up.

        Returns:
            (B, heads, queries, rows, columns).

        Raises:
            ValueError: The tokens do not lie on a picture.
        """
        if self.layout is None:
            raise ValueError(f"{self.name}: attention of kind {self.kind!r} does not lie on a picture")
        return self.layout.pictures(self.on_grid())


class Site(NamedTuple):
    """One attention inside a network.

    ``watched`` is the module whose inputs tell how large the picture is, and ``layout(shape of the weights,
    those inputs)`` says where the tokens lie.
    """

    name: str
    module: nn.Module
    kind: str = "other"
    watched: nn.Module | None = None
    layout: Callable[[torch.Size, tuple], Layout | None] = lambda shape, inputs: None


def find_sites(model: nn.Module) -> list[Site]:
    """Every attention of a network: those of ``ferlib.models``, and of timm's ViT, DeiT and Swin."""
    sites = []
    for name, module in model.named_modules():
        if hasattr(module, "listeners") or (
            hasattr(module, "attn_drop") and "Attention" in type(module).__name__
        ):
            parts = name.split(".") if name else []
            around = [model.get_submodule(".".join(parts[:n])) for n in range(len(parts) - 1, -1, -1)]
            found = next(filter(None, (_placed(module, parent) for parent in around)), ())
            found = ("class-batch",) if isinstance(module, ClassBatchAttention) else found
            sites.append(Site(name, module, *found))
    return sites


def _placed(module: nn.Module, parent: nn.Module) -> tuple[Any, ...] | None:
    """Kind, watched module and layout of an attention inside ``parent``, where this says it."""
    if isinstance(parent, LevelFusion):
        window = _pair(parent.window)
        return "window-cross", parent, lambda _, inputs: Layout(tuple(inputs[1].shape[-2:]), window=window)
    if isinstance(parent, MultiLevelAttention):
        return "levels", None, lambda shape, _: _square(shape[-1], 0)
    if isinstance(parent, TokenTransformer):
        return "tokens", None, lambda shape, _: _square(shape[-1], 1)
    if hasattr(module, "window_size") and hasattr(parent, "shift_size"):  # timm's Swin
        how = {"window": _pair(parent.window_size), "shift": _pair(parent.shift_size)}
        return "window", parent, lambda _, inputs: Layout(tuple(inputs[0].shape[1:3]), **how)
    if hasattr(parent, "patch_embed"):  # timm's ViT
        embed = parent.patch_embed
        return "tokens", embed, lambda shape, inputs: _tokens(shape, grid_of(embed, inputs[0]), inputs[0])
    return None


def grid_of(embed: nn.Module, images: Tensor) -> tuple[int, int] | None:
    """Rows and columns of the patches that timm's patch embedding cuts images (B, 3, H, W) into."""
    if images.ndim == 4 and hasattr(embed, "dynamic_feat_size"):
        return tuple(embed.dynamic_feat_size(tuple(images.shape[-2:])))
    return getattr(embed, "grid_size", None)


def _tokens(shape: torch.Size, grid: tuple[int, int] | None, images: Tensor) -> Layout | None:
    """None where the weights are not those of all patches of each image."""
    if not grid or len(shape) != 4 or shape[0] != len(images) or shape[-1] < grid[0] * grid[1]:
        return None
    return Layout(grid, shape[-1] - grid[0] * grid[1])


def _square(tokens: int, prefix: int) -> Layout | None:
    """Three levels of a square grid, or one, behind a prefix."""
    for levels in (LEVELS, 1):
        side = round(((tokens - prefix) / levels) ** 0.5)
        if side and levels * side * side == tokens - prefix:
            return Layout((side, side), prefix, levels)
    return None


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


class AttentionRecorder:
    """Record the attention weights of every layer while the block runs.

    .. code-block:: python

        with AttentionRecorder(model) as recorder:
            logits = model(images)
        recorder.records[0].weights

    Works for the networks of ``ferlib.models`` and for timm's ViT, DeiT and Swin (both versions), inside
    other networks, too, in any memory format. The attention is computed explicitly meanwhile, so outputs may
    differ from those of fused attention in the last digits. Afterwards the model is as before: no hook,
    listener or setting stays, whatever happens in the block. Several recorders may be nested. The
    recorder's ``records`` are in the order of the computation; a second forward pass appends.

    Args:
        model: The network.
        keep_graph: Keep the weights in the graph, so that gradients can be taken with respect to them.
        heads: "all", or "mean" to keep the mean over heads only, with an axis of length one (less memory).

    Raises:
        ValueError: The model has no attention, or it is compiled or scripted and its attention cannot be
            recorded (record the model it was made from: they share weights), or ``heads`` is another.
    """

    def __init__(self, model: nn.Module, *, keep_graph: bool = False, heads: str = "all") -> None:
        _refuse_compiled(model)
        choose("heads", heads, ("all", "mean"))
        if heads == "mean" and keep_graph:
            raise ValueError("the network uses each head, not their mean: keep_graph needs heads='all'")
        self.model, self.keep_graph, self.heads = model, keep_graph, heads
        self.records: list[Attention] = []
        self._sites = find_sites(model)
        if not self._sites:
            raise ValueError(
                f"{type(model).__name__} has no attention to record: expected a network of ferlib.models "
                "or a vision transformer of timm"
            )

    def __enter__(self) -> AttentionRecorder:
        with ExitStack() as stack:
            inputs: dict[nn.Module, tuple] = {}
            for watched in {site.watched for site in self._sites} - {None}:
                stack.callback(watched.register_forward_pre_hook(inputs.__setitem__).remove)
            for site in self._sites:
                self._listen(site, inputs, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _listen(self, site: Site, inputs: dict[nn.Module, tuple], stack: ExitStack) -> None:
        """Start to record one attention until the stack is closed."""
        module = site.module

        def note(weights: Tensor) -> None:
            seen = site.watched is None or site.watched in inputs  # a list of embeddings never runs itself
            layout = site.layout(weights.shape, inputs.get(site.watched, ())) if seen else None
            among = site.kind == "class-batch"
            axes = "classes, query image, key image" if among else "batch, heads, queries, keys"
            kind = site.kind if layout or among else "other"
            if self.heads == "mean" and weights.ndim == 4:
                weights = weights.mean(1, keepdim=True)
            weights = weights if self.keep_graph else weights.detach()
            self.records.append(Attention(site.name, weights, axes, kind, layout))

        if hasattr(module, "listeners"):
            module.listeners.append(note)
            stack.callback(module.listeners.remove, note)
            return
        hook = module.attn_drop.register_forward_pre_hook(lambda _, args: note(args[0]))
        stack.callback(hook.remove)
        if hasattr(module, "fused_attn"):
            stack.callback(setattr, module, "fused_attn", module.fused_attn)
            module.fused_attn = False

    def find(self, part: str) -> list[Attention]:
        """Records whose module name contains ``part``, such as ``"vit"``."""
        return [record for record in self.records if part in record.name]


def _refuse_compiled(model: nn.Module) -> None:
    for module in model.modules():
        compiled = hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        if compiled or isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{type(module).__name__} is compiled, and compiled code cannot be recorded: record the "
                "model as it was before torch.compile or torch.jit (they share their weights)"
            )
