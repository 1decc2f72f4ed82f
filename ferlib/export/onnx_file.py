"""Write a classifier as an ONNX file: half-precision weights, a batch of any size, its facts inside."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ferlib.export.whole import LARGE, WholeClassifier, round_to_half
from ferlib.training.files import replacing

OPSET = 18  # the oldest that torch's exporter writes: every current runtime reads it
KEY = "ferlib"  # the metadata entry that holds the facts
INPUT, OUTPUTS = "face", ("probabilities", "logits", "evidence")


class ExportError(ValueError):
    """A network that cannot be exported, or packages that are missing; the message says what to do.

    Shape: takes one message string. Chapter 8.
    """


@dataclass(frozen=True)
class Exported:
    """What was written: the file, the module it must agree with, its facts, its size and its checksum.

    Shape: ``module`` takes what the file takes: (N, 1, S, S) in [0, 1].
    """

    path: Path
    module: WholeClassifier
    facts: dict[str, Any]
    size: int
    sha256: str


def export_onnx(
    network: nn.Module,
    path: str | Path,
    *,
    classes: Sequence[str],
    face_size: int = 48,
    image_size: int | None = None,
    interpolation: str = "bicubic",
    temperature: float = 1.0,
    half: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> Exported:
    """Write ``network`` and all that stands around it (:class:`WholeClassifier`) to one ONNX file.

    With ``half`` the weights are stored in half precision and turned into single precision when the file is
    loaded, so that it computes as ever and weighs half. The file's metadata entry ``ferlib`` holds JSON:
    class names, sizes, temperature, number of parameters, and ``facts``.

    Shape: the file takes ``face`` (N, 1, S, S) in [0, 1], S = ``face_size``, N any, and gives
    ``probabilities`` (N, K), ``logits`` (N, K) and for networks with evidence ``evidence`` (N, K, G, G).

    Raises: ``ExportError`` for a temperature that is not above 0, a network that answers another number of
    classes or that the exporter cannot follow, missing packages, and a file that cannot be written.
    Chapters 7 and 8.
    """
    if not temperature > 0:
        raise ExportError(f"the temperature is {temperature}: expected a number above 0")
    network = copy.deepcopy(network).cpu().float()
    try:
        if half:
            round_to_half(network)
        whole = WholeClassifier(
            network, face_size=face_size, image_size=image_size, interpolation=interpolation,
            temperature=temperature,
        ).eval()  # fmt: skip
        with torch.no_grad():
            answers = whole(torch.full((2, 1, face_size, face_size), 0.5))
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"{type(network).__name__} cannot be exported: {error}") from error
    if answers[0].shape[1] != len(classes):
        raise ExportError(f"the network answers {answers[0].shape[1]} classes, {len(classes)} were named")
    told = {
        "classes": list(classes),
        "face_size": face_size,
        "image_size": image_size or face_size,
        "interpolation": interpolation,
        "temperature": temperature,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "weights": "float16" if half else "float32",
        **(facts or {}),
    }
    data = _serialise(whole, len(answers), face_size, told, half)
    path = Path(path)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error
    return Exported(path, whole, told, len(data), hashlib.sha256(data).hexdigest())


def _serialise(whole: WholeClassifier, outputs: int, side: int, told: dict[str, Any], half: bool) -> bytes:
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it and says so only in passing)
        from onnx import checker
    except ImportError as error:
        raise ExportError(
            f"writing ONNX needs {error.name}, of ferlib's extra `export`: pip install onnx onnxscript"
        ) from None
    example = torch.full((2, 1, side, side), 0.5)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                whole, (example,), dynamo=True, verbose=False, optimize=False, opset_version=OPSET,
                input_names=[INPUT], output_names=list(OUTPUTS[:outputs]),
                dynamic_shapes=({0: torch.export.Dim("faces")},),
            )  # fmt: skip
    except Exception as error:  # the exporter has many kinds, all of which mean that it cannot follow
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = next((line for line in reversed(lines) if line.strip()), lines[0]).strip()
        raise ExportError(
            f"{type(whole.network).__name__} cannot be turned into an ONNX graph: {reason}"
        ) from error
    model = program.model_proto
    if half:
        _store_half(model.graph)
    for node in model.graph.node:  # where each step stood in the source, with paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(told, ensure_ascii=False)
    checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def _store_half(graph: Any) -> None:
    """Large weights in half precision, cast back in front of the graph; only those it holds exactly."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LARGE:
            continue
        values = numpy_helper.to_array(tensor)
        small = values.astype(np.float16)
        if not np.array_equal(small.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(small, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
