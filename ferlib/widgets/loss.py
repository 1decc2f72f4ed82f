"""The target of a loss, its curve and its gradient, as alpha, gamma, label and face change. Chapter 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from ferlib.style import as_array
from ferlib.widgets.base import Explorer, class_colors, module, table

__all__ = ["LOSSES", "LossExplorer"]

LOSSES = ("cross-entropy", "label smoothing", "PDLS", "focal", "F-PDLS", "compensated")


class LossExplorer(Explorer):
    r"""Six losses to touch: the target q, the curve of the loss, and the gradient of every logit.

    All six are :math:`L = -\sum_c q_c\, w_c(p) \log p_c`; the page computes them, and the negative gradient
    :math:`-\partial L / \partial z`, by the equations of ``ferlib.losses``. The traits ``loss``, ``label``,
    ``alpha``, ``gamma`` and ``logits`` follow the reader's hand when a kernel is there. Chapter 3.

    Args:
        prior: (K, K), rows sum to 1.
        classes: K names.
        logits: (K,), the face to start from (default: one that is seen as the prior has it).
        label: Name of a class (default: fear, where there is one).

    Raises:
        ValueError: For shapes that disagree, a prior whose rows are no distributions, an unknown label.

    Example::

        from ferlib.losses import FERPLUS_PRIOR
        from ferlib.widgets import LossExplorer

        LossExplorer(FERPLUS_PRIOR, EMOTIONS_FERPLUS, logits=model(hard_face)[0])   # last line of a cell
    """

    _source = module("loss.js")
    loss = traitlets.Enum(LOSSES, "F-PDLS").tag(sync=True)
    label = traitlets.Int(0).tag(sync=True)
    alpha = traitlets.Float(0.8, min=0, max=1).tag(sync=True)
    gamma = traitlets.Float(2.0, min=0, max=5).tag(sync=True)
    logits = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(
        self,
        prior: ArrayLike,
        classes: Sequence[str],
        *,
        logits: ArrayLike | None = None,
        label: str | None = None,
    ) -> None:
        classes = [str(c) for c in classes]
        matrix = as_array(prior, "prior", 2).astype(np.float64)
        count = len(classes)
        if matrix.shape != (count, count) or (matrix < 0).any() or np.abs(matrix.sum(1) - 1).max() > 1e-4:
            raise ValueError(
                f"prior has shape {matrix.shape}, expected {count} rows, each a distribution over {count} "
                "classes: entries at least 0 that sum to 1"
            )
        if label is None:
            label = "fear" if "fear" in classes else classes[0]
        if label not in classes:
            raise ValueError(f"label={label!r} is none of the classes {', '.join(classes)}")
        index = classes.index(label)
        logits = np.log(matrix[index].clip(1e-3)) if logits is None else logits
        face = as_array(logits, "logits", 1).astype(np.float64)
        if face.shape != (len(classes),):
            raise ValueError(f"logits holds one number a class ({len(classes)}), got shape {face.shape}")
        data = {
            "classes": classes,
            "colours": class_colors(classes),
            "prior": matrix.tolist(),
            "face": face.tolist(),
            "facename": "the hard face",
        }
        super().__init__(data, label=index, logits=face.tolist())

    def fallback(self) -> str:
        """The prior's row and the face's probabilities of each class as a table."""
        logits = np.array(self.logits)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        y, classes = self.label, self.data["classes"]
        row = np.array(self.data["prior"][y])
        q = self.alpha * np.eye(len(classes))[y] + (1 - self.alpha) * row
        rows = [[c, f"{p[i]:.2f}", f"{row[i]:.2f}", f"{q[i]:.2f}"] for i, c in enumerate(classes)]
        head = ["class", "p: the network", "prior", "q: the target"]
        return table(f"{self.data['facename']}, labeled {classes[y]}, with alpha {self.alpha:g}", head, rows)
