"""One face on its way through a network, stage by stage, to be enlarged and run again. Chapter 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from ferlib.style import as_array
from ferlib.widgets.base import Explorer, class_colors, module, picture
from ferlib.widgets.codec import pack

__all__ = ["StagesExplorer"]

RUNTIME = "../_static/try_it/made/ort.js"  # onnxruntime-web, as the page "Try it" has it


class StagesExplorer(Explorer):
    """From pixels to logits: the maps of each stage, one of them enlarged, and the outputs at the end.

    The page shows the stages as they were when it was made. In the built book it can also run ``model`` on
    the same face or on a picture of the reader's own, with onnxruntime-web, which is loaded when it is first
    needed. The traits ``stage`` and ``channel`` follow the reader's hand when a kernel is there. Chapter 5.

    Args:
        stages: Name -> maps (C, H, W). The first is the gray face (1, S, S) in [0, 1].
        outputs: Name -> logits (K,).
        classes: K names.
        sizes: Stage -> its shape in words (default: that of its maps).
        words: Stage -> a sentence on it.
        model: An ONNX file that takes ``face`` (1, 1, S, S) and gives all stages and outputs by their names,
            spaces written as "_".

    Raises:
        ValueError: For stages that are no maps, outputs of another length, or more than 600 kB.

    Example::

        from ferlib.widgets import StagesExplorer

        StagesExplorer({"pixels": face, "level 1": maps}, {"vit": logits}, EMOTIONS_FERPLUS)
    """

    _source = module("own.js", "stages.js")
    _smaller = "show fewer or smaller stages"
    stage = traitlets.Int(0, min=0).tag(sync=True)
    channel = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        stages: Mapping[str, ArrayLike],
        outputs: Mapping[str, ArrayLike],
        classes: Sequence[str],
        *,
        sizes: Mapping[str, str] | None = None,
        words: Mapping[str, str] | None = None,
        model: bytes | None = None,
    ) -> None:
        classes, kept = [str(c) for c in classes], []
        for name, given in stages.items():
            maps = as_array(given, f"stage {name!r}", 3)
            kept.append(
                {
                    "name": name,
                    "key": name.replace(" ", "_"),
                    "shape": list(maps.shape),
                    "size": (sizes or {}).get(name, " × ".join(map(str, maps.shape))),
                    "words": (words or {}).get(name, ""),
                    "gray": not kept,
                    "channels": classes if name.endswith("maps") and len(maps) == len(classes) else None,
                    "values": pack(maps, "float16"),
                }
            )
        if not kept or kept[0]["shape"][0] != 1:
            raise ValueError("stages: the first is the gray face (1, S, S)")
        logits = {name: as_array(one, f"output {name!r}", 1).tolist() for name, one in outputs.items()}
        for name, one in logits.items():
            if len(one) != len(classes):
                raise ValueError(f"output {name!r} has {len(one)} logits for {len(classes)} classes")
        data: dict[str, Any] = {
            "classes": classes,
            "colours": class_colors(classes),
            "stages": kept,
            "outputs": logits,
            "model": None if model is None else pack(np.frombuffer(model, np.uint8)),
            "runtime": RUNTIME,
        }
        face = as_array(next(iter(stages.values())), "face")[0]
        self._picture = (255 * face.clip(0, 1)).round().astype(np.uint8)
        super().__init__(data)

    def fallback(self) -> str:
        """The face that goes through the network."""
        return picture([self._picture], "The face whose stages are shown: " + ", ".join(self._names()))

    def _names(self) -> list[str]:
        return [stage["name"] for stage in self.data["stages"]]
