"""Two transformer systems for facial expression recognition, whole and readable.

Importing it is quick: no torch is loaded before a part of it is. Where the environment variable
``FERLIB_HOME`` names a folder, data, weights, runs and prepared faces are looked for in it
(``ferlib.files``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"


def load_network(path: str | Path, recipe: Any = None) -> nn.Module:
    """The network in a file of weights, with its weights, in evaluation mode.

    The one door from a file to a network, for checkpoints that training wrote and for the files that the
    originals' authors publish: :func:`ferlib.weights.load_network` says what it takes and what it refuses.

    Args:
        path: The file.
        recipe: Which network it is of, where the file does not say so itself: the name or the file of a
            recipe, a recipe, or a network to be filled.

    Chapter 6.
    """
    from ferlib import training, weights

    if isinstance(recipe, str | Path):
        recipe = training.load_recipe(recipe)
    return weights.load_network(path, recipe)
