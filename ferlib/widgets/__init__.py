"""Figures to touch, alive with a kernel and in the built page alike. Numpy in, no torch.

Each is displayed as the last expression of a cell. In JupyterLab, Colab or VS Code it is an anywidget; in the
built book (``FERLIB_STATIC=1``) the same ES module runs from the page itself, offline.
"""

from ferlib.widgets.attention import AttentionExplorer
from ferlib.widgets.batch_attention import BatchAttentionExplorer
from ferlib.widgets.codec import pack, pack_maps, unpack
from ferlib.widgets.loss import LossExplorer
from ferlib.widgets.resizer import ResizerExplorer
from ferlib.widgets.sam import SAMExplorer
from ferlib.widgets.stages import StagesExplorer

__all__ = [
    "AttentionExplorer",
    "BatchAttentionExplorer",
    "LossExplorer",
    "ResizerExplorer",
    "SAMExplorer",
    "StagesExplorer",
    "pack",
    "pack_maps",
    "unpack",
]
