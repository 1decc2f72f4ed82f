"""Execute the chapters into the cache that Jupyter Book reads, and never let a stale output live there.

Jupyter Book's cache knows a notebook by its code cells alone. Here each cached record also carries a key made
of everything else its outputs depend on: the library, the results whose names (or their beginnings) stand in
its code, the data the reader brought, the versions of the main packages, and the chapters it says it comes
after. A record whose key differs is thrown away before anyone can read it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import sys
import time
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.cache.db import NbCacheRecord
from nbclient import NotebookClient
from tqdm import tqdm

from ferlib import files

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "_build" / ".jupyter_cache"
PACKAGES = ("torch", "torchvision", "timm", "numpy", "matplotlib", "seaborn", "scikit-learn", "grad-cam")
SETTINGS = ("FERLIB_DATA", "FERLIB_PROFILE", "FERLIB_WEIGHTS")
# No kernel stands behind a page: ferlib.widgets chooses the static form of its figures when this is set.
STATIC = {"FERLIB_STATIC": "1"}
# Longest time for one cell. Training on real faces takes minutes; on drawn ones it never should.
CELL_SECONDS = int(os.environ.get("FERLIB_CELL_SECONDS", "3600" if files.place("FERLIB_DATA") else "600"))


def chapters() -> list[Path]:
    """The notebooks of the book, in reading order: chapters, then appendices."""
    return sorted((ROOT / "notebooks").glob("[0-9A]*.ipynb"))


def open_cache() -> JupyterCacheAbstract:
    """The cache of executed notebooks, made where it is missing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return get_cache(str(CACHE))


def common_key() -> str:
    """A digest of what every chapter depends on besides its own cells and the results they name."""
    digest = hashlib.sha256()
    folders = (ROOT / "ferlib", ROOT / "book" / "figures")  # chapters 5, 7 and 9 draw with the latter
    sources = [
        p for folder in folders for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    for path in sorted(sources):
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    digest.update(sys.version.encode())
    for package in PACKAGES:
        digest.update(f"{package}={importlib.metadata.version(package)}".encode())
    for name in SETTINGS:
        value = str(files.place(name) or "") if name in files.PLACES else os.environ.get(name, "")
        digest.update(f"{name}={value}".encode())
        if value and Path(value).exists():  # another version of the same data is other data
            labels = sorted(p for p in Path(value).rglob("*.csv"))
            for path in labels:
                digest.update(f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def named_results(code: str) -> list[Path]:
    """The recorded results that a chapter may read: their names begin with a text that stands in its code.

    ``"study_"`` names all records of the study, as does ``f"study_{question}"``; texts of less than four
    letters name nothing.
    """
    constants = (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    starts = tuple(text for text in constants if isinstance(text, str) and len(text) > 3)
    return [
        path for path in sorted((ROOT / "book" / "results").glob("*.json")) if path.stem.startswith(starts)
    ]


def key_of(path: Path, common: str | None = None) -> str:
    """The key of one chapter: the common digest, the code of the chapters it comes after, and the results
    that are named in these and in its own.
    """
    digest = hashlib.sha256((common or common_key()).encode())
    notebook = nbformat.read(path, as_version=4)
    after = notebook.metadata.get("ferlib", {}).get("after", [])
    earlier = [nbformat.read(path.with_name(f"{name}.ipynb"), as_version=4) for name in after]
    for one in earlier:
        digest.update(code_of(one).encode())
    results = {result for one in (notebook, *earlier) for result in named_results(code_of(one))}
    for result in sorted(results):
        digest.update(result.name.encode())
        digest.update(result.read_bytes())
    return digest.hexdigest()


def code_of(notebook: nbformat.NotebookNode) -> str:
    """A notebook's code cells as one program."""
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def fresh_record(path: Path, cache: JupyterCacheAbstract, common: str | None = None) -> NbCacheRecord | None:
    """The cached run of a chapter if it is still true; a record that is not is removed from the cache."""
    try:
        record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
    except KeyError:
        return None
    if (record.data or {}).get("key") == key_of(path, common):
        return record
    cache.remove_cache(record.pk)
    return None


def drop_stale_records() -> None:
    """Remove every cached run that a change of library, data or records has made untrue."""
    cache, common = open_cache(), common_key()
    for path in chapters():
        fresh_record(path, cache, common)


def execute(path: Path, cache: JupyterCacheAbstract, label: str = "", common: str | None = None) -> float:
    """Run one chapter into the cache unless a true record is there; return its seconds of execution.

    Raises ``CellExecutionError`` with the cell and its traceback when a cell fails; nothing is cached then.
    """
    record = fresh_record(path, cache, common)
    if record is not None:
        seconds = float(record.data["execution_seconds"])
        print(f"{label or path.stem}  unchanged ({seconds:.1f} s when it ran)", flush=True)
        return seconds
    notebook = nbformat.read(path, as_version=4)
    label = label or path.stem
    with tqdm(total=len(notebook.cells), desc=label, unit="cell", disable=None, leave=False) as bar:
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            on_cell_executed=lambda **_: bar.update(),
            record_timing=False,  # times in the cells would make the run look like another notebook
            resources={"metadata": {"path": str(path.parent)}},
            extra_arguments=[
                "--IPKernelApp.log_level=40",  # no warnings about transport
                "--IPKernelApp.exec_lines=from book.figures import dark; dark.draw_twins(); del dark",
            ],
        )
        start = time.monotonic()
        client.execute(env={**os.environ, **STATIC})
        seconds = time.monotonic() - start
    bundle = CacheBundleIn(
        notebook, str(path), data={"execution_seconds": seconds, "key": key_of(path, common)}
    )
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    print(f"{label}  done  {seconds:.1f} s", flush=True)
    return seconds


def execute_all() -> dict[str, float]:
    """Run every chapter that needs it, in reading order, and return seconds by name."""
    paths, cache, common = chapters(), open_cache(), common_key()
    width = max(len(p.stem) for p in paths)
    return {
        path.stem: execute(path, cache, f"[{n}/{len(paths)}] {path.stem:<{width}}", common)
        for n, path in enumerate(paths, 1)
    }
