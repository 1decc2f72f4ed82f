"""The wheel holds the library, its recipes, its figures' files and the recorded results, and nothing else."""

import email
import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.wheel import ROOT, build_wheel, tracked_copy


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tracked_copy(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    with zipfile.ZipFile(build_wheel(source, tmp_path_factory.mktemp("wheel"))) as file:
        yield file


def test_it_holds_the_whole_library_and_the_records(source: Path, wheel: zipfile.ZipFile) -> None:
    """A new kind of file in the library has to be named in pyproject.toml, or the wheel lacks it."""
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    library = {p.relative_to(source).as_posix() for p in (source / "ferlib").rglob("*") if p.is_file()}
    library |= {p.relative_to(source).as_posix() for p in (source / "book" / "figures").glob("*.*")}
    records = {f"ferlib/results/{path.name}": path for path in (source / "book" / "results").glob("*.json")}
    assert {"ferlib/cli.py", "ferlib/book.mplstyle", "ferlib/widgets/static/ui.js"} < library
    assert any(name.startswith("ferlib/training/recipes/") for name in library) and len(records) > 20
    assert names == library | records.keys(), "something is missing, or too much"
    assert all(wheel.read(name) == path.read_bytes() for name, path in records.items())
    assert sum(info.file_size for info in wheel.infolist()) < 10_000_000


def test_it_asks_for_what_pyproject_asks_for(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(wheel.read(name))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    assert {str(r) for r in asked if not r.marker} == {str(Requirement(r)) for r in project["dependencies"]}
    assert metadata["Requires-Python"] == ">=3.11" and metadata["License-Expression"] == "MIT"
    assert any(re.search(r"licenses/LICENSE$", name) for name in wheel.namelist())
    points = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "ferlib = ferlib.cli:main" in points
