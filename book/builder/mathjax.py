"""Bring MathJax into the book, so that equations need no network.

It comes out of a pip package (which ships MathJax 3 whole) and is never committed. Where it cannot be had the
book says so and its pages load the public CDN's instead.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from book.builder.notebooks import ROOT

PACKAGE = "django-static-mathjax==3.2.2.1"
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


def fetch(package: str, folder: Path) -> zipfile.ZipFile | None:
    """The wheel of a package, fetched by pip into a folder; None where it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "-d", str(folder), package], capture_output=True, text=True)
    wheels = [] if done.returncode else list(folder.glob("*.whl"))
    return zipfile.ZipFile(wheels[0]) if wheels else None
