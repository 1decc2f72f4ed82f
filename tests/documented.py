"""The keys that the page on the command line promises for ``--json``."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "book" / "api_commands.md"


def keys(command: str) -> set[str]:
    """Those of the outermost object; what stands in brackets is inside of one."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in lines if line.startswith(f"| `{command} --json` |"))
    return set(re.findall("`([^`]+)`", re.sub(r"\([^()]*\)", "", row.split("|")[2])))
