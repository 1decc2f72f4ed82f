"""`ferlib evaluate` from end to end: scores, comparison, suites; each leaves a record, or says why not."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import ferlib
from ferlib.cli import main
from ferlib.commands.evaluate import with_classes
from ferlib.commands.networks import Network
from ferlib.data.base import DataError
from ferlib.data.faces import drawn_faces
from ferlib.data.labels import EMOTIONS_FERPLUS, EMOTIONS_RAFDB
from ferlib.evaluation import ResultRecord
from ferlib.models import NETWORKS, btn_small
from ferlib.predict import FaceReader, shipped_model
from ferlib.training import load_recipe
from ferlib.training.environment import commit
from ferlib.weights import checkpoints
from tests import documented
from tests.data_files import rafdb_official
from tests.tiny import Net

COMMON = ("--data", "synthetic", "--length", "48", "--split", "valid", "--resamples", "60")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Two checkpoints of small untrained networks, as a run's folder holds them."""
    small = lambda num_classes: btn_small(num_classes, dim=32, depth=1, widths=(8, 16, 32))  # noqa: E731
    monkeypatch.setitem(NETWORKS, "tiny_btn", small)
    monkeypatch.setitem(NETWORKS, "tiny_net", lambda num_classes: Net(num_classes))
    for name, model in (("a", "tiny_btn"), ("b", "tiny_net")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"name: {name}\nmodel: {model}\nloss: cross-entropy\nepochs: 1\nlr: 1e-3\n")
        recipe = load_recipe(str(path))
        torch.manual_seed(3)
        note = {"recipe": {**recipe.__dict__}, "classes": list(EMOTIONS_FERPLUS)}
        checkpoints.save(tmp_path / name / "best.safetensors", NETWORKS[model](8), note)
    return tmp_path


def evaluate(run, *more: str) -> int:
    return main(["evaluate", "--checkpoint", str(run / "a" / "best.safetensors"), *COMMON, *more])


def record(run, name: str) -> ResultRecord:
    return ResultRecord.load(run / "a" / "evaluations" / f"{name}.json")


def test_scores_and_a_complete_record_beside_the_checkpoint(run, capsys):
    assert evaluate(run) == 0
    out, err = capsys.readouterr()
    assert "expected calibration error" in out and "Wilson" in out and "record: " in err
    found = record(run, "best-valid-scores")
    assert found.command.startswith("ferlib evaluate --checkpoint ") and found.command.endswith("60")
    assert found.data["split"] == "valid" and found.data["faces"] == 48
    assert found.data["name"] == "SyntheticFaces" and len(found.data["fingerprint"]) == 16
    assert found.seconds > 0 and found.commit == commit() and found.versions["device"]
    assert found.settings["recipe"]["name"] == "a" and found.settings["resamples"] == 60
    assert len(found.extra["reliability"]) == 15 and found.extra["wilson"]["accuracy"][0] < 1
    assert all(i.low <= i.value <= i.high for i in found.numbers)
    assert evaluate(run, "--json") == 0  # a second one does not replace the first
    assert record(run, "best-valid-scores-2").numbers == found.numbers
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == documented.keys("evaluate")
    assert told["accuracy"] == found.get("accuracy").value and told["faces"] == 48 and told["left out"] == {}
    assert told["classes"] == list(EMOTIONS_FERPLUS) == found.classes
    assert told["recall"] and told["recall"] == {c: found.get(f"recall {c}").value for c in told["recall"]}


def test_two_networks_and_two_outputs_of_one(run, capsys):
    assert evaluate(run, "--against", str(run / "b" / "best.safetensors")) == 0
    assert "McNemar" in capsys.readouterr().out
    found = record(run, "best-valid-against-best")
    difference = found.difference("checkpoint", "against")
    assert difference.value == pytest.approx(found.get("accuracy").value - found.extra["other"]["accuracy"])
    assert found.settings["against"]["recipe"]["name"] == "b" and 0 < found.extra["McNemar"]["p"] <= 1
    other = str(run / "b" / "best.safetensors")
    assert main(["evaluate", "--checkpoint", other, *COMMON, "--output", "vit"]) == 1  # has one output
    path = run / "own.json"
    itself = str(run / "a" / "best.safetensors")
    assert evaluate(run, "--against", itself, "--record", str(path)) == 0
    assert ResultRecord.load(path).difference("checkpoint", "against").value == 0


