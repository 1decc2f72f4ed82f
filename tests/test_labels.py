"""Labels from votes, mappings between data sets, and the confusion prior against the published constants."""

from pathlib import Path

import pytest
import torch

from ferlib.data.base import DataError
from ferlib.data.ferplus import read_fer2013new, read_label_csv
from ferlib.data.labels import (
    EMOTIONS_AFFECTNET,
    EMOTIONS_FERPLUS,
    EMOTIONS_RAFDB,
    class_folders,
    class_mapping,
    confusion_prior,
    majority_label,
    match_classes,
    read_class,
)
from ferlib.losses import FERPLUS_PRIOR

# neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, not a face
HARD = [1, 0, 3, 0, 0, 0, 6, 0, 0, 0]


def test_the_three_rules_for_a_label() -> None:
    votes = [
        HARD,  # 6 of 9 after the single neutral vote is gone
        [5, 1, 1, 1, 1, 1, 0, 0, 0, 0],  # 5 of 10, but 5 of 5 without the single votes
        [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],  # exactly half is not more than half
        [4, 0, 0, 0, 0, 0, 0, 0, 6, 0],  # "unknown" wins
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],  # nothing is left
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    ]
    assert majority_label(votes).tolist() == [6, 0, -1, -1, -1, -1]
    votes = [votes[1], [4, 3, 0, 0, 0, 0, 0, 0, 0, 3], [0, 0, 0, 0, 0, 0, 5, 0, 5, 0]]
    assert majority_label(votes, "half").tolist() == [0, -1, 6]
    votes = [[0, 0, 0, 0, 0, 0, 0, 1, 9, 0], [0] * 8 + [10, 0], [0, 2, 2, 0, 0, 0, 0, 0, 6, 0]]
    assert majority_label(votes, "votes").tolist() == [7, -1, 1]
    assert majority_label(HARD).item() == 6 and majority_label([[0, 0, 8, 0, 0, 0, 2]]).tolist() == [2]
    with pytest.raises(DataError, match="'best'"):
        majority_label([HARD], "best")


@pytest.mark.parametrize("votes", [[[-1] + [0] * 9], [[float("nan")] + [0.0] * 9], [[[1, 2]]], [[3]]])
def test_votes_that_are_no_votes_are_refused(votes: list) -> None:
    with pytest.raises(DataError, match="votes"):
        majority_label(votes)


def test_the_prior_is_the_mean_share_per_class() -> None:
    votes = torch.zeros(16, 10)
    for k in range(8):
        votes[2 * k, k] = 10
        votes[2 * k + 1, k], votes[2 * k + 1, (k + 1) % 8] = 6, 4
    prior = confusion_prior(votes)
    expected = 0.8 * torch.eye(8) + 0.2 * torch.eye(8).roll(1, 1)
    torch.testing.assert_close(prior, expected)


def test_the_prior_needs_every_class() -> None:
    with pytest.raises(DataError, match="contempt"):
        confusion_prior([[10 if j == i else 0 for j in range(10)] for i in range(7)])


def test_mappings_between_data_sets() -> None:
    assert [EMOTIONS_RAFDB[i] for i in class_mapping(EMOTIONS_AFFECTNET[:7], EMOTIONS_RAFDB)] == list(
        EMOTIONS_AFFECTNET[:7]
    )
    assert class_mapping(EMOTIONS_FERPLUS, EMOTIONS_RAFDB).tolist() == [6, 3, 0, 4, 5, 2, 1, -1]
    assert class_mapping(EMOTIONS_FERPLUS, EMOTIONS_AFFECTNET).tolist() == [0, 1, 3, 2, 6, 5, 4, 7]
    with pytest.raises(DataError, match="differ"):
        class_mapping(("a", "a"), ("a", "b"))


def test_a_class_is_read_from_its_number_or_a_word_for_it() -> None:
    known = {"1": 0, "7": 6, "7.0": 6, "Happy": 3, "SAD": 4, "joy": 3, "angry": 5}
    unknown = dict.fromkeys(["0", "8", "01", "contempt", "", "1_surprise"])
    for text, label in (known | unknown).items():
        assert read_class(text, EMOTIONS_RAFDB, 1) == label


NUMBERS = [*"12345678"]
KAGGLE = ["Angry", "Sad", "happy", *EMOTIONS_RAFDB[:3], "neutral"]


@pytest.mark.parametrize(
    ("classes", "first", "good", "bad", "named"),
    [
        (EMOTIONS_RAFDB, 1, NUMBERS[:7], [*"0123456"], "'0'"),
        (EMOTIONS_RAFDB, 1, [*NUMBERS[:7], "notes"], NUMBERS, "'8'"),
        (EMOTIONS_AFFECTNET, 0, [*"01234567"], NUMBERS, "'8'"),
        (EMOTIONS_AFFECTNET, 0, [*"0123456"], NUMBERS[:7], "'neutral'"),
        (EMOTIONS_RAFDB, 1, ["Happy", *EMOTIONS_RAFDB], EMOTIONS_RAFDB[1:], "'surprise'"),
        (EMOTIONS_AFFECTNET, 0, KAGGLE, ["3", *EMOTIONS_AFFECTNET], "3 and surprise"),
    ],
)
def test_folders_numbered_otherwise_are_refused(classes, first, good, bad, named) -> None:
    labels = class_folders(good, classes, first, ["contempt"])
    assert all(label == read_class(name, classes, first) for name, label in labels.items())
    assert len(labels) >= 7 and len({*labels.values()}) == len(labels)
    with pytest.raises(DataError, match=named):
        class_folders(bad, classes, first, ["contempt"])


def test_outputs_are_matched_by_the_names_of_classes() -> None:
    places = match_classes(EMOTIONS_FERPLUS, EMOTIONS_AFFECTNET[:7], "the network")
    assert [EMOTIONS_FERPLUS[place] for place in places] == [*EMOTIONS_AFFECTNET[:7]]
    with pytest.raises(DataError, match="contempt"):
        match_classes(EMOTIONS_RAFDB, EMOTIONS_AFFECTNET, "the network")


def test_contract_the_published_prior_follows_from_the_votes(ferplus_real: Path) -> None:
    usage, names, votes = read_fer2013new(ferplus_real / "fer2013new.csv")
    train = torch.tensor([u == "Training" and bool(n) for u, n in zip(usage, names, strict=True)])
    assert int((majority_label(votes[train], "half") >= 0).sum()) == 25_373
    torch.testing.assert_close(confusion_prior(votes[train]), FERPLUS_PRIOR.float(), atol=1e-4, rtol=0)
    names, votes, _ = read_label_csv(ferplus_real / "data" / "FER2013Train" / "label.csv")
    assert (
        confusion_prior(votes) - FERPLUS_PRIOR
    ).abs().max() > 1e-2  # the other file is not where it comes from


def test_contract_counts_of_the_neural_resizer(ferplus_real: Path) -> None:
    counts = {
        "Train": [8733, 7284, 3136, 3022, 2098, 116, 536, 120],
        "Valid": [1180, 862, 411, 348, 289, 25, 60, 16],
    }
    for split, expected in counts.items():
        _, votes, skipped = read_label_csv(ferplus_real / "data" / f"FER2013{split}" / "label.csv")
        labels = majority_label(votes)
        assert torch.bincount(labels[labels >= 0], minlength=8).tolist() == expected
        assert not skipped
