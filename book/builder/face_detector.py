"""Bring the face detector of `ferlib predict` and of the page "Try it" into ferlib's cache.

    python -m book.builder.face_detector       `make book` does the same

It is never committed: it is a model of TensorFlow.js in the npm package @vladmandic/human, written as ONNX.
Where it cannot be had, `ferlib predict` takes --box or --whole, and on the page the reader places the square.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from book.builder import onnx_web
from ferlib.detector import detector_file
from ferlib.files import replacing
from ferlib.weights import CheckpointError
from ferlib.weights.reading import read_tensorflow

PACKAGE = "@vladmandic/human@3.3.6"
PARTS = ("blazeface.json", "blazeface.bin")
# Of blazeface.bin, the only numbers that were measured.
SHA256 = "dc9a97fdc50bc43216554bdd69aa3e7b9361a519ee7bdd996a2f69a98a6f9b72"
# The outputs' names here: of a cell's 2 or 6 anchors the confidence; box and six points, relative to it.
OUTPUTS = {"classificators_1": "scores16", "regressors_1": "boxes16"}
OUTPUTS |= {"classificators_2": "scores32", "regressors_2": "boxes32"}
POINTS = 16  # numbers of one anchor: middle (2), width, height, and six points (12)


def bring() -> Path | None:
    """The detector's file in ferlib's cache, made where it is missing; None where it cannot be had."""
    target = detector_file()
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package = onnx_web.packed(PACKAGE, folder)
        if package is None:
            print("The face detector could not be fetched: `ferlib predict` needs --box or --whole.")
            return None
        return unpack(package, folder, target)


def unpack(package: bytes, folder: Path, target: Path) -> Path | None:
    """Write the detector out of the package's archive; None, and a line, where it is not the one measured."""
    try:
        with tarfile.open(fileobj=io.BytesIO(package)) as tar:
            for name in PARTS:
                (folder / name).write_bytes(tar.extractfile(f"package/models/{name}").read())
        return write_detector(folder / PARTS[0], target)
    except (KeyError, tarfile.TarError, CheckpointError) as error:
        print(f"{PACKAGE} is not used for the face detector: {error}")
        return None


def write_detector(source: Path, target: Path) -> Path:
    """Turn ``blazeface.json`` and ``blazeface.bin`` into an ONNX file that takes a picture uint8 (H, W, 3).

    H and W are multiples of 32. The outputs are, at strides 16 and 32, ``scores`` (A, h, w) in [0, 1] and
    ``boxes`` (A, 16, h, w) in pixels from the middle of their cell. Numbers are kept in half precision.

    Raises:
        CheckpointError: A file that is missing, damaged, or another model.
    """
    weights = {name: tensor.numpy() for name, tensor in read_tensorflow(source).items()}
    found = hashlib.sha256(source.with_suffix(".bin").read_bytes()).hexdigest()
    if found != SHA256:
        raise CheckpointError(f"{source.stem}.bin is not the one that was measured (SHA-256 differs)")
    nodes, constants = [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def kernel(name: str, axes: tuple[int, ...]) -> str:
        constant(f"{name}/half", weights[name].transpose(axes).astype(np.float16))
        nodes.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
        return name

    def add(kind: str, inputs: list[str], output: str, **settings: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], **settings))

    graph = json.loads(source.read_text(encoding="utf-8"))["modelTopology"]["node"]
    for node in graph:
        kind, inputs, name = node["op"], node.get("input", []), node["name"]
        if kind == "Placeholder":
            add("Cast", ["picture"], "numbers", to=TensorProto.FLOAT)
            add("Transpose", ["numbers"], "channels", perm=(2, 0, 1))
            add("Unsqueeze", ["channels", constant("first", np.array([0]))], "batch")
            add("Div", ["batch", constant("half", np.float32(127.5))], "scaled")
            add("Sub", ["scaled", constant("one", np.float32(1))], name)
        elif kind == "_FusedConv2D":
            functions = [base64.b64decode(text).decode() for text in node["attr"]["fused_ops"]["list"]["s"]]
            result = f"{name}/linear" if "Relu" in functions else name
            parts = [inputs[0], kernel(inputs[1], (3, 2, 0, 1)), kernel(inputs[2], (0,))]
            add("Conv", parts, result, **_convolution(node))
            if "Relu" in functions:
                add("Relu", [result], name)
        elif kind == "DepthwiseConv2dNative":
            depthwise = kernel(inputs[1], (2, 3, 0, 1))
            groups = weights[inputs[1]].shape[2]
            add("Conv", [inputs[0], depthwise], name, group=groups, **_convolution(node))
        elif kind == "AddV2":
            add("Add", inputs, name)
        elif kind == "Relu":
            add("Relu", inputs, name)
        elif kind == "MaxPool":
            add("MaxPool", inputs, name, kernel_shape=(2, 2), strides=(2, 2), auto_pad="SAME_UPPER")
        elif kind == "Pad":
            ends = weights[inputs[1]][[0, 3, 1, 2]].T.reshape(-1).astype(np.int64)
            add("Pad", [inputs[0], constant(f"{name}/ends", ends)], name)
        elif kind == "Reshape":
            output = OUTPUTS[name.rpartition("/")[2]]
            if output.startswith("scores"):
                add("Squeeze", [inputs[0], "first"], f"{output}/logits")
                add("Sigmoid", [f"{output}/logits"], output)
            else:  # the anchors' numbers follow each other: 16 of the first, 16 of the second
                add("Shape", [inputs[0]], f"{output}/rows", start=2)
                shape = [constant(f"{output}/start", np.array([-1, POINTS])), f"{output}/rows"]
                add("Concat", shape, f"{output}/shape", axis=0)
                add("Reshape", [inputs[0], f"{output}/shape"], output)
        elif kind not in ("Const", "Identity"):
            raise CheckpointError(f"{source.name} has an operation {kind}, which no BlazeFace has")
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "BlazeFace",
            [helper.make_tensor_value_info("picture", TensorProto.UINT8, ("height", "width", 3))],
            [
                helper.make_tensor_value_info(
                    name, TensorProto.FLOAT, [f"{name} {axis}" for axis in range(rank)]
                )
                for name, rank in (("scores16", 3), ("boxes16", 4), ("scores32", 3), ("boxes32", 4))
            ],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    with replacing(target) as temporary:
        temporary.write_bytes(made.SerializeToString())
    return target


def _convolution(node: dict[str, Any]) -> dict[str, Any]:
    """Stride and padding; TensorFlow's SAME puts the odd pixel at the end."""
    attributes = node["attr"]
    padding = base64.b64decode(attributes["padding"]["s"]).decode()
    strides = [int(number) for number in attributes["strides"]["list"]["i"][1:3]]
    return {"strides": strides, "auto_pad": {"SAME": "SAME_UPPER", "VALID": "VALID"}[padding]}


if __name__ == "__main__":
    print(bring())
