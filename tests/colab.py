"""An environment like Colab's: torch and its kin are there, the repository and ferlib are not.

It is a virtual environment of the Python that runs the tests. What Colab has is linked into it, one
distribution at a time; everything else pip has to bring, as it has to there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What the barest machine has, and what of ours Colab has besides (its own list of versions, June 2026: Python
# 3.12, torch 2.11); each with all that it needs.
BARE = ("torch", "torchvision", "numpy", "ipykernel")
COLAB = (*BARE, "timm", "safetensors", "pillow", "pyyaml", "tqdm", "scikit-learn", "scipy", "scikit-image",
         "matplotlib", "seaborn", "ipywidgets", "anywidget", "opencv-python-headless", "pandas", "protobuf",
         "flatbuffers", "fsspec[http]")  # fmt: skip
# Colab's is 3.29, which empties the file of a lock that another process holds: pip brings a newer one.
OLDER = {"filelock"}
# What pip has to bring into Colab. Each name more is a longer wait for everybody who opens a chapter there.
BROUGHT = {"ferlib", "lightning-fabric", "lightning-utilities", "torchmetrics", "grad-cam", "ttach", *OLDER}
BROUGHT |= {"onnxruntime"}
# What only this computer needs, to build the book, to test it, to write ONNX.
NOT_THERE = {"jupyterlab", "jupyter-book", "sphinx", "notebook", "pytest", "onnx", "onnxscript"}


def with_needs(*names: str) -> dict[str, Distribution]:
    """These distributions, also written `name[extra]`, and all that they need, by normalised names."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name not in found:
            there = next(iter(Distribution.discover(name=name)), None)
            if there is None:
                continue  # of another platform, or not wanted here
            found[name] = there
        for extra in {"", *wanted.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            needs = map(Requirement, found[name].requires or ())
            waiting += [r for r in needs if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


def make(folder: Path, *, bare: bool = False) -> Environment:
    """The environment, in a folder of its own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "python")], check=True)
    there = folder / "there"
    there.mkdir()
    had = with_needs(*(BARE if bare else COLAB), "pip")
    for dist in (dist for name, dist in had.items() if name not in OLDER):
        tops = {Path(str(file)).parts[0] for file in dist.files or ()} - {"..", "__pycache__", "share"}
        for top in tops:
            source = Path(str(dist.locate_file(top)))
            if source.exists() and not (there / top).exists():
                (there / top).symlink_to(source)
    (site,) = (folder / "python").glob("lib/python*/site-packages")
    (site / "there.pth").write_text(f"{there}\n")
    return Environment(folder, folder / "python" / "bin" / "python", site)


class Environment:
    """Runs commands as if nothing of the machine's own Python settings were there."""

    def __init__(self, folder: Path, python: Path, site: Path) -> None:
        self.folder, self.python, self.site = folder, python, site

    def settings(self, **more: str) -> dict[str, str]:
        """The variables of a process in it: none that leads back to the repository."""
        ours = re.compile(r"FERLIB_|PYTHON|VIRTUAL_ENV|JUPYTER|COV_|PYTEST")
        rest = {name: value for name, value in os.environ.items() if not ours.match(name)}
        path = f"{self.python.parent}{os.pathsep}{rest.get('PATH', '')}"
        return {**rest, "PATH": path, "MPLBACKEND": "module://matplotlib_inline.backend_inline", **more}

    def run(self, *command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """`python COMMAND` in a folder."""
        return subprocess.run(
            [str(self.python), *command], cwd=cwd, env=self.settings(**more), capture_output=True, text=True
        )

    def brought(self) -> set[str]:
        """Names of the distributions that pip put here, beside what was there."""
        return {canonicalize_name(d.metadata["Name"]) for d in Distribution.discover(path=[str(self.site)])}

    def megabytes(self) -> float:
        """Size on disk of what pip put here."""
        return sum(p.stat().st_size for p in self.site.rglob("*") if p.is_file()) / 1e6

    def has(self, name: str) -> str:
        """The version of a distribution as this environment sees it, and where it lies; "" without it."""
        script = (
            "import importlib.metadata as m, sys\n"
            "try: d = m.distribution(sys.argv[1]); print(d.version, d.locate_file(''))\n"
            "except m.PackageNotFoundError: pass"
        )
        return self.run("-c", script, name, cwd=self.folder).stdout.strip()
