"""Reliability diagrams: how often a network is right when it is so sure. Chapter 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ferlib.style import INK, QUERY


def reliability(bins: Sequence[Any], *, title: str = "", ax: Axes | None = None) -> Figure:
    """Accuracy in each bin of confidence (points, 95 % intervals) and its share of the faces (bars).

    On the dashed diagonal the network is exactly as sure as it is right.

    Args:
        bins: Those of :func:`ferlib.evaluation.reliability`, or of a record's ``extra["reliability"]``.
        title: Above the diagram.
        ax: Where it is drawn; None makes a figure.
    """
    ax = ax or plt.subplots(figsize=(3.6, 3.6))[1]
    table = [b if isinstance(b, Mapping) else asdict(b) for b in bins]
    total = max(sum(b["faces"] for b in table), 1)
    shares, widths = [b["faces"] / total for b in table], [b["high"] - b["low"] for b in table]
    look = {"align": "edge", "color": "#d3d3d3", "edgecolor": "white"}
    ax.bar([b["low"] for b in table], shares, width=widths, **look)
    ax.plot([0, 1], [0, 1], linestyle="--", color=INK, linewidth=1)
    full = [b for b in table if b["faces"]]
    ends = [[b["accuracy"][key] for key in ("value", "low", "high")] for b in full]
    right = np.array(ends).reshape(-1, 3).T
    reach = np.abs(right[1:] - right[0])
    sure = [b["confidence"] for b in full]
    ax.errorbar(sure, right[0], reach, fmt="o", color=QUERY, capsize=2, markersize=4)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title)
    ax.set(xlabel="confidence", ylabel="share right (bars: share of faces)")
    return ax.figure