def test_one_temperature_is_fitted_kept_and_used(run, capsys):
    path = run / "a" / "best.safetensors"
    before = checkpoints.load(path)
    assert evaluate(run, "--calibrate", "--output", "vit") == 0
    after = checkpoints.load(path)
    temperature = after.pop("temperature")["vit"]
    assert temperature > 0 and after.keys() == before.keys()
    assert all(torch.equal(after["model"][name], before["model"][name]) for name in before["model"])
    assert record(run, "best-valid-scores").settings["temperature"] == temperature
    assert evaluate(run, "--output", "vit") == 0 and evaluate(run, "--output", "bt") == 0
    again, other = (record(run, f"best-valid-scores-{n}") for n in (2, 3))
    assert again.numbers == record(run, "best-valid-scores").numbers
    assert other.settings["temperature"] == 1  # a temperature is of one output
    for bad in (0, "warm"):
        state = before | {"temperature": {"bt": bad}}
        del state["model"]
        checkpoints.save(run / "a" / "bad.safetensors", before["model"], state)
        assert main(["evaluate", "--checkpoint", str(run / "a" / "bad.safetensors"), *COMMON]) == 1
        assert "bad.safetensors" in capsys.readouterr().err


def test_an_exported_file_is_measured_as_it_is_run(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    path.write_bytes(shipped_model()[0].read_bytes())
    place = tmp_path / "record.json"
    words = ["evaluate", "--checkpoint", str(path), *COMMON, "--record", str(place)]
    assert main(words) == 0
    faces = drawn_faces("valid", length=48)
    images = faces.batch(range(48))["image"]
    guesses = [one.expression for one in FaceReader(path).read(images[:, 0].numpy())]
    right = [faces.classes[label] == guess for label, guess in zip(faces.labels, guesses, strict=True)]
    assert ResultRecord.load(place).get("accuracy").value == pytest.approx(sum(right) / 48)
    assert main([*words, "--calibrate"]) == 1 and "model.onnx" in capsys.readouterr().err


def test_expressions_are_matched_by_name(run, capsys):
    faces = drawn_faces("valid", length=48)
    turned = tuple(reversed(faces.classes))
    named = with_classes(faces, turned)
    assert [turned[label] for label in named.labels] == [faces.classes[label] for label in faces.labels]
    with pytest.raises(DataError, match="contempt"):
        with_classes(faces, faces.classes[:7])
    stored = checkpoints.load(run / "a" / "best.safetensors")
    for name, classes in (("turned", turned), ("strange", ("joy", *faces.classes[1:]))):
        state = {"recipe": stored["recipe"], "classes": list(classes)}
        checkpoints.save(run / "a" / f"{name}.safetensors", stored["model"], state)
    words = ["evaluate", *COMMON, "--checkpoint"]
    assert main([*words, str(run / "a" / "turned.safetensors")]) == 0
    assert record(run, "turned-valid-scores").classes == list(turned)
    assert main([*words, str(run / "a" / "strange.safetensors")]) == 1
    assert "neutral" in capsys.readouterr().err


def test_a_file_without_class_names_is_not_given_those_of_the_data(run, capsys):
    stored = checkpoints.load(run / "b" / "best.safetensors")
    path = run / "b" / "plain.pth"
    checkpoints.save(path, stored["model"], {"recipe": stored["recipe"]})  # the suffix says nothing
    words = ["evaluate", *COMMON, "--record", str(run / "r.json"), "--checkpoint", str(path)]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "--classes" in error and "plain.pth" in error and error.count("\n") == 1
    found = {}
    for name, names in (("own", EMOTIONS_FERPLUS), ("turned", EMOTIONS_FERPLUS[::-1])):
        assert main([*words, "--classes", ", ".join(names)]) == 0
        found[name] = ResultRecord.load(run / "r.json")
        assert found[name].classes == list(names)
    confusion = {name: np.array(one.confusion) for name, one in found.items()}
    assert np.array_equal(confusion["own"].sum(1), confusion["turned"].sum(1)[::-1])  # the same faces
    assert np.array_equal(confusion["own"].sum(0), confusion["turned"].sum(0))  # the same outputs
    best = run / "b" / "best.safetensors"
    capsys.readouterr()
    for bad in ("x," * 7 + "x", "neutral", ",".join(EMOTIONS_FERPLUS[::-1])):
        wrong = best if bad.endswith("neutral") and "," in bad else path
        assert main([*words[:-1], str(wrong), "--classes", bad]) == 1
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["pocket_ferplus", "best_alone_ferplus"])
def test_the_books_own_checkpoints_are_known_by_their_bytes(name, tmp_path):
    path = Path(__file__).parents[1] / "book" / "checkpoints" / f"{name}.safetensors"
    copied = tmp_path / "renamed.safetensors"
    copied.write_bytes(path.read_bytes())
    assert Network.find(str(copied)).classes("?") == EMOTIONS_FERPLUS
    weights, state = checkpoints.read(copied)
    checkpoints.save(copied, weights, {**state, "more": 1})
    with pytest.raises(DataError, match="say so"):
        Network.find(str(copied)).classes("say so")


