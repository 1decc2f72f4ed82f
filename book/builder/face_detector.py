"""Bring the face detector of `ferlib predict` and of the page "Try it" into ferlib's cache.

It is never committed: it is a model of TensorFlow.js in the npm package @vladmandic/human, written as ONNX.
Where it cannot be had, `ferlib predict` falls back on the cascade, and the page lets the reader place the
square.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from book.builder import onnx_web
from ferlib.detector import detector_file
from ferlib.weights import CheckpointError
from ferlib.weights.blazeface import write_detector

PACKAGE = "@vladmandic/human@3.3.6"
PARTS = ("blazeface.json", "blazeface.bin")


def bring() -> Path | None:
    """The detector's file in ferlib's cache, made where it is missing; None where it cannot be had."""
    target = detector_file()
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package = onnx_web.packed(PACKAGE, folder)
        if package is None:
            print(
                "The face detector could not be fetched: faces will be looked for by scikit-image's cascade."
            )
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
