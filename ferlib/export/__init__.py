"""A trained network as one ONNX file that runs without torch: in a terminal, in a phone, in a web page."""

from ferlib.export.onnx_file import Exported, ExportError, export_onnx
from ferlib.export.parity import Parity, parity

__all__ = ["ExportError", "Exported", "Parity", "export_onnx", "parity"]
