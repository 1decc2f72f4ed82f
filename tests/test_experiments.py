"""Contrasts against brute force, folds that keep twins together, runs that survive being killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from book.experiments import (
    batch_attention,
    downsizing,
    faces,
    harness,
    losses,
    maps,
    measures,
)
from book.experiments.contrasts import cluster_difference, difference, holm
from ferlib.losses import FERPLUS_PRIOR

ROOT = Path(__file__).resolve().parents[1]


def test_the_variance_is_the_two_way_sum_written_as_loops() -> None:
    rng = np.random.default_rng(0)
    groups, runs = np.arange(60) // 2, np.tile(np.arange(5), 12)
    d = rng.choice([-1.0, 0.0, 1.0], 60) + 0.3 * rng.standard_normal(5)[runs]
    found = cluster_difference(d, groups, runs)
    rest = (d - d.mean()) / 60

    def summed(codes: list) -> float:
        return sum(sum(rest[i] for i in range(60) if codes[i] == code) ** 2 for code in set(codes))

    by_group, by_run = summed(groups.tolist()), summed(runs.tolist()) * 5 / 4
    both = summed(list(zip(groups.tolist(), runs.tolist(), strict=True)))
    assert found.value == pytest.approx(d.mean())
    assert found.se**2 == pytest.approx(max(by_group + by_run - both, by_group, by_run))
    assert found.df == 4
    with pytest.raises(ValueError):
        cluster_difference(np.zeros(4), np.arange(4), np.zeros(4))
    narrow = difference(0.1, 0.2, 14)
    assert narrow.equivalent(0.5) and not narrow.equivalent(0.4)
    assert found.low < found.narrow[0] < found.value < found.narrow[1] < found.high


def test_holm_steps_down() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_folds_keep_twins_together_and_classes_even() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 700, 1000)
    labels = rng.choice(4, 1000, p=[0.6, 0.2, 0.15, 0.05])
    fold = faces.grouped_folds(groups, labels, 5, seed=0)
    assert all(len(set(fold[groups == g])) == 1 for g in np.unique(groups))
    assert np.bincount(fold).min() > 150
    assert (faces.grouped_folds(groups, labels, 5, seed=0) == fold).all()
    assert (faces.grouped_folds(groups, labels, 5, seed=1) != fold).any()


def test_measures_agree_with_their_definitions() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (500,))
    logits = 4 * (F.one_hot(labels, 3) + 0.8 * torch.randn(500, 3))
    found = measures.measure(logits, labels, F.one_hot(labels, 3).float())["metrics"]
    right = logits.argmax(1) == labels
    assert found["accuracy"] == pytest.approx(right.float().mean().item(), abs=1e-6)
    recalls = [right[labels == c].float().mean().item() for c in range(3)]
    assert found["mean class accuracy"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert found["negative log-likelihood of votes"] == pytest.approx(found["negative log-likelihood"])
    assert found["negative log-likelihood, one temperature"] < found["negative log-likelihood"]
    cooled = logits.double() / measures.temperature(logits.double(), labels)
    slightly = (F.cross_entropy(cooled * t, labels) for t in (0.98, 1.02))
    assert all(F.cross_entropy(cooled, labels) <= other for other in slightly)


WORKER = """
import sys, time
from pathlib import Path
import torch
from book.experiments import harness

def train(run, checkpoint):
    state = checkpoint.load() or {"epoch": 0, "sum": torch.zeros(1)}
    for epoch in range(state["epoch"], 6):
        torch.manual_seed(100 * run.seed + epoch)
        state = {"epoch": epoch + 1, "sum": state["sum"] + torch.randn(1)}
        time.sleep(0.05)
        checkpoint.save(state)
    return {"value": float(state["sum"])}

