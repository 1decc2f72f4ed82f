"""Faces made harder: the same every time, more with every step; what the suite makes of them."""

import numpy as np
import pytest
import torch

from ferlib.data import DataError, SyntheticFaces
from ferlib.data.faces import KeptFaces, SomeFaces
from ferlib.evaluation import CORRUPTIONS, CorruptedFaces, ResultRecord, describe_corruption, robustness
from ferlib.evaluation.suites import METRICS, corrupt
from tests.tiny import Spots, net

DRAWN = SyntheticFaces(6, size=48, framing="ferplus", seed=5)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_steps_go_further_and_keep_everything_but_the_picture(kind):
    clean = DRAWN.batch(range(6))["image"].float()
    changes = []
    for severity in (1, 2, 4, 5):
        corrupted = CorruptedFaces(DRAWN, kind, severity)
        batch = corrupted.batch(range(6))
        assert batch["image"].dtype == torch.uint8 and batch["image"].shape == clean.shape
        changes.append((batch["image"].float() - clean).abs().mean((1, 2, 3)))
        assert torch.equal(corrupted.labels, DRAWN.labels) and torch.equal(corrupted.votes, DRAWN.votes)
        assert batch["name"] == DRAWN.batch(range(6))["name"] and corrupted.classes == DRAWN.classes
    steps = torch.stack(changes).diff(dim=0)
    assert steps.mean(1).min() > 0, "a step that changes the faces less than the one before it"
    if kind in ("occlusion", "darkness", "noise"):  # these go further on every single face
        assert steps.min() >= 0


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_face_is_corrupted_alike_in_every_batch(kind):
    corrupted = CorruptedFaces(KeptFaces(DRAWN), kind, 3, seed=2)
    whole = corrupted.batch(range(6))["image"]
    assert torch.equal(corrupted.batch([4, 1])["image"], whole[[4, 1]])
    assert torch.equal(corrupted[5]["image"], whole[5]) and corrupted[5]["label"] == int(DRAWN.labels[5])
    assert torch.equal(corrupted[-1]["image"], whole[5])
    assert torch.equal(CorruptedFaces(DRAWN, kind, 3, seed=2).batch(range(6))["image"], whole)
    other = CorruptedFaces(DRAWN, kind, 3, seed=3).batch(range(6))["image"]
    assert torch.equal(other, whole) == (kind not in ("occlusion", "noise"))


def test_what_a_step_does_by_hand():
    faces = torch.full((3, 3, 40, 40), 200, dtype=torch.uint8)
    dark = corrupt(faces, "darkness", 2, range(3))
    assert (dark == round(200 * 0.25 ** (1 / 2.2))).all()
    hidden = corrupt(faces, "occlusion", 4, range(3)) != faces
    for mask in hidden[:, 0]:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert 20 <= rows <= 21 and 20 <= columns <= 21 and mask.sum() == rows * columns
    assert len({tuple(m.nonzero()[0].tolist()) for m in hidden[:, 0]}) == 3, "all hidden at one place"
    noisy = corrupt(torch.full((2, 1, 64, 64), 128, dtype=torch.uint8), "noise", 3, range(2)).double() - 128
    assert float(noisy.std()) == pytest.approx(24, rel=0.05) and not torch.equal(noisy[0], noisy[1])
    stripes = (255 * (torch.arange(64) % 2)).to(torch.uint8).expand(1, 1, 64, 64)
    assert (corrupt(stripes, "resolution", 2, [0]).float() - 127.5).abs().mean() < 30  # 28 of 64 pixels
    small = torch.randint(0, 255, (1, 1, 28, 28), dtype=torch.uint8)
    assert torch.equal(corrupt(small, "resolution", 2, [0]), small)  # 28 pixels have nothing to lose
    assert describe_corruption("resolution", 2) == "28 pixels across"
    assert "60%" in describe_corruption("occlusion", 5)


def test_turned_faces_are_the_same_people_turned():
    some = SomeFaces(KeptFaces(DRAWN), [3, 1])
    turned = CorruptedFaces(some, "pose", 4)
    assert torch.equal(turned.batch([0])["image"], CorruptedFaces(DRAWN, "pose", 4).batch([3])["image"])
    landmarks = CorruptedFaces(DRAWN, "pose", 5).batch(range(6))["landmarks"]
    before = DRAWN.batch(range(6))["landmarks"]
    width = lambda points: (points[:, 45, 0] - points[:, 36, 0]).abs()  # noqa: E731
    assert (width(landmarks) < 0.8 * width(before)).all()  # eyes come closer as the head turns
    refused = [("pose", 1), ("fog", 1), ("noise", 6), ("noise", 0)]  # only synthetic faces can be turned
    for kind, severity in refused:
        with pytest.raises(
            DataError, match=kind if kind == "fog" else "turned" if kind == "pose" else str(severity)
        ):
            CorruptedFaces(Spots(4), kind, severity)
    with pytest.raises(DataError, match="uint8"):
        corrupt(torch.rand(2, 1, 8, 8), "noise", 1, range(2))


def test_the_suite_measures_each_variant_and_pairs_the_changes(tmp_path):
    model, data = net(), Spots(120)
    two = {"kinds": ("occlusion", "darkness"), "severities": (1, 5)}
    record = robustness(model, data, **two, resamples=200, batch_size=32)
    told = list(dict.fromkeys(number.condition for number in record.numbers))
    assert told == ["clean", "occlusion 1", "occlusion 5", "darkness 1", "darkness 5"]
    for metric in METRICS:
        clean = record.get(metric, condition="clean")
        for key in told[1:]:
            corrupted, change = (record.get(metric + end, condition=key) for end in ("", " change"))
            assert change.value == pytest.approx(corrupted.value - clean.value)
            assert change.low <= change.value <= change.high
    matrix = np.array(record.confusion)
    assert matrix.trace() / matrix.sum() == pytest.approx(record.get("accuracy", condition="clean").value)
    assert record.extra["severities"]["darkness"]["5"] == "0.0312 of the light"
    assert record.extra["left out"].keys() == {"pose"}
    assert ResultRecord.load(record.save(tmp_path / "r.json")) == record
    text = record.table()
    assert all(word in text for word in (*told, "accuracy change")) and len(text.splitlines()) == 6
    again = robustness(model, data, kinds=("darkness",), severities=(5,), resamples=200, batch_size=7)
    one, other = (found.get("accuracy", condition="darkness 5") for found in (again, record))
    assert one == other
