"""Weights of TensorFlow.js: a list of names in JSON, and their numbers in binary files, one byte each.

The npm package @vladmandic/face-api (MIT) carries dlib's face-recognition network in this form. ``ferlib
convert --architecture dlib-face-api`` turns the reader's own copy into our names. Chapter 5.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ferlib.models.official import CheckpointError, our_shapes

MANIFEST = "face_recognition_model-weights_manifest.json"
_ENDINGS = {
    "conv/filters": "conv.weight", "conv/bias": "conv.bias",
    "scale/weights": "scale", "scale/biases": "shift",
}  # fmt: skip


def read_tfjs(manifest: str | Path) -> dict[str, Tensor]:
    """The tensors that a manifest describes, under their names there, as float32.

    Equation: a number stored as the byte q stands for q * scale + min. Shape: a path -> names to tensors in
    TensorFlow's order of axes (height, width, in, out).
    Raises: ``CheckpointError`` for files that are missing, damaged or too short.
    """
    manifest = Path(manifest)
    try:
        groups = json.loads(manifest.read_text(encoding="utf-8"))
        return {name: t for group in groups for name, t in _group(group, manifest.parent).items()}
    except (OSError, KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"cannot read {manifest.name}: {type(error).__name__}: {error}; expected a weights manifest of "
            "TensorFlow.js with its .bin files beside it"
        ) from error


def _group(group: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    paths = [folder / Path(name).name for name in group["paths"]]  # beside the manifest, nowhere else
    data = b"".join(path.read_bytes() for path in paths)
    found, start = {}, 0
    for entry in group["weights"]:
        quantised = entry.get("quantization")
        kind = np.dtype((quantised or entry)["dtype"]).newbyteorder("<")
        count = prod(entry["shape"])
        if start + count * kind.itemsize > len(data):
            raise CheckpointError(f"{paths[-1].name} is too short: it ends within {entry['name']!r}")
        numbers = np.frombuffer(data, kind, count, start).astype(np.float32)
        start += count * kind.itemsize
        if quantised:
            numbers = numbers * np.float32(quantised["scale"]) + np.float32(quantised["min"])
        found[entry["name"]] = torch.from_numpy(numbers.copy()).reshape(entry["shape"])
    if start != len(data):
        raise CheckpointError(f"{paths[-1].name} holds {len(data)} bytes, its manifest describes {start}")
    return found


def dlib_from_face_api(path: str | Path) -> dict[str, Tensor]:
    """dlib's face-recognition network from a copy of @vladmandic/face-api: the manifest, or a folder with it.

    Shape: a path -> state dict of :class:`ferlib.models.DlibFaceNet` in float16, which is finer than the 8
    bits of the source and half as large as float32 (the descriptor moves by less than 0.001).
    Raises: ``CheckpointError`` where it is not there or is another network.
    """
    path = Path(path)
    if path.is_dir():
        manifests = sorted(path.rglob(MANIFEST))
        if not manifests:
            raise CheckpointError(f"no {MANIFEST} in {path}: give the folder `model` of @vladmandic/face-api")
        path = manifests[0]
    given = {_our_name(name): _our_axes(tensor) for name, tensor in read_tfjs(path).items()}
    shapes = our_shapes("dlib-face")
    wrong = sorted(given.keys() ^ shapes.keys())
    wrong += [name for name in given if name in shapes and given[name].shape != shapes[name]]
    if wrong:
        raise CheckpointError(
            f"{path.name} is not dlib's face-recognition network: {len(wrong)} tensors differ, "
            f"first {wrong[0]!r}"
        )
    return {name: given[name].half() for name in shapes}


def _our_name(name: str) -> str:
    """ "conv32_1/conv2/scale/biases" -> "blocks.conv32_1.conv2.shift"."""
    if name == "fc":
        return "fc.weight"
    for theirs, ours in _ENDINGS.items():
        if name.endswith(f"/{theirs}"):
            where = name.removesuffix(f"/{theirs}").replace("/", ".")
            return f"stem.{ours}" if where == "conv32_down" else f"blocks.{where}.{ours}"
    return name


def _our_axes(tensor: Tensor) -> Tensor:
    """(height, width, in, out) -> (out, in, height, width), (in, out) -> (out, in)."""
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor.t().contiguous() if tensor.ndim == 2 else tensor
