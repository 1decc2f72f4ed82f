"""FERLIB_HOME: one folder, a mounted drive's for example, brings data, weights and runs."""

import warnings
from pathlib import Path

import pytest

from ferlib.data import open_faces
from ferlib.doctor import examine
from ferlib.files import PLACES, cache_root, place
from ferlib.training import runs_folder
from ferlib.weights import find_pretrained
from tests import data_files


def test_one_variable_brings_data_weights_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "drive" / "ferlib"
    data_files.microsoft(home / "data" / "FERPlus", {"train": 20, "valid": 8})
    (home / "weights").mkdir()
    (home / "weights" / "ir50.pth").write_bytes(b"")
    monkeypatch.setenv("FERLIB_HOME", str(home))
    assert len(open_faces("train")) == 20
    assert find_pretrained("ir50") == home / "weights" / "ir50.pth" and runs_folder() == home / "runs"
    (cache,) = cache_root().iterdir()
    assert cache.parent == home / "cache" and cache.is_dir(), "prepared faces are kept in the home"


@pytest.fixture(autouse=True)
def no_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FERLIB_HOME", *PLACES):
        monkeypatch.delenv(variable, raising=False)


def test_a_variable_of_its_own_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not any(place(variable) for variable in PLACES)
    monkeypatch.setenv("FERLIB_HOME", str(tmp_path))
    monkeypatch.setenv("FERLIB_WEIGHTS", "elsewhere")
    assert place("FERLIB_WEIGHTS") == Path("elsewhere") and place("FERLIB_CACHE") == tmp_path / "cache"
    assert place("FERLIB_DATA") is None and place("FERLIB_RUNS") == tmp_path / "runs"
    (tmp_path / "data" / "ferplus").mkdir(parents=True)  # what `ferlib prepare` wrote
    assert place("FERLIB_DATA") == tmp_path / "data" / "ferplus"


def test_a_drive_that_is_not_mounted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERLIB_HOME", str(tmp_path / "gone"))
    with pytest.warns(UserWarning, match=r"gone is no folder.*mount the drive"):
        assert place("FERLIB_WEIGHTS") is None
    (finding,) = [found for found in examine() if found.what == "FERLIB_HOME"]
    assert finding.status == "broken" and "mount the drive first" in finding.advice
