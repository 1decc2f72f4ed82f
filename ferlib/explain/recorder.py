"""Listen to attention without changing the network: weights come out, the network stays as it was.

The networks of this library compute every attention in one small module that can be listened to. Networks of
timm call PyTorch's fused attention, which never writes its weights down; there the recorder watches the call,
computes the weights from the same queries and keys beside it, and lets the fused result through untouched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)


@dataclass(frozen=True)
class Attention:
    """Attention weights of one layer in one forward pass.

    Attributes: ``name`` of the module inside the model, ``weights`` whose last axis sums to one, ``axes`` in
    words.

    Shape: ``weights`` (B, heads, queries, keys) in transformers, (C, B, B) in class batch attention. Chapter
    8.
    """

    name: str
    weights: Tensor
    axes: str


class AttentionRecorder:
    """Record the attention weights of every layer while the block runs.

    .. code-block:: python

        with AttentionRecorder(model) as recorder:
            logits = model(images)
        recorder.records[0].weights

    Works for the networks of ``ferlib.models`` and for timm's vision transformers, with fused attention on or
    off. Afterwards the model is as before: no hook, listener or setting stays. ``keep_graph=True`` keeps the
    weights in the graph, so that gradients can be taken (only where the network itself computes them: with
    fused attention the recorded copy is beside the graph).

    Shape: ``records`` is a list of ``Attention`` in the order of the computation; a second forward pass
    appends. Raises ``ValueError`` for a model without attention. Chapter 8.
    """

    def __init__(self, model: nn.Module, *, keep_graph: bool = False) -> None:
        self.model, self.keep_graph = model, keep_graph
        self.records: list[Attention] = []
        self._names = {module: name for name, module in model.named_modules()}
        self._talking = [module for module in self._names if hasattr(module, "listeners")]
        self._silent = [module for module in self._names if _is_silent_attention(module)]
        if not self._talking and not self._silent:
            raise ValueError(
                f"{type(model).__name__} has no attention to record: expected a network of ferlib.models "
                "or a vision transformer of timm"
            )
        self._inside: list[nn.Module] = []
        self._mode = _Watch(self)

    def __enter__(self) -> AttentionRecorder:
        self._ears = [(module, self._ear(module)) for module in self._talking]
        for module, ear in self._ears:
            module.listeners.append(ear)
        self._hooks = []
        for module in self._silent:
            self._hooks.append(module.register_forward_pre_hook(lambda m, _: self._inside.append(m)))
            self._hooks.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        if self._silent:
            self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._silent:
            self._mode.__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        for module, ear in self._ears:
            module.listeners.remove(ear)
        self._inside.clear()

    def clear(self) -> None:
        """Forget what was recorded. Shape: nothing in, nothing out."""
        self.records.clear()

    def find(self, part: str) -> list[Attention]:
        """Records whose module name contains ``part``, such as ``"vit"``. Shape: a list of ``Attention``."""
        return [record for record in self.records if part in record.name]

    def _ear(self, module: nn.Module):
        name, axes = self._names[module], getattr(module, "axes", "batch, heads, queries, keys")
        return lambda weights: self._note(name, weights, axes)

    def _note(self, name: str, weights: Tensor, axes: str) -> None:
        self.records.append(Attention(name, weights if self.keep_graph else weights.detach(), axes))

    def _leave(self) -> None:
        if self._inside:
            self._inside.pop()

    def _heard(self, weights: Tensor) -> None:
        self._note(self._names[self._inside[-1]], weights, "batch, heads, queries, keys")


class _Watch(TorchFunctionMode):
    """Sees every torch function that is called in the block; acts on attention inside known modules only."""

    def __init__(self, recorder: AttentionRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.recorder._inside:
            if func is F.scaled_dot_product_attention:
                self.recorder._heard(_weights(*args, **kwargs))
            elif func in _SOFTMAX and out.ndim >= 3:
                self.recorder._heard(out)
        return out


def _weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  #
    """softmax(scale Q K^T + mask) as PyTorch documents the fused call, without its dropout."""
    scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
    if is_causal:
        queries, keys = scores.shape[-2:]
        attn_mask = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(scores).masked_fill(~attn_mask, -math.inf)
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1)


def _is_silent_attention(module: nn.Module) -> bool:
    """timm's attention: it projects queries, keys and values together and tells nobody its weights."""
    talks = any(hasattr(part, "listeners") for part in module.modules())
    return "Attention" in type(module).__name__ and hasattr(module, "qkv") and not talks
