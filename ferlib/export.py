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
from torch.nn.utils import parametrize

from ferlib.data.faces import drawn_faces
from ferlib.data.transforms import IMAGENET_MEAN, IMAGENET_STD, to_float
from ferlib.errors import FerlibError, class_names
from ferlib.files import replacing
from ferlib.runtime import open_session
from ferlib.training.loop import logits_of

__all__ = ["ExportError", "Exported", "WholeClassifier", "export_onnx", "parity"]

OPSET = 18  # the oldest that torch's exporter writes: every current runtime reads it
INPUT, OUTPUTS = "face", ("probabilities", "logits", "evidence")
LARGE = 256  # tensors of fewer numbers stay in full precision: they weigh nothing
MOST = 512  # faces at once, for the exporter's proof: batch attention computes more of them in another way
FACE = 48  # pixels of the faces that a file takes
COMPARED = 4  # synthetic faces on which the file has to agree with the network
#: The largest difference between torch and onnxruntime that counts as agreement.
TOLERANCE = 1e-4


class ExportError(FerlibError):
    """A network that cannot be exported, or a missing package; the message says what to do."""


class WholeClassifier(nn.Module):
    r"""A classifier from pixels to probabilities: resizing, normalizing, network, temperature, softmax.

    .. math:: p = \mathrm{softmax}(z / T), \qquad z_c / T = \frac{1}{P} \sum_{p=1}^{P} e_{c,p}

    Resizing is linear and separable, so it is two products with one matrix: exactly the resizing that
    training used, on every runtime. ``forward`` takes gray faces (N, 1, 48, 48) in [0, 1] and returns
    probabilities (N, K), logits (N, K) and, where the network has a method ``evidence``, its maps
    (N, K, G, G); logits and maps are divided by the temperature. Chapters 7 and 8.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        image_size: int | None = None,
        interpolation: str = "bicubic",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature
        self.resizes = image_size not in (None, FACE)
        # a buffer's name is its tensor's in the file, so it must not be that of an operation
        self.register_buffer("resizing_matrix", resizing_matrix(FACE, image_size or FACE, interpolation))
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        if self.resizes:
            face = (self.resizing_matrix @ face @ self.resizing_matrix.T).clamp(0, 1)
        image = (face.expand(-1, 3, -1, -1) - self.pixel_mean) / self.pixel_std
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
    """What was written.

    Attributes:
        path: The file.
        module: The module it agrees with.
        facts: What the file says of itself.
        sha256: Its checksum.
        difference: The largest between file and module, of any output.
    """

    path: Path
    module: WholeClassifier
    facts: dict[str, Any]
    sha256: str
    difference: float


def export_onnx(
    network: nn.Module,
    path: str | Path,
    *,
    classes: Sequence[str],
    image_size: int | None = None,
    interpolation: str = "bicubic",
    temperature: float = 1.0,
    facts: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a network and all that stands around it (:class:`WholeClassifier`) to one ONNX file.

    The file takes ``face`` (N, 1, 48, 48) in [0, 1] for any N and gives ``probabilities`` (N, K), ``logits``
    (N, K) and, for networks with evidence, ``evidence`` (N, K, G, G). Weights are stored in half precision
    and become single precision when the file is loaded. The file takes its place only when it agrees with the
    network on synthetic faces, several at once and one alone. Chapters 7 and 8.

    Args:
        network: The classifier, such as a :class:`ferlib.models.PocketNet`.
        path: The file to write.
        classes: Names of the K classes.
        image_size: The side that the network takes, 48 where it is left out.
        interpolation: How faces are resized to it.
        temperature: Divides the logits.
        facts: More facts for the file's metadata entry ``ferlib``, which holds JSON: classes, sizes,
            temperature, number of parameters.

    Raises:
        ExportError: For a temperature that is not above 0, a network with another number of classes or one
            that the exporter cannot follow, missing packages, and a file that does not agree.
        OSError: The file cannot be written.
    """
    if not 0 < temperature < float("inf"):
        raise ExportError(f"the temperature is {temperature}: expected a number above 0")
    try:
        class_names(list(classes))
    except ValueError as error:
        raise ExportError(str(error)) from None
    network, path = copy.deepcopy(network).cpu().float(), Path(path)
    store_half(network)
    whole = WholeClassifier(
        network,
        image_size=image_size,
        interpolation=interpolation,
        temperature=temperature,
    ).eval()
    faces = to_float(drawn_faces("valid", length=COMPARED).batch(range(COMPARED))["image"])
    try:
        with torch.no_grad():
            outputs = whole(faces)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ExportError(f"{type(network).__name__} takes no such faces: {error}") from error
    if not outputs[1].isfinite().all():
        raise ExportError(
            f"{type(network).__name__} gives NaN: are its weights beyond half precision's 65,504?"
        )
    if outputs[0].shape[1] != len(classes):
        raise ExportError(f"the network has {outputs[0].shape[1]} classes, {len(classes)} were named")
    stored = {
        "classes": list(classes),
        "face_size": FACE,
        "image_size": image_size or FACE,
        "interpolation": interpolation,
        "temperature": temperature,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "weights": "float16",
        **(facts or {}),
    }
    data = _serialize(whole, faces, OUTPUTS[: len(outputs)], stored)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
        difference = float(np.max([*parity(temporary, whole, faces).values()]))
        if not difference < TOLERANCE:
            raise ExportError(
                f"the file would differ from {type(network).__name__} by {difference:.1e}, more than "
                f"{TOLERANCE}: it was not written"
            )
    return Exported(path, whole, stored, hashlib.sha256(data).hexdigest(), difference)


