"""Verdicts follow from the intervals of records; forest plots draw what the records hold."""

from __future__ import annotations

import pytest

from ferlib.evaluation import (
    Claim,
    Interval,
    RecordError,
    ResultRecord,
    every_difference,
    highest,
    open_difference,
    points,
)
from ferlib.forest import forest

UP, DOWN, WIDE = Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01), Interval(0.02, -0.01, 0.05)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FERLIB_RESULTS", str(tmp_path))
    numbers = {
        "up - base | accuracy": UP, "up - base | accuracy | faces": Interval(0.02, -0.001, 0.04),
        "down - base | accuracy": DOWN, "wide - base | accuracy": WIDE,
        "up | accuracy": Interval(0.6, 0.5, 0.7), "down | accuracy": Interval(0.7, 0.6, 0.8),
    }  # fmt: skip
    shown = {
        "up - base | accuracy": False,
        "down - base | accuracy": True,
        "wide - base | accuracy": False,
        "wide - base | calibration error": True,
    }
    ResultRecord(name="tried", what="", numbers=numbers, extra={"shown": shown}).save(tmp_path / "tried.json")
    ResultRecord(name="plain", what="", numbers={"up": UP, "down": DOWN, "wide": WIDE}).save(
        tmp_path / "plain.json"
    )
    return tmp_path


def verdict(key: str, expected: int = 1, record: str = "plain") -> str:
    return open_difference("a", record, key, expected).verdict


def test_the_interval_gives_the_verdict_where_the_record_gives_none():
    assert [verdict(key) for key in ("up", "down", "wide")] == ["shown", "shown the other way", "not shown"]
    assert [verdict(key, -1) for key in ("up", "down")] == ["shown the other way", "shown"]
    assert [verdict(key, 0) for key in ("up", "down", "wide")] == ["shown", "shown", "not shown"]


def test_what_the_record_calls_shown_stands_above_one_interval():
    one = open_difference("up", "tried", "up - base | accuracy")
    assert one.over_faces == Interval(0.02, -0.001, 0.04)
    assert str(one) == "up: not shown, +2.0 points (+1.0 to +3.0 over seeds, -0.1 to +4.0 over faces)"
    assert verdict("down - base | accuracy", 1, "tried") == "shown the other way"


def test_one_run_each_has_an_interval_over_faces_alone():
    one = open_difference("up", "plain", "up", over="faces")
    assert one.over_seeds is None and one.over_faces == UP
    assert str(one) == "up: shown, +2.0 points (+1.0 to +3.0 over faces)"


def test_a_record_that_nobody_made_has_no_number_and_a_damaged_one_is_an_error(folder):
    missing = open_difference("swin", "nobody_made_it", "a - b | accuracy")
    assert (missing.verdict, str(missing)) == ("not run yet", "swin: not run yet")
    (folder / "broken.json").write_text("{")
    with pytest.raises(RecordError, match=r"broken\.json"):
        open_difference("a", "broken", "a - b | accuracy")
    with pytest.raises(RecordError, match="'tried' has no number 'up - nothing"):
        open_difference("a", "tried", "up - nothing | accuracy")
    with pytest.raises(ValueError, match="over is 'rooms'"):
        open_difference("a", "plain", "up", over="rooms")
    with pytest.raises(ValueError, match="expected is 2"):
        open_difference("a", "plain", "up", 2)


def claim(keys: str, needs: str) -> Claim:
    parts = (open_difference(key, "none" if key == "gone" else "plain", key) for key in keys.split())
    return Claim("It helps", "on faces", tuple(parts), needs)


@pytest.mark.parametrize(
    ("keys", "needs", "said"),
    [
        ("up up", "all", "shown"),
        ("up wide", "all", "not shown"),
        ("up wide", "any", "shown"),
        ("down down", "all", "shown the other way"),
        ("down wide", "any", "not shown"),
        ("down down", "any", "shown the other way"),
        ("gone gone", "all", "not run yet"),
        ("up gone", "all", "open: 1 of 2 not run yet"),
        ("wide gone", "all", "not shown"),
        ("wide gone", "any", "open: 1 of 2 not run yet"),
        ("up gone", "any", "shown"),
    ],
)
def test_a_claim_is_decided_as_soon_as_its_records_decide_it(keys, needs, said):
    assert claim(keys, needs).verdict == said


def test_rows_of_the_table_have_a_number_only_where_a_record_has():
    assert claim("gone gone", "any").row() == "| It helps | on faces | **not run yet** |"
    row = claim("up gone", "any").row()
    number = "+2.0 points (+1.0 to +3.0 over seeds)"
    assert row.endswith(f"| **shown**. *Shown:* up {number}. *Not run yet:* gone |")
    assert claim("up up", "all").row().endswith(f"| **shown**. up {number}; up {number} |")
    with pytest.raises(ValueError, match="no difference"):
        Claim("It helps", "on faces", ())
    with pytest.raises(ValueError, match="needs is 'most'"):
        claim("up", "most")


def test_highest_and_every_difference_read_what_is_there():
    assert highest("tried", ["up", "down"]) == "down" and highest("none", ["up", "down"]) == "up"
    found = every_difference("tri")
    assert [one.label for one in found["tried"]] == ["up - base", "down - base", "wide - base"]
    assert [one.verdict for one in found["tried"]] == ["not shown", "shown", "not shown"]
    assert every_difference("none") == {} == every_difference("plain")
    assert points(DOWN) == "-2.0 points (-3.0 to -1.0)"


def test_a_forest_has_a_row_for_each_difference_run_or_not():
    rows = ["accuracy", *(open_difference(k, "tried", f"{k} - base | accuracy") for k in ("up", "down"))]
    figure = forest([*rows, open_difference("swin", "none", "a - b")])
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["accuracy", "up", "down", "swin"]
    assert [text.get_text().strip() for text in ax.texts] == ["not run yet"]
    ends = [[round(x, 6) for x in line.get_xdata()] for line in ax.lines]
    assert [1.0, 3.0] in ends and [-3.0, -1.0] in ends and [-0.1, 4.0] in ends
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == dot.get_color() for dot in dots] == [False, True]  # filled: shown
    with pytest.raises(ValueError, match="empty"):
        forest([])
