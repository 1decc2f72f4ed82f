"""Verdicts follow from the intervals of records; forest plots draw what the records hold."""

import pytest

from book.figures.forest import forest
from book.figures.verdicts import Claim, effect, highest
from ferlib.evaluation import Interval, RecordError, ResultRecord

UP, DOWN, WIDE = Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01), Interval(0.02, -0.01, 0.05)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FERLIB_RESULTS", str(tmp_path))
    record = ResultRecord(name="tried", what="")
    for arm, found in {"up": UP, "down": DOWN, "wide": WIDE}.items():
        record.add_difference(arm, "base", found, over="seeds")
    record.add_difference("up", "unsure", UP, over="seeds")
    record.add_difference("up", "unsure", Interval(0.02, -0.001, 0.04), over="faces")
    record.add_difference("one run", "base", UP, over="faces")
    record.add("accuracy", Interval(0.6, 0.5, 0.7), "up")
    record.add("accuracy", Interval(0.7, 0.6, 0.8), "down")
    record.save()
    return tmp_path


def verdict(arm: str, expected: int = 1) -> str:
    return effect("a", "tried", arm, "base", expected=expected).verdict


def test_the_interval_gives_the_verdict():
    assert [verdict(arm) for arm in ("up", "down", "wide")] == ["shown", "shown the other way", "not shown"]
    assert [verdict(arm, -1) for arm in ("up", "down")] == ["shown the other way", "shown"]
    assert [verdict(arm, 0) for arm in ("up", "down", "wide")] == ["shown", "shown", "not shown"]
    one = effect("up", "tried", "up", "unsure")  # all its intervals have to leave out zero
    assert str(one) == "up: not shown, +2.0 points (+1.0 to +3.0 over seeds, -0.1 to +4.0 over faces)"
    assert str(effect("up", "tried", "one run", "base")) == "up: shown, +2.0 points (+1.0 to +3.0 over faces)"
    assert highest("tried", ["up", "down"]) == "down" and highest("none", ["up", "down"]) == "up"


def test_a_record_that_nobody_made_has_no_number_and_a_damaged_one_is_an_error(folder):
    missing = effect("swin", "nobody_made_it", "a", "b")
    assert (missing.verdict, str(missing)) == ("not run yet", "swin: not run yet")
    (folder / "broken.json").write_text("{")
    with pytest.raises(RecordError, match="broken"):
        effect("a", "broken", "a", "b")
    with pytest.raises(RecordError, match="nothing"):
        effect("a", "tried", "up", "nothing")
    with pytest.raises(ValueError, match="expected is 2"):
        effect("a", "tried", "up", "base", expected=2)


def claim(keys: str, needs: str) -> Claim:
    parts = (effect(key, "none" if key == "gone" else "tried", key, "base") for key in keys.split())
    return Claim("It helps", "on faces", tuple(parts), needs)


@pytest.mark.parametrize(
    ("keys", "needs", "said"),
    [
        ("up up", "all", "shown"),
        ("up wide", "all", "not shown"),
        ("up wide", "any", "shown"),
        ("down down", "all", "shown the other way"),
        ("down wide", "any", "not shown"),
        ("gone gone", "all", "not run yet"),
        ("up gone", "all", "open: 1 of 2 not run yet"),
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


def test_a_forest_has_a_row_for_each_difference_run_or_not():
    rows = ["accuracy", effect("up", "tried", "up", "unsure"), effect("down", "tried", "down", "base")]
    figure = forest([*rows, effect("swin", "none", "a", "b")])
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["accuracy", "up", "down", "swin"]
    assert [text.get_text().strip() for text in ax.texts] == ["not run yet"]
    ends = [[round(x, 6) for x in line.get_xdata()] for line in ax.lines]
    assert [1.0, 3.0] in ends and [-0.1, 4.0] in ends
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == dot.get_color() for dot in dots] == [False, True]  # filled: shown
    with pytest.raises(ValueError, match="empty"):
        forest([])
