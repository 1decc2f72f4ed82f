"""A guess is kept in the reader's browser and shown again where it is settled."""

from pathlib import Path

import pytest

from book.figures.guess import Guess
from tests.reader import Reader

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]' brings Playwright")


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    guess, other = Guess("one", "How many <points>?", "Which?"), Guess("two", "And here?")
    parts = [guess._repr_html_(), other._repr_html_(), guess.settled("about 2", "the second").data]
    path = tmp_path / "page.html"
    path.write_text("<!DOCTYPE html><meta charset='utf-8'>" + "".join(parts), encoding="utf-8")
    return path


def test_a_guess_is_kept_and_shown_where_it_is_settled(browser, page_file: Path) -> None:
    with Reader(browser, page_file) as reader:
        page = reader.page
        words = page.locator("q")
        assert words.all_inner_texts() == ["(nothing written down)"] * 2
        page.keyboard.press("Tab")
        page.keyboard.type("3 <b>or</b> so")
        assert words.all_inner_texts() == ["3 <b>or</b> so", "(nothing written down)"]
        page.get_by_label("Which?").fill("the first")
        page.reload()
        assert words.all_inner_texts() == ["3 <b>or</b> so", "the first"]
        assert page.get_by_label("How many <points>?").input_value() == "3 <b>or</b> so"
        assert page.get_by_label("And here?").input_value() == ""
        assert reader.errors == reader.outside == []


def test_a_guess_works_where_nothing_may_be_stored(browser, page_file: Path) -> None:
    refused = "<script>Object.defineProperty(window, 'localStorage', {get() { throw Error('no'); }});</script>"
    page_file.write_text(refused + page_file.read_text(encoding="utf-8"), encoding="utf-8")
    with Reader(browser, page_file) as reader:
        reader.page.get_by_label("Which?").fill("the first")
        assert reader.page.locator("q").last.inner_text() == "the first"
        assert reader.errors == []


def test_each_question_has_one_answer() -> None:
    with pytest.raises(ValueError, match="zip"):
        Guess("one", "How many?", "Which?").settled("only one")
