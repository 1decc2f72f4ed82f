"""`make lab`: the chapters are there, and a figure to touch talks with its kernel, in a real JupyterLab."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from book.builder.notebooks import chapters
from tests.wheel import ROOT

CELLS = (
    """import numpy as np
from ferlib.data.labels import EMOTIONS_FERPLUS
from ferlib.widgets import BatchAttentionExplorer

draw = np.random.default_rng(0)
faces = draw.integers(0, 256, (6, 48, 48), dtype=np.uint8)
query, key = draw.normal(size=(2, 6, 8, 49))
figure = BatchAttentionExplorer(
    faces, query, key, draw.normal(size=(6, 8)), [0, 1, 2, 3, 4, 5], EMOTIONS_FERPLUS, start=[2, 0, 5]
)
figure""",
    'print("the kernel has class", figure.cls, "of", sorted(figure.members))',
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab as `make lab` starts it, in a copy of the chapters; the address of its first page."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    small = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    small.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(small, folder / "notebooks" / "small.ipynb")
    ask = ["make", "--no-print-directory", "-n", "lab"]  # `make test` may be what runs this
    told = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    program, *arguments = shlex.split(told.strip().splitlines()[-1])
    assert program == ".venv/bin/jupyter" and arguments[0] == "lab"
    settings = {name: value for name, value in os.environ.items() if name != "FERLIB_STATIC"}
    for kind in ("config", "data", "runtime"):
        settings[f"JUPYTER_{kind.upper()}_DIR"] = str(folder / kind)
    command = [sys.executable, "-m", "jupyter", *arguments, "--no-browser", "--allow-root",
               "--ServerApp.port=0", "--ip=127.0.0.1", "--LabApp.news_url=",
               "--IdentityProvider.token=key"]  # fmt: skip
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log)
    try:
        yield _address(server, folder)
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: subprocess.Popen[bytes], folder: Path) -> str:
    """Where the server says it listens, in its own notice file."""
    for _ in range(600):
        for notice in (folder / "runtime").glob("jpserver-*.json"):
            try:
                return json.loads(notice.read_text())["url"]
            except json.JSONDecodeError:
                continue  # it is being written
        assert server.poll() is None, (folder / "log").read_text()
        time.sleep(0.2)
    raise AssertionError("JupyterLab did not start: " + (folder / "log").read_text())


def test_the_chapters_open_and_a_figure_talks_with_its_kernel(lab: str, browser) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(120_000)
    page.goto(f"{lab}lab?token=key")
    page.goto(f"{lab}lab/tree/notebooks/small.ipynb")
    for path in chapters():
        page.locator(".jp-DirListing-itemText", has_text=path.name).wait_for()
    page.locator(".jp-CodeCell .cm-content").nth(1).wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    figure = page.locator(".jp-OutputArea-output .fer-batch")
    figure.wait_for()
    assert page.locator(".jp-OutputArea-output .fer-host").count() == 0, "it is the form without a kernel"
    said = page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")
    said.filter(has_text="the kernel has class 2 of [0, 2, 5]").wait_for()
    # anger is class 4 of FER+
    figure.get_by_role("radio", name="anger", exact=True).check()
    figure.get_by_role("button", name="everyone").click()
    page.locator(".jp-CodeCell .cm-content").nth(1).click()
    page.keyboard.press("Control+Enter")
    said.filter(has_text="the kernel has class 4 of [0, 1, 2, 3, 4, 5]").wait_for()
    page.close()
