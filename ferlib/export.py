"""A trained network as one ONNX file that runs without torch: in a terminal, on a phone, in a web page."""

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
from torch import Tensor, nn
from torch.nn import functional as F

from ferlib.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ferlib.files import replacing
from ferlib.training.loop import logits_of

__all__ = ["ExportError", "Exported", "WholeClassifier", "export_onnx", "parity"]

OPSET = 18  # the oldest that torch's exporter writes: every current runtime reads it
INPUT, OUTPUTS = "face", ("probabilities", "logits", "evidence")
LARGE = 256  # tensors of fewer numbers stay in full precision: they weigh nothing
#: The largest difference between torch and onnxruntime that counts as agreement.
TOLERANCE = 1e-4


class ExportError(ValueError):
    """A network that cannot be exported, or a missing package; the message says what to do."""


class WholeClassifier(nn.Module):
    r"""A classifier from pixels to probabilities: resizing, normalizing, network, temperature, softmax.

    .. math:: p = \mathrm{softmax}(z / T), \qquad z_c / T = \frac{1}{P} \sum_{p=1}^{P} e_{c,p}

    Resizing is linear and separable, so it is two products with one matrix: exactly the resizing that
    training used, on every runtime. ``forward`` takes gray faces (N, 1, S, S) in [0, 1] and returns
    probabilities (N, K), logits (N, K) and, where the network has a method ``evidence``, its maps
    (N, K, G, G); logits and maps are divided by the temperature. Chapters 7 and 8.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        face_size: int = 48,
        image_size: int | None = None,
        interpolation: str = "bicubic",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature
        self.resizes = image_size not in (None, face_size)
        side = image_size if self.resizes else face_size
        self.register_buffer("matrix", resizing_matrix(face_size, side, interpolation))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        if self.resizes:
            face = (self.matrix @ face @ self.matrix.T).clamp(0, 1)
        image = (face.expand(-1, 3, -1, -1) - self.mean) / self.std
        if not hasattr(self.network, "evidence"):
            logits = logits_of(self.network(image)) / self.temperature
            return logits.softmax(1), logits
        evidence = self.network.evidence(image) / self.temperature
        logits = evidence.mean((2, 3))
        return logits.softmax(1), logits, evidence


def resizing_matrix(size: int, side: int, mode: str = "bicubic") -> Tensor:
    """What :func:`ferlib.data.transforms.resize` does to a column of pixels, as a matrix.

    Returns:
        The matrix R (side, size): ``R @ picture @ R.T`` resizes a picture, up to the final clamp.
    """
    how = {"mode": "nearest-exact"} if mode == "nearest" else {"mode": mode, "antialias": True}
    return F.interpolate(torch.eye(size)[None, None], (size, side), **how)[0, 0].T.contiguous()


@dataclass(frozen=True)
class Exported:
    """What was written: the file, the module it must agree with, its facts and its checksum."""

    path: Path
    module: WholeClassifier
    facts: dict[str, Any]
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
    """Write a network and all that stands around it (:class:`WholeClassifier`) to one ONNX file.

    The file takes ``face`` (N, 1, S, S) in [0, 1] for any N and gives ``probabilities`` (N, K), ``logits``
    (N, K) and, for networks with evidence, ``evidence`` (N, K, G, G). Chapters 7 and 8.

    Args:
        network: The classifier, such as a :class:`ferlib.models.PocketNet`.
        path: The file to write.
        classes: Names of the K classes.
        face_size: S, the side of the faces that the file takes.
        image_size: The side that the network takes, S where it is left out.
        interpolation: How faces are resized to it.
        temperature: Divides the logits.
        half: Store the weights in half precision; they become single precision when the file is loaded.
        facts: More facts for the file's metadata entry ``ferlib``, which holds JSON: classes, sizes,
            temperature, number of parameters.

    Raises:
        ExportError: For a temperature that is not above 0, a network with another number of classes or one
            that the exporter cannot follow, missing packages, and a file that cannot be written.
    """
    if not temperature > 0:
        raise ExportError(f"the temperature is {temperature}: expected a number above 0")
    network, path = copy.deepcopy(network).cpu().float(), Path(path)
    try:
        if half:
            round_to_half(network)
        whole = WholeClassifier(
            network,
            face_size=face_size,
            image_size=image_size,
            interpolation=interpolation,
            temperature=temperature,
        ).eval()
        with torch.no_grad():
            outputs = whole(torch.full((2, 1, face_size, face_size), 0.5))
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"{type(network).__name__} cannot be exported: {error}") from error
    if outputs[0].shape[1] != len(classes):
        raise ExportError(f"the network has {outputs[0].shape[1]} classes, {len(classes)} were named")
    stored = {
        "classes": list(classes),
        "face_size": face_size,
        "image_size": image_size or face_size,
        "interpolation": interpolation,
        "temperature": temperature,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "weights": "float16" if half else "float32",
        **(facts or {}),
    }
    data = _serialize(whole, OUTPUTS[: len(outputs)], stored, half)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error
    return Exported(path, whole, stored, hashlib.sha256(data).hexdigest())


def round_to_half(network: nn.Module) -> None:
    """Round the weights of large tensors to half precision, in place.

    Raises:
        ValueError: For a weight beyond half precision's 65,504.
    """
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and tensor.numel() >= LARGE:
                rounded = tensor.half().float()
                if not rounded.isfinite().all():
                    raise ValueError(
                        f"'{name}' has values that half precision cannot hold: export with full precision"
                    )
                tensor.copy_(rounded)


def _serialize(whole: WholeClassifier, outputs: Sequence[str], facts: dict[str, Any], half: bool) -> bytes:
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it and says so only in passing)
        from onnx import checker
    except ImportError as error:
        raise ExportError(
            f"writing ONNX needs {error.name}, of ferlib's extra `export`: pip install onnx onnxscript"
        ) from None
    side = facts["face_size"]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                whole,
                (torch.full((2, 1, side, side), 0.5),),
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("faces")},),
            )
    except Exception as error:  # the exporter has many kinds, all of which mean that it cannot follow
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        name = type(whole.network).__name__
        raise ExportError(f"{name} cannot be turned into an ONNX graph: {reason}") from error
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
    entry.key, entry.value = "ferlib", json.dumps(facts, ensure_ascii=False)
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


def parity(path: str | Path, module: nn.Module, faces: Tensor) -> dict[str, float]:
    """The largest difference between onnxruntime and torch for the same faces, all at once and one alone.

    Args:
        path: The exported file.
        module: What it must agree with: ``Exported.module``.
        faces: Gray faces (N, 1, S, S) in [0, 1], N > 1.

    Returns:
        One number for each output of the file, in the output's own unit.

    Raises:
        ExportError: Where onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ExportError("comparing needs onnxruntime: pip install onnxruntime") from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with torch.no_grad():
        expected = module(faces)
    batched, single = (session.run(names, {INPUT: some.numpy()}) for some in (faces, faces[:1]))
    return {
        name: float(max(np.abs(many - want.numpy()).max(), np.abs(one - want[:1].numpy()).max()))
        for name, want, many, one in zip(names, expected, batched, single, strict=True)
    }
