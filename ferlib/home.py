"""One folder for what a reader brings and makes: ``FERLIB_HOME`` stands for four other variables.

In Colab it is a folder of a mounted drive, elsewhere any folder::

    FERLIB_HOME/
        data/FERPlus/    FER+, in any layout that is read here     FERLIB_DATA
        weights/         pretrained weights and checkpoints        FERLIB_WEIGHTS
        runs/            what training writes                      FERLIB_RUNS
        cache/           prepared faces                            FERLIB_CACHE

A variable of the right column that is set by itself wins over the home.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import MutableMapping
from pathlib import Path

__all__ = ["PLACES", "settle"]

#: Each variable, and the folders of the home it may stand for: the first that is there, or the first.
PLACES = {
    "FERLIB_DATA": ("data/FERPlus", "data/ferplus"),
    "FERLIB_WEIGHTS": ("weights",),
    "FERLIB_RUNS": ("runs",),
    "FERLIB_CACHE": ("cache",),
}


def settle(environment: MutableMapping[str, str] | None = None) -> dict[str, str]:
    """Give the four variables their values from ``FERLIB_HOME``, in this process and those it starts.

    ``FERLIB_DATA`` is set only where the faces are there: without them the chapters draw their own. A home
    that is no folder is named in a warning and changes nothing. Called when ``ferlib`` is imported.

    Shape: the environment (default: that of this process) in, {variable: path} that were set out.
    Source: ours. Chapter 1.
    """
    environment = os.environ if environment is None else environment
    if not environment.get("FERLIB_HOME"):
        return {}
    home = Path(environment["FERLIB_HOME"]).expanduser().resolve()
    if not home.is_dir():
        text = f"FERLIB_HOME={home} is no folder and is not used: mount the drive first, or make the folder"
        warnings.warn(text, stacklevel=2)
        return {}
    found = {}
    for variable, folders in PLACES.items():
        path = next((home / name for name in folders if (home / name).is_dir()), home / folders[0])
        if not environment.get(variable) and (variable != "FERLIB_DATA" or path.is_dir()):
            found[variable] = str(path)
    environment.update(found)
    return found
