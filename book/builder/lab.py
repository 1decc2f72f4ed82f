"""A lab of 90 minutes, cut out of chapter 4: the same cells, some of their lines left blank.

`python -m book.builder.handouts` writes it beside the handouts, once with blanks and once solved. The checks
of the chapter are the tests of the lab: a cell that runs through is right.
"""

from __future__ import annotations

from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from book.builder.notebooks import ROOT

CHAPTER = ROOT / "notebooks" / "04_batch_attention.ipynb"


class Part(NamedTuple):
    """One part of the lab: its heading, what to do, and the chapter's cells with the lines to blank."""

    heading: str
    task: str
    cells: dict[str, tuple[str, ...]]


PARTS = (
    Part(
        "0. Set up, and guess (10 minutes)",
        "Run these cells. Then write your guess down, before anything is computed.",
        dict.fromkeys(("9a136d3b", "7b31d853", "1a2f5092", "08501d54", "95990de6"), ()),
    ),
    Part(
        "1. By hand (25 minutes)",
        "First with a pencil: the weights of image 0 for class 0. Then complete the loops. The last cell of "
        "part 2 compares your result with the library.",
        {
            "02c2bbcd": (),
            "ae00e752": (
                "product = sum(query[i, c, e] * key[j, c, e] for e in range(E))",
                "shares = [math.exp(s) / total for s in scores]",
                "by_hand[i, c] = sum(share * value[j, c] for j, share in enumerate(shares))",
            ),
        },
    ),
    Part(
        "2. In two lines (15 minutes)",
        "Write the same without a loop. Then find out why the fused kernel needs padding.",
        {
            "9e45964c": (
                'scores = torch.einsum("ice,jce->cij", query, key) / math.sqrt(query.shape[1])',
                'return torch.einsum("cij,jc->ic", scores.softmax(-1), value)',
            )
        },
    ),
    Part(
        "3. Train it (20 minutes)",
        "Add the two other outputs, so that all three learn. While it trains, predict the matrices.",
        {
            "1d21695a": (),
            "6f389341": (
                "cba = class_batch_attention(q, k, v, scale=scale)",
                "outputs += [cba, cba + v]",
            ),
            "900fc65d": (),
        },
    ),
    Part(
        "4. What it can and cannot do (20 minutes)",
        "Say why each fact holds before you run the check. Then return to your guess: open the explorer of "
        "chapter 4 and do its three tasks.",
        {"1945f3cc": (), "a021030e": ()},
    ),
)


def lab(*, solved: bool) -> NotebookNode:
    """The lab as a notebook, with blanks or solved.

    Raises ``ValueError`` for a line to blank that the chapter's cell does not have exactly once.
    """
    chapter = nbformat.read(CHAPTER, as_version=4)
    cells = {cell.id: cell for cell in chapter.cells}
    title = "# Lab: attention between faces" + (", solved" if solved else "")
    made = [
        nbformat.v4.new_markdown_cell(f"{title}\n\n90 minutes. From chapter 4 of the book, with its checks.")
    ]
    for part in PARTS:
        made.append(nbformat.v4.new_markdown_cell(f"## {part.heading}\n\n{part.task}"))
        for name, lines in part.cells.items():
            made.append(_copy(cells[name], () if solved else lines))
    return nbformat.v4.new_notebook(cells=made, metadata=chapter.metadata)


def _copy(cell: NotebookNode, blanks: tuple[str, ...]) -> NotebookNode:
    source = cell.source
    for line in blanks:
        if source.count(line) != 1:
            raise ValueError(f"cell {cell.id} of chapter 4 does not have this line once: {line}")
        start = "return" if line.startswith("return") else line.split(" = ")[0].split(" += ")[0]
        joint = " " if start == "return" else " += " if " += " in line else " = "
        source = source.replace(line, f"{start}{joint}...  # your turn")
    new = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    return new(source)
