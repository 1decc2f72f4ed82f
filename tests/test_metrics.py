"""Scores, their bootstrap, calibration and comparison: against other libraries, by hand, by simulation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from book.figures.reliability import reliability as diagram
from ferlib import evaluation as ev
from ferlib.evaluation.metrics import ECE

NAMES = ("a", "b", "c", "d")


def answers(n: int = 300, seed: int = 0, rare: int | None = None):
    """Labels and overconfident logits of four classes; the last class has ``rare`` faces."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 4, generator=draw)
    labels = torch.multinomial((logits / 2).softmax(1), 1, generator=draw)[:, 0]
    if rare is not None:
        labels[labels == 3] = 0
        labels[:rare] = 3
    return labels, logits


def test_points_are_those_of_the_libraries():
    labels, logits = answers()
    guess = logits.argmax(1)
    found = ev.scores(labels, logits, NAMES, resamples=20)
    expected = {
        "accuracy": sk.accuracy_score(labels, guess),
        "mean class accuracy": sk.balanced_accuracy_score(labels, guess),
        "macro F1": sk.f1_score(labels, guess, average="macro"),
        ECE: float(multiclass_calibration_error(logits.softmax(1), labels, 4, n_bins=15)),
    }
    expected |= dict(
        zip([f"recall {n}" for n in NAMES], sk.recall_score(labels, guess, average=None), strict=True)
    )
    assert {name: found[name].value for name in found} == pytest.approx(expected, abs=1e-6)
    found = ev.scores(*answers(100, rare=0), NAMES, resamples=10)
    assert "recall d" not in found and "recall c" in found  # a class without faces has no recall


def test_every_resample_is_scored_as_the_faces_themselves_would_be():
    """The matrix product against resampling row by row with the same counts."""
    labels, logits = answers(60, rare=2)
    points, drawn = ev.resampled_scores(labels, logits, NAMES, resamples=25, seed=3)
    weights = np.concatenate(list(ev.Resamples(60, 25, 3).weights())).astype(int)
    assert (weights.sum(1) == 60).all() and weights.std(1).min() > 0
    sure, guess = logits.double().softmax(1).max(1)
    gaps = (sure - (guess == labels).double()).numpy()
    which = np.minimum((sure.numpy() * 15).astype(int), 14)
    signs = np.array([np.sign(gaps[which == b].sum()) for b in range(15)])[which]
    assert (gaps * signs).sum() / 60 == pytest.approx(points[ECE], abs=1e-6)
    missing = 0
    for r, counts in enumerate(weights):
        rows = np.repeat(np.arange(60), counts)
        found = ev.resampled_scores(labels[rows], logits[rows], NAMES, resamples=1).points
        missing += "recall d" not in found
        found[ECE] = (gaps * signs)[rows].sum() / 60
        for name in drawn:
            expected = found.get(name, math.nan)  # a class without faces in the resample
            assert drawn[name][r] == pytest.approx(expected, abs=1e-6, nan_ok=True), name
    assert missing, "no resample without a face of the rare class: the case was not tried"
    assert not math.isnan(ev.scores(labels, logits, NAMES, resamples=25, seed=3)["recall d"].high)


def test_the_same_seed_is_the_same_resamples_and_chunks_do_not_matter(monkeypatch):
    whole = np.concatenate(list(ev.Resamples(50, 40, 7).weights()))
    monkeypatch.setattr("ferlib.evaluation.intervals._CELLS", 500)
    parts = list(ev.Resamples(50, 40, 7).weights())
    assert len(parts) == 4
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    with pytest.raises(ValueError, match="49"):
        ev.Resamples(50).sums(np.ones((49, 2)))


def test_bootstrap_intervals_cover_as_often_as_they_say():
    """100 samples of 250 faces from a known confusion: 95 % intervals hold the truth in about 95."""
    draw = np.random.default_rng(0)
    confusion = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.1, 0.7]])
    prior = np.array([0.5, 0.3, 0.2])
    truth = {
        "accuracy": prior @ confusion.diagonal(),
        "mean class accuracy": confusion.diagonal().mean(),
        "macro F1": np.mean(2 * prior * confusion.diagonal() / (prior + prior @ confusion)),
    }
    inside = dict.fromkeys(truth, 0)
    for seed in range(100):
        labels = draw.choice(3, 250, p=prior)
        guess = (draw.random(250)[:, None] > confusion.cumsum(1)[labels][:, :2]).sum(1)
        logits = 20.0 * (guess[:, None] == np.arange(3))
        found = ev.scores(labels, logits, NAMES[:3], resamples=200, seed=seed)
        for name in truth:
            inside[name] += found[name].low <= truth[name] <= found[name].high
    for name, count in inside.items():
        assert 87 <= count <= 100, (name, count)


@pytest.mark.parametrize("loudness", [1.0, 2.0])
def test_the_calibration_errors_interval_covers_also_at_its_boundary(loudness):
    """A calibrated network's error is 0, which no percentile of plain resampled errors ever reaches."""

    def sample(n, seed):
        draw = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(n, 4, generator=draw)
        return torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0], logits * loudness

    truth = ev.calibration_error(*sample(400_000, 999)) if loudness > 1 else 0.0
    inside = 0
    for seed in range(40):
        found = ev.scores(*sample(400, seed), NAMES, resamples=100, seed=seed)[ECE]
        assert 0 <= found.low <= found.value <= found.high
        inside += found.low <= truth <= found.high
    assert inside >= 34


