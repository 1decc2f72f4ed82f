"""Where and how a network computes: device, order of its numbers in memory, their width, compiler."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import cache

import torch
from lightning_fabric.plugins import MixedPrecision, Precision
from torch import nn

from ferlib.training.recipes import Recipe


class DeviceError(ValueError):
    """A device that is not here. Shape: takes one message string; catch it as ``ValueError``. Chapter 6."""


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The named device, or the GPU where there is one.

    Shape: a name such as "cpu" or "cuda:1", or None, in; a device out. Raises ``DeviceError`` for a name that
    is none, and for a GPU that is not there. Chapter 6.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise DeviceError(f"no device is called {device!r}: expected cpu, cuda, cuda:0, ...") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{chosen} was asked for, torch sees {torch.cuda.device_count()} GPUs: take cpu, or see"
            " `ferlib doctor`"
        )
    return chosen


def memory_format(recipe: Recipe) -> torch.memory_format:
    """How images lie in memory under a recipe; channels-last makes convolutions on a CPU some 10 % faster.

    Shape: a recipe in, a ``torch.memory_format`` for (B, C, H, W) out.
    """
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context a forward pass runs in: bf16 where the recipe says so ("auto": where that is fast).

    In bf16 matrix products and convolutions take 16-bit numbers with the range of 32-bit ones (so no loss is
    scaled); weights, their gradients and the optimiser stay in 32 bits. The context is that of Fabric's
    precision plugin; the pictures are not narrowed before it.

    Shape: "fp32", "bf16" or "auto" and a device in, a context manager out. Chapter 6.
    """
    narrow = precision == "bf16" or (precision == "auto" and computes_bf16(device.type))
    plugin = MixedPrecision("bf16-mixed", device.type) if narrow else Precision()
    return plugin.forward_context()


@cache
def computes_bf16(device_type: str) -> bool:
    """Whether a kind of device computes in bf16 itself, and does not imitate it. Shape: a word -> bool."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("avx512_bf16", "amx_tile") if device_type == "cpu" else ()
    return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in names)


def move(model: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """Put a network on its device, in the recipe's memory format, compiled if the recipe asks for it.

    Compiling is in place: names and class stay. Where no compiler works the network stays as it is, and one
    line on standard error says so.

    Shape: a module in, the same module out. Chapter 6.
    """
    model.to(device, memory_format=memory_format(recipe))
    if recipe.compile == "always" or (recipe.compile == "gpu" and device.type == "cuda"):
        if problem := compiler_problem(device.type):
            print(f"not compiled, so somewhat slower: {problem}", file=sys.stderr)
        else:
            model.compile()
    return model


@cache
def compiler_problem(device_type: str = "cpu") -> str | None:
    """Why ``torch.compile`` cannot be used on a kind of device, found by trying it once; None if it can.

    Shape: "cpu", "cuda", ... in, one line or None out.
    """
    try:
        probe = torch.compile(lambda x: (x.sin() + 1).sum())
        with torch.random.fork_rng(devices=[]):
            probe(torch.ones(8, device=device_type))
    except Exception as error:  # a missing compiler, an old Python, an unsupported system: each its own kind
        return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    return None
