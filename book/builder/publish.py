"""`make publish-check`: what still has to be set before the book can be published, and where.

Everything that can be seen from the repository is checked; what only the page of settings knows is named.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from book.builder import address
from book.builder.notebooks import ROOT, chapters


class Finding(NamedTuple):
    """One thing: whether it is as it should be, what it is, and what to do where it is not."""

    ok: bool
    text: str
    advice: str = ""


def own_repository() -> str:
    """OWNER/NAME of the repository this is: told by GitHub's workflow or by git's remote; "" if neither."""
    if os.environ.get("GITHUB_REPOSITORY"):
        return os.environ["GITHUB_REPOSITORY"]
    command = ["git", "remote", "get-url", "origin"]
    remote = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    found = re.search(rf"github\.com[:/]({address.NAME})$", remote.removesuffix(".git"))
    return found[1] if found else ""


def look_at_address() -> Iterator[Finding]:
    """The repository's address: in one place, agreed with by all others, and this repository's own."""
    right, own = address.repository(), own_repository()
    if not right:
        yield Finding(False, "_config.yml has no address", "add `  url: https://github.com/OWNER/NAME`")
        return
    change = "set `url` in _config.yml, then run `python -m book.builder.address`"
    if not own:
        advice = f"`git remote add origin https://github.com/{right}`, or {change}"
        yield Finding(False, f"the address is {right}, and this clone has no such remote", advice)
    else:
        text = f"the address is {right}, " + ("as it should" if own == right else f"but this is {own}")
        yield Finding(own == right, text, change)
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path in address.places()
        if address.other_addresses(path.read_text(encoding="utf-8"), right)
    ]
    text = f"another address stands in {', '.join(wrong)}" if wrong else "all places have this address"
    yield Finding(not wrong, text, "run `python -m book.builder.address`")
    bare = []
    for path in chapters():
        text = path.read_text(encoding="utf-8")
        colab = f"colab.research.google.com/github/{right}/blob/main/notebooks/{path.name}"
        if colab not in text or f"git+https://github.com/{right}" not in text:
            bare.append(path.name)
    text = f"no badge or no set-up cell: {', '.join(bare)}" if bare else "every chapter opens in Colab"
    yield Finding(not bare, text, "give it the badge and the set-up cell that the other chapters have")


def look_at_files() -> Iterator[Finding]:
    """Licence, citation, list of versions."""
    for name, what, needed in (
        ("LICENSE", "licence", r"Copyright \(c\) \d{4} \S"),
        (
            "CITATION.cff",
            "citation file",
            rf"repository-code: \"https://github\.com/{address.repository()}\"",
        ),
        ("requirements.lock", "list of versions", r"(?m)^torch=="),
    ):
        path = ROOT / name
        there = path.is_file() and re.search(needed, path.read_text(encoding="utf-8"))
        text = f"{what}: {name}" if there else f"{what}: {name} is not there or not filled in"
        yield Finding(bool(there), text, "write it; for the list of versions `make lock`")


def look_at_workflows() -> Iterator[Finding]:
    """The workflows: there, of targets that exist, without secrets."""
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    pages = [name for name, text in texts.items() if "actions/deploy-pages@" in text]
    text = f"pages are published by {', '.join(pages)}" if pages else "no workflow publishes pages"
    yield Finding(bool(pages), text, "put a workflow with actions/deploy-pages into .github/workflows")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    called = {name for text in texts.values() for name in re.findall(r"\bmake ([\w-]+)", text)}
    missing = sorted(called - targets)
    text = f"targets that the Makefile lacks: {', '.join(missing)}" if missing else "their targets exist"
    yield Finding(not missing, text, "mend the workflow or the Makefile")
    secrets = sorted({name for text in texts.values() for name in re.findall(r"secrets\.(\w+)", text)})
    text = f"secrets to be set: {', '.join(secrets)}" if secrets else "they need no secrets"
    yield Finding(not secrets, text, "set them in the repository's settings, or do without")


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (look_at_address, look_at_files, look_at_workflows)
BY_HAND = (
    "Settings > Pages > Build and deployment > Source: GitHub Actions",
    "Settings > Environments > github-pages > Deployment branches: main",
    "Settings > Actions > General: allow actions created by GitHub",
    "a public repository, or Colab cannot read it",
)


def main() -> int:
    """Print all findings and what has to be ticked by hand; 0 when nothing is left that can be seen here."""
    left = 0
    for finding in (finding for look in LOOKS for finding in look()):
        left += not finding.ok
        print(f"  {'ok ' if finding.ok else 'SET'}  {finding.text}")
        if not finding.ok:
            print(f"       {finding.advice}")
    print("\nOnly GitHub's settings know these; tick them once by hand:")
    for line in BY_HAND:
        print(f"  [ ]  {line}")
    print(f"\n{left} to be set." if left else "\nAll that can be seen from here is set.")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
