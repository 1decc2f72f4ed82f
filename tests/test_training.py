"""The loop learns, repeats itself, resumes exactly, and says clearly why it stops."""

import json
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from book.figures.live import LiveCurves
from book.figures.trained import load_or_fit
from ferlib.models import NETWORKS
from ferlib.training import (
    Recipe,
    best_epoch,
    build_average,
    build_model,
    build_optimizer,
    checkpoints,
    fit,
    load_recipe,
    make_progress,
    runs_folder,
)
from ferlib.training.batches import Batches
from ferlib.training.progress import BarProgress
from tests.tiny import Net, Spots, net

RECIPE = Recipe(
    name="tiny", loss="cross-entropy", epochs=4, batch_size=16, lr=1e-2, warmup=0.5, augment="light", ema=0.9
)
TRAIN, VALID = Spots(64, seed=1), Spots(40, seed=2)


def _fit(model, recipe=RECIPE, **options):
    options = {"progress": None, "device": "cpu"} | options
    return fit(model, nn.CrossEntropyLoss(), TRAIN, VALID, recipe, **options)


def _same(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _numbers(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def test_the_loop_learns_what_can_be_learnt():
    model = net()
    history = _fit(model, RECIPE.replace(epochs=8, augment="none"))
    assert [record["epoch"] for record in history] == list(range(1, 9))
    assert history[-1]["valid_accuracy"] > 0.9
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_the_seed_decides_everything_and_the_callers_random_numbers_are_left_alone():
    state = torch.random.get_rng_state()
    first, second, third = net(), net(), net()
    _fit(first)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(3)
    _fit(second)
    _fit(third, RECIPE.replace(seed=1))
    assert _same(first, second)
    assert not _same(first, third)


def test_a_run_folder_can_be_read_and_run_again(tmp_path):
    model = net()
    history = _fit(model, run_dir=tmp_path)
    assert load_recipe(tmp_path / "recipe.yaml") == RECIPE
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert _numbers(lines) == _numbers(history)
    names = ".lock best.safetensors environment.json last.safetensors last.state.safetensors"
    names += " log.txt metrics.jsonl recipe.yaml"
    assert sorted(path.name for path in tmp_path.iterdir()) == names.split()
    best = net(seed=5)
    note = checkpoints.load(tmp_path / "best.safetensors", best)
    assert note["epoch"] == best_epoch(history, RECIPE)
    measured = [r["valid_accuracy"] for r in history if r["epoch"] == note["epoch"]]
    best.eval()
    images, labels = next(Batches(VALID, RECIPE.replace(batch_size=40), torch.device("cpu")).epoch(0))
    assert (best(images).argmax(1) == labels).float().mean().item() == pytest.approx(measured[0])


def test_resume_refuses_weights_alone(tmp_path):
    _fit(net(), RECIPE.replace(epochs=1, schedule="constant"), run_dir=tmp_path)
    with pytest.raises(ValueError, match="weights only"):
        _fit(net(), RECIPE, resume=tmp_path / "best.safetensors")
    with pytest.raises(ValueError, match="needs a run_dir"):
        _fit(net(), RECIPE, resume=True)


def test_a_data_set_without_votes_or_without_faces_is_told():
    data = Spots(16)
    without = {"__getitem__": lambda s, i: {"image": s.images[i], "label": 0}}
    data.__class__ = type("NoVotes", (Spots,), without)
    with pytest.raises(ValueError, match="no votes"):
        fit(net(), nn.CrossEntropyLoss(), data, VALID, RECIPE.replace(targets="votes"), progress=None)
    with pytest.raises(ValueError, match="empty"):
        fit(net(), nn.CrossEntropyLoss(), Spots(0), VALID, RECIPE, progress=None)


def test_batches_cover_every_face_and_are_shuffled_anew_each_epoch():
    batches = Batches(Spots(50), RECIPE.replace(augment="none"), torch.device("cpu"), shuffle=True)
    one, again, two = (torch.cat([x for x, _ in batches.epoch(e)]) for e in (1, 1, 2))
    assert len(batches) == 3 and len(one) == 48  # two faces are left out: no batch of two
    assert torch.equal(one, again) and not torch.equal(one, two)
    plain = Batches(Spots(50), RECIPE, torch.device("cpu"))
    assert torch.equal(torch.cat([y for _, y in plain.epoch(0)]), Spots(50).labels)
    assert next(plain.epoch(0))[0].shape == (16, 3, 16, 16)
    larger = Batches(Spots(50), RECIPE.replace(image_size=32), torch.device("cpu"))
    assert next(larger.epoch(0))[0].shape[-1] == 32


def test_the_average_follows_its_formula():
    model = net()
    average = build_average(RECIPE, model)
    with torch.no_grad():
        values = []
        for step in range(4):
            model.head.bias.fill_(float(step))
            average.update_parameters(model)
            values.append(average.module.head.bias[0].item())
    expected, current = [0.0], 0.0
    for n in (1, 2, 3):
        keep = min(0.9, (1 + n) / (10 + n))
        current = keep * current + (1 - keep) * n
        expected.append(current)
    assert values == pytest.approx(expected)
    assert build_average(RECIPE.replace(ema=None), model) is None


def test_weight_decay_leaves_biases_and_norms_alone():
    matrices, vectors = build_optimizer(RECIPE, net()).param_groups
    assert matrices["weight_decay"] == RECIPE.weight_decay and vectors["weight_decay"] == 0
    assert {p.ndim for p in vectors["params"]} == {1} and {p.ndim for p in matrices["params"]} == {2, 4}


def test_the_recipe_builds_the_same_network_every_time():
    recipe = load_recipe("btn-small-synthetic")
    assert _same(build_model(recipe), build_model(recipe))
    assert not _same(build_model(recipe), build_model(recipe.replace(seed=1)))
    with pytest.raises(ValueError, match="'nothing'"):
        build_model(recipe.replace(model="nothing"))


def test_progress_in_two_places(capsys):
    _fit(net(), RECIPE.replace(epochs=2), progress="auto")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epoch   1 of 2: training loss") and lines[-1] == "done"
    _fit(net(), RECIPE.replace(epochs=2), progress=BarProgress())
    assert "8/8" in capsys.readouterr().err
    with pytest.raises(ValueError, match="auto"):
        make_progress("loud")


def test_the_notebooks_picture_ends_with_the_whole_story(monkeypatch):
    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(bundle)

    def display(bundle, raw, display_id):
        shown.append(bundle)
        return Handle()

    monkeypatch.setattr("book.figures.live.display", display)
    history = _fit(net(), progress=LiveCurves())
    kinds = ("image/svg+xml", "text/plain")
    curves, text = ([bundle[kind] for bundle in shown if kind in bundle] for kind in kinds)
    assert len(curves) == 1 + len(history) and "<script" not in curves[-1]
    root = ElementTree.fromstring(curves[-1])
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("viewBox")
    assert "0/16" in text[0] and "16/16" in text[-1] and text[-1].endswith("done")
    assert f"{100 * history[-1]['valid_accuracy']:.1f} %" in text[-1]


def test_a_chapter_loads_the_run_it_finds_and_trains_otherwise(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny_net", lambda num_classes: Net(num_classes))
    recipe = RECIPE.replace(model="tiny_net")
    trained = build_model(recipe, 4)
    history = _fit(trained, recipe, run_dir=tmp_path / "run")
    model, note = load_or_fit(recipe, TRAIN, VALID, tmp_path / "run")
    best = best_epoch(history, recipe)
    assert note["loaded"] and note["epoch"] == best and not model.training
    assert best != 4 or _same(model, trained)
    for folder, other in ((tmp_path / "none", recipe), (tmp_path / "run", recipe.replace(lr=2e-2))):
        model, note = load_or_fit(other, TRAIN, VALID, folder, epochs=1)
        assert not note["loaded"] and note["epoch"] == 1
    (tmp_path / "run" / "best.safetensors").write_bytes(b"damaged")
    assert not load_or_fit(recipe, TRAIN, VALID, tmp_path / "run", epochs=1)[1]["loaded"]
    monkeypatch.setenv("FERLIB_RUNS", str(tmp_path))
    assert runs_folder() == tmp_path


def test_a_bar_begins_where_a_resumed_run_goes_on(capsys):
    record = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "valid_loss": 1.0, "valid_accuracy": 0.5}
    bar = BarProgress()
    bar.start(5, 3, [record], 2)
    assert (bar.bar.n, bar.bar.total) == (7, 15)
    bar.step(2, 3, 0.5)
    assert bar.bar.n == 8
    bar.close("stopped")
    assert "8/15" in capsys.readouterr().err
