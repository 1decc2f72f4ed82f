"""Write the repository's address wherever it is needed from the one place where it stands.

`_config.yml` (`repository: url:`) is that place. Colab opens a notebook alone, without the repository, so
each set-up cell has to carry the address, and the README, the citation file and the badges lead to it. After
changing `_config.yml` run `python -m book.builder.address`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from book.builder.notebooks import ROOT

NAMED_IN = ("README.md", "CITATION.cff", "book/*.md", "notebooks/*.ipynb")
NAME = r"[\w.-]+/[\w.-]*\w"
HOSTS = r"github\.com/|colab\.research\.google\.com/github/"
# Where an address of this repository, and of no other, can stand: whatever it is there now, it is ours.
OURS = re.compile(rf"(?:git\+https://github\.com/|colab\.research\.google\.com/github/)({NAME})")


def repository() -> str:
    """OWNER/NAME as `_config.yml` has it, or "" where it has none."""
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    found = re.search(rf"^  url: https://github\.com/({NAME})$", config, re.M)
    return found[1] if found else ""


def other_addresses(text: str, right: str) -> set[str]:
    """The addresses in a file that mean this repository and are not the right one."""
    return set(OURS.findall(text)) - {right}


def places() -> list[Path]:
    """The files that may carry the address."""
    return [path for pattern in NAMED_IN for path in sorted(ROOT.glob(pattern))]


def main() -> int:
    """Rewrite every address of the book in the files that carry it; say which files changed."""
    right = repository()
    if not right:
        print("_config.yml must hold a line like `  url: https://github.com/OWNER/NAME`.")
        return 1
    texts = {path: path.read_text(encoding="utf-8") for path in places()}
    old = sorted(set().union(*(other_addresses(text, right) for text in texts.values())))
    where = re.compile(rf"({HOSTS})(?:{'|'.join(map(re.escape, old))})(?![\w-])")
    for path, text in texts.items():
        new = where.sub(lambda m: m[1] + right, text) if old else text
        if new != text:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {right}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
