"""FERLIB_HOME: one folder, a mounted drive's for example, brings data, weights and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ferlib.doctor import examine
from ferlib.files import PLACES, place
from tests import data_files

SCRIPT = """
import json, os
from ferlib import data, training
from ferlib.files import cache_root
from ferlib.weights import find_pretrained
faces = data.open_faces("train")
print(json.dumps([len(faces), str(find_pretrained("ir50")), str(training.runs_folder()),
                  [p.name for p in cache_root().iterdir()]]))
"""


def python(script: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python with none of our variables but these."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("FERLIB_")}
    return subprocess.run([sys.executable, "-c", script], env=rest | settings, capture_output=True, text=True)


def test_one_variable_brings_data_weights_and_runs(tmp_path: Path) -> None:
    home = tmp_path / "drive" / "ferlib"
    data_files.microsoft(home / "data" / "FERPlus", {"train": 20, "valid": 8})
    (home / "weights").mkdir()
    (home / "weights" / "ir50.pth").write_bytes(b"")
    done = python(SCRIPT, FERLIB_HOME=str(home))
    assert done.returncode == 0, done.stderr
    faces, weights, runs, cache = json.loads(done.stdout)
    assert faces == 20
    assert Path(weights) == home / "weights" / "ir50.pth" and Path(runs) == home / "runs"
    assert len(cache) == 1 and (home / "cache" / cache[0]).is_dir(), "prepared faces are kept in the home"


@pytest.fixture(autouse=True)
def no_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FERLIB_HOME", *PLACES):
        monkeypatch.delenv(variable, raising=False)


def test_an_empty_home_leaves_the_synthetic_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERLIB_HOME", str(tmp_path))
    assert place("FERLIB_DATA") is None and place("FERLIB_RUNS") == tmp_path / "runs"
    (tmp_path / "data" / "ferplus").mkdir(parents=True)  # what `ferlib prepare` wrote
    assert place("FERLIB_DATA") == tmp_path / "data" / "ferplus"


def test_a_variable_of_its_own_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not any(place(variable) for variable in PLACES)
    monkeypatch.setenv("FERLIB_HOME", str(tmp_path))
    monkeypatch.setenv("FERLIB_WEIGHTS", "elsewhere")
    assert place("FERLIB_WEIGHTS") == Path("elsewhere") and place("FERLIB_CACHE") == tmp_path / "cache"


def test_a_drive_that_is_not_mounted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERLIB_HOME", str(tmp_path / "gone"))
    with pytest.warns(UserWarning, match=r"gone is no folder.*mount the drive"):
        assert place("FERLIB_WEIGHTS") is None
    (finding,) = [found for found in examine() if found.what == "FERLIB_HOME"]
    assert finding.status == "broken" and "mount the drive first" in finding.advice
