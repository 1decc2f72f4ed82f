"""The study's second part: its queue, its maps and networks, its views of a trained network, its records."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from ferlib.data.transforms import model_input
from ferlib.models.batch_transformer import class_batch_attention
from tests.study_parts import drawn, imported

MODULES = ("beside", "worker", "records", "contrasts", "faces", "measures", "maps", "parts", "arms", "views",
           "run", "plan", "summarise")  # fmt: skip


@pytest.fixture
def study(monkeypatch, tmp_path):
    with imported(monkeypatch, "study_btn", MODULES) as found:
        monkeypatch.setattr(found.maps, "FOLDER", tmp_path / "maps")
        yield found


def write_maps(study, train: int, valid: int) -> None:
    """Files as ``maps.make`` leaves them, with other numbers in them."""
    study.maps.FOLDER.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number, name in enumerate(study.maps.SETS):
        for part in study.maps.LEVELS:
            count = (train if name == "train" else valid) * study.maps.copies(name)
            values = draw.normal(number, 1, (count, study.maps.width(part))).astype(np.float16)
            study.maps.place(name, part, "pretrained").write_bytes(values.tobytes())


def test_the_queue_holds_every_arm_with_every_seed_and_the_maps_it_reads(study):
    jobs = study.arms.queue()
    keys = [job.key for job in jobs]
    assert len(set(keys)) == len(keys)
    for job in jobs:
        if job.family == "maps":
            continue
        assert all(f"{job.question} | {job.arm} | seed {seed}" in keys for seed in study.arms.SEEDS)
        assert job.recipe().seed == job.seed
        assert all(keys.index(key) < keys.index(job.key) for key in job.needs())
        assert not study.run.ready(job, {}) or not job.needs()
    attending = [job.recipe() for job in jobs if job.question == "batch | pretrained"]
    assert {recipe.batch_size * recipe.accumulate for recipe in attending} == {256}


def test_every_record_asks_for_runs_that_the_queue_does(study):
    rows = {}
    for job in study.arms.queue():
        views = {study.views.view(faces, answer, company): {}
                 for faces in ("upright", *study.maps.SETS[2:], *study.run.POSES)
                 for answer in ("own", "bt", "cba") for company in study.summarise.COMPANIES}  # fmt: skip
        rows[job.key] = {"final": views}
    plans = study.summarise.plans(rows)
    used = set()
    for _, _, make in plans.values():
        runs, contrasts = make()
        assert all(set(contrast.weights) <= set(runs) for contrast in contrasts)
        assert all(sum(contrast.weights.values()) == 0 for contrast in contrasts)
        used |= set(runs)
    assert len(plans) > 15 and len(used) > 40


def test_numbers_of_faces_come_through_the_pictures_pipeline(study):
    faces = drawn(study, 3)
    faces = study.faces.Held(*(t[:1].expand(70_000, *t.shape[1:]) for t in
                               (faces.images, faces.labels, faces.votes)), faces.classes)  # fmt: skip
    written = study.maps.numbered("occlusion 3", faces)
    rows = torch.tensor([0, 1, 255, 256, 65_535, 65_536, 69_999])
    sets, found = study.maps.numbers(model_input(written.batch(rows)["image"]))
    assert found.tolist() == rows.tolist() and set(sets.tolist()) == {2}


def test_kept_maps_are_those_of_the_branch_and_of_the_mirror_image(study, monkeypatch):
    monkeypatch.setattr(study.maps, "CHUNK", 4)
    train, valid = drawn(study, 6), drawn(study, 2, seed=1)
    sets = {"train": train, "valid": valid}
    sizes = study.maps.make("landmarks", "random", sets)
    assert sizes == {name: study.maps.size(name, "landmarks", len(faces)) for name, faces in sets.items()}
    path = study.maps.place("train", "landmarks", "random")
    whole = path.read_bytes()
    path.with_suffix(".part").write_bytes(whole[: len(whole) * 4 // 6])
    path.unlink()
    study.maps.make("landmarks", "random", sets)  # goes on behind the fourth face
    assert path.read_bytes() == whole
    kept = np.frombuffer(whole, np.float16).reshape(6, 2, -1)
    net = study.maps.branch("landmarks", "random", train)
    images = study.maps.pictures(train, torch.tensor([4, 5]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for copy, seen in enumerate((images, images.flip(3))):
            levels = net(seen.contiguous(memory_format=torch.channels_last))
            flat = torch.cat([level.float().flatten(1) for level in levels], 1).half().numpy()
            assert np.corrcoef(flat[1], kept[5, copy])[0, 1] > 0.99
    assert not np.array_equal(kept[5, 0], kept[5, 1])


def test_norms_that_drift_begin_with_the_answers_of_the_published_file(study, shared, monkeypatch):
    monkeypatch.setenv("FERLIB_WEIGHTS", str(shared / "weights"))
    images = study.maps.pictures(drawn(study, 4), torch.arange(4))
    with torch.no_grad():
        published = study.maps.LandmarkBranch("pretrained")
        drifting = study.maps.LandmarkBranch("drifting", images)
        moving = drifting(images)
        for one, other, moved in zip(published(images), drifting.eval()(images), moving, strict=True):
            assert (one - moved).abs().max() < 0.05 * one.abs().max()  # these are the faces that settled it
            assert (one - other).abs().max() < 0.05 * one.abs().max()


def test_arms_of_a_seed_begin_with_the_same_encoder_and_transformer(study):
    options = [*study.arms.STRUCTURE.values(), *study.arms.CHOICES.values(), {"shortcut": "input"}]
    for family in ("small", "pretrained"):
        models = [study.parts.make(family, 4, **some) for some in options]
        for part in ("encoder", "vit"):
            first = getattr(models[0], part).state_dict()
            for model in models[1:]:
                assert all(torch.equal(first[k], v) for k, v in getattr(model, part).state_dict().items())


def test_without_the_batch_a_network_is_the_image_s_own_answer(study):
    images = torch.randn(3, 3, 48, 48)
    for levels in ("ours", "none"):
        whole = study.parts.make("small", 0, levels=levels).eval()
        alone = study.parts.make("small", 0, levels=levels, batch=False).eval()
        if levels == "ours":
            alone.mix.levels.gain.data += 0.1  # the levels' part in the answer, seen
            assert not torch.allclose(alone(images), whole.outputs(images).vit, atol=1e-6)
            alone.mix.levels.gain.data -= 0.1
        assert torch.allclose(alone(images), whole.outputs(images).vit, atol=1e-5)


def test_scale_and_reconstructions_do_what_their_names_say(study):
    query, key, value = torch.randn(5, 8, 49), torch.randn(5, 8, 49), torch.randn(5, 8)
    scaled = study.parts.Scaled(49)(query, key, value)
    assert torch.allclose(scaled, class_batch_attention(query, key, value, scale=1 / 7), atol=1e-5)
    tokens = torch.randn(2, 147, 48)
    other = tokens.clone()
    other[:, 10::49] = torch.randn(2, 3, 48)  # place 10 on the three levels
    for name, reaches in (("same place", False), ("with values", True)):
        mix = study.parts.RECONSTRUCTIONS[name](48, 2).mix
        changed = (mix(other) - mix(tokens)).abs().amax((0, 2)).view(3, 49) > 1e-6
        assert changed[:, 10].all() and changed.all() == reaches and changed.sum() == (147 if reaches else 3)


def test_small_runs_leave_rows_that_become_records(study, tmp_path, monkeypatch):
    splits = {"train": drawn(study, 70), "valid": drawn(study, 40, seed=1)}
    monkeypatch.setattr(study.run, "split", splits.get)
    monkeypatch.setattr(study.run, "SHARE", {"small": 64})
    monkeypatch.setattr(study.run, "ROWS", tmp_path / "rows.jsonl")
    monkeypatch.setattr(study.views, "ROUNDS", 5)
    asked = [job for job in study.arms.queue() if job.question == "structure | small" and job.seed == 0]
    jobs = [dataclasses.replace(job, changes={"epochs": 1, "batch_size": 32}) for job in asked[:2]]
    study.run.work(jobs, tmp_path / "runs")  # baseline, and all parts
    text = study.run.ROWS.read_text()
    study.run.work(jobs, tmp_path / "runs")  # there is nothing left to do
    assert study.run.ROWS.read_text() == text
    baseline, whole = map(json.loads, text.splitlines())
    assert {key.split(" | ")[1] for key in baseline["final"]} == {"own"} and len(baseline["final"]) == 4
    assert whole["parameters"] > baseline["parameters"]
    assert whole["multiply-adds"] > baseline["multiply-adds"]
    assert 0 <= whole["measured"]["label changes | share of faces"] <= 1
    rows = {}
    for seed in study.arms.SEEDS:
        rows |= {f"{row['question']} | {row['arm']} | seed {seed}": row for row in (baseline, whole)}
    runs, contrasts = study.summarise.hard(rows, "darkness 3", *(f"structure | small | {name}"
                                           for name in ("baseline", "MLA + BT")))  # fmt: skip
    labels = splits["valid"].labels.numpy()
    found = study.contrasts.judge(runs, contrasts, study.contrasts.Faces(labels, 8))
    cost = found["numbers"][f"{contrasts[-1].name} | accuracy"].value
    said = {key: view["accuracy"] for key, view in {**whole["final"]}.items()}
    base = {key: view["accuracy"] for key, view in baseline["final"].items()}
    by_hand = said["darkness 3 | own"] - said["upright | own"]
    assert cost == pytest.approx(by_hand - (base["darkness 3 | own"] - base["upright | own"]), abs=1e-5)
    monkeypatch.setenv("FERLIB_RESULTS", str(tmp_path))
    saved = study.records.save("study_btn_test", "a test", found, runs, splits["valid"],
                               seeds=study.arms.SEEDS, command="none")  # fmt: skip
    assert json.loads(saved.read_text())["extra"]["shown"] == found["shown"]


def test_a_run_on_kept_maps_answers_alone_as_the_image_alone(study, tmp_path, monkeypatch):
    splits = {"train": drawn(study, 80), "valid": drawn(study, 40, seed=1)}
    monkeypatch.setattr(study.run, "split", splits.get)
    monkeypatch.setattr(study.run, "pool", lambda: splits["train"])
    monkeypatch.setattr(study.run, "SHARE", {"pretrained": 64})
    monkeypatch.setattr(study.run, "ROWS", tmp_path / "rows.jsonl")
    monkeypatch.setattr(study.views, "ROUNDS", 5)
    write_maps(study, 80, 40)
    job = next(job for job in study.arms.queue() if job.question == "batch | pretrained" and job.full)
    job = dataclasses.replace(job, changes={"epochs": 1, "batch_size": 16, "accumulate": 2})
    row = study.run.train(job, tmp_path / "runs")
    assert row["final"]["upright | own"]["accuracy"] > 0 and len(row["history"]["train_loss"]) == 1
    model = study.parts.make("pretrained", 0)
    faces = study.run.judged(job)["darkness 3"]
    images = model_input(faces.batch(torch.arange(40))["image"])
    mirrored = [study.maps.fetch(images, "pretrained", mirror=False)[0][0] for _ in range(2)]
    assert torch.equal(*mirrored) and mirrored[0].mean() == pytest.approx(4, abs=0.05)
    encoded = study.views.encode(model.eval(), faces)
    with torch.no_grad():
        said = study.views.in_batches(model, encoded, list(torch.arange(40).split(1)))
    assert torch.allclose(said["bt"], 2 * encoded.value, atol=1e-5)
    assert torch.allclose(said["cba"], encoded.value, atol=1e-5)
