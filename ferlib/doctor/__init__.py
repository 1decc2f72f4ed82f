"""What ``ferlib doctor`` looks at: the computer, the data sets, the weights; and what it says about them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ferlib.doctor.computer import look_at_computer
from ferlib.doctor.datasets import look_at_data
from ferlib.doctor.finding import Finding, render
from ferlib.doctor.weights import look_at_weights

__all__ = ["Finding", "examine", "render"]


def examine(
    data: Sequence[str | os.PathLike[str]] | None = None,
    weights: Sequence[str | os.PathLike[str]] | None = None,
    *,
    every: bool = False,
) -> list[Finding]:
    """Look at the computer, at data sets and at weights; nothing is changed.

    ``data``: folders to look in (default: $FERLIB_DATA, else the folder ``data``, and what ``ferlib``
    prepared before). ``weights``: files or folders (default: the folder ``weights``). ``every``: open every
    image of the data sets, which takes minutes for a large one; otherwise some of each split.

    Shape: paths -> list of :class:`Finding`. Chapter 1.
    """
    return [*look_at_computer(), *look_at_data(data, every=every), *look_at_weights(weights)]
