"""The study of batch attention: its troubles are what they say, and its comparisons are paired."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch

from book.experiments import batch_attention_ablation as study
from ferlib.evaluation import ResultRecord


@pytest.fixture
def faces():
    images = torch.randint(0, 120, (64, 1, 48, 48), dtype=torch.uint8)
    return study.Faces(images, torch.arange(64) % 8)


def test_a_grey_square_covers_its_share_of_each_picture(faces) -> None:
    for percent in (25, 50):
        changed = study.covered(faces.images, percent, seed=0)
        share = (changed == 128).float().mean((1, 2, 3))
        assert torch.allclose(share, torch.full_like(share, percent / 100), atol=0.01)
        kept = changed != 128
        assert torch.equal(changed[kept], faces.images[kept])
    assert len({tuple(c.tolist()) for c in (changed == 128).flatten(1)}) > 10  # somewhere else in each


def test_few_pixels_keep_the_size_and_the_brightness_and_lose_detail(faces) -> None:
    for pixels in (16, 10):
        small = study.shrunk(faces.images, pixels)
        assert small.shape == faces.images.shape and small.dtype == torch.uint8
        assert abs(small.float().mean() - faces.images.float().mean()) < 1
        assert small.float().std() < 0.7 * faces.images.float().std()


def test_wrong_labels_are_another_class_in_the_asked_share() -> None:
    labels = torch.arange(8000) % 8
    assert torch.equal(study.wrong(labels, 0, seed=0), labels)
    noisy = study.wrong(labels, 40, seed=0)
    assert abs((noisy != labels).float().mean() - 0.4) < 0.03
    hit = noisy != labels
    assert ((noisy - labels) % 8)[hit].bincount(minlength=8)[1:].min() > 300  # each other class as likely


def test_trouble_with_labels_leaves_pictures_alone_and_the_other_way_round(faces) -> None:
    assert torch.equal(study.troubled(faces, "label noise 40", 0).images, faces.images)
    assert torch.equal(study.troubled(faces, "covered 25", 0).labels, faces.labels)
    assert study.troubled(faces, "as they are", 0) is faces


def test_every_run_of_one_arm_has_its_pair() -> None:
    runs = study.plan(Namespace(seeds=2, noise_only=False))
    assert len(runs) == len(set(runs)) == 2 * (2 * 7 + 1)
    for arm, trouble, scale, seed in runs:
        if scale == "sqrt(C)":
            other = "alone" if arm == "batch" else "batch"
            assert (other, trouble, scale, seed) in runs


def test_differences_are_taken_within_seeds() -> None:
    def found(base: float, seed: int) -> dict:
        return {"as they are": {"vit": base + 0.1 * seed, "bt": base + 0.1 * seed, "cba": 0.5}}

    done = {}
    for seed in range(3):  # seeds differ much, arms by two points in each
        done[study.run_name("alone", "as they are", "sqrt(C)", seed)] = found(0.50, seed)
        done[study.run_name("batch", "as they are", "sqrt(C)", seed)] = found(0.52, seed)
    record = ResultRecord("tried", "")
    study.compare(record, done, seeds=3)
    gap = record.difference("bt", "alone", condition="as they are")
    own = record.get("accuracy", "alone", "as they are")
    assert gap.value == pytest.approx(0.02) and gap.high - gap.low < 1e-6
    assert own.high - own.low > 0.2


def test_both_arms_start_from_one_network_and_measure_all_answers(faces) -> None:
    options = Namespace(steps=1, vit_weight=5.0, noise_only=True)
    data = {"train": faces, "valid": faces}
    one, other = (study.run(arm, "as they are", "sqrt(C)", 3, data, options) for arm in ("alone", "batch"))
    assert one["before"] == other["before"]
    assert set(other["as they are"]) == {"vit", "bt", "cba"}
    assert 1 <= one["before"]["images listened to"] <= 64
