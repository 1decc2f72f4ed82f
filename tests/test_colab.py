"""Notebooks opened alone in an environment like Colab's: the set-up cell brings all that they need.

`make colab-check`, a weekly check, installs as Colab does: FERLIB_COLAB=bare runs every chapter on a machine
that has no more than torch, torchvision and numpy, FERLIB_COLAB=one the last chapter beside what Colab has.
Without that variable only the notebooks are read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from book.builder.address import repository
from book.builder.notebooks import STATIC, chapters
from tests import colab
from tests.data_files import microsoft
from tests.wheel import tracked_copy

BARE = os.environ.get("FERLIB_COLAB") == "bare"
KEPT = ("torch", "torchvision", "numpy")


def set_up_cell(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "setup" in cell.metadata.get("tags", [])]
    return cell.source


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> colab.Environment:
    """The environment after the set-up cell has run in it, with nothing but the cell from the repository.

    The cell asks the public address; git is told that it means a copy on this disk.
    """
    if "FERLIB_COLAB" not in os.environ:
        pytest.skip("installs packages for minutes: make colab-check")
    machine = colab.make(tmp_path_factory.mktemp("colab"), bare=BARE)
    before = {name: machine.has(name) for name in KEPT}
    assert all(before.values()) and not machine.has("ferlib")
    source = tracked_copy(tmp_path_factory.mktemp("public"))
    git = dict(GIT_CONFIG_COUNT="1", GIT_CONFIG_VALUE_0=f"https://github.com/{repository()}")
    git["GIT_CONFIG_KEY_0"] = f"url.{source.as_uri()}.insteadOf"
    started = time.monotonic()
    done = machine.run("-c", set_up_cell(chapters()[0]), cwd=machine.folder, **git)
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\nset up in {time.monotonic() - started:.0f} s, {machine.megabytes():.0f} MB brought")
    assert str(machine.site) in machine.has("ferlib"), "not installed, or found somewhere else"
    assert {name: machine.has(name) for name in KEPT} == before, "the installation replaced what was there"
    return machine


def test_the_set_up_cell_brings_no_more_than_a_chapter_needs(machine: colab.Environment) -> None:
    """What is asked for directly is all that is missing, and nothing that only builds or tests the book."""
    brought = machine.brought()
    assert not brought & colab.NOT_THERE
    assert not {name for name in brought if name in KEPT or name.startswith(("nvidia", "triton"))}
    if not BARE:
        assert brought == colab.BROUGHT


def test_every_chapter_has_the_same_set_up_cell() -> None:
    assert len({set_up_cell(path) for path in chapters()}) == 1


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_every_chapter_says_where_it_opens_and_how_long_it_takes(path: Path) -> None:
    top = nbformat.read(path, as_version=4).cells[0].source
    badge = f"(https://colab.research.google.com/github/{repository()}/blob/main/notebooks/{path.name})"
    assert f"[![Open in Colab](../book/static/open_in_colab.svg)]{badge}" in top
    (line,) = [line for line in top.splitlines() if "run time" in line.lower()]
    assert re.search(r"(minute|second)s? .*CPU.*GPU minutes", line), line


def test_the_set_up_cell_takes_a_folder_of_a_drive(machine: colab.Environment, tmp_path: Path) -> None:
    """One variable; a folder on this disk stands for the drive's."""
    home = tmp_path / "drive" / "ferlib"
    microsoft(home / "data" / "FERPlus", {"train": 20})
    script = set_up_cell(chapters()[0]) + (
        "\nfrom ferlib import data, training\nprint(len(data.open_faces('train')), training.runs_folder())"
    )
    done = machine.run("-c", script, cwd=tmp_path, FERLIB_HOME=str(home))
    assert done.stdout.split() == ["20", str(home / "runs")], done.stdout + done.stderr


@pytest.mark.parametrize("path", chapters() if BARE else chapters()[-1:], ids=lambda p: p.stem)
def test_a_chapter_runs_alone(machine: colab.Environment, path: Path, tmp_path: Path, monkeypatch) -> None:
    """From a folder that holds nothing else; its records come out of the installed package."""
    content = tmp_path / "content"
    content.mkdir()
    shutil.copyfile(path, content / path.name)
    spec = tmp_path / "jupyter" / "kernels" / "colab"
    spec.mkdir(parents=True)
    command = [str(machine.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "Colab", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    notebook = nbformat.read(content / path.name, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1800,
        startup_timeout=300,
        kernel_name="colab",
        resources={"metadata": {"path": str(content)}},
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    client.execute(env=machine.settings(**STATIC))
    assert any(cell.get("outputs") for cell in notebook.cells)