def test_calibration_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.35, 0.65]])
    labels = torch.tensor([0, 1, 1, 1])
    assert ev.calibration_error(labels, p.log()) == pytest.approx((0.8 + 0.7) / 4)
    bins = ev.reliability(labels, p.log(), resamples=200)
    full = [b for b in bins if b.faces]
    found = [(b.faces, round(b.confidence, 2), b.accuracy.value) for b in full]
    assert found == [(2, 0.65, 1.0), (2, 0.9, 0.5)]
    assert full[1].accuracy.low == 0 and full[1].accuracy.high == 1
    assert len(bins) == 15 and bins[0].accuracy is None and bins[6].low == pytest.approx(0.4)
    sure = torch.tensor([[50.0, -50.0], [50.0, -50.0]])  # a probability of exactly 1 is in the last bin
    assert ev.calibration_error(torch.tensor([0, 1]), sure) == pytest.approx(0.5, abs=1e-6)
    assert ev.reliability(torch.tensor([0, 1]), sure, resamples=5)[-1].faces == 2
    with pytest.raises(ValueError, match=r"\(3,\)"):
        ev.calibration_error(labels[:3], p)
    figure = diagram(bins)
    assert figure.axes[0].get_xlabel() == "confidence" and len(figure.axes[0].patches) == 15


def test_temperature_is_found_and_helps_other_faces():
    labels, logits = answers(3000)  # drawn at temperature 2
    first, second = ev.split_faces(labels, seed=1)
    assert sorted(torch.cat([first, second]).tolist()) == list(range(3000))
    for k in range(4):
        assert abs(int((labels[first] == k).sum()) - int((labels[second] == k).sum())) <= 1
    t = ev.fit_temperature(logits[first], labels[first])
    assert t == pytest.approx(2, abs=0.15)
    cost = lambda t: F.cross_entropy(logits[first].double() / t, labels[first])  # noqa: E731
    for nearby in (0.97 * t, 1.03 * t):
        assert cost(t) < cost(nearby)
    before, after = (ev.calibration_error(labels[second], logits[second] / x) for x in (1.0, t))
    assert after < before / 2
    assert ev.fit_temperature(100 * logits[first], labels[first]) == pytest.approx(100, rel=0.01)
    assert [len(part) for part in ev.split_faces(labels, 0.2)] == [600, 2400]
    again = ev.split_faces(labels, seed=1)
    assert torch.equal(again[0], first) and not torch.equal(ev.split_faces(labels, seed=2)[0], first)


def test_mcnemar_by_hand():
    assert ev.mcnemar(5, 1) == pytest.approx(2 * (1 + 6) / 64)
    assert ev.mcnemar(1, 5) == ev.mcnemar(5, 1)
    assert ev.mcnemar(0, 0) == 1 and ev.mcnemar(4, 4) == 1
    assert ev.mcnemar(12, 3) == pytest.approx(stats.binomtest(12, 15).pvalue)
    with pytest.raises(ValueError):
        ev.mcnemar(-1, 2)


def test_two_networks_on_the_same_faces():
    labels, first = answers(500)
    second = first.clone()
    second[:40] = torch.nn.functional.one_hot((labels[:40] + 1) % 4, 4) * 9.0  # wrong on 40 faces
    found = ev.compare(labels, first, second, NAMES)
    right = first.argmax(1) == labels
    assert found.only_first == int(right[:40].sum()) and found.only_second == 0
    assert found.difference.value == pytest.approx(found.only_first / 500) == found.first - found.second
    assert found.p_value == pytest.approx(0.5 ** (found.only_first - 1))
    assert found.difference.verdict() == "higher"
    back = ev.compare(labels, second, first, NAMES)
    assert back.difference.low == pytest.approx(-found.difference.high)
    assert back.difference.verdict() == "lower"
    same = ev.compare(labels, first, first * 3, NAMES, metric="macro F1")
    assert (same.difference.low, same.difference.high, same.p_value) == (0, 0, 1)
    assert same.difference.verdict() == "not distinguishable from zero"
    sharper = ev.compare(labels, first, first * 3, NAMES, metric=ECE)
    assert sharper.difference.high < 0  # the same answers, said more loudly
    # pairing: the difference is known better than either number
    alone = ev.scores(labels, first, NAMES)["accuracy"]
    assert found.difference.high - found.difference.low < alone.high - alone.low
    with pytest.raises(ValueError, match="'f1'"):
        ev.compare(labels, first, second, NAMES, metric="f1")


def test_seeds_are_summarized_by_students_interval():
    found = ev.summarize([0.80, 0.84, 0.79, 0.81])
    low, high = stats.t.interval(0.95, 3, loc=0.81, scale=stats.sem([0.80, 0.84, 0.79, 0.81]))
    assert (found.value, found.low, found.high) == pytest.approx((0.81, low, high))
    assert math.isnan(ev.summarize([0.8]).low)
    with pytest.raises(ValueError, match="one number per run"):
        ev.summarize([])


def test_shapes_that_do_not_fit_are_told():
    labels, logits = answers(10)
    for wrong in ((labels, logits, NAMES[:3]), (labels[:9], logits, NAMES), (labels[:0], logits[:0], NAMES)):
        with pytest.raises(ValueError):
            ev.scores(*wrong)
    with pytest.raises(ValueError, match="a label is -1"):
        ev.scores(labels - 1 - labels.min(), logits, NAMES)
