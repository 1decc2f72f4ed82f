"""The report runs, and its tables of claims and of released behavior hold only numbers of records."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = ROOT / "notebooks" / "09_reproduction_report.ipynb"


@pytest.fixture(scope="module")
def scope():
    """What the chapter's cells leave behind."""
    found: dict = {}
    with plt.rc_context():
        for cell in nbformat.read(CHAPTER, 4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, CHAPTER.name, "exec"), found)
        plt.close("all")
    return found


def test_the_table_and_the_ledger_say_what_is_there(scope):
    claims, ledger = scope["claims"], scope["ledger"]
    assert len(claims) >= 20 and len(ledger) >= 12
    for claim in claims:
        assert claim.verdict in ("shown", "not shown", "shown the other way", "not run yet") or re.fullmatch(
            r"open: \d+ of \d+ not run yet", claim.verdict
        )
        run = [one for one in claim.differences if one.value is not None]
        assert claim.row().count(" points (") == len(run)  # no other number
    assert not [row for row in ledger if row.rstrip(" |").endswith("|")], "a row without its effect"
    assert not any("no difference" in row for row in [*ledger, *(claim.row() for claim in claims)])
