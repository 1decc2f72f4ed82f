"""Two transformer systems for facial expression recognition, whole and readable.

The floors, each importing only from the ones below it::

    cli                                         the `ferlib` command
    widgets  plots  explain  evaluation         looking and measuring
    training                                    the loop, recipes, checkpoints
    models   losses   data                      these three know nothing of each other

Importing it is quick: no torch is loaded before a floor is. The networks of the Neural Resizer stand in
timm's registry (``timm.create_model("vt_nr_swin_base")``) as soon as both ``ferlib`` and ``timm`` are
imported, in either order. Where the environment variable ``FERLIB_HOME`` names a folder, data, weights, runs
and prepared faces are looked for in it (``ferlib.home``).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from ferlib import home

__version__ = "0.1.0"

home.settle()


def _register_with_timm() -> None:
    if "ferlib.models" not in sys.modules:  # otherwise it registers itself, or is about to
        import_module("ferlib.models.vt_nr")


class _AfterTimm(MetaPathFinder):
    """Lets the others find ``timm``, and registers our networks when it has been loaded."""

    looking = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "timm" or self.looking:
            return None
        self.looking = True
        try:
            spec = find_spec(name)
        finally:
            self.looking = False
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                _register_with_timm()

            spec.loader.exec_module = exec_module  # this spec's own loader object: nothing else has it
        return spec


if "timm" in sys.modules:
    _register_with_timm()
else:
    sys.meta_path.insert(0, _AfterTimm())
