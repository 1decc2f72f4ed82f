"""Which source computed a result: the commit of the repository, or the version of the installed package."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import ferlib


@cache
def commit() -> str:
    """The git commit of the source that runs: 40 digits, with ``+changes`` behind them where files that git
    tracks differ from it; ``package ferlib <version>`` where ferlib runs from an installed package.

    Asked once per process: files that change while it runs did not compute its numbers.

    Shape: returns a string. Chapters 6 and 7.
    """
    folder = Path(ferlib.__file__).resolve().parent
    package = f"package ferlib {ferlib.__version__}"
    # The library must itself be part of the repository: one that merely lies inside another's says nothing.
    if not (folder.parent / ".git").exists():
        return package
    head, listed = _git(folder, "rev-parse", "HEAD"), _git(folder, "ls-files", "--", "__init__.py")
    if head is None or listed is None:
        return f"{package}, in a repository that git cannot read"
    if not listed:
        return package
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changes else head


def _git(folder: Path, *words: str) -> str | None:
    """What git answers, or None where there is no git, no repository, or one that it must not read."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
