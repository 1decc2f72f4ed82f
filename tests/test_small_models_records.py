"""The evaluation records of the small networks agree with each other and with what they were made from."""

from __future__ import annotations

import numpy as np
import pytest

from ferlib.evaluation import ResultRecord, mcnemar

NAMES = ("evaluation_ferplus", "batch_dependence_ferplus", "robustness_ferplus")


@pytest.fixture(scope="module")
def records() -> dict[str, ResultRecord]:
    return {name: ResultRecord.load(name) for name in (*NAMES, "small_model_ferplus")}


@pytest.mark.parametrize("name", NAMES)
def test_a_record_can_be_judged_and_repeated(name: str, records: dict[str, ResultRecord]) -> None:
    record = records[name]
    assert f"book/records/{name.removesuffix('_ferplus')}.py" in record.command
    assert record.commit and record.seconds > 0 and record.versions["torch"] and record.data["fingerprint"]
    for key, number in record.numbers.items():
        assert number.low <= number.high, key
        if "calibration" not in key:  # whose interval is the reflected one
            assert number.low <= number.value <= number.high, key


def test_the_same_network_has_one_accuracy(records: dict[str, ResultRecord]) -> None:
    judged, company = records["evaluation_ferplus"].numbers, records["batch_dependence_ferplus"].numbers
    trained = records["small_model_ferplus"].numbers
    assert judged["batch | accuracy"].value == pytest.approx(trained["accuracy"].value, abs=5e-4)
    assert judged["own | accuracy"].value == pytest.approx(company["alone | accuracy"].value, abs=5e-4)
    assert judged["batch | accuracy"].value == pytest.approx(
        company["shuffled 64 | accuracy"].value, abs=5e-4
    )


def test_numbers_follow_from_the_confusion_matrices(records: dict[str, ResultRecord]) -> None:
    record = records["evaluation_ferplus"]
    for name, counts in record.extra["confusion"].items():
        matrix = np.array(counts)
        assert matrix.sum(1).tolist() == record.data["per class"]
        assert record.numbers[f"{name} | accuracy"].value == pytest.approx(matrix.trace() / matrix.sum())
        recalls = matrix.diagonal() / matrix.sum(1)
        assert record.numbers[f"{name} | mean class accuracy"].value == pytest.approx(recalls.mean())


def test_comparisons_follow_from_their_counts(records: dict[str, ResultRecord]) -> None:
    record = records["evaluation_ferplus"]
    for pair, counts in record.extra["mcnemar"].items():
        first, second, p = counts.values()
        assert p == pytest.approx(mcnemar(first, second))
        gap = (first - second) / record.data["faces"]
        assert record.numbers[f"{pair} | accuracy"].value == pytest.approx(gap)


def test_robustness_is_whole_and_paired(records: dict[str, ResultRecord]) -> None:
    record = records["robustness_ferplus"]
    for kind in ("occlusion", "resolution", "darkness", "noise", "pose"):
        clean = "drawn" if kind == "pose" else "real"
        for case in (f"{kind} {severity}" for severity in record.settings["severities"]):
            one, other = (record.numbers[f"{name} | {case} | accuracy"].value for name in ("batch", "alone"))
            assert record.numbers[f"batch - alone | {case} | accuracy"].value == pytest.approx(one - other)
            change = record.numbers[f"batch | {case} | accuracy change"].value
            assert change == pytest.approx(one - record.numbers[f"batch | {clean} | accuracy"].value)
