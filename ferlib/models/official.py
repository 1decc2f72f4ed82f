"""Weights of the original programs under the names of this library: strictly, every shape checked.

The networks here carry names that say what a layer does; the originals have their own. Each original
network is one ``Architecture``: how to build ours, and what the original calls each of our tensors. Nothing
is loaded in part unless that is asked for, and nothing is dropped silently: what is missing, unknown or of
another shape is listed in one report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import nn

from ferlib.models.load_report import LoadReport

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
)  # where training programs put a state dict


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
    parts: parts that can be asked for alone, each with the prefixes of our names in it.

    Chapter 6 loads checkpoints with it.
    """

    name: str
    build: Callable[[], nn.Module]
    official_name: Callable[[str], str]
    unused: tuple[str, ...] = ()
    translate: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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


def architecture_named(name: str) -> Architecture:
    """The registered architecture. Shape: a string in. Raises ``CheckpointError``, naming the known ones."""
    if name not in _ARCHITECTURES:
        known = ", ".join(architectures())
        raise CheckpointError(f"architecture {name!r} is unknown; known are: {known}")
    return _ARCHITECTURES[name]


def from_official(
    state_dict: Mapping[str, torch.Tensor],
    architecture: str,
    *,
    part: str | None = None,
    mapping: Mapping[str, str | None] | None = None,
) -> dict[str, torch.Tensor]:
    """The original program's weights under our names, ready for ``load_state_dict``.

    Shape: a mapping from original names to tensors in; a dict from our names to the same tensors, in our
    order, out. Every tensor keeps its shape and values; nothing is copied. A wrapper (``{"state_dict":
    ...}``) and the ``module.`` prefix of data-parallel training are taken off. Batch norm's
    ``num_batches_tracked``, which inference-only files lack and no output depends on, is filled with zero
    where it is absent. ``part`` and ``mapping`` are those of ``place_official``.

    Raises: ``CheckpointError`` (a ``ValueError``) for an unknown architecture, naming the known ones; and
    for weights that do not fit, listing every missing, unexpected and mis-shaped name.

    Source: names as in the released code of each paper. Chapter 6.
    """
    ours, report = place_official(state_dict, architecture, part=part, mapping=mapping)
    if not report.complete:
        raise CheckpointError(f"these are not the weights of {architecture!r}\n{report}")
    return ours


def place_official(
    state_dict: Mapping[str, torch.Tensor],
    architecture: str,
    *,
    part: str | None = None,
    mapping: Mapping[str, str | None] | None = None,
) -> tuple[dict[str, torch.Tensor], LoadReport]:
    """As ``from_official``, but what does not fit is reported, not raised.

    ``part``: ask only for a named part of the network (``Architecture.parts``; "poster-v2" of "btn-7" and
    "btn-8"); what else the file holds is reported as without a place, and does no harm.
    ``mapping``: places for names that the architecture does not know, {name or prefix in the file: name or
    prefix here, or None to drop it}; it goes before everything else.

    Shape: a mapping from names to tensors in; (our names -> tensors, :class:`LoadReport`) out.
    Raises: ``CheckpointError`` for an unknown architecture or part, a mapping that names what is not there,
    and what is no state dict. Chapter 6.
    """
    entry, shapes = architecture_named(architecture), our_shapes(architecture)
    if part is not None and part not in entry.parts:
        raise CheckpointError(f"{architecture!r} has no part {part!r}; its parts: {list(entry.parts)}")
    given = state_dict_in(state_dict)
    placed, dropped = _by_mapping(given, mapping or {}, shapes)
    rest = {name: tensor for name, tensor in given.items() if name not in {*placed.values(), *dropped}}
    found = {ours: given[theirs] for ours, theirs in placed.items()}
    if entry.translate is not None:
        rest = entry.translate(rest)
    asked = [n for n in shapes if n not in found and (part is None or n.startswith(entry.parts[part]))]
    names = {ours: entry.official_name(ours) for ours in asked}
    found |= {ours: rest[theirs] for ours, theirs in names.items() if theirs in rest}
    report = LoadReport(architecture, part=part, inert=list(getattr(state_dict, "inert", ())))
    zero = torch.zeros((), dtype=torch.int64)
    for ours in asked:
        if ours not in found and ours.endswith("num_batches_tracked"):
            found[ours] = zero
        elif ours not in found:
            report.missing[names[ours]] = tuple(shapes[ours])
    for ours, tensor in found.items():
        if tensor.shape != shapes[ours]:
            theirs = placed.get(ours) or names[ours]
            report.misshaped[theirs] = (tuple(tensor.shape), tuple(shapes[ours]))
    wanted = set(names.values())
    left = [name for name in rest if name not in wanted]
    report.set_aside = dropped + [name for name in left if name.startswith(entry.unused)]
    report.unexpected = {name: tuple(rest[name].shape) for name in left if not name.startswith(entry.unused)}
    report.matched = [ours for ours in shapes if ours in found]
    report.at_start = [ours for ours in shapes if ours not in found and ours not in asked]
    return {ours: found[ours] for ours in report.matched}, report


def _by_mapping(
    given: Mapping[str, torch.Tensor], mapping: Mapping[str, str | None], shapes: Mapping[str, torch.Size]
) -> tuple[dict[str, str], list[str]]:
    """Our name -> theirs for every tensor that a mapping places, and the names that it drops."""
    placed, dropped, used, wrong = {}, [], set(), []
    for theirs in given:
        parts = theirs.split(".")
        for end in range(len(parts), 0, -1):
            prefix = ".".join(parts[:end])
            if prefix in mapping:
                used.add(prefix)
                if mapping[prefix] is None:
                    dropped.append(theirs)
                    break
                ours = ".".join([mapping[prefix], *parts[end:]])
                if ours not in shapes:
                    wrong.append(f"{theirs!r} is to become {ours!r}, which the network does not have")
                elif ours in placed:
                    wrong.append(f"{theirs!r} and {placed[ours]!r} are both to become {ours!r}")
                placed[ours] = theirs
                break
    wrong += [f"{name!r} is no name or prefix in the file" for name in mapping if name not in used]
    if wrong:
        raise CheckpointError("the mapping does not fit: " + "; ".join(wrong))
    return placed, dropped


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
def our_shapes(architecture: str) -> dict[str, torch.Size]:
    """Names and shapes of our network, built without memory. Shape: a name -> a dict of shapes."""
    with torch.device("meta"):
        module = architecture_named(architecture).build()
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def state_dict_in(content: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict in what a training program saved: wrappers and the ``module.`` prefix taken off.

    Shape: a mapping in, a dict from names to tensors out. Raises ``CheckpointError`` where there is none.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"expected a mapping from names to tensors, got {type(content).__name__}")
    for key in WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    odd = [str(name)[:60] for name, value in content.items() if not isinstance(value, torch.Tensor)]
    odd += [repr(name)[:60] for name in content if not isinstance(name, str)]
    if odd:
        raise CheckpointError("not a state dict, these entries are no tensors: " + ", ".join(odd[:20]))
    if content and all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)
