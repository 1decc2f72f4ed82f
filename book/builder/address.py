"""Write the repository's address wherever it is needed from the one place where it stands.

`_config.yml` (`repository: url:`) is that place. Colab opens a notebook alone, without the repository, so
each set-up cell has to carry the address, and the README, the citation file and the badges lead to it. After
changing `_config.yml` run `python -m book.builder.address`. With `--check` (`make publish-check`) it changes
nothing and names what is left to set before the book can be published.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from book.builder.notebooks import ROOT

NAMED_IN = ("README.md", "CITATION.cff", "book/*.md", "notebooks/*.ipynb")
NAME = r"[\w.-]+/[\w.-]*\w"
HOSTS = r"github\.com/|colab\.research\.google\.com/github/"
# Where an address of this repository, and of no other, can stand: whatever it is there now, it is ours.
OURS = re.compile(rf"(?:git\+https://github\.com/|colab\.research\.google\.com/github/)({NAME})")
RUN = "python -m book.builder.address"
BY_HAND = """
Only GitHub's settings know these; set them once by hand:
  Settings > Pages > Build and deployment > Source: GitHub Actions
  Settings > Environments > github-pages > Deployment branches: main
  Settings > Actions > General: allow actions created by GitHub
  a public repository, or Colab cannot read it"""


def repository() -> str:
    """OWNER/NAME as `_config.yml` has it, or "" where it has none."""
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    found = re.search(rf"^  url: https://github\.com/({NAME})$", config, re.M)
    return found[1] if found else ""


def own_repository() -> str:
    """OWNER/NAME of the repository this is, from GitHub's workflow or from git's remote; "" if neither."""
    if os.environ.get("GITHUB_REPOSITORY"):
        return os.environ["GITHUB_REPOSITORY"]
    command = ["git", "remote", "get-url", "origin"]
    remote = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    found = re.search(rf"github\.com[:/]({NAME})$", remote.removesuffix(".git"))
    return found[1] if found else ""


def other_addresses(text: str, right: str) -> set[str]:
    """The addresses in a file that mean this repository and are not the right one."""
    return set(OURS.findall(text)) - {right}


def places() -> list[Path]:
    """The files that may carry the address."""
    return [path for pattern in NAMED_IN for path in sorted(ROOT.glob(pattern))]


def left_to_set() -> Iterator[str]:
    """What is wrong with the address, and what to do about it."""
    right, own = repository(), own_repository()
    if not right:
        yield "_config.yml must hold a line like `  url: https://github.com/OWNER/NAME`"
    elif not own:
        yield f"this clone has no remote on GitHub: git remote add origin https://github.com/{right}"
    elif own != right:
        yield f"_config.yml has {right}, but this is {own}: set `url` there, then run `{RUN}`"
    for path in places():
        if other_addresses(path.read_text(encoding="utf-8"), right):
            yield f"{path.relative_to(ROOT)} has another address: run `{RUN}`"


def rewrite(right: str) -> None:
    """Put the right address into the files that carry it; print which files changed."""
    texts = {path: path.read_text(encoding="utf-8") for path in places()}
    old = sorted(set().union(*(other_addresses(text, right) for text in texts.values())))
    where = re.compile(rf"({HOSTS})(?:{'|'.join(map(re.escape, old))})(?![\w-])")
    for path, text in texts.items():
        new = where.sub(lambda m: m[1] + right, text) if old else text
        if new != text:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {right}")


def main(check: bool = False) -> int:
    """Rewrite the addresses, or only name what is left to set; 0 where nothing is."""
    if not check and (right := repository()):
        rewrite(right)
        return 0
    found = list(left_to_set())
    print("\n".join(["To be set:", *found] if found else ["The address is set everywhere."]))
    print(BY_HAND)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
