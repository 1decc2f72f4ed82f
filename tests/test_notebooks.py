"""Each chapter runs from top to bottom; its executed copy is the one that the book shows."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from nbclient.exceptions import CellExecutionError

from book.builder import notebooks

CHAPTERS = notebooks.chapters()


@pytest.fixture(scope="module")
def cache():
    return notebooks.open_cache()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_runs(path: Path, cache) -> None:
    with FileLock(notebooks.ROOT / "_build" / "tests.lock"):  # another process of the tests may be building
        notebooks.execute(path, cache)
    _, done = cache.merge_match_into_notebook(nbformat.read(path, as_version=4))
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert outputs, "a chapter without a single output shows nothing"
    errors = [o for o in outputs if o.output_type == "error"]
    assert not errors
    complaints = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not complaints, f"warnings would stand in the book: {complaints}"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_source_is_clean(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not [c["id"] for c in code if c["outputs"] or c["execution_count"]], "carries outputs"
    assert any("assert" in "".join(c["source"]) for c in code), "a chapter checks what it says"
    too_long = {c["id"]: len("".join(c["source"]).splitlines()) for c in code}
    assert max(too_long.values()) <= 30, f"cells of more than 30 lines: {too_long}"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_text_can_be_read_where_nobody_knows_myst(path: Path) -> None:
    """Colab shows a fenced directive as a block of code, and a link without words not at all."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert not re.findall(r"^`{3,}\{.*|^~{3,}\{.*|\[\]\([^)]*\)", text, re.MULTILINE)


def test_chapters_and_appendices_are_in_the_table_of_contents() -> None:
    toc = (notebooks.ROOT / "_toc.yml").read_text()
    numbers = [f"{n:02d}" for n in range(1, 10)] + ["A1", "A2", "A3"]
    assert [path.stem[:2] for path in CHAPTERS] == numbers
    for path in CHAPTERS:
        assert f"notebooks/{path.stem}\n" in toc


def test_a_change_of_the_library_makes_a_cached_run_stale(tmp_path: Path, monkeypatch) -> None:
    """The same cells with another library must run again: the record is removed, not read."""
    monkeypatch.setattr(notebooks, "CACHE", tmp_path / "cache")
    path = tmp_path / "01_tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6 * 7")]), path)
    cache = notebooks.open_cache()
    notebooks.execute(path, cache, common="library A")
    assert notebooks.fresh_record(path, cache, common="library A") is not None
    assert notebooks.fresh_record(path, cache, common="library B") is None
    assert cache.list_cache_records() == []


@pytest.mark.parametrize(
    ("code", "stale"), [("'study_cost'", True), ("f'study_{6 * 7}'", True), ("'ferplus'; 'cost'", False)]
)
def test_a_changed_result_makes_those_chapters_stale_that_name_it(code, stale, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(notebooks, "CACHE", tmp_path / "_build" / "cache")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    record = tmp_path / "book" / "results" / "study_cost.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    path = tmp_path / "01_tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    before = notebooks.key_of(path, common="library")
    assert notebooks.key_of(path, common="library") == before
    record.write_text('{"hours": 2}')
    assert (notebooks.key_of(path, common="library") != before) == stale


def test_a_failing_cell_is_never_cached(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(notebooks, "CACHE", tmp_path / "cache")
    path = tmp_path / "01_fails.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    cache = notebooks.open_cache()
    for _ in range(2):
        with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
            notebooks.execute(path, cache)
    assert cache.list_cache_records() == []
