"""Does the exported file say what the network says? Measured, not assumed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ferlib.export.onnx_file import INPUT, OUTPUTS, ExportError

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """The largest difference between two answers for the same faces, in each output.

    Shape: one number per output, in its own unit.
    """

    by_output: dict[str, float]

    @property
    def largest(self) -> float:
        """The largest of all differences."""
        return max(self.by_output.values())


def parity(path: str | Path, module: nn.Module, faces: Tensor) -> Parity:
    """Compare onnxruntime's answers with torch's for the same faces, all at once and one alone.

    Shape: faces (N, 1, S, S) in [0, 1], N > 1 -> :class:`Parity`. Raises ``ExportError`` without
    onnxruntime. Chapter 8.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ExportError("comparing needs onnxruntime: pip install onnxruntime") from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with torch.no_grad():
        expected = module(faces)
    together = session.run(names, {INPUT: faces.numpy()})
    alone = session.run(names, {INPUT: faces[:1].numpy()})
    found = {}
    for name, wanted, many, one in zip(names, expected, together, alone, strict=True):
        gaps = [
            (torch.from_numpy(many) - wanted).abs().max(),
            (torch.from_numpy(one) - wanted[:1]).abs().max(),
        ]
        found[name] = float(max(gaps))
    return Parity({name: found[name] for name in OUTPUTS if name in found})
