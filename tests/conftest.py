"""Material that tests may use where it is present, and the order in which the floors are checked."""

import os
import signal
import tarfile
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from tests.reader import FLAGS, chromium_path

ROOT = Path(__file__).resolve().parents[1]
# Slow, whole-book checks come last, so that a broken unit is heard of first.
LAST = ("test_notebooks", "test_book", "test_try_it")

if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each process, also of those that tests start
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

# Started in a shell's background, Ctrl-C would be ignored here and in what tests start; some tests press it.
in_front = threading.current_thread() is threading.main_thread()
if in_front and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, name in enumerate(LAST, 1) if name in item.nodeid), 0))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder that holds `weights`, real ones: $FERLIB_SHARED, or `shared` beside the repository."""
    path = Path(os.environ.get("FERLIB_SHARED", ROOT.parent / "shared"))
    if not (path / "weights").is_dir():
        pytest.skip(f"no real weights at {path}: set FERLIB_SHARED to the folder that holds weights/")
    return path


@pytest.fixture(scope="session")
def ferplus_real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real FER+ faces: $FERLIB_FERPLUS, data/FERPlus, or the archive among the reference material.

    The archive is unpacked into pytest's temporary folder, outside the repository.
    """
    path = Path(os.environ.get("FERLIB_FERPLUS", ROOT / "data" / "FERPlus"))
    if (path / "fer2013new.csv").is_file():
        return path
    folder = Path(os.environ.get("FERLIB_SHARED", ROOT.parent / "shared")) / "data"
    archive = folder / "ferplus_train_valid.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no real FER+ at {path} and no {archive}: set FERLIB_FERPLUS to its folder")
    name = f"ferplus-{archive.stat().st_mtime_ns}"  # once for all processes of the tests
    unpacked = tmp_path_factory.getbasetemp().parent / name
    with FileLock(unpacked.with_suffix(".lock")):
        if not unpacked.is_dir():
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked.with_suffix(".part"), filter="data")
            unpacked.with_suffix(".part").rename(unpacked)
    return unpacked / "FERPlus"


@pytest.fixture(scope="session")
def html() -> Path:
    """The built book, built where it is not of these sources; any warning or failing cell fails."""
    builder = pytest.importorskip("book.builder.__main__", reason="the book's tools are not installed")
    folder = builder.PAGE.parent
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.parent / "tests.lock"):  # another process of the tests may be building
        if not builder.is_current():
            builder.mathjax.bring()
            builder.notebooks.execute_all()
            assert builder.build_html() == 0, "jupyter-book reported warnings or errors (see above)"
    if not (builder.mathjax.FOLDER / builder.mathjax.SCRIPT).exists():
        pytest.skip("MathJax could not be fetched, so the pages are not the offline ones checked here")
    return folder


@pytest.fixture(scope="module")  # not the session: its event loop must not outlive the module
def browser():
    """Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]' brings Playwright")
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium found: install it, or name it in the environment variable CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()
