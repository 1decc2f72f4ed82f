"""The front page says what is there: both systems as they are built, every chapter, results, sources."""

import re

import pytest

pages = pytest.importorskip("book.builder.pages", reason="the book's tools are not installed")
from book.builder import glance  # noqa: E402
from book.builder.notebooks import ROOT, chapters  # noqa: E402
from book.experiments import two_systems  # noqa: E402
from ferlib.evaluation import Interval, ResultRecord  # noqa: E402


def prose() -> str:
    return (ROOT / "book" / "intro.md").read_text(encoding="utf-8")


def test_the_picture_of_both_systems_is_what_the_library_builds() -> None:
    for name, text in two_systems.pictures().items():
        kept = (two_systems.STATIC / name).read_text(encoding="utf-8")
        assert kept == text, f"{name} is old: run `python -m book.experiments.two_systems`"
        assert f"static/{name}" in prose()


def test_the_map_and_the_readme_know_every_chapter() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^([0-9A]\d_\w+): .+\?$", prose(), re.M)
    assert named == [path.stem for path in chapters()]
    for path in chapters():
        assert f"(notebooks/{path.name})" in readme, f"README.md does not name {path.name}"
        assert 5 <= pages.reading_minutes(path) <= 45 and len(pages.title(path)) < 80


def test_a_test_figure_goes_with_the_file_that_was_measured() -> None:
    found = ResultRecord.load("test_ferplus")
    assert "pending" not in glance.tested("pocket_ferplus")(found)
    found.extra["files"]["pocket_ferplus"]["sha256"] = "0" * 64
    assert "on validation; test pending" in glance.tested("pocket_ferplus")(found)


def test_a_verdict_follows_from_the_interval() -> None:
    def said(low: float, high: float) -> str:
        record = ResultRecord("tried", "")
        record.add_difference("a", "b", Interval(0.01, low, high))
        return glance.points("a", "b")(record)

    assert said(-0.01, 0.03) == "+1.0 points (−1.0 to 3.0), not distinguishable from zero"
    assert said(0.002, 0.03) == "+1.0 points (0.2 to 3.0)"
