"""Weights of the original programs under the names of this library: strictly, every shape checked.

The networks here carry names that say what a layer does; the originals have their own. Each original
network is one ``Architecture``: how to build ours, and what the original calls each of our tensors. Nothing
is loaded in part and
nothing is dropped silently: what is missing, unknown or of another shape is listed in one error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

WRAPPERS = ("state_dict", "model_state_dict", "model")  # where training programs put a state dict


class CheckpointError(ValueError):
    """Weights that do not fit; the message lists the missing, unexpected and mis-shaped names.

    Shape: takes one message string; catch it as ``ValueError``. Chapter 6.
    """


@dataclass(frozen=True)
class Architecture:
    """How one original network corresponds to ours.

    Shape: strings and functions; no arrays.

    name: what ``from_official`` is called with.
    build: makes our module; it is called once, on the meta device, so that it costs no memory.
    official_name: from the name of one of our tensors to the original's name for it.
    unused: prefixes of original tensors that do not touch the output and are left behind on purpose.
    translate: changes the original names of another version of the same network, where there is one.

    Chapter 6 loads checkpoints with it.
    """

    name: str
    build: Callable[[], nn.Module]
    official_name: Callable[[str], str]
    unused: tuple[str, ...] = ()
    translate: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None


_ARCHITECTURES: dict[str, Architecture] = {}


def register(architecture: Architecture) -> Architecture:
    """Make an original network known to ``from_official``; called where our version of it is defined.

    Shape: an ``Architecture`` in, the same one out. Raises ``ValueError`` when the name is taken.
    """
    if architecture.name in _ARCHITECTURES:
        raise ValueError(f"an architecture called {architecture.name!r} is registered already")
    _ARCHITECTURES[architecture.name] = architecture
    return architecture


def architectures() -> tuple[str, ...]:
    """The names that ``from_official`` knows, sorted. Shape: nothing in, strings out."""
    return tuple(sorted(_ARCHITECTURES))


def from_official(state_dict: Mapping[str, torch.Tensor], architecture: str) -> dict[str, torch.Tensor]:
    """The original program's weights under our names, ready for ``load_state_dict``.

    Shape: a mapping from original names to tensors in; a dict from our names to the same tensors, in our
    order, out. Every tensor keeps its shape and values; nothing is copied. A wrapper (``{"state_dict":
    ...}``) and the ``module.`` prefix of data-parallel training are taken off. Batch norm's
    ``num_batches_tracked``, which inference-only files lack and no output depends on, is filled with zero
    where it is absent.

    Raises: ``CheckpointError`` (a ``ValueError``) for an unknown architecture, naming the known ones; and
    for weights that do not fit, listing every missing, unexpected and mis-shaped name.

    Source: names as in the released code of each paper. Chapter 6.
    """
    if architecture not in _ARCHITECTURES:
        known = ", ".join(architectures())
        raise CheckpointError(f"architecture {architecture!r} is unknown; known are: {known}")
    entry = _ARCHITECTURES[architecture]
    given = _unwrap(state_dict)
    if entry.translate is not None:
        given = entry.translate(given)
    shapes = _our_shapes(architecture)
    names = {ours: entry.official_name(ours) for ours in shapes}
    counters = {ours for ours in shapes if ours.endswith("num_batches_tracked")}
    missing = [theirs for ours, theirs in names.items() if theirs not in given and ours not in counters]
    wanted = set(names.values())
    unexpected = [name for name in given if name not in wanted and not name.startswith(entry.unused)]
    misshaped = [
        f"{theirs} is {tuple(given[theirs].shape)}, expected {tuple(shapes[ours])}"
        for ours, theirs in names.items()
        if theirs in given and tuple(given[theirs].shape) != tuple(shapes[ours])
    ]
    if missing or unexpected or misshaped:
        what = f"these are not the weights of {architecture!r}"
        raise CheckpointError(mismatch(what, missing, unexpected, misshaped))
    zero = torch.zeros((), dtype=torch.int64)
    return {ours: given.get(theirs, zero) for ours, theirs in names.items()}


def mismatch(
    what: str, missing: Iterable[str], unexpected: Iterable[str], misshaped: Iterable[str] = ()
) -> str:
    """The text of an error about weights that do not fit: one line per kind, every name.

    Shape: strings in, one string out. Used wherever weights are loaded.
    """
    lines = [what]
    for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped)):
        names = list(names)
        if names:
            lines.append(f"  {kind} ({len(names)}): " + ", ".join(names))
    return "\n".join(lines)


def rename(name: str, table: Mapping[str, str]) -> str:
    """Replace the longest prefix of a dotted name that the table knows, say ``{"fuse.conv": "conv3"}``.

    Shape: a string in, a string out. Raises ``KeyError`` when no prefix is known.
    """
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        prefix = ".".join(parts[:end])
        if prefix in table:
            return ".".join([table[prefix], *parts[end:]]) if parts[end:] else table[prefix]
    raise KeyError(f"no original name is known for {name!r}")


@cache
def _our_shapes(architecture: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        module = _ARCHITECTURES[architecture].build()
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _unwrap(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(f"expected a mapping from names to tensors, got {type(state_dict).__name__}")
    for key in WRAPPERS:
        if isinstance(state_dict.get(key), Mapping):
            state_dict = state_dict[key]
    odd = [str(name) for name, value in state_dict.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise CheckpointError("not a state dict, these entries are no tensors: " + ", ".join(odd[:20]))
    if state_dict and all(name.startswith("module.") for name in state_dict):
        return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    return dict(state_dict)
