"""`python -m book.builder`: execute the chapters, build the HTML strictly, say where it is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from nbclient.exceptions import CellExecutionError

from book.builder import mathjax, notebooks

PAGE = notebooks.ROOT / "_build" / "html" / "index.html"
STAMP = PAGE.with_name("built_from.txt")
SOURCES = (
    "book/*.*",
    "book/builder/*",
    "book/results/*",
    "book/static/*",
    "notebooks/*.ipynb",
    "_*.yml",
    "*.md",
)


def source_key() -> str:
    """A digest of everything that the pages are made of."""
    digest = hashlib.sha256(notebooks.common_key().encode())
    for path in sorted(path for pattern in SOURCES for path in notebooks.ROOT.glob(pattern)):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def is_current() -> bool:
    """Whether the built pages are those of these sources."""
    return STAMP.is_file() and STAMP.read_text(encoding="utf-8") == source_key()


def build_html() -> int:
    """Build every page from a clean page state and the cache; any warning fails. Returns the exit status.

    The clean keeps the cache of executed notebooks. Without it Sphinx would skip a page that failed before
    and call the second build a success.
    """
    book = str(Path(sys.executable).with_name("jupyter-book"))
    subprocess.run([book, "clean", "."], cwd=notebooks.ROOT, check=True, stdout=subprocess.DEVNULL)
    command = [book, "build", ".", "-q", "-W", "-n", "--keep-going"]
    settings = {**os.environ, **notebooks.STATIC}
    status = subprocess.run(command, cwd=notebooks.ROOT, env=settings, stdout=subprocess.DEVNULL).returncode
    if status == 0:
        STAMP.write_text(source_key(), encoding="utf-8")
    return status


def main() -> int:
    """Build the book and return 0 only when every cell ran and no page raised a warning."""
    start = time.monotonic()
    mathjax.bring()
    try:
        seconds = notebooks.execute_all()
    except CellExecutionError as error:
        print(f"\n{error}\nA cell failed, so there is no new book. Mend the cell above and run it again.")
        return 1
    print(
        f"pages   {len(seconds)} chapters hold {sum(seconds.values()):.0f} s of execution; writing HTML ..."
    )
    status = build_html()
    if status:
        print("The pages above raised warnings or errors, so the build counts as failed.")
        return status
    print(f"The book is ready after {time.monotonic() - start:.0f} s. Open:\n  {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
