"""A share or a difference that a page states in per cent or points is in a record that stands beside it.

Looked at are README, pages and the chapters' text: in each paragraph, table row or list item, every number
with ``%`` or ``points`` behind it has to be in a record that the same block names (in a link, in code), to
the digits that are printed. Left out are code and equations, what the paper or its released code says
(admonitions of these classes, paragraphs and rows that cite), and ``NO_MEASUREMENTS``.
"""

import json
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import nbformat
import pytest

from tests.wheel import ROOT

PLAN = ROOT / "book" / "study_design.md"  # settings that were fixed before anything was measured
PAGES = [ROOT / "README.md", *sorted({*(ROOT / "book").glob("*.md")} - {PLAN})]
PAGES += sorted((ROOT / "notebooks").glob("[0-9A]*.ipynb"))
NO_MEASUREMENTS = (  # the book's level of confidence, a claim of the paper, chance, examples of exercises
    "95 % interval",
    "network that is 60 % sure",
    "0.3 points better than 92.2 %",
    "differ on 5 % of them",
    "in 97 % of all pictures",
)
OTHERS = re.compile(r"^(:{3,})\{admonition\}[^\n]*\n:class: (?:paper|released-code).*?\n\1$", re.M | re.S)
UNREAD = re.compile(  # blocks of code, options of directives, equations, code, addresses
    r"^(`{3,})(?!\{(?:admonition|figure)).*?\n\1$|^:[\w-]+:.*?$|\$\$.*?\$\$|`[^`\n]*`|\]\([^)]*\)",
    re.M | re.S,
)
MEASURED = re.compile(r"(?<![\w.,])(\d+(?:\.\d+)?)(?:\s|&nbsp;|\\,|\*)*(?:\\?%|per cent|points?\b)")
BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[|*+-]|\d+\.)\s)")


def text_of(page: Path) -> str:
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    cells = nbformat.read(page, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def numbers(value: object) -> Iterator[float]:
    """The numbers in a record but for its settings."""
    if isinstance(value, dict):
        parts = (one for key, one in value.items() if key not in ("settings", "versions"))
        yield from (n for one in parts for n in numbers(one))
    elif isinstance(value, list):
        yield from (n for one in value for n in numbers(one))
    elif isinstance(value, int | float):
        yield abs(value)


@pytest.fixture(scope="module")
def records() -> dict[str, list[float]]:
    files = (ROOT / "book" / "results").glob("*.json")
    return {path.stem: list(numbers(json.loads(path.read_text(encoding="utf-8")))) for path in files}


def unheld(text: str, records: dict[str, list[float]]) -> Iterator[str]:
    """Sentences whose measured number no record beside them holds, each with that number before it."""
    for block in BLOCK.split(OTHERS.sub("", text)):
        named = [n for name in set(re.findall(r"\w+", block)) & records.keys() for n in records[name]]
        plain = reduce(lambda text, words: text.replace(words, ""), NO_MEASUREMENTS, UNREAD.sub("", block))
        for sentence in re.split(r"(?<=[.?!|])\s+", plain):
            for number in () if "{cite" in block else MEASURED.findall(sentence):
                half = 0.5 * 10.0 ** -len(number.partition(".")[2]) + 1e-9
                if not any(abs(scale * n - float(number)) <= half for n in named for scale in (1, 100)):
                    yield f"{number}: {' '.join(sentence.split())}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_measured_number_of_a_page_is_in_a_record(page: Path, records: dict[str, list[float]]) -> None:
    found = list(unheld(text_of(page), records))
    assert not found, f"name the record beside the number, or read the number from it: {found}"


TINY = {"tiny_run": [0.80884, 0.79483], "other_run": [0.555]}
WRONG = [
    "Right on 87.3 % of the faces (`tiny_run`).",
    "Right on 87&nbsp;% of the faces.",
    "- a list, and in it $87.3\\,\\%$",
    "| what | ours |\n| --- | --- |\n| accuracy, `other_run` | 55.5 % |\n| another row | 55.5 % |",
    ":::{admonition} Measured here\n:class: measured\n87.3 % ([run](../book/results/tiny_run.json)).\n:::",
]
RIGHT = [
    "It reaches 80.9 % (79.5 % at least), [the run](../book/results/tiny_run.json).",
    "| what | measured |\n| --- | --- |\n| accuracy, `tiny_run` | 81 % |",
    ":::{admonition} Paper\n:class: paper\n92.54 % on RAF-DB.\n:::",
    "```python\nwidth = '87.3 %'\n```",
]


@pytest.mark.parametrize(("text", "held"), [*((t, False) for t in WRONG), *((t, True) for t in RIGHT)])
def test_a_planted_number_is_found_and_a_recorded_one_may_stand(text: str, held: bool) -> None:
    assert (list(unheld(f"# A page\n\nIts first words.\n\n{text}\n", TINY)) == []) == held
