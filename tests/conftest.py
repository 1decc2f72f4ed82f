"""Material that tests may use where it is present, and the order in which the floors are checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Slow, whole-book checks come last, so that a broken unit is heard of first.
LAST = ("test_notebooks", "test_book")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, name in enumerate(LAST, 1) if name in item.nodeid), 0))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and weights: $FERLIB_SHARED, or `shared` beside the repository."""
    path = Path(os.environ.get("FERLIB_SHARED", ROOT.parent / "shared"))
    if not (path / "contracts").is_dir():
        pytest.skip(f"no reference material at {path}: set FERLIB_SHARED to the folder that holds contracts/")
    return path


@pytest.fixture(scope="session")
def ferplus_real() -> Path:
    """Real FER+ faces: $FERLIB_FERPLUS names the folder that holds fer2013new.csv and data/."""
    path = Path(os.environ.get("FERLIB_FERPLUS", ROOT / "data" / "FERPlus"))
    if not (path / "fer2013new.csv").is_file():
        pytest.skip(f"no real FER+ at {path}: set FERLIB_FERPLUS to the folder that holds fer2013new.csv")
    return path
