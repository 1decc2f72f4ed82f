"""Checkpoints: one file, written whole or not at all, readable without running anything.

A checkpoint is a single safetensors file. The network's tensors have their own names, so any program that
reads safetensors can load them. What is to be known besides stands in the same file, tensors (such as an
optimizer's) under ``state/...`` and everything else as JSON in the header: one file can be replaced in one
move, so a crash leaves either the old checkpoint or the new one. No pickle anywhere. Chapter 6.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ferlib.errors import FerlibError
from ferlib.files import replacing


class CheckpointError(FerlibError):
    """Weights that cannot be read or do not fit; the message says what was found and what was expected."""


def save(
    path: str | Path, model: nn.Module | Mapping[str, Tensor], state: dict[str, Any] | None = None
) -> Path:
    """Write a model, and anything else a run needs, to one safetensors file.

    The file is written beside its place and moved there at the end: a full disk or a kill in between leaves
    the previous checkpoint as it was.

    Args:
        path: The file to write, by convention ``*.safetensors``; missing folders are made.
        model: Its ``state_dict`` is stored under the model's own names; or such a dictionary itself.
        state: Nested dictionaries, lists, tuples, tensors, numbers, strings, None, such as an optimizer's
            ``state_dict()``.

    Returns:
        The path.

    Raises:
        CheckpointError: The file cannot be written, or the state holds something that is neither tensor nor
            JSON.

    Chapter 6.
    """
    path = Path(path)
    named = model.state_dict() if isinstance(model, nn.Module) else model
    tensors = {name: _plain(tensor) for name, tensor in named.items()}
    if clash := next((name for name in tensors if name.startswith("state/")), None):
        raise CheckpointError(
            f"{path.name}: the model has a tensor called {clash!r}; 'state/' is kept for the run"
        )
    packed = _pack(state or {}, tensors, "state")
    header = {"state": json.dumps(packed)}  # one entry: the order of several would differ from run to run
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}: {error}; the previous checkpoint, if there was one, is untouched. "
            "Check that the folder is writable and the disk has room"
        ) from error
    return path


def load(path: str | Path, model: nn.Module | None = None) -> dict[str, Any]:
    """Read a checkpoint; with a model, put the weights into it, strictly.

    Returns:
        The state given to ``save`` (an empty dictionary where there was none), plus, without a model, the
        weights under the key ``"model"``.

    Raises:
        CheckpointError: A file that is missing, truncated, pickled, or whose names or shapes are not those of
            the model; the model is then unchanged.

    Chapter 6.
    """
    weights, state = read(path)
    if model is None:
        return {"model": weights, **state}
    check(Path(path).name, weights, model)
    model.load_state_dict(weights)
    return state


def check(where: str, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Stop unless ``weights`` are those of ``model``: the same names, shapes and kinds of number.

    Raises:
        CheckpointError: Beginning with ``where`` and listing every name that does not fit.
    """
    own, kind = model.state_dict(), type(model).__name__
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or extra:
        raise CheckpointError(
            f"{where} belongs to another network than {kind}: it lacks {len(missing)} tensors "
            f"({', '.join(missing)}) and has {len(extra)} others ({', '.join(extra)})"
        )
    misshaped = [
        f"'{name}' has shape {tuple(weights[name].shape)}, {kind} expects {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if weights[name].shape != tensor.shape
    ]
    if misshaped:
        raise CheckpointError(
            f"{where}: {'; '.join(misshaped)}; is it for another number of classes or another image size?"
        )
    for name, tensor in own.items():
        both = tensor.is_floating_point() and weights[name].is_floating_point()
        if tensor.dtype != weights[name].dtype and not both:
            raise CheckpointError(f"{where}: '{name}' holds {weights[name].dtype}, expected {tensor.dtype}")


def peek(path: str | Path) -> dict[str, Any]:
    """The state of a checkpoint with tensors of the meta device: fast for a large file."""
    return read(path, numbers=False)[1]


def read(path: str | Path, *, numbers: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's weights and its state; without ``numbers``, all tensors are of the meta device."""
    path = Path(path)
    with _opened(path) as file:
        metadata = file.metadata() or {}
        tensors = {
            name: file.get_tensor(name)
            if numbers
            else torch.empty(file.get_slice(name).get_shape(), device="meta")
            for name in file.keys()  # noqa: SIM118 (not a dictionary)
        }
    stored = {name: tensors.pop(name) for name in list(tensors) if name.startswith("state/")}
    return tensors, _state(path, stored, metadata)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file; whatever is wrong with it becomes one error that says so."""
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint {path}: give the path of a .safetensors file that a run has written"
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, struct.error, RuntimeError, ValueError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"cannot read {path.name}: {error}; it is truncated or not in safetensors format: copy it again. "
            "A pickle (.pth) is read, and not run, by `ferlib convert --architecture NAME IN OUT.safetensors`"
        ) from error


def _state(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, Any]:
    if "state" not in metadata:
        return {}  # plain weights, written by another program
    try:
        state = _unpack(json.loads(metadata["state"]), tensors)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path.name}: the state in the header is damaged ({reason})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path.name}: the state in the header is damaged (it is no dictionary)")
    return state


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", memory_format=torch.contiguous_format).clone().contiguous()


def _pack(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """JSON for the header; tensors go to the file under a name of their own."""
    if isinstance(value, Tensor):
        tensors[where] = _plain(value)
        return {"__tensor__": where}
    if isinstance(value, dict):
        items = [[key, _pack(entry, tensors, f"{where}/{key}")] for key, entry in value.items()]
        return {"__items__": items}  # pairs, because JSON would turn an optimizer's integer keys into text
    if isinstance(value, tuple):
        return {"__tuple__": [_pack(entry, tensors, f"{where}/{i}") for i, entry in enumerate(value)]}
    if isinstance(value, list):
        return [_pack(entry, tensors, f"{where}/{i}") for i, entry in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(
        f"{where} is a {type(value).__name__}: a checkpoint holds tensors, numbers and text only"
    )


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__tuple__" in value:
        return tuple(_unpack(entry, tensors) for entry in value["__tuple__"])
    return {key: _unpack(entry, tensors) for key, entry in value["__items__"]}
