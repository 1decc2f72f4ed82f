"""Metrics against hand counts and scikit-learn, intervals against their definition, records against loss."""

import json
from dataclasses import astuple

import numpy as np
import pytest
import torch

from ferlib.data.base import fingerprint
from ferlib.evaluation import (
    Interval,
    PredictionError,
    RecordError,
    ResultRecord,
    accuracy,
    accuracy_interval,
    bootstrap_interval,
    confusion_matrix,
    evaluate,
    mean_interval,
    predict,
    scores,
    wilson_interval,
)
from ferlib.evaluation.metrics import recalls
from tests.tiny import Spots, net

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
GUESSES = np.array([0, 0, 0, 1, 1, 0, 2, 2, 0, 2])


def test_counts_by_hand():
    assert accuracy(LABELS, GUESSES) == 0.7
    expected = [[3, 1, 0, 0], [1, 1, 0, 0], [1, 0, 3, 0], [0] * 4]
    assert confusion_matrix(LABELS, GUESSES, 4).tolist() == expected
    np.testing.assert_allclose(recalls(confusion_matrix(LABELS, GUESSES, 4)), [0.75, 0.5, 0.75, np.nan])
    for wrong in (lambda: accuracy([0, 1], [0]), lambda: confusion_matrix([0, 1], [0, 3], 3)):
        with pytest.raises(ValueError):
            wrong()
    found = scores(LABELS, np.eye(4)[GUESSES], "abcd", resamples=5)
    assert found["mean class accuracy"].value == pytest.approx(2 / 3)
    assert found["macro F1"].value == pytest.approx(np.mean([6 / 9, 2 / 4, 6 / 7]))


def test_wilson_against_its_equation():
    """The ends of the interval are the p0 for which |p - p0| = z sqrt(p0 (1 - p0) / n)."""
    for right, total in [(7, 10), (0, 5), (5, 5), (812, 1000)]:
        found = wilson_interval(right, total)
        p = right / total
        for end in (found.low, found.high):
            assert (p - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / total, abs=1e-6)
        assert 0 <= found.low <= p <= found.high <= 1
    for right, total in ((11, 10), (-1, 10), (0, 0)):
        with pytest.raises(ValueError):
            wilson_interval(right, total)


def test_all_ways_to_resample_are_one():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 400)
    guesses = np.where(draw.random(400) < 0.8, labels, (labels + 1) % 3)
    plain = bootstrap_interval(accuracy, labels, guesses, resamples=500)
    assert astuple(mean_interval(labels == guesses, resamples=500)) == pytest.approx(astuple(plain))
    quick = scores(labels, np.eye(3)[guesses], "abc", resamples=500)["accuracy"]
    assert astuple(quick) == pytest.approx(astuple(plain))
    wilson = accuracy_interval(labels, guesses)
    assert astuple(wilson) == pytest.approx(astuple(plain), abs=0.006)


class BatchNet(torch.nn.Module):
    """Answers with the batch's mean brightness: depends on who else is there."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        means = images.mean((1, 2, 3))
        others = means.mean().expand_as(means)
        return self.scale * torch.stack([means, others, -means, means * 0], 1)


def test_predictions_keep_the_order_and_the_mode():
    model, data = net().train(), Spots(30)
    logits, labels = predict(model, data, batch_size=7)
    assert model.training and torch.equal(labels, data.labels) and logits.shape == (30, 4)
    shuffled, _ = predict(model, data, batch_size=7, shuffle=3)
    torch.testing.assert_close(shuffled, logits)  # each face by itself: the batches do not matter
    whole, _ = predict(BatchNet(), data, batch_size=30)
    mixed, _ = predict(BatchNet(), data, batch_size=5, shuffle=3)
    torch.testing.assert_close(mixed[:, 0], whole[:, 0])
    assert not torch.allclose(mixed[:, 1], whole[:, 1])
    with pytest.raises(ValueError, match="empty"):
        predict(model, Spots(0))
    model.head.bias.data[2] = torch.nan
    with pytest.raises(PredictionError, match="NaN for 30 of 30 faces"):
        predict(model, data)


def test_a_record_tells_everything_and_comes_back(tmp_path):
    data = Spots(60)
    model = net()
    record = evaluate(model, data, name="tiny", split="valid", resamples=50, settings={"recipe": "none"})
    logits, labels = predict(model, data)
    assert record.get("accuracy").value == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert np.sum(record.confusion) == 60 == sum(record.data["per class"])
    metrics = {number.metric for number in record.numbers}
    assert {"accuracy", "mean class accuracy", "macro F1", "recall upper left"} <= metrics
    assert record.versions["torch"] == torch.__version__ and record.date.endswith("+00:00")
    assert record.settings["batch_size"] == 64 and record.settings["recipe"] == "none"
    path = record.save(tmp_path / "sub" / "tiny.json")
    assert ResultRecord.load(path) == record
    assert isinstance(ResultRecord.load(path).get("accuracy"), Interval)
    assert "accuracy" in record.table() and "%" in record.table()


def test_records_are_found_by_name_and_damage_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("FERLIB_RESULTS", str(tmp_path))
    ResultRecord("mine", "a test").save()
    assert ResultRecord.load("mine").what == "a test"
    with pytest.raises(RecordError, match=r"no record 'yours'.*book/experiments"):
        ResultRecord.load("yours")
    whole = json.loads((tmp_path / "mine.json").read_text())
    number = {"metric": "accuracy", "value": 0.5}
    for damaged in (
        json.dumps(whole)[:50],
        "[]",
        "[" * 100_000,
        b"\xff\xfe",
        {"classes": 5},
        {"settings": None},
        {"strange": 1},
        {"numbers": [{"value": 1}]},
        {"numbers": [number | {"value": "high"}]},
        {"numbers": [number | {"low": None}]},
        {"differences": [number]},
    ):
        text = json.dumps(whole | damaged) if isinstance(damaged, dict) else damaged
        (tmp_path / "bad.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(RecordError, match=r"bad\.json") as error:
            ResultRecord.load("bad")
        assert len(str(error.value)) < 500 and "\n" not in str(error.value)
    (tmp_path / "good.json").write_text(json.dumps(whole | {"numbers": [number]}))
    assert ResultRecord.load("good").get("accuracy").value == 0.5
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write"):
        ResultRecord("mine", "a test").save(tmp_path / "file" / "mine.json")


def test_the_fingerprint_sees_images_labels_and_order():
    first, again, other = Spots(40), Spots(40), Spots(40, seed=1)
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    again.images[39, 0, 3, 3] ^= 1  # one pixel of the last face
    assert fingerprint(first) != fingerprint(again)
    relabelled = Spots(40)
    relabelled.labels = relabelled.labels.flip(0)
    assert fingerprint(first) != fingerprint(relabelled)
