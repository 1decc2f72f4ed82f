"""What the scripts behind the records share: their options, and a random part of a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from ferlib.data.base import FaceDataset
from ferlib.data.faces import SomeFaces


def parser(description: str | None, *, data: bool = False) -> argparse.ArgumentParser:
    """A parser that prints the script's docstring as it is; with ``data`` it has ``--data``."""
    form = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=description, formatter_class=form)
    if data:
        made.add_argument("--data", required=True, type=Path, help="FER+ in any layout that ferlib reads")
    return made


def some(faces: FaceDataset, count: int | None) -> FaceDataset:
    """At most ``count`` of the faces, drawn at random but always the same; all of them for None."""
    return faces if count is None or count >= len(faces) else SomeFaces.drawn(faces, count)
