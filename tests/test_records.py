"""Records are data: typed numbers are found by what they are of, and come back from disk as they were."""

import json
import math

import pytest

from ferlib.evaluation import Difference, Interval, Number, RecordError, ResultRecord


@pytest.fixture
def record() -> ResultRecord:
    made = ResultRecord("tried", "two arms in two lights")
    for arm, value in (("batch", 0.8), ("alone", 0.7)):
        made.add("accuracy", Interval(value, value - 0.1, value + 0.1), arm, over="faces")
        made.add("accuracy", Interval(value - 0.2), arm, condition="darkness 3", by_seed=(0.1, 0.2))
    made.add("accuracy", Interval(0.5, 0.4, 0.6))
    gap = Interval(0.1, 0.02, 0.18)
    made.add_difference("batch", "alone", gap, over="seeds", p=0.01, detectable=0.03)
    made.add_difference("batch", "alone", Interval(0.1, -0.1, 0.3), over="faces")
    ends = {"equivalence": (-0.004, 0.004), "margin": 0.005}
    made.add_difference("batch", "alone", gap, "macro F1", condition="darkness 3", **ends)
    return made


def test_a_number_is_found_by_metric_arm_and_condition(record: ResultRecord) -> None:
    assert record.get("accuracy").value == 0.5
    assert record.get("accuracy", "batch").value == 0.8
    assert record.get("accuracy", arm="alone", condition="darkness 3").by_seed == (0.1, 0.2)
    assert record.get("accuracy", "batch", over="faces").percent() == "80.0 % (70.0-90.0)"
    assert record.get("accuracy", "batch", "darkness 3").percent() == "60.0 %"  # it has no interval


def test_a_difference_is_found_by_its_two_arms(record: ResultRecord) -> None:
    found = record.difference("batch", "alone")
    assert (found.over, found.p, found.points()) == ("seeds", 0.01, "+10.0 points (+2.0 to +18.0)")
    assert record.difference("batch", "alone", over="faces").low == -0.1
    assert set(record.intervals("batch", "alone")) == {"seeds", "faces"}
    assert record.difference("batch", "alone", "macro F1", "darkness 3").margin == 0.005
    verdicts = [record.difference("batch", "alone", over=over).verdict() for over in ("seeds", "faces")]
    assert verdicts == ["higher", "not distinguishable from zero"]
    assert Interval(-0.2, -0.3, -0.1).verdict() == "lower"


def test_what_is_not_there_is_named_beside_what_is(record: ResultRecord) -> None:
    for read, asked in (
        (record.get, ("accuracy", "nobody")),
        (record.get, ("accuracy", "batch", "nobody")),
        (record.get, ("nobody",)),
        (record.difference, ("batch", "nobody")),
        (record.difference, ("batch", "alone", "nobody")),
    ):
        with pytest.raises(RecordError, match=r"'tried'.*nobody.*batch|'tried'.*batch.*nobody"):
            read(*asked)
    for read, asked in ((record.get, ("accuracy", "batch")), (record.difference, ("batch", "alone"))):
        with pytest.raises(RecordError, match="nobody"):
            read(*asked, over="nobody")


def test_a_record_comes_back_as_it_was(record: ResultRecord, tmp_path) -> None:
    again = ResultRecord.load(record.save(tmp_path / "tried.json"))
    assert again == record
    lines = record.table().splitlines()
    assert lines[0].split() == ["accuracy", "macro", "F1"] and len(lines) == 8
    assert any(line.startswith("batch minus alone, darkness 3") and "10.0 %" in line for line in lines)
    assert isinstance(again.numbers[0], Number) and isinstance(again.differences[0], Difference)
    assert math.isnan(again.get("accuracy", "batch", "darkness 3").low)
    held = json.loads((tmp_path / "tried.json").read_text())
    place = {"metric": "accuracy", "arm": "batch", "condition": "darkness 3"}
    assert held["numbers"][1] == place | {"by_seed": [0.1, 0.2], "value": pytest.approx(0.6)}
    assert held["differences"][0]["contrast"] == ["batch", "alone"]