class _Single(nn.Module):
    def forward(self, stored: Tensor) -> Tensor:
        return stored.float()


def store_half(network: nn.Module) -> None:
    """Store large weights in half precision, in place; they become single precision where they are used."""
    for module in list(network.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.numel() >= LARGE:
                weight.data = weight.data.half()
                parametrize.register_parametrization(module, name, _Single(), unsafe=True)


def _serialize(whole: WholeClassifier, faces: Tensor, outputs: Sequence[str], facts: dict[str, Any]) -> bytes:
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it and says so only in passing)
        from onnx import checker
    except ImportError as error:
        raise ExportError(
            f"writing ONNX needs {error.name}, of ferlib's extra `export`: pip install onnx onnxscript"
        ) from None
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                whole,
                (faces,),
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("faces", max=MOST)},),
            )
    except Exception as error:  # the exporter has many kinds, all of which mean that it cannot follow
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        name = type(whole.network).__name__
        raise ExportError(f"{name} cannot be turned into an ONNX graph: {reason}") from error
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")  # where each step stood in the source, with paths of this machine
        part.ClearField("doc_string")
    model.metadata_props.add(key="ferlib", value=json.dumps(facts, ensure_ascii=False))
    checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def parity(path: str | Path, module: nn.Module, faces: Tensor) -> dict[str, float]:
    """The largest difference between onnxruntime and torch for the same faces, all at once and one alone.

    Args:
        path: The exported file.
        module: What it must agree with: ``Exported.module``.
        faces: Gray faces (N, 1, 48, 48) in [0, 1], N > 1.

    Returns:
        One number for each output of the file, in the output's own unit.

    Raises:
        DataError: Where onnxruntime is missing or cannot load the file.
    """
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]
    found = dict.fromkeys(names, 0.0)
    for some in (faces, faces[:1]):
        with torch.no_grad():
            wanted = module(some)
        for name, want, got in zip(names, wanted, session.run(names, {INPUT: some.numpy()}), strict=True):
            found[name] = float(np.maximum(found[name], np.abs(got - want.numpy()).max()))  # NaN stays NaN
    return found
