"""Bring MathJax into the book, so that equations need no network.

It comes out of a pip package (which ships MathJax 3 whole) and is never committed. Where it cannot be had, or
is not the file that mathjax.txt names by its SHA-256, the book says so and its pages load the public CDN's
instead.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from book.builder.notebooks import ROOT

PACKAGE = Path(__file__).with_name("mathjax.txt")
INSIDE = "mathjax/static/mathjax/"
FONTS = "es5/output/chtml/fonts/woff-v2/"
FOLDER = ROOT / "book" / "static" / "mathjax"
SCRIPT = "tex-chtml-full.js"  # the full build: the small one loads more files at the first \color


def bring() -> bool:
    """Unpack MathJax's script, fonts and license into book/static/mathjax; True when they are there."""
    if (FOLDER / SCRIPT).exists():
        return True
    with tempfile.TemporaryDirectory() as temporary:
        wheel = fetch(PACKAGE, Path(temporary))
        if wheel is None:
            print("MathJax could not be fetched: a page's equations will be set by the public CDN's.")
            return False
        for name in wheel.namelist():
            part = name.removeprefix(INSIDE)
            if part in (f"es5/{SCRIPT}", "LICENSE") or (part.startswith(FONTS) and not part.endswith("/")):
                target = FOLDER / part.removeprefix("es5/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(name))
    return (FOLDER / SCRIPT).exists()


def fetch(package: Path, folder: Path) -> zipfile.ZipFile | None:
    """The wheel that a requirements file names, fetched by pip, which compares its SHA-256.

    Args:
        package: the requirements file, one pinned package with the SHA-256 of each of its files.
        folder: where pip writes the wheel.

    Returns:
        The opened wheel, or None where it cannot be had or has another SHA-256.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "-d", str(folder), "-r", str(package)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "DO NOT MATCH THE HASHES" in done.stderr:
        print(f"pip found another file than {package.name} names by its SHA-256; it is not used.")
    wheels = [] if done.returncode else list(folder.glob("*.whl"))
    return zipfile.ZipFile(wheels[0]) if wheels else None
