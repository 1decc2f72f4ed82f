"""The lab for teachers: solved it runs through; with a blank or a mistake in it, a check fails."""

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from book.builder import lab
from book.builder.notebooks import ROOT


def run(notebook: nbformat.NotebookNode) -> None:
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    ).execute()


def test_the_solved_lab_runs_through() -> None:
    solved = lab.lab(solved=True)
    run(solved)
    assert any(
        "image/png" in output.get("data", {}) for cell in solved.cells for output in cell.get("outputs", [])
    )


def test_a_blank_that_stays_is_found_by_the_next_check() -> None:
    blanks = sum(len(lines) for part in lab.PARTS for lines in part.cells.values())
    notebook = lab.lab(solved=False)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert "\n".join(code).count("# your turn") == blanks >= 6
    with pytest.raises(CellExecutionError):
        run(notebook)
    # with the first blank alone: the comparison with the library fails, not the blank itself
    solved = lab.lab(solved=True)
    cell = next(c for c in solved.cells if "by_hand = torch.zeros" in c.source)
    cell.source = cell.source.replace("/ total for s", "for s")
    with pytest.raises(CellExecutionError, match="not close"):
        run(solved)


def test_a_line_that_the_chapter_lost_is_named() -> None:
    cell = nbformat.v4.new_code_cell("a = 1")
    with pytest.raises(ValueError, match="b = 2"):
        lab._copy(cell, ("b = 2",))
