"""`ferlib train` and `ferlib evaluate` do the whole way, resume it, and say clearly what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ferlib.cli import main
from ferlib.data import EMOTIONS_FERPLUS
from ferlib.evaluation import ResultRecord
from ferlib.models import NETWORKS
from ferlib.training import load_recipe
from ferlib.weights import checkpoints
from tests.tiny import Net

RECIPE = """
name: tiny
model: tiny_net
loss: f-pdls
epochs: 2
batch_size: 32
lr: 5e-3
augment: light
"""


@pytest.fixture()
def recipe(tmp_path, monkeypatch):
    """A recipe of a network small enough to be trained here."""
    monkeypatch.setitem(NETWORKS, "tiny_net", lambda num_classes: Net(num_classes))
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def _train(recipe, out, *more) -> int:
    words = ["train", "--recipe", str(recipe), "--data", "synthetic", "--length", "64", "--out", str(out)]
    return main([*words, *more])


def test_train_stop_resume_evaluate(recipe, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert _train(recipe, whole, "--quiet") == 0
    out = capsys.readouterr().out
    assert "on 64 validation faces" in out and "test split, which had no part in the choice" in out
    assert ResultRecord.load(whole / "test.json").data["split"] == "test"
    recipe.write_text(RECIPE.replace("epochs: 2", "epochs: 1\nschedule: constant"))
    assert _train(recipe, parts) == 0
    assert "epoch   1 of 1" in capsys.readouterr().out
    recipe.write_text(RECIPE + "schedule: constant\n")
    assert _train(recipe, parts, "--resume", "--no-test") == 0
    lines = [json.loads(line) for line in (parts / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]

    capsys.readouterr()
    best, record = whole / "best.safetensors", tmp_path / "record.json"
    words = ["evaluate", "--checkpoint", str(best), "--data", "synthetic", "--length", "64"]
    assert main([*words, "--split", "valid", "--record", str(record)]) == 0
    assert "mean class accuracy" in capsys.readouterr().out
    history = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    expected = max(line["valid_accuracy"] for line in history)
    assert ResultRecord.load(record).get("accuracy").value == pytest.approx(expected)
    assert main([*words, "--output", "vit"]) == 1
    assert "one output only" in capsys.readouterr().err


def test_json_holds_what_a_script_needs(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert _train(recipe, out, "--json") == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert "epoch   1 of 2" in told.err and "best epoch" in told.err
    history = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    best = max(history, key=lambda record: record["valid_accuracy"])
    assert (found["run"], found["recipe"], found["epochs"]) == (str(out), "tiny", 2)
    for key in ("valid_accuracy", "valid_loss"):
        assert found[key] == best[key]
    assert found["best_epoch"] == best["epoch"] and found["valid_faces"] == 64 and found["held_out"] == 0
    assert {name: out / f"{name}.safetensors" for name in ("best", "last")} | {
        "state": out / "last.state.safetensors"
    } == {name: Path(file) for name, file in found["checkpoints"].items()}
    assert all(Path(file).is_file() for file in found["checkpoints"].values())
    assert found["seconds"] == pytest.approx(sum(record["seconds"] for record in history), abs=1e-3)
    test = ResultRecord.load(out / "test.json")
    assert found["test"] == {
        "accuracy": test.get("accuracy").value,
        "faces": 64,
        "record": str(out / "test.json"),
    }
    assert _train(recipe, out, "--json") == 1 and capsys.readouterr().out == ""


def test_an_image_size_that_the_network_cannot_take_is_one_line(recipe, tmp_path, capsys):
    sized = ["--recipe", "vt-nr-ferplus-small", "--data", "synthetic", "--length", "4", "--from-scratch"]
    sized += ["--epochs", "1", "--batch-size", "4", "--no-test", "--quiet"]
    path = tmp_path / "sized.yaml"
    for side, code in ((100, 1), (None, 1), (96, 0)):
        path.write_text(load_recipe("vt-nr-ferplus-small").replace(image_size=side).to_yaml())
        sized[1] = str(path)
        assert main(["train", *sized, "--out", str(tmp_path / "run")]) == code
        told = capsys.readouterr().err.splitlines()
        if code:
            assert "recipe 'vt-nr-ferplus-small': image_size" in told[-1] and "such as 96" in told[-1]
            assert str(side or "left out") in told[-1] and len(told) <= 2
        assert (tmp_path / "run").exists() == (code == 0)


def test_what_is_wrong_is_one_line(recipe, tmp_path, capsys):
    assert _train(recipe, tmp_path / "run", "--quiet", "--epochs", "1") == 0
    cases = [
        (lambda: _train(recipe, tmp_path / "run", "--quiet"), "holds a run already"),
        (lambda: _train("no-such", tmp_path / "x"), "no recipe 'no-such'"),
        (lambda: _train(recipe, tmp_path / "x", "--epochs", "0"), "out of range"),
        (lambda: _train(recipe, tmp_path / "x", "--resume", "missing.safetensors"), "no checkpoint"),
        (
            lambda: main(["evaluate", "--checkpoint", str(recipe), "--data", "synthetic", "--length", "8"]),
            "neither safetensors nor a file that torch saved",
        ),
    ]
    for call, message in cases:
        capsys.readouterr()
        assert call() == 1
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.count("\n") == 1


def test_class_names_stand_in_checkpoints_and_order_is_checked(recipe, tmp_path, capsys):
    assert _train(recipe, tmp_path / "run", "--quiet", "--epochs", "1", "--no-test") == 0
    best = tmp_path / "run" / "best.safetensors"
    found = checkpoints.load(best)
    assert found["classes"] == list(EMOTIONS_FERPLUS)
    weights = found.pop("model")
    other = checkpoints.save(
        tmp_path / "other.safetensors", weights, {**found, "classes": found["classes"][::-1]}
    )
    damaged = checkpoints.save(tmp_path / "damaged.safetensors", weights, {**found, "classes": 5})
    words = [
        "evaluate",
        "--data",
        "synthetic",
        "--length",
        "16",
        "--resamples",
        "10",
        "--checkpoint",
        str(best),
    ]
    for files, status in (([best], 0), ([other], 1), ([damaged], 1)):
        assert main([*words, *map(str, files), "--record", str(tmp_path / "record.json")]) == status
        assert capsys.readouterr().err.count("\n") >= status


def test_a_recipe_that_is_read_is_not_replaced_and_a_run_without_a_state_begins_afresh(tmp_path, recipe):
    out = tmp_path / "out"
    out.mkdir()
    own = out / "recipe.yaml"
    own.write_text(RECIPE + "# mine\n")
    (tmp_path / "link.yaml").symlink_to(own)
    for given in (own, tmp_path / "link.yaml"):
        assert _train(given, out, "--quiet", "--no-test") == 1
    assert own.read_text().endswith("# mine\n") and len(list(out.iterdir())) == 1
    assert _train(recipe, tmp_path / "new", "--resume", "--quiet", "--no-test", "--epochs", "1") == 0
    assert (tmp_path / "new" / "last.state.safetensors").exists()
