"""Write the repository's address wherever it is needed from the one place where it stands.

`_config.yml` (`repository: url:`) is that place. Colab opens a notebook alone, without the repository, so
each set-up cell has to carry the address, and the README links to it. After changing `_config.yml` run
`python -m book.builder.address`.
"""

from __future__ import annotations

import re
import sys

from book.builder.notebooks import ROOT

NAMED_IN = ("README.md", "book/*.md", "notebooks/*.ipynb")
WHERE = re.compile(r"(?<=github\.com/)(?:github/)?[\w.-]+/fer-book\b")


def main() -> int:
    """Rewrite every address of the book in the files that carry it; say which files changed."""
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    found = re.search(r"^  url: https://github\.com/([\w.-]+/[\w.-]+)$", config, re.M)
    if not found:
        print("_config.yml must hold a line like `  url: https://github.com/OWNER/NAME`.")
        return 1
    for pattern in NAMED_IN:
        for path in sorted(ROOT.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            new = WHERE.sub(lambda m: ("github/" if m[0].startswith("github/") else "") + found[1], text)
            if new != text:
                path.write_text(new, encoding="utf-8")
                print(f"{path.relative_to(ROOT)}: {found[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
