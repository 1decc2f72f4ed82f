"""`ferlib train` and `ferlib evaluate` do the whole way, resume it, and say clearly what is wrong."""

import json
from pathlib import Path

import pytest

from ferlib.cli import main
from ferlib.data import EMOTIONS_FERPLUS
from ferlib.evaluation import ResultRecord
from ferlib.models import NETWORKS
from ferlib.weights import checkpoints
from tests import documented
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
    for wrong, named in (
        ([*words, "--output", "vit"], "one output only"),
        (["evaluate", "--checkpoint", str(recipe), "--data", "synthetic"], "neither safetensors"),
        (["train", "--recipe", "no-such", "--data", "synthetic"], "no recipe 'no-such'"),
        (["train", "--recipe", str(recipe), "--data", "synthetic", "--epochs", "0"], "out of range"),
    ):
        assert main(wrong) == 1
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1


def test_json_holds_what_a_script_needs(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert _train(recipe, out, "--json") == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found.keys() == documented.keys("train")
    assert "epoch   1 of 2" in told.err and "best epoch" in told.err
    history = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    best = max(history, key=lambda record: record["valid_accuracy"])
    assert (found["run"], found["recipe"], found["epochs"]) == (str(out), "tiny", 2)
    for key in ("valid_accuracy", "valid_loss"):
        assert found[key] == best[key]
    assert found["best_epoch"] == best["epoch"] and found["valid_faces"] == 64 and found["held_out"] == 0
    kept = {name: Path(file).name for name, file in found["checkpoints"].items()}
    assert kept == {name: f"{name}.safetensors" for name in ("best", "last")} | {
        "state": "last.state.safetensors"
    }
    assert all(Path(file).is_file() for file in found["checkpoints"].values())
    assert found["seconds"] == pytest.approx(sum(record["seconds"] for record in history), abs=1e-3)
    test = ResultRecord.load(out / "test.json")
    told = {"accuracy": test.get("accuracy").value, "faces": 64, "record": str(out / "test.json")}
    assert found["test"] == told
    assert _train(recipe, out, "--json") == 1 and capsys.readouterr().out == ""


def test_class_names_stand_in_checkpoints(recipe, tmp_path, capsys):
    assert _train(recipe, tmp_path / "run", "--quiet", "--epochs", "1", "--no-test") == 0
    best = tmp_path / "run" / "best.safetensors"
    found = checkpoints.load(best)
    assert found["classes"] == list(EMOTIONS_FERPLUS)
    weights = found.pop("model")
    damaged = checkpoints.save(tmp_path / "damaged.safetensors", weights, {**found, "classes": 5})
    words = ["evaluate", "--data", "synthetic", "--length", "16", "--resamples", "10"]
    words += ["--record", str(tmp_path / "record.json"), "--checkpoint"]
    for file, status in ((best, 0), (damaged, 1)):
        assert main([*words, str(file)]) == status
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