runs = [harness.Run("trial", arm, "none", 0, 0, seed) for seed in range(3) for arm in ("a", "b")]
harness.work(runs, train, Path(sys.argv[1]), pilot=True)
"""


def worker(store: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", WORKER, str(store)], cwd=ROOT, env=environment)


def test_killed_runs_go_on_and_two_processes_share_a_queue(tmp_path: Path) -> None:
    """Kill a worker within a run; the rows of those who follow equal those of one that was never killed."""
    whole = worker(tmp_path / "whole")
    killed = worker(tmp_path / "killed")
    unfinished = tmp_path / "killed" / "unfinished"
    while not list(unfinished.glob("*.pt")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    pair = [worker(tmp_path / "killed") for _ in range(2)]
    assert [process.wait(timeout=120) for process in (whole, *pair)] == [0, 0, 0]

    def values(name: str) -> dict:
        rows = harness.read_rows(harness.rows_file(tmp_path / name, "trial", pilot=True))
        return {place: row["value"] for place, row in rows.items()}

    assert len(values("whole")) == 6 and values("whole") == values("killed")
    assert not list(unfinished.glob("*.pt"))


def test_rows_count_only_from_a_clean_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "source", lambda: {"commit": "x", "changed": True})
    run = harness.Run("trial", "a", "none", 0, 0, 0)
    with pytest.raises(SystemExit, match="clean tree"):
        harness.work([run], lambda run, checkpoint: {}, tmp_path)
    assert harness.work([run], lambda run, checkpoint: {}, tmp_path, pilot=True) == 1


def test_arms_start_from_the_same_weights_and_differ_in_their_parts() -> None:
    torch.manual_seed(3)
    given = {name: torch.randn(6, c, s, s) for name, (c, s) in maps.LEVELS.items()}
    rows = torch.cat([level.flatten(1) for level in given.values()], dim=1)
    assert all(torch.equal(level, given[name]) for name, level in maps.split(rows).items())
    arms = batch_attention.ARMS.items()
    nets = {name: batch_attention.Network(arm, 7, seed=4).eval() for name, arm in arms}
    with torch.no_grad():
        scores = {name: net.attend(net.encode(given)) for name, net in nets.items()}
    assert torch.equal(scores["A"].vit, scores["C"].vit)
    assert not torch.allclose(scores["A"].vit, scores["D"].vit)
    assert torch.equal(scores["B"].bt, 2 * scores["A"].vit)
    assert torch.allclose(scores["C"].bt, scores["C"].cba + scores["C"].vit)
    again = batch_attention.in_batches(nets["C"], nets["C"].encode(given), [torch.arange(6).flip(0)])
    assert torch.allclose(again.bt, scores["C"].bt, atol=1e-5)


def test_a_fifth_of_the_labels_is_replaced_and_votes_follow() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 4000)
    shares = 0.1 * np.ones((4000, 8), np.float32) / 8 + 0.9 * np.eye(8, dtype=np.float32)[labels]
    for noise in ("uniform", "prior"):
        wrong, moved = losses.mislabeled(labels, shares, noise, FERPLUS_PRIOR.numpy(), seed=1)
        assert 0.17 < (wrong != labels).mean() < 0.23
        assert (moved.argmax(1) == wrong).all()
    drawn = np.bincount(wrong[(labels == 6) & (wrong != labels)], minlength=8)
    assert drawn.argmax() == 2  # fear is taken for surprise
    assert losses.mislabeled(labels, shares, "clean", FERPLUS_PRIOR.numpy(), seed=1)[0] is labels


def test_a_pilot_of_downsizing_is_judged_on_pilot_faces_alone(tmp_path: Path) -> None:
    count = 400
    found = faces.Faces(
        names=np.array([f"fer{number:07d}.png" for number in range(count)]),
        pilot=np.arange(count) < 100,
        images=np.zeros((count, 48, 48), np.uint8),
        votes=np.eye(10, dtype=np.float32)[np.arange(count) % 8],
        ferplus=np.arange(count) % 8,
        fer2013=np.arange(count) % 7,
    )
    groups = np.arange(count)
    groups[5] = groups[300]  # a pilot face with a twin in the training folder
    pilot = downsizing.Trainer(found, groups, tmp_path, pilot=True)
    counted = downsizing.Trainer(found, groups, tmp_path)
    assert set(pilot.rows[pilot.judge.numpy()]) == set(range(100)) - {5}
    assert not set(counted.rows) & set(range(100))
    for part in ("pretrain", "finetune"):
        sides = [trainer.rows[getattr(trainer, part).numpy()] for trainer in (pilot, counted)]
        assert np.array_equal(*sides)  # so the faces that are judged later stay unseen in pilots
