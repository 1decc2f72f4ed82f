"""`make lab`: the chapters are there, and a figure to touch talks with its kernel, in a real JupyterLab."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import nbformat
import pytest

from book.builder.notebooks import chapters
from tests.wheel import ROOT

CELLS = (
    "import numpy as np\nfrom ferlib.widgets import LossExplorer",
    'LossExplorer(np.eye(3), ["a", "b", "c"])',
    'print("the kernel has gamma", _.gamma)',
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab as `make lab` starts it, in a copy of the chapters; the address of its first page."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    like = nbformat.read(chapters()[0], as_version=4).metadata  # names the kernel that the chapters run in
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS], metadata=like
    )
    nbformat.write(notebook, folder / "notebooks" / "part.ipynb")
    ask = ["make", "--no-print-directory", "-n", "lab"]  # `make test` may be what runs this
    told = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    program, *arguments = shlex.split(told.strip().splitlines()[-1])
    assert program == ".venv/bin/jupyter" and arguments[0] == "lab"
    settings = {name: value for name, value in os.environ.items() if name != "FERLIB_STATIC"}
    settings |= {f"JUPYTER_{kind.upper()}_DIR": str(folder / kind) for kind in ("config", "data", "runtime")}
    ours = ["--no-browser", "--allow-root", "--ServerApp.port=0", "--ip=127.0.0.1", "--LabApp.news_url="]
    command = [sys.executable, "-m", "jupyter", *arguments, *ours, "--IdentityProvider.token=key"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log)
    try:
        notices: list = []
        for _ in range(600):
            assert server.poll() is None, (folder / "log").read_text()
            notices = [path.read_text() for path in (folder / "runtime").glob("jpserver-*.json")]
            if notices and notices[0].rstrip().endswith("}"):
                break
            time.sleep(0.2)
        yield json.loads(notices[0])["url"]
    finally:
        server.kill()
        server.wait()


def test_the_chapters_open_and_a_figure_talks_with_its_kernel(lab: str, browser) -> None:
    """The slider moves, the curve follows in the browser, and the kernel has heard of it."""
    from playwright.sync_api import expect

    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(120_000)
    page.goto(f"{lab}lab?token=key")
    page.goto(f"{lab}lab/tree/notebooks/part.ipynb")
    for path in chapters():
        page.locator(".jp-DirListing-itemText", has_text=path.name).wait_for()
    page.locator(".jp-CodeCell .cm-content").first.wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # before, it would ask which kernel to run in
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    asks = page.locator(".jp-CodeCell").last
    asks.get_by_text("the kernel has gamma 2.0").wait_for()
    figure = page.locator(".jp-OutputArea-output .fer-loss")
    figure.wait_for()
    assert page.locator(".jp-OutputArea-output .fer-host").count() == 0, "it is the form without a kernel"
    curve = figure.locator("path.fer-line")
    before = curve.get_attribute("d")
    figure.get_by_label(re.compile("^γ")).fill("4.5")
    expect(curve).not_to_have_attribute("d", before, timeout=60_000)
    asks.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    asks.get_by_text("the kernel has gamma 4.5").wait_for()
    page.close()
