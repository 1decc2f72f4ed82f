"""What copies show about annotators, computed on panels whose agreement is known."""

import numpy as np

from book.experiments.twins import agreement, judge, panels, reweighted


def copies(groups: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, float]:
    """Labels of two or three panels for each picture, drawn from its own p, and a = mean of sum p^2."""
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.full(8, 0.1), groups)
    count = generator.integers(2, 4, groups)
    group = np.repeat(np.arange(groups), count)
    labels = np.array([generator.choice(8, p=p[g]) for g in group])
    return labels, group, float((p**2).sum(1).mean())


def test_agreement_of_panels_is_the_mean_of_sums_of_squares() -> None:
    labels, group, a = copies()
    tables, which = panels(labels, group)
    assert np.array_equal(which, np.arange(3000))
    assert np.isclose(tables.sum(), len(labels))  # each face counts once
    share = np.bincount(labels, minlength=8) / len(labels)
    found = agreement(tables, share)
    assert found["all"].low < a < found["all"].high
    assert found["all"].high - found["all"].low < 0.04
    assert abs(found["weighted"].value - found["all"].value) < 1e-9  # weighted by the faces' own classes


def test_reweighting_puts_cells_in_their_shares() -> None:
    labels = np.array([0, 0] * 50 + [0, 1] * 50 + [0] * 30 + [0] * 10)
    group = np.r_[np.repeat(np.arange(100), 2), 100 + np.arange(40)]
    cell = np.r_[np.zeros(100, int), np.ones(100, int), np.zeros(30, int), np.ones(10, int)]
    valid = np.r_[np.zeros(200, bool), np.ones(40, bool)]
    value, rows = reweighted(cell, labels, group, valid)
    assert value.value == 0.75 and len(rows) == 2  # cell 0 always agrees, cell 1 never does


def test_precision_and_recall_weigh_bands_by_their_sizes() -> None:
    band = np.repeat([0, 1, 2, 3], 50)
    similarity = np.repeat([0.65, 0.75, 0.8, 0.9], 50)
    copy = np.r_[np.zeros(50, bool), np.arange(50) < 5, np.arange(50) < 25, np.ones(50, bool)]
    sizes = np.array([[1000, 0], [100, 0], [200, 0], [0, 890]])
    found = judge(similarity, band, copy, sizes)
    assert found["precision"].value == 1 and found["precision"].low < 1
    assert np.isclose(found["recall"].value, 890 / (890 + 10 + 100))
