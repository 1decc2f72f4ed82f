"""Which classifier is called the best: one half of the faces chooses, and the other half has no say."""

from __future__ import annotations

import pytest
import torch

from book.experiments import best_classifiers as best
from ferlib.data import EMOTIONS_FERPLUS
from ferlib.data.base import FaceDataset

FACES = 400


class Blank(FaceDataset):
    """Faces that are told apart by their labels alone."""

    classes = EMOTIONS_FERPLUS

    def __init__(self, labels):
        self.labels = labels

    def __getitem__(self, index):
        image = torch.zeros(1, 4, 4, dtype=torch.uint8)
        return {"image": image, "label": int(self.labels[index]), "name": str(index)}


@pytest.fixture
def faces():
    labels = torch.arange(FACES) % 8
    return Blank(labels)


def said(labels, wrong):
    """Answers that are sure of the label, but of the next class where they are wrong."""
    given = torch.where(wrong, (labels + 1) % 8, labels)
    return (torch.eye(8)[given] * 0.9 + 0.0125).log()


def test_the_first_half_chooses_and_the_second_tells(faces):
    first, second = best.halves(faces)
    fair, lucky = torch.zeros(FACES, dtype=torch.bool), torch.zeros(FACES, dtype=torch.bool)
    fair[first[:50]] = fair[second[:10]] = True
    lucky[first[:20]] = lucky[second[:80]] = True
    kinds = {"a kind": {"fair": said(faces.labels, fair), "lucky": said(faces.labels, lucky)}}
    record = best.judge(kinds, faces)
    assert record.extra["chosen"] == {"a kind": "lucky"}
    found = {part: record.get("accuracy", "lucky", part).value for part in record.extra["faces"]}
    assert found == pytest.approx({"first half": 0.9, "second half": 0.6, "all": 0.75})
    assert record.difference("lucky", "fair", condition="second half").value == pytest.approx(-0.35)


def test_means_are_of_probabilities_and_of_those_with_mirror_images():
    one, two = (torch.randn(5, 8).log_softmax(1) for _ in range(2))
    alone = {"a, seed 0": two, "a, seed 0, mirrored": one, "a, seed 1": one, "a, seed 1, mirrored": two}
    ((name, mean),) = best.mean_of(alone).items()
    assert name == "mean of 2 of a, mirrored"
    torch.testing.assert_close(mean.exp(), (one.exp() + two.exp()) / 2)
    found = best.beside({f"three{best.MIRRORED}": one, "three": two}, mean)
    assert [*found] == ["three, and the best above", "three, and the best above, three times"]
    halves, quarter = found.values()
    torch.testing.assert_close(halves.exp(), 0.75 * one.exp() + 0.25 * two.exp())
    torch.testing.assert_close(quarter.exp(), 0.625 * one.exp() + 0.375 * two.exp())
    assert best.mean_of({"a, seed 0, mirrored": one}) == {}
    several = best.mean_of(alone | {"b, seed 0, mirrored": one})
    assert [*several] == ["mean of 2 of a, mirrored", "mean of 3 in all, mirrored"]
