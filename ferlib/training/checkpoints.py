"""Checkpoints: one file, written whole or not at all, readable without running anything.

A checkpoint is a single safetensors file. The network's tensors have their own names, so any program that
reads safetensors can load them. What a resumed run needs besides (optimiser, averaged weights, epoch,
history) stands in the same file, tensors under ``state/...`` and everything else as JSON in the header: one
file can be replaced in one move, so a crash leaves either the old checkpoint or the new one. No pickle
anywhere. Chapter 6.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ferlib.models.official import CheckpointError, from_official
from ferlib.training.files import replacing

__all__ = ["CheckpointError", "from_official", "load", "save"]

_FORMAT = "ferlib-checkpoint-1"


def save(path: str | Path, model: nn.Module, state: dict[str, Any] | None = None) -> Path:
    """Write a model, and anything else a run needs, to one safetensors file.

    The file is written beside its place and moved there at the end: a full disk or a kill in between leaves
    the previous checkpoint as it was.

    Parameters
    ----------
    path: file to write, by convention ``*.safetensors``; missing folders are made.
    model: its ``state_dict`` is stored under the model's own names.
    state: nested dictionaries, lists, tuples, tensors, numbers, strings, None, such as an optimiser's
        ``state_dict()``.

    Shape: tensors of any shape; returns the path. Raises ``CheckpointError`` where the file cannot be
    written or the state holds something that is neither tensor nor JSON. Chapter 6.
    """
    path = Path(path)
    tensors = {name: _plain(tensor) for name, tensor in model.state_dict().items()}
    if clash := next((name for name in tensors if name.startswith("state/")), None):
        raise CheckpointError(
            f"{path.name}: the model has a tensor called {clash!r}; 'state/' is kept for the run"
        )
    packed = _pack(state or {}, tensors, "state")
    header = {"format": _FORMAT, "state": json.dumps(packed)}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}: {error}; the previous checkpoint, if there was one, is untouched. "
            "Check that the folder is writable and the disk has room"
        ) from error
    return path


def load(
    path: str | Path, model: nn.Module | None = None, *, device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint; with a model, put the weights into it, strictly.

    Returns the state given to ``save`` (an empty dictionary where there was none), plus, without a model, the
    weights under the key ``"model"``.

    Shape: tensors of any shape. Raises ``CheckpointError`` for a file that is missing, truncated, pickled, or
    whose names or shapes are not those of the model; the model is then unchanged. Chapter 6.
    """
    path = Path(path)
    weights, stored, metadata = _read(path, device)
    if model is None:
        return {"model": weights, **_state(path, stored, metadata)}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if missing := sorted(expected.keys() - found.keys()):
        raise CheckpointError(
            f"{path.name} lacks {len(missing)} tensors of {type(model).__name__}, first '{missing[0]}': "
            "it belongs to another architecture"
        )
    if extra := sorted(found.keys() - expected.keys()):
        raise CheckpointError(
            f"{path.name} has {len(extra)} tensors that {type(model).__name__} lacks, first '{extra[0]}': "
            "it belongs to another architecture"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{path.name}: '{name}' has shape {found[name]}, {type(model).__name__} expects {shape}; "
                "is it for another number of classes or another image size?"
            )
    state = _state(path, stored, metadata)
    model.load_state_dict(weights)
    return state


def _read(
    path: Path, device: str | torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint {path}: give the path of a .safetensors file that a run has written"
        )
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, struct.error) as error:
        start = path.read_bytes()[:2] if os.access(path, os.R_OK) else b""
        if start in (b"PK", b"\x80\x02", b"\x80\x04"):
            advice = (
                "this is a pickle (.pth), which can run code when it is read: "
                f"`ferlib convert --architecture NAME {path.name} OUT.safetensors` reads it without"
            )
        else:
            advice = (
                "the file is truncated or not in safetensors format: copy it again or go back to an older one"
            )
        raise CheckpointError(f"cannot read {path.name}: {error}; {advice}") from error
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith("state/")}
    return weights, {name: tensor for name, tensor in tensors.items() if name.startswith("state/")}, metadata


def _state(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, Any]:
    if "state" not in metadata:
        return {}  # plain weights, written by another program
    try:
        return _unpack(json.loads(metadata["state"]), tensors)
    except (json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(f"{path.name}: the state in the header is damaged ({error})") from error


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", memory_format=torch.contiguous_format).clone().contiguous()


def _pack(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """JSON for the header; tensors go to the file under a name of their own."""
    if isinstance(value, Tensor):
        tensors[where] = _plain(value)
        return {"__tensor__": where}
    if isinstance(value, dict):
        items = [[key, _pack(entry, tensors, f"{where}/{key}")] for key, entry in value.items()]
        return {"__items__": items}  # pairs, because JSON would turn an optimiser's integer keys into text
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
