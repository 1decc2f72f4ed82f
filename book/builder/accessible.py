"""What the theme leaves out for readers with a screen reader or a keyboard alone, put into the built pages.

* A part of the book that folds has a name on its toggle.
* A wide table, which scrolls in its place, can be reached and scrolled by keyboard.
* The parameters of a function are no list of definitions (Sphinx indents them as one).
* The works cited are a list whose items are items (Sphinx gives them a role that was retired).
* A record's name may be folded at its underscores, where a telephone shows it in a table.
"""

from __future__ import annotations

import re
from pathlib import Path

TOGGLE = '<span class="toctree-toggle"'
MENDED = (
    (f"<summary>{TOGGLE}", f'<summary aria-label="pages of this part">{TOGGLE}'),
    ('<table class="', '<table tabindex="0" class="'),
    ('<table border="1" class="dataframe', '<table tabindex="0" border="1" class="dataframe'),
    ('<dl>\n<dd><em class="sig-param">', '<dl role="presentation">\n<dd><em class="sig-param">'),
    ('role="doc-biblioentry"', 'role="listitem"'),
)
NAME = re.compile(r'(?<=<span class="xref download myst">)\w+(?=</span>)')


def mend(text: str) -> str:
    """One page with what was missing. Shape: HTML in, HTML out."""
    for without, with_it in MENDED:
        text = text.replace(without, with_it)
    return NAME.sub(lambda name: name[0].replace("_", "_<wbr>"), text)


def mend_pages(pages: Path) -> None:
    """Mend every built page in a folder."""
    for page in pages.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if (new := mend(text)) != text:
            page.write_text(new, encoding="utf-8")
