"""An environment like Colab's: torch and its kin are there, the repository and ferlib are not.

It is a virtual environment of the Python that runs the tests. What Colab has is linked into it, one
distribution at a time, from where the tests run; everything else pip has to bring, as it has to there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What the barest machine has, and what of our requirements Colab has besides; each with all that it needs.
BARE = ("torch", "torchvision", "numpy", "ipykernel")
COLAB = (*BARE, "timm", "safetensors", "pillow", "pyyaml", "tqdm", "scikit-learn", "scipy", "scikit-image",
         "matplotlib", "seaborn", "ipywidgets", "opencv-python-headless", "pandas", "protobuf")  # fmt: skip
OLDER = {"filelock"}  # Colab's is older than ferlib asks for, so pip brings it in any case


def with_needs(*names: str) -> dict[str, Distribution]:
    """These distributions, also written `name[extra]`, and all that they need, by normalised names."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        try:
            found.setdefault(name, distribution(name))
        except PackageNotFoundError:
            continue  # of another platform, or not wanted here
        for extra in {"", *wanted.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                needs = [Requirement(line) for line in found[name].requires or ()]
                waiting += [r for r in needs if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


def make(folder: Path, *, bare: bool = False) -> Environment:
    """The environment, in a folder of its own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "python")], check=True)
    there = folder / "there"
    there.mkdir()
    for name, dist in with_needs(*(BARE if bare else COLAB), "pip").items():
        if name in OLDER:
            continue
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

    def has(self, name: str) -> str:
        """The version of a distribution as this environment sees it, and where it lies; "" without it."""
        script = (
            "import importlib.metadata as m, sys\n"
            "try: d = m.distribution(sys.argv[1]); print(d.version, d.locate_file(''))\n"
            "except m.PackageNotFoundError: pass"
        )
        return self.run("-c", script, name, cwd=self.folder).stdout.strip()