def test_faces_left_out_and_published_counts_are_told(run, tmp_path, capsys):
    root = rafdb_official(tmp_path / "rafdb", {"train": 8, "test": 8})
    next(root.rglob("test_00002*")).unlink()
    stored = checkpoints.load(run / "b" / "best.safetensors")
    recipe, model = stored["recipe"] | {"data": "rafdb"}, NETWORKS["tiny_net"](7)
    checkpoints.save(run / "r.safetensors", model, {"recipe": recipe})
    words = ["evaluate", "--checkpoint", str(run / "r.safetensors"), "--data", str(root), "--split", "test"]
    assert main([*words, "--resamples", "20"]) == 0
    out = capsys.readouterr().out
    assert "3,068" in out
    held = ResultRecord.load(run / "evaluations" / "r-test-scores.json")
    assert held.data["published"] == 3068 and held.classes == list(EMOTIONS_RAFDB)
    assert held.data["faces"] == 7 and sum(held.data["left out"].values()) == 1
    assert all(why in out for why in held.data["left out"])


def test_the_robustness_suite(run, capsys):
    assert evaluate(run, "--suite", "robustness", "--batch-size", "16") == 0
    out = capsys.readouterr().out
    assert "mean class accuracy change" in out and "resolution 2" in out
    found = record(run, "best-valid-robustness")
    assert found.extra["severities"]["resolution"]["2"] == "28 pixels across"
    assert found.get("accuracy", condition="pose 2")
    assert found.get("mean class accuracy change", condition="darkness 2")
    assert found.extra["left out"] == {}


def test_the_batch_suite(run, capsys):
    assert evaluate(run, "--suite", "batch") == 0
    out = capsys.readouterr().out
    assert "one class only" in out or "any batch" in out
    found = record(run, "best-valid-batch")
    assert found.extra["largest change of a probability"] >= 0 and found.settings["rounds"] == 100


def test_what_is_wrong_is_one_line(run, capsys):
    (run / "file").write_text("")
    cases = [
        (("--against", str(run / "none.safetensors")), "none.safetensors"),
        (("--against", str(run / "file")), "cannot read file: "),
        (("--resamples", "0"), "--resamples 0"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--record", str(run)), "--record"),
        (("--record", str(run / "file" / "r.json")), "r.json"),
    ]
    for words, message in cases:
        assert evaluate(run, *words) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_where_a_record_cannot_stand_beside_the_checkpoint_the_numbers_are_still_told(run, capsys):
    (run / "a" / "evaluations").write_text("in the way")
    assert evaluate(run) == 0
    out, err = capsys.readouterr()
    assert "macro F1" in out and "--record" in err


def test_the_commit_is_that_of_the_source(tmp_path):
    """In a repository of its own: a clean commit, then one with changes; without git, the package."""
    package = tmp_path / "ferlib"
    package.mkdir()
    (package / "__init__.py").write_text("")

    def ask() -> str:
        commit.cache_clear()
        return commit(package)

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    assert ask() == f"package ferlib {ferlib.__version__}"
    git("init", "-q")
    git("add", "ferlib")
    git("commit", "-q", "-m", "first")
    assert re.fullmatch(r"[0-9a-f]{40}", ask())
    (package / "__init__.py").write_text("# changed")
    assert re.fullmatch(r"[0-9a-f]{40}\+changes", ask())
