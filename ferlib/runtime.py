"""onnxruntime, the one package that runs our ONNX files, with its telemetry off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ferlib.errors import DataError


def load_runtime() -> Any:
    """The module ``onnxruntime``. Everything here imports it through this function.

    Since version 1.29 it sends events to Microsoft unless a variable is set before it is imported.

    Raises:
        DataError: It is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError:
        raise DataError("running an ONNX file needs onnxruntime: pip install onnxruntime") from None
    return onnxruntime


def open_session(path: str | Path) -> Any:
    """An ``InferenceSession`` of a file, on one core: a face takes milliseconds.

    Raises:
        DataError: onnxruntime is missing, or cannot load the file.
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its kinds of errors have other names in each version
        raise DataError(f"onnxruntime cannot load it ({error})", path) from error
