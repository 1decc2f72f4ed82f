"""Listen to attention without changing the network: weights come out, the network stays as it was.

The networks of this library compute every attention in one small module that can be listened to. Networks of
timm call PyTorch's fused attention, which never writes its weights down; there the recorder watches the call,
computes the weights from the same queries and keys beside it, and lets the fused result through untouched.
Only where gradients of the weights are asked for is the fused call replaced by the explicit product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ferlib.explain.fused import explicit, mean_weights, weights_of
from ferlib.explain.layout import Layout
from ferlib.explain.sites import KINDS, Site, find_sites

_SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)
STEPS = ("softmax", "scores")


@dataclass(frozen=True)
class Attention:
    """Attention weights of one layer in one forward pass.

    Attributes: ``name`` of the module inside the model; ``weights``, whose last axis sums to one; ``axes`` in
    words; ``kind``, one of:

    * ``"tokens"``: ViT, DeiT, POSTER V2's head. Query and key are the class token (first), then the places.
    * ``"window"``: Swin. Query and key are the places of a window, windows row by row in the batch axis.
    * ``"window-cross"``: POSTER V2. Query: places of the landmark map; key: places of the face map.
    * ``"levels"``: multi-level attention. Query and key are the places of three levels, 3 x 49 tokens.
    * ``"class-batch"``: per class, query and key are the images of the batch.
    * ``"pool"``: a pooling head's learned queries ask all tokens. ``"other"``: anything else.

    ``layout`` says where tokens lie on the picture (None where they do not); ``scores`` are what the softmax
    was taken of (scaled, with bias and mask), or None unless ``keep_scores``.

    Shape: ``weights``, ``scores`` (B, heads, queries, keys) in transformers, (B * windows, heads, w * w, w *
    w) in windows, (C, B, B) in class batch attention. Chapter 8.
    """

    name: str
    weights: Tensor
    axes: str
    kind: str = "other"
    layout: Layout | None = None
    scores: Tensor | None = None

    @property
    def asking(self) -> str:
        """Who asks, and whom, in a sentence. Shape: none."""
        return KINDS[self.kind]

    def on_grid(self, step: str = "softmax") -> Tensor:
        """Attention over the whole picture: windows put back where they were cut, their shift undone.

        A place has weight 0 (score minus infinity) for what is not in its window. Where the picture had to be
        padded to fill its windows, what goes to the padding is dropped, and a row sums to less than one.
        Attention without windows is given as it is. ``step``: "softmax" or "scores".

        Shape: -> (B, heads, queries, keys), for windows both the places of the grid, row by row. Raises
        ``ValueError`` for an unknown step, for scores that were not kept.
        """
        weights = self._step(step)
        if self.layout is None:
            return weights
        return self.layout.whole(weights, outside=0.0 if step == "softmax" else -math.inf)

    def to_image(self, step: str = "softmax") -> Tensor:
        """For each query, its keys as a picture: prefix dropped, levels added up (scores: the largest).

        Shape: -> (B, heads, queries, rows, columns). Queries are counted as in ``on_grid``. Raises
        ``ValueError`` as ``on_grid`` does, and for attention that does not lie on a picture.
        """
        if self.layout is None:
            raise ValueError(f"{self.name}: {self.asking}; that does not lie on a picture")
        whole = self.on_grid(step)
        if step == "scores":
            places = whole[..., self.layout.prefix :].unflatten(-1, (self.layout.levels, *self.layout.grid))
            return places.amax(-3)
        return self.layout.pictures(whole)

    def _step(self, step: str) -> Tensor:
        if step not in STEPS:
            raise ValueError(f"step is one of {', '.join(STEPS)}, got {step!r}")
        if step == "scores" and self.scores is None:
            raise ValueError(f"{self.name}: scores were not kept; record with keep_scores=True")
        return self.weights if step == "softmax" else self.scores


class AttentionRecorder:
    """Record the attention weights of every layer while the block runs.

    .. code-block:: python

        with AttentionRecorder(model) as recorder:
            logits = model(images)
        recorder.records[0].weights

    Works for the networks of ``ferlib.models`` and for timm's ViT, DeiT and Swin (both versions), inside
    other networks, too, with fused attention on or off, in any memory format. Afterwards the model is as
    before: no hook, listener, mode or setting stays, whatever happens in the block. Blocks may be nested.

    Parameters
    ----------
    keep_scores: keep what the softmax was taken of, too.
    keep_graph: keep the weights in the graph, so that gradients can be taken with respect to them: the fused
        call is then replaced by the explicit product, and outputs may differ in the last digits.
    only: record only modules whose name contains this.
    heads: "all", or "mean" to keep the mean over heads only, with an axis of length one (less memory).

    Shape: ``records`` is a list of ``Attention`` in the order of the computation; a second forward pass
    appends. Raises ``ValueError`` for a model without attention, for a compiled or scripted one, which cannot
    be listened to (record the model it was made from: they share weights), and for an unknown option. Chapter
    8.
    """

    def __init__(
        self, model: nn.Module, *, keep_scores: bool = False, keep_graph: bool = False, only: str = "",
        heads: str = "all",
    ) -> None:  # fmt: skip
        _refuse_compiled(model)
        if heads not in ("all", "mean"):
            raise ValueError(f"heads is 'all' or 'mean', got {heads!r}")
        if heads == "mean" and keep_graph:
            raise ValueError("the network uses each head, not their mean: keep_graph needs heads='all'")
        self.model, self.keep_graph, self.keep_scores, self.heads = model, keep_graph, keep_scores, heads
        self.records: list[Attention] = []
        sites = find_sites(model)
        self._sites = [site for site in sites if only in site.name]
        if not self._sites:
            if sites:
                names = ", ".join(site.name for site in sites)
                raise ValueError(f"no attention has {only!r} in its name; there are {names}")
            raise ValueError(
                f"{type(model).__name__} has no attention to record: expected a network of ferlib.models "
                "or a vision transformer of timm"
            )
        self._inside: list[Site] = []
        self._inputs: dict[nn.Module, tuple] = {}
        self._scores: Tensor | None = None
        self._depth = 0

    def __enter__(self) -> AttentionRecorder:
        self._depth += 1
        if self._depth > 1:  # already listening
            return self
        self._hooks: list[Any] = []
        self._ears: list[tuple[nn.Module, Any]] = []
        for watched in {site.watched for site in self._sites} - {None}:
            self._hooks.append(watched.register_forward_pre_hook(self._inputs.__setitem__))
        for site in self._sites:
            if not site.listens or self.keep_scores:
                self._hooks.append(site.module.register_forward_pre_hook(lambda *_, s=site: self._go_in(s)))
                leave = site.module.register_forward_hook(lambda *_: self._leave(), always_call=True)
                self._hooks.append(leave)
            if site.listens:
                self._ears.append((site.module, lambda weights, s=site: self._note(s, weights)))
                site.module.listeners.append(self._ears[-1][1])
        self._mode = _Watch(self)
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._mode.__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        for module, ear in self._ears:
            module.listeners.remove(ear)
        self._inside.clear()
        self._inputs.clear()

    def clear(self) -> None:
        """Forget what was recorded. Shape: nothing in, nothing out."""
        self.records.clear()

    def find(self, part: str) -> list[Attention]:
        """Records whose module name contains ``part``, such as ``"vit"``. Shape: a list of ``Attention``."""
        return [record for record in self.records if part in record.name]

    def _go_in(self, site: Site) -> None:
        self._inside.append(site)
        self._scores = None

    def _leave(self) -> None:
        if self._inside:
            self._inside.pop()

    def _note(self, site: Site, weights: Tensor, scores: Tensor | None = None) -> None:
        axes = getattr(site.module, "axes", "batch, heads, queries, keys")
        layout = site.layout(weights.shape, self._inputs.get(site.watched, ()))
        kept = [weights, (self._scores if scores is None else scores) if self.keep_scores else None]
        if self.heads == "mean" and weights.ndim == 4 and weights.shape[1] > 1:
            kept = [None if t is None else t.mean(1, keepdim=True) for t in kept]
        if not self.keep_graph:
            kept = [None if t is None else t.detach() for t in kept]
        self.records.append(Attention(site.name, kept[0], axes, site.kind, layout, kept[1]))


class _Watch(TorchFunctionMode):
    """Sees every torch function that is called in the block; acts on attention inside known modules only."""

    quiet = False  # while one recorder computes weights, those around it are not to take them for attention

    def __init__(self, recorder: AttentionRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        recorder = self.recorder
        if not recorder._inside or _Watch.quiet:
            return func(*args, **kwargs)
        site = recorder._inside[-1]
        if func is F.scaled_dot_product_attention and not site.listens:
            if recorder.keep_graph:
                weights, scores = weights_of(*args, **kwargs)
                recorder._note(site, weights, scores)
                return explicit(weights, *args, **kwargs)
            out = func(*args, **kwargs)
            _Watch.quiet = True
            try:
                beside = mean_weights if recorder.heads == "mean" and not recorder.keep_scores else weights_of
                weights, scores = beside(*args, **kwargs)
            finally:
                _Watch.quiet = False
            recorder._note(site, weights, scores)
            return out
        out = func(*args, **kwargs)
        if func in _SOFTMAX and out.ndim >= 3:
            scores = args[0] if args else kwargs["input"]
            if site.listens:
                recorder._scores = scores  # its listener is called with the weights in a moment
            else:
                recorder._note(site, out, scores)
        return out


def _refuse_compiled(model: nn.Module) -> None:
    for module in model.modules():
        compiled = hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        if compiled or isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{type(module).__name__} is compiled, and compiled code cannot be listened to: record the "
                "model as it was before torch.compile or torch.jit (they share their weights)"
            )
