"""The study's queue, its faces and networks, its rows, and the contrasts that its records are made of."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy import stats

from tests.study_parts import drawn, imported

MODULES = ("worker", "records", "contrasts", "faces", "jobs", "measures", "networks", "run", "summarise")


@pytest.fixture
def study(monkeypatch):
    with imported(monkeypatch, "study", MODULES) as found:
        yield found


def labelled(study, count: int, seed: int):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(8, (count,), generator=draw)
    votes = torch.rand(count, 8, generator=draw)
    votes[torch.arange(count), labels] += 1
    return study.faces.Held(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), labels, votes, "abcdefgh")


def test_the_queue_holds_every_arm_with_every_seed_and_what_it_builds_on(study):
    jobs = study.jobs.queue()
    keys = [job.key for job in jobs]
    assert len(set(keys)) == len(keys)
    for job in jobs:
        seeds = (0,) if job.arm.endswith("pretraining") else study.jobs.SEEDS
        assert all(f"{job.question} | {job.arm} | seed {seed}" in keys for seed in seeds)
        assert job.recipe().seed == job.seed
        assert not job.backbone or keys.index(job.backbone) < keys.index(job.key)


def test_wrong_labels_are_nested_and_take_the_votes_along(study):
    faces = labelled(study, 4000, 3)
    some, more = (study.faces.mislabelled(faces, share, seed=5) for share in (0.2, 0.4))
    wrong, wronger = some.labels != faces.labels, more.labels != faces.labels
    assert 0.17 < wrong.float().mean() < 0.23 and 0.36 < wronger.float().mean() < 0.44
    assert wronger[wrong].all() and torch.equal(some.labels[wrong], more.labels[wrong])
    assert torch.equal(more.votes.argmax(1), more.labels)
    assert torch.equal(more.votes.sort(1).values, faces.votes.sort(1).values)
    assert torch.equal(faces.votes.argmax(1), faces.labels)  # the faces given are as they were


def test_halves_share_no_face_and_have_the_same_classes(study):
    faces = labelled(study, 501, 1)
    first, second = study.faces.halves(faces)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(501))
    counts = [torch.bincount(faces.labels[rows], minlength=8) for rows in (first, second)]
    assert (counts[0] - counts[1]).abs().max() <= 1


def test_shares_behind_each_other_do_not_overlap(study):
    faces = labelled(study, 300, 2)
    faces.images = torch.arange(300)[:, None, None, None].expand(300, 1, 2, 2)
    one, other = (study.faces.share(faces, 100, 7, after).images[:, 0, 0, 0] for after in (0, 100))
    assert len(set(one.tolist()) | set(other.tolist())) == 200


def test_arms_of_a_seed_begin_with_the_same_backbone_and_head(study):
    make, donor = study.networks.make, study.networks.make("conv", 9, resizer="any rule")
    models = [make("conv", 4, resizer=front, spatial_transformer=stn)
              for front, stn in (("bilinear", False), ("neural", True))]  # fmt: skip
    for model in models:
        study.networks.take_over(model, donor, seed=4)
    for part in ("backbone", "head"):
        one, other = (getattr(model, part).state_dict() for model in models)
        assert all(torch.equal(one[key], other[key]) for key in one)
    weight = donor.state_dict()["backbone.layer1.0.conv1.weight"]
    assert torch.equal(models[0].state_dict()["backbone.layer1.0.conv1.weight"], weight)


def test_contrasts_are_what_hand_and_scipy_say(study):
    draw, count = np.random.default_rng(11), 400
    labels = draw.integers(0, 8, count)
    chances = {"one": 0.8, "other": 0.5}
    hits = {name: draw.random((3, count)) < chance for name, chance in chances.items()}
    table = [[0, 0.0, 0]] * 14 + [[count, 0.9 * count, 300]]
    runs = {
        name: [{"final": {"upright": {"right": study.measures.pack(right), "bins": table}}} for right in some]
        for name, some in hits.items()
    }
    minus = study.contrasts.minus("one", "other", 5)
    found = study.contrasts.judge(runs, [minus], study.contrasts.Faces(labels, 8))
    differences = hits["one"].mean(1) - hits["other"].mean(1)
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    got = found["numbers"]["one - other | accuracy"]
    assert (got.value, got.low, got.high) == pytest.approx((differences.mean(), low, high))
    recalls = np.array([[hits["one"][s][labels == k].mean() for k in range(8)] for s in range(3)])
    assert found["numbers"]["one | mean class accuracy"].value == pytest.approx(recalls.mean())
    by_face = (hits["one"].mean(0) - hits["other"].mean(0)).std() / count**0.5
    faces = found["numbers"]["one - other | accuracy | faces"]  # 99 %: one of five comparisons
    assert faces.high - faces.low == pytest.approx(2 * stats.norm.ppf(0.995) * by_face, rel=0.15)
    assert found["shown"]["one - other | accuracy"]
    assert found["numbers"]["one | calibration error"].value == pytest.approx(0.15)
    same = study.contrasts.judge({**runs, "other": runs["one"]}, [minus], study.contrasts.Faces(labels, 8))
    assert not same["shown"]["one - other | accuracy"]


def test_a_run_leaves_one_row_and_goes_on_where_it_was_stopped(study, tmp_path, monkeypatch):
    splits = {"train": drawn(study, 80), "valid": drawn(study, 40, seed=1)}
    monkeypatch.setattr(study.run, "split", splits.get)
    monkeypatch.setattr(study.run, "ROWS", tmp_path / "rows.jsonl")
    job = next(job for job in study.jobs.queue() if job.released)
    job = dataclasses.replace(
        job, keep=True, faces=64, changes={**job.changes, "epochs": 2, "batch_size": 32}
    )
    answers, calls = study.measures.answers, []

    def stopped(model, faces, recipe):
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit("stopped")
        return answers(model, faces, recipe)

    monkeypatch.setattr(study.measures, "answers", stopped)
    with pytest.raises(SystemExit):
        study.run.work([job], tmp_path / "runs")
    assert not study.run.ROWS.exists()
    monkeypatch.setattr(study.measures, "answers", answers)
    study.run.work([job], tmp_path / "runs")
    text = study.run.ROWS.read_text()
    study.run.work([job], tmp_path / "runs")  # there is nothing left to do
    assert study.run.ROWS.read_text() == text
    (row,) = map(json.loads, text.splitlines())
    assert row["resumed"] and len(row["history"]["second"]) == 2 == len(
        row["history"]["released first"]["loss"]
    )
    right = study.measures.unpack(row["final"]["upright"]["right"], 40)
    assert right.mean() == pytest.approx(row["final"]["upright"]["accuracy"], abs=1e-5)
    assert sum(line[0] for line in row["final"]["upright"]["bins"]) == 40
    found = study.summarise.protocol(
        {f"{job.question} | {job.arm} | seed {s}": row for s in range(3)}, job.arm
    )
    names = ("random augmentation at the chosen epoch", "honest", "released")
    assert all(np.isfinite(found["numbers"][f"{job.arm} | {name}"].value) for name in names)
    spent = study.records.costs({job.key: row}, study.jobs.queue())[job.question]
    assert spent["runs"] == 1 and spent["planned"] == 6
    assert spent["multiply-adds, million million"] == pytest.approx(3 * 64 * 12 * row["multiply-adds"] / 1e12)


def test_the_parts_of_the_inflation_sum_to_it_and_seeds_decide(study):
    draw, arm = np.random.default_rng(5), "a network"
    rows = {}
    for seed in range(3):
        clean = {half: (0.6 + 0.02 * draw.random(9)).tolist() for half in ("first", "second")}
        as_released = {}
        for half in clean:
            faces = np.array(clean[half]) - 0.05 + 0.001 * draw.random(9)  # augmentation costs five points
            batches = faces + 0.004 * draw.standard_normal(9)
            as_released[f"released {half}"] = {
                "accuracy": batches.tolist(), "by faces": faces.tolist(), "loss": (1 - faces).tolist(),
            }  # fmt: skip
        rows[f"protocol | {arm} | seed {seed}"] = {"history": {**clean, **as_released}}
    found = study.summarise.protocol(rows, arm)
    values = {name.removeprefix(f"{arm} | "): np.array(v) for name, v in found["scores"].items()}
    parts = (
        "random augmentation at the chosen epoch",
        "choosing by the measured half",
        "batch means at the best epoch",
    )
    np.testing.assert_allclose(sum(values[p] for p in parts), values["released"] - values["honest"])
    np.testing.assert_allclose(values["released - honest"], values["released"] - values["honest"])
    assert found["shown"][f"{arm} | {parts[0]}"] is True  # five points, every time
    by_hand = stats.t.interval(
        0.95, 2, values["released - honest"].mean(), stats.sem(values["released - honest"])
    )
    assert found["shown"][f"{arm} | released - honest"] == (by_hand[0] > 0 or by_hand[1] < 0)
    assert f"{arm} | honest" not in found["shown"]  # a level is no difference
