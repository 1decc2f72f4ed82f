"""Bring MathJax into the book, so that equations need no network.

It comes out of a pip package (which ships MathJax 3 whole) and is never committed. Where it cannot be had the
book says so and its pages ask the public CDN instead.
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
FOLDER = ROOT / "book" / "static" / "mathjax"
SCRIPT = "tex-chtml-full.js"  # the full build: the small one asks for more files at the first \color


def bring() -> bool:
    """Unpack MathJax's script, fonts and licence into book/static/mathjax; True when they are there."""
    if (FOLDER / SCRIPT).exists():
        return True
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
                   "-d", temporary, PACKAGE]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            print(
                "MathJax could not be fetched: equations will be set by the public CDN when a page is read."
            )
            return False
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in wheel.namelist():
                part = name.removeprefix(INSIDE)
                if part == f"es5/{SCRIPT}" or part.startswith("es5/output/chtml/fonts/woff-v2/"):
                    target = FOLDER / part.removeprefix("es5/")
                elif part == "LICENSE":
                    target = FOLDER / part
                else:
                    continue
                if not name.endswith("/"):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(wheel.read(name))
    return (FOLDER / SCRIPT).exists()
