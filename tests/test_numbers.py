"""No page states a measured number that no record holds. What counts as one: :mod:`tests.page_numbers`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from tests.page_numbers import Records, check, measured, read_allowed

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = Path(__file__).with_name("numbers_allowed.txt")
PLAN = ROOT / "book" / "study_design.md"  # settings that were fixed before anything was measured
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "book").glob("*.md") if page != PLAN),
    *sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")),
]


@pytest.fixture(scope="module")
def records() -> Records:
    return Records(ROOT / "book" / "results")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_measured_number_of_a_page_is_in_a_record(page: Path, records: Records) -> None:
    findings = check(page, records, read_allowed(ALLOWED))
    assert not findings, (
        "numbers that look measured; print them from a record in a cell, link the record that holds them, "
        f"or, if they are no measurements, say why in {ALLOWED.name}:\n" + "\n".join(map(str, findings))
    )


def test_each_allowed_number_still_stands_somewhere(records: Records) -> None:
    allowed, used = read_allowed(ALLOWED), set()
    for page in PAGES:
        check(page, records, allowed, used)
    assert [entry for entry in allowed if entry not in used] == [], "nothing needs these lines any more"


def test_every_page_of_the_book_is_read() -> None:
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:file|root): (\S+)", toc))
    assert named <= {str(page.relative_to(ROOT).with_suffix("")) for page in [*PAGES, PLAN]}


@pytest.fixture
def some_records(tmp_path: Path) -> Records:
    record = {
        "numbers": {"accuracy": {"value": 0.80884, "low": 0.79483, "high": 0.82211}},
        "extra": {"seconds": 12.34, "faces": 3191, "parameters": 712_440},
        "settings": {"rate": 0.123, "epochs": 77},
    }
    (tmp_path / "tiny_run.json").write_text(json.dumps(record))
    (tmp_path / "other_run.json").write_text(json.dumps({"extra": {"accuracy": 0.555}}))
    return Records(tmp_path)


def found(folder: Path, text: str, records: Records, suffix: str = ".md") -> list[str]:
    page = folder / f"page{suffix}"
    page.write_text(text, encoding="utf-8")
    return [finding.number for finding in check(page, records, [])]


PLANTED = [
    "The network is right on 87.3 % of the faces.",
    "The network is right on 87 % of the faces.",
    "The network is right on 87&nbsp;% of the faces.",
    "It reaches an accuracy of 0.873 there.",
    "It reaches $87.3\\,\\%$ there.",
    "It is right on eighty-seven per cent of the faces.",
    "It gains 2.1 points, see [the run](../book/results/tiny_run.json).",
    "It gains **3 points**.",
    "It is 3 times as fast.",
    "An epoch takes 14 seconds, or 3 minutes with SAM.",
    "It has 712,441 parameters.",
    "It is right on 41 of 60 faces.",
    "- a list, and in it 87.3 %",
    "> A quotation of nobody: 87.3 %.",
    "| what | measured |\n| --- | --- |\n| faces | 87.3 % |",
    "| what | ours |\n| --- | --- |\n| faces | 87.3 % ([run](book/results/tiny_run.json)) |",
    "```{admonition} Measured here\n:class: measured\n87.3 % ([run](../book/results/tiny_run.json)).\n```",
    "::::{grid} 1\n:::{grid-item-card} 87.3 % of the faces\nsaid loudly\n:::\n::::",
    "```{figure} static/a.webp\n:alt: a bar of 87.3 %\n\nA bar.\n```",
    '<div class="big">87.3 %</div>',
    "{cite}`her2025batch` say something. We reach 87.3 % on the same faces.",
    "It reaches 80.88 % with the rate 0.123 (`tiny_run`).",  # a setting of the record is no measurement
    "It reaches 55.5 % (`tiny_run`), which only another record holds.",
]


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_number_is_found(text: str, tmp_path: Path, some_records: Records) -> None:
    assert found(tmp_path, f"# A page\n\nIts first words.\n\n{text}\n", some_records)


HELD = [
    "It reaches 80.9 % (79.5–82.2) in 12.3 s, [the run](../book/results/tiny_run.json).",
    "It reaches 0.81, in percent 81 %: `tiny_run`, on 3,191 faces, 712,440 or 0.71 million parameters.",
    "| what | measured |\n| --- | --- |\n| accuracy, `tiny_run` | 80.9 % |",
    "{cite:t}`her2025batch` report 92.54 % on RAF-DB.",
    "```{admonition} Paper\n:class: paper\n92.54 % on RAF-DB.\n```",
    "| | paper | released code |\n| --- | --- | --- |\n| accuracy | 92.54 % | 91.1 % |",
    "With $\\alpha = 0.8$ and `rate=0.25` in section 2.3 of a picture of 48 x 48, 28 pixels, seed 1111.",
    "```python\naccuracy = 87.3  # %\n```",
    "It has [a page](https://example.org/v0.87.3).",
]


@pytest.mark.parametrize("text", HELD)
def test_what_a_record_holds_or_another_says_may_stand(
    text: str, tmp_path: Path, some_records: Records
) -> None:
    assert found(tmp_path, f"# A page\n\n{text}\n", some_records) == []


CELLS = {
    'print("accuracy 87.3 %")': True,
    'print(f"accuracy {100 * 0.5:.1f} %, it was 87.3 %")': True,
    "accuracies = [87.3, 88.1, 86.9]": True,
    'table = {"ours": (87.3, 88.1)}': True,
    "best = 87.3": True,
    "plots.bars([0.873, 0.881], names)": True,
    "x = 1  # it was 87.3 %": True,
    'print(f"accuracy {record.numbers[0]:5.1%} of {n:6.1f}")': False,
    'run = ResultRecord.load("tiny_run")\nax.axhline(80.9)\nbest = 80.9': False,
    "fig, ax = plt.subplots(figsize=(6.4, 2.5))\nrate = 1e-3": False,
    "low, high = np.quantile(x, [0.025, 0.975])": False,
}


@pytest.mark.parametrize("source", CELLS)
def test_cells_are_read_too(source: str, tmp_path: Path, some_records: Records) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    assert bool(found(tmp_path, nbformat.writes(book), some_records, ".ipynb")) == CELLS[source]


def test_captions_and_alternative_texts_are_read_too(tmp_path: Path, some_records: Records) -> None:
    for place in ({"figure": {"caption": "Right on 87.3 %."}}, {"image": {"alt": "A bar of 87.3 %"}}):
        cell = nbformat.v4.new_code_cell("fig", metadata={"mystnb": place})
        book = nbformat.v4.new_notebook(cells=[cell])
        assert found(tmp_path, nbformat.writes(book), some_records, ".ipynb") == ["87.3 %"]


def test_a_record_that_changes_is_noticed(tmp_path: Path, some_records: Records) -> None:
    text = "It reaches 80.9 %, [the run](../book/results/tiny_run.json).\n"
    assert found(tmp_path, text, some_records) == []
    (tmp_path / "tiny_run.json").write_text(json.dumps({"numbers": {"accuracy": {"value": 0.82}}}))
    assert found(tmp_path, text, Records(tmp_path)) == ["80.9 %"]


def test_an_allowed_number_needs_its_words_and_a_reason(tmp_path: Path, some_records: Records) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("page.md | a zoom of 1.2 | setting of the released code\n")
    page = tmp_path / "page.md"
    page.write_text("It takes a zoom of 1.2 there. It gains 1.2 points.\n")
    assert [finding.number for finding in check(page, some_records, read_allowed(lines))] == ["1.2 points"]
    lines.write_text("page.md | a zoom of 1.2 | \n")
    with pytest.raises(ValueError, match=r"lines\.txt:1"):
        read_allowed(lines)


def test_what_looks_measured() -> None:
    text = (
        "From 48 to 224 pixels, in 2022, 8 classes, batch 64, chapter 7: 3.5 or 12 % or 2x or 1,000 or 4 of 5"
    )
    assert [digits for _, _, digits, _ in measured(text)] == ["3.5", "12", "2", "1,000", "4"]
