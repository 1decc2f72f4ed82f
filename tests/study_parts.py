"""The scripts of the study's two parts as modules, and drawn faces for them to work on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from ferlib.data import SyntheticFaces

RECORDS = Path(__file__).resolve().parents[1] / "book" / "records"


@contextmanager
def imported(monkeypatch, part: str, modules: tuple[str, ...]) -> Iterator[SimpleNamespace]:
    """The scripts in book/records/PART, imported anew as they import each other, forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [str(RECORDS / part), *sys.path])
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in modules})
    for name in modules:
        sys.modules.pop(name, None)


def drawn(study: SimpleNamespace, count: int, seed: int = 0):
    """Drawn faces in memory, framed as FER+ frames them."""
    faces = SyntheticFaces(count, size=48, seed=seed, channels=1, framing="ferplus")
    batch = faces.batch(range(count))
    return study.faces.Held(batch["image"], batch["label"], batch["votes"], faces.classes)
