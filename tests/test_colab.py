"""Notebooks opened alone in an environment like Colab's: the set-up cell brings all that they need.

`make colab-check`, a weekly check, installs as Colab does: FERLIB_COLAB=bare runs every chapter on a machine
that has no more than torch, torchvision and numpy, FERLIB_COLAB=one the last chapter beside what Colab has.
Without that variable only the notebooks are read.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import Distribution
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from book.builder.address import repository
from book.builder.notebooks import STATIC, chapters
from tests.wheel import tracked_copy

BARE = os.environ.get("FERLIB_COLAB") == "bare"
KEPT = ("torch", "torchvision", "numpy")
# What Colab has of ours (its own list of versions, June 2026), each with all that it needs.
COLAB = [
    "timm",
    "safetensors",
    "pillow",
    "pyyaml",
    "tqdm",
    "scikit-learn",
    "scipy",
    "scikit-image",
    "matplotlib",
]
COLAB += ["seaborn", "ipywidgets", "anywidget", "opencv-python-headless", "pandas", "protobuf", "flatbuffers"]
COLAB += ["fsspec[http]"]
# What pip has to bring into Colab: each name more is a longer wait for everybody who opens a chapter there.
# Colab's filelock 3.29 empties the file of a lock that another process holds: pip brings a newer one.
BROUGHT = {
    "ferlib",
    "lightning-fabric",
    "lightning-utilities",
    "torchmetrics",
    "grad-cam",
    "ttach",
    "filelock",
}
BROUGHT |= {"onnxruntime"}
NOT_THERE = {"jupyterlab", "jupyter-book", "sphinx", "notebook", "pytest", "onnx", "onnxscript"}


def with_needs(*names: str) -> dict[str, Distribution]:
    """These distributions, also written `name[extra]`, and all that they need, by normalized names."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = list(map(Requirement, names))
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        there = next(iter(Distribution.discover(name=name)), None)
        if there is None:
            continue  # of another platform, or not wanted here
        found[name] = there
        for extra in {"", *wanted.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            needs = map(Requirement, there.requires or ())
            waiting += [r for r in needs if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


class Machine:
    """A virtual environment with Colab's distributions linked into it, and no setting of ours."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "python")], check=True)
        self.folder, self.python = folder, folder / "python" / "bin" / "python"
        (self.site,) = (folder / "python").glob("lib/python*/site-packages")
        there = folder / "there"
        there.mkdir()
        for name, dist in with_needs(*KEPT, "ipykernel", "pip", *(() if BARE else COLAB)).items():
            tops = {Path(str(file)).parts[0] for file in dist.files or ()} - {"..", "__pycache__", "share"}
            for top in tops if name != "filelock" else ():
                source = Path(str(dist.locate_file(top)))
                if source.exists() and not (there / top).exists():
                    (there / top).symlink_to(source)
        (self.site / "there.pth").write_text(f"{there}\n")

    def settings(self, **more: str) -> dict[str, str]:
        """The variables of a process in it: none that leads back to the repository."""
        ours = re.compile(r"FERLIB_|PYTHON|VIRTUAL_ENV|JUPYTER|COV_|PYTEST")
        rest = {name: value for name, value in os.environ.items() if not ours.match(name)}
        path = f"{self.python.parent}{os.pathsep}{rest.get('PATH', '')}"
        return {**rest, "PATH": path, "MPLBACKEND": "module://matplotlib_inline.backend_inline", **more}

    def run(self, script: str, **more: str) -> subprocess.CompletedProcess[str]:
        command, environment = [str(self.python), "-c", script], self.settings(**more)
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)

    def has(self, name: str) -> str:
        """The version of a distribution as this environment sees it, and where it lies; "" without it."""
        script = f"from importlib.metadata import distribution\nd = distribution({name!r})\n"
        return self.run(script + "print(d.version, d.locate_file(''))").stdout.strip()


def set_up_cell(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "setup" in cell.metadata.get("tags", [])]
    return cell.source


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The environment after the set-up cell has run in it, with nothing but the cell from the repository.

    The cell asks the public address; git is told that it means a copy on this disk.
    """
    if "FERLIB_COLAB" not in os.environ:
        pytest.skip("installs packages for minutes: make colab-check")
    machine = Machine(tmp_path_factory.mktemp("colab"))
    before = {name: machine.has(name) for name in KEPT}
    assert all(before.values()) and not machine.has("ferlib")
    source = tracked_copy(tmp_path_factory.mktemp("public"))
    git = dict(GIT_CONFIG_COUNT="1", GIT_CONFIG_VALUE_0=f"https://github.com/{repository()}")
    git["GIT_CONFIG_KEY_0"] = f"url.{source.as_uri()}.insteadOf"
    started = time.monotonic()
    done = machine.run(set_up_cell(chapters()[0]), **git)
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\nset up in {time.monotonic() - started:.0f} s")
    assert str(machine.site) in machine.has("ferlib"), "not installed, or found somewhere else"
    assert {name: machine.has(name) for name in KEPT} == before, "the installation replaced what was there"
    return machine


def test_the_set_up_cell_brings_no_more_than_a_chapter_needs(machine: Machine) -> None:
    """What is asked for directly is all that is missing, and nothing that only builds or tests the book."""
    brought = {canonicalize_name(d.metadata["Name"]) for d in Distribution.discover(path=[str(machine.site)])}
    assert not brought & NOT_THERE
    assert not {name for name in brought if name in KEPT or name.startswith(("nvidia", "triton"))}
    if not BARE:
        assert brought == BROUGHT


def test_every_chapter_has_the_same_set_up_cell_and_says_where_it_opens_and_how_long_it_takes() -> None:
    assert len({set_up_cell(path) for path in chapters()}) == 1
    for path in chapters():
        top = nbformat.read(path, as_version=4).cells[0].source
        address = f"https://colab.research.google.com/github/{repository()}/blob/main/notebooks/{path.name}"
        assert f"[![Open in Colab](../book/static/open_in_colab.svg)]({address})" in top
        (line,) = [line for line in top.splitlines() if "run time" in line.lower()]
        assert re.search(r"\b(minute|seconds)", line), line


@pytest.mark.parametrize("path", chapters() if BARE else chapters()[-1:], ids=lambda p: p.stem)
def test_a_chapter_runs_alone(machine: Machine, path: Path, tmp_path: Path, monkeypatch) -> None:
    """From a folder that holds nothing else; its records come out of the installed package."""
    content, spec = tmp_path / "content", tmp_path / "jupyter" / "kernels" / "colab"
    content.mkdir()
    spec.mkdir(parents=True)
    shutil.copyfile(path, content / path.name)
    command = [str(machine.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "Colab", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    notebook = nbformat.read(content / path.name, as_version=4)
    options = {"timeout": 1800, "startup_timeout": 300, "kernel_name": "colab"}
    options["extra_arguments"] = ["--IPKernelApp.log_level=40"]
    client = NotebookClient(notebook, resources={"metadata": {"path": str(content)}}, **options)
    client.execute(env=machine.settings(**STATIC))
    assert any(cell.get("outputs") for cell in notebook.cells)
