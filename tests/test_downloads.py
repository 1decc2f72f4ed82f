"""What the book's build downloads is used only where its SHA-256 is the expected one."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from book.builder import face_detector, mathjax, onnx_web


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that is the only place where pip looks."""
    path = tmp_path / "shelf" / "parcel-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("parcel/inside.txt", "the content")
        made.writestr("parcel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n")
        made.writestr("parcel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        made.writestr("parcel-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


@pytest.mark.parametrize("right", [True, False])
def test_a_pip_package_is_used_only_with_the_checksum_that_its_list_names(wheel, tmp_path, capsys, right):
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if right else 64 * "0"
    package = tmp_path / "parcel.txt"
    package.write_text("parcel==1.0\n")
    assert mathjax.fetch(package, tmp_path / "without") is None
    capsys.readouterr()
    package.write_text(f"parcel==1.0 --hash=sha256:{digest}\n")
    found = mathjax.fetch(package, tmp_path / "fetched")
    printed = capsys.readouterr().out
    if right:
        assert found.read("parcel/inside.txt") == b"the content" and not printed
    else:
        assert found is None
        assert printed.count("\n") == 1 and "parcel.txt" in printed and "SHA-256" in printed


@pytest.mark.parametrize("changed", [None, "module", "wasm"])
def test_the_runtime_of_try_it_is_used_only_with_the_checksums_of_both_files(monkeypatch, capsys, changed):
    contents = {"module": b"script", "wasm": b"program"}
    parts = {name: (f"{name}.bin", hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    monkeypatch.setattr(onnx_web, "PARTS", parts)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in contents.items():
            data = data + b"!" if name == changed else data
            member = tarfile.TarInfo(f"package/dist/{name}.bin")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    found = onnx_web._parts(packed.getvalue())
    assert found == (None if changed else contents)
    assert (f"{changed}.bin" in capsys.readouterr().out) is (changed is not None)


def test_a_face_detector_with_another_checksum_is_not_used(tmp_path, capsys):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in (("blazeface.json", b'{"weightsManifest": []}'), ("blazeface.bin", b"")):
            member = tarfile.TarInfo(f"package/models/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    target = tmp_path / "face_detector.onnx"
    assert face_detector.unpack(packed.getvalue(), tmp_path, target) is None and not target.exists()
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "SHA-256" in printed
