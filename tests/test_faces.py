"""`open_faces` gives synthetic faces, or the reader's own FER+ through the prepared cache."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from ferlib.data import SyntheticFaces, open_faces
from ferlib.data.base import DataError
from ferlib.data.faces import SYNTHETIC_LENGTHS, KeptFaces
from ferlib.data.ferplus import FERPlus
from ferlib.data.prepare import is_cache
from ferlib.files import cache_root
from tests import data_files


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = data_files.microsoft(tmp_path / "faces", {"train": 20, "valid": 8})
    monkeypatch.setenv("FERLIB_DATA", str(root))
    monkeypatch.setenv("FERLIB_CACHE", str(tmp_path / "cache"))
    return root


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FERLIB_DATA", raising=False)


def test_real_faces_are_prepared_once(real: Path) -> None:
    faces = open_faces("train")
    folders = list(cache_root().iterdir())
    assert len(folders) == 1 and is_cache(folders[0]) and len(faces) == 20
    stamp = (folders[0] / "cache.json").stat().st_mtime_ns
    assert torch.equal(open_faces("train").batch([3])["image"][0], FERPlus(real, "train")[3]["image"])
    assert (folders[0] / "cache.json").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="has no split 'test', only train, valid"):
        open_faces("test")


def test_changed_label_files_are_prepared_anew(real: Path) -> None:
    open_faces("train")
    path = real / "data" / "FER2013Train" / "label.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:12]))
    assert len(open_faces("train")) == 12


def test_part_of_the_real_faces(real: Path) -> None:
    some, again = open_faces("train", length=6), open_faces("train", length=6)
    assert len(some) == 6 and some[0]["image"].shape == (1, 48, 48)
    assert torch.equal(some.labels, again.labels)
    assert some.batch([0, 5])["votes"].shape == (2, 8) and some.classes == again.classes
    with pytest.raises(DataError, match="20 labeled faces, 30 were asked for"):
        open_faces("train", length=30)


def test_a_prepared_folder_is_used_as_it_is(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_faces("train")
    (prepared,) = cache_root().iterdir()
    monkeypatch.setenv("FERLIB_DATA", str(prepared))
    monkeypatch.setenv("FERLIB_CACHE", str(prepared / "none"))
    assert len(open_faces("valid")) == 8 and not (prepared / "none").exists()


def test_a_wrong_variable_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FERLIB_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match="gone: the folder is not there"):
        open_faces()
    monkeypatch.setenv("FERLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no FER\+ found"):
        open_faces()


def test_synthetic_faces_have_the_same_form(drawn: None) -> None:
    faces = open_faces("valid", length=24)
    assert isinstance(faces, KeptFaces) and len(faces) == 24 and len(faces.classes) == 8
    batch = faces.batch(torch.arange(24))
    assert batch["image"].shape == (24, 1, 48, 48) and batch["image"].dtype == torch.uint8
    assert torch.equal(faces.batch([5, 2])["image"], batch["image"][[5, 2]])
    assert torch.equal(faces[5]["image"], batch["image"][5]) and batch["votes"].shape == (24, 8)
    assert torch.equal(open_faces("valid", length=24).batch(range(24))["image"], batch["image"])
    assert not torch.equal(open_faces("test", length=24).batch(range(24))["image"], batch["image"])
    assert faces[5]["landmarks"].shape == (68, 2)
    loader = DataLoader(faces, batch_size=16)
    assert [len(b["label"]) for b in loader] == [16, 8]


def test_defaults_and_refusals(drawn: None) -> None:
    assert len(open_faces("valid")) == SYNTHETIC_LENGTHS["valid"]
    with pytest.raises(DataError, match="choose one of train, valid, test"):
        open_faces("training")
    with pytest.raises(DataError, match="length=0"):
        open_faces("train", length=0)


def test_kept_faces_are_the_same_pixels_in_whatever_order_they_are_asked_for() -> None:
    """Drawn alone, by sixteen or all at once, single pixels of faces 61, 88 and 490 round otherwise."""
    drawn = SyntheticFaces(512, size=48, seed=1_000_003, framing="ferplus")
    together, apart = KeptFaces(drawn), KeptFaces(drawn)
    order = torch.randperm(512, generator=torch.Generator().manual_seed(0))
    images = torch.empty(512, 1, 48, 48, dtype=torch.uint8)
    for some in order.split(13):
        images[some] = apart.batch(some)["image"]
    assert torch.equal(images, together.batch(range(512))["image"])
    for i in (61, 88, -22):
        assert torch.equal(together[i]["image"], images[i])
