"""`python -m book.builder`: execute the chapters, build the HTML strictly, say where it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from nbclient.exceptions import CellExecutionError

from book.builder import mathjax, notebooks

PAGE = notebooks.ROOT / "_build" / "html" / "index.html"


def build_html() -> int:
    """Build every page from a clean page state and the cache; any warning fails. Returns the exit status.

    The clean keeps the cache of executed notebooks. Without it Sphinx would skip a page that failed before
    and call the second build a success.
    """
    book = str(Path(sys.executable).with_name("jupyter-book"))
    subprocess.run([book, "clean", "."], cwd=notebooks.ROOT, check=True, stdout=subprocess.DEVNULL)
    command = [book, "build", ".", "-q", "-W", "-n", "--keep-going"]
    settings = {**os.environ, **notebooks.STATIC}
    return subprocess.run(command, cwd=notebooks.ROOT, env=settings, stdout=subprocess.DEVNULL).returncode


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
