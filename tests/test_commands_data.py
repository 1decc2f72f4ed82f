"""What `ferlib train` makes of folders: configs, layouts, splits, weights, checkpoints alone."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from ferlib.cli import main
from ferlib.commands.faces import Faces, choose_faces
from ferlib.data import DataError
from ferlib.data.prepare import prepare
from ferlib.models import NETWORKS
from ferlib.training import build_model, load_recipe, original_config
from ferlib.weights import checkpoints
from tests import data_files
from tests.test_original_config import RELEASED
from tests.tiny import Net

RECIPE = """
name: tiny
model: tiny_net
loss: f-pdls
epochs: 2
batch_size: 8
lr: 5e-3
schedule: constant
augment: light
image_size: 48
"""


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    """A network small enough to be trained here, known to recipes and configs; and an own working folder."""
    monkeypatch.setitem(NETWORKS, "tiny_net", lambda num_classes: Net(num_classes))
    monkeypatch.setitem(original_config.MODELS, "ferlib.models.tiny_net", "tiny_net")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FERLIB_WEIGHTS", raising=False)
    (tmp_path / "tiny.yaml").write_text(RECIPE)


@pytest.fixture(scope="module")
def ferplus(tmp_path_factory):
    """A FER+ of random pixels, prepared."""
    root = tmp_path_factory.mktemp("ferplus")
    data_files.microsoft(root / "raw", {"train": 80, "valid": 24, "test": 32})
    prepare("ferplus", root / "raw", root / "faces", progress=False)
    return root / "faces"


def _config(tmp_path, **changes):
    ours = {"model": "ferlib.models.tiny_net", "batch_size": 16, "num_epochs": 2, "exp_name": "first"}
    values = json.loads(RELEASED) | ours | changes
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return path


def _history(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _error(capsys, words) -> str:
    capsys.readouterr()
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error and error.count("\n") == 1
    return error


def test_the_originals_config_in_both_protocols(tmp_path, ferplus, capsys):
    config = _config(tmp_path, data_dir=str(ferplus))
    assert main(["train", "-c", str(config)]) == 0
    out = capsys.readouterr().out
    assert "on 24 validation faces" in out and "on 32 faces" in out and "validation loss" in out
    run = tmp_path / "experiments" / "first"
    assert {"best.safetensors", "log.txt", "run.json", "test.json"} <= {path.name for path in run.iterdir()}
    assert (run / "config.json").read_text() == config.read_text()
    assert "Avg. Validation Acc." in (run / "log.txt").read_text()
    assert load_recipe(run / "recipe.yaml").protocol == "paper"

    words = ["train", "-c", str(config), "--protocol", "released", "--out", "released"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "(lowest loss)" in out and "on 32 test faces" in out and "highest accuracy of 2 epochs" in out
    run = tmp_path / "released"
    assert not (run / "test.json").exists()  # the test split was looked at all the time
    recipe = load_recipe(run / "recipe.yaml")
    assert (recipe.protocol, recipe.select) == ("released", "loss")
    note = checkpoints.load(run / "best.safetensors")
    lowest = min(_history(run), key=lambda record: record["valid_loss"])
    assert note["record"]["valid_loss"] == lowest["valid_loss"]
    assert "Best Test Accuracy at Epoch" in (run / "log.txt").read_text()

    assert "holds a run already" in _error(capsys, words)
    assert main([*words, "--resume", "--epochs", "3", "--quiet"]) == 0
    assert len(_history(run)) == 3


def test_a_missing_test_split_is_told(tmp_path, capsys):
    data_files.microsoft(tmp_path / "raw", {"train": 48, "valid": 16})
    config = _config(tmp_path, data_dir="raw", num_epochs=1)
    for protocol in ("paper", "released"):
        assert main(["train", "-c", str(config), "--protocol", protocol, "--out", protocol, "--quiet"]) == 0
        told = capsys.readouterr()
        assert "no test split: validation chooses the epoch and is reported instead" in told.err
        assert "on 16 validation faces" in told.out
        assert "Test" not in (tmp_path / protocol / "log.txt").read_text()
    evaluate = ["evaluate", "--data", "raw", "--checkpoint", "paper/best.safetensors"]
    assert main(evaluate) == 0
    told = capsys.readouterr()
    assert "measured on validation" in told.err and "valid split" in told.out


def test_a_checkpoint_alone_is_enough_to_go_on(tmp_path, ferplus, capsys):
    start = ["train", "--recipe", "tiny.yaml", "--data", str(ferplus), "--quiet", "--no-test"]
    assert main([*start, "--out", "whole", "--epochs", "3", "--length", "40"]) == 0
    assert main([*start, "--out", "parts", "--length", "40"]) == 0
    assert main(["train", "--resume", "parts/last.safetensors", "--epochs", "3", "--quiet", "--no-test"]) == 0
    whole, parts = (checkpoints.load(f"{run}/last.safetensors")["model"] for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    numbers = [[{**r, "seconds": 0} for r in _history(tmp_path / run)] for run in ("whole", "parts")]
    assert numbers[0] == numbers[1]

    shutil.copytree("parts", "moved")
    assert main(["train", "--resume", "moved", "--epochs", "4", "--quiet", "--out", "away"]) == 0
    assert len(_history(tmp_path / "away")) == 4 and (tmp_path / "away" / "best.safetensors").is_file()
    (tmp_path / "moved" / "run.json").unlink()
    resume = ["train", "--resume", "moved/last.safetensors"]
    assert "which faces? give --data DIR" in _error(capsys, resume)
    others = [*resume, "--data", str(ferplus), "--quiet", "--epochs", "3"]
    assert "began with other faces" in _error(capsys, others)
    assert main([*others, "--length", "40"]) == 0  # nothing left to do
    assert "weights only" in _error(capsys, ["train", "--resume", "parts/best.safetensors"])
    assert "trained with lr 0.005" in _error(capsys, ["train", "--resume", "parts", "--lr", "0.1"])
    assert "leave --protocol out" in _error(capsys, ["train", "--resume", "parts", "--protocol", "released"])
    (tmp_path / "parts" / "run.json").write_text('{"data": 1, "shell": "rm"}')
    assert "run.json: damaged" in _error(capsys, ["train", "--resume", "parts"])
    (tmp_path / "x.pth").write_bytes(b"PK")
    assert "goes on from a .safetensors checkpoint" in _error(capsys, ["train", "--resume", "x.pth"])
    assert "no checkpoint" in _error(capsys, ["train", "--resume", "nothing.safetensors"])
    assert "say what to train" in _error(capsys, ["train", "--data", "synthetic"])


def test_prepared_folders_know_their_kind(tmp_path, ferplus):
    assert choose_faces(str(ferplus)).kind == "ferplus"
    data_files.rafdb_official(tmp_path / "raf", {"train": 28, "test": 14})
    prepare("rafdb", tmp_path / "raf", tmp_path / "faces", progress=False)
    manifest = tmp_path / "faces" / "cache.json"
    text = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(text) | {"dataset": "x"}))
    with pytest.raises(DataError, match="'x'"):
        choose_faces(str(tmp_path / "faces"))
    manifest.write_text(text)
    faces = choose_faces(str(tmp_path / "faces"))
    assert faces.kind == "rafdb"
    assert [len(faces.open(split)) for split in ("train", "valid", "test")] == [25, 3, 14]
    assert len(faces.open("train", whole=True)) == 28
    assert choose_faces("synthetic", "rafdb").kind == "synthetic"
    with pytest.raises(DataError, match=r"holds RAF-DB, FER\+ is wanted"):
        choose_faces(str(tmp_path / "faces"), "ferplus")


def test_validation_that_is_held_out_is_told(tmp_path, ferplus, capsys):
    data_files.microsoft(tmp_path / "raw", {"train": 40, "test": 16})
    words = ["train", "--recipe", "tiny.yaml", "--epochs", "1", "--no-test", "--quiet"]
    line = "validation: every 10th training face, 4 faces held out, since raw has no validation split"
    assert main([*words, "--data", "raw", "--out", "a"]) == 0
    told = capsys.readouterr()
    assert line in told.out and line not in told.err
    assert main([*words, "--data", "raw", "--out", "b", "--json"]) == 0
    told = capsys.readouterr()
    assert line in told.err and json.loads(told.out)["held_out"] == 4
    assert main([*words, "--data", str(ferplus), "--out", "c"]) == 0
    assert "held out" not in capsys.readouterr().out


def test_damaged_validation_faces_are_not_replaced_by_training_faces(tmp_path):
    data_files.microsoft(tmp_path / "none", {"train": 40, "test": 16})
    faces = Faces(str(tmp_path / "none"), "ferplus")  # every tenth, where there is no validation split
    assert [len(faces.open(split)) for split in ("train", "valid", "test")] == [36, 4, 16]
    root = data_files.microsoft(tmp_path / "raw", {"train": 40, "valid": 8})
    faces = Faces(str(root), "ferplus")
    assert [len(faces.open(split)) for split in ("train", "valid")] == [40, 8]
    (root / "data" / "FER2013Valid" / "label.csv").unlink()
    with pytest.raises(DataError, match="FER2013Valid"):
        faces.open("valid")
    assert len(faces.open("train")) == 40


def test_layouts_are_checked_before_anything_is_built(tmp_path, capsys):
    """The doctor's words: what is there, what was expected, what to do."""
    raf = ["train", "--recipe", "btn-rafdb", "--from-scratch", "--data"]
    affectnet = ["train", "--recipe", "btn-affectnet7", "--from-scratch", "--data"]
    (tmp_path / "empty").mkdir()
    assert "no data set found in empty" in _error(capsys, [*raf, "empty"])
    assert "nowhere is not a folder" in _error(capsys, [*raf, "nowhere"])

    data_files.rafdb_official(tmp_path / "raf", {"train": 14, "test": 7})
    assert "raf holds RAF-DB, AffectNet is wanted" in _error(capsys, [*affectnet, "raf"])
    (tmp_path / "outer").mkdir()
    (tmp_path / "raf").rename(tmp_path / "outer" / "raf")
    (tmp_path / "outer" / "more").mkdir()
    assert "RAF-DB lies in outer/raf: give that folder" in _error(capsys, [*raf, "outer"])

    # AffectNet's folders 0 ... 6 under RAF-DB's name, and the other way round
    data_files.class_folders(tmp_path / "zero", {"train": 2, "valid": 1}, "0123456")
    assert "a folder '0', which is no class of RAF-DB (7 expressions)" in _error(capsys, [*raf, "zero"])
    data_files.class_folders(tmp_path / "one", {"train": 2, "test": 1}, "1234567")
    assert "no folder for 'neutral', a class of AffectNet" in _error(capsys, [*affectnet, "one"])
    wanted = ["train", "--recipe", "btn-affectnet8", "--from-scratch", "--data", "zero"]
    assert "no training face of 'contempt' of AffectNet (8 expressions)" in _error(capsys, wanted)
    assert "--length 0" in _error(capsys, [*raf, "one", "--length", "0"])
    assert not (tmp_path / "runs").exists()


def test_missing_weights_stop_the_run_before_it_begins(tmp_path, capsys):
    data_files.rafdb_official(tmp_path / "raf", {"train": 14, "test": 7})
    told = _error(capsys, ["train", "--recipe", "btn-rafdb", "--data", "raf", "--weights", "mine"])
    assert "no weights 'mobilefacenet' in mine: put mobilefacenet_model_best.pth.tar there" in told
    assert "no weights 'ir50' in mine: put ir50.pth there" in told and "--from-scratch" in told
    assert not (tmp_path / "runs").exists()
    recipe = tmp_path / "odd.yaml"
    recipe.write_text(RECIPE + "weights: {landmarks: nothing}\n")
    told = _error(capsys, ["train", "--recipe", "odd.yaml", "--data", "synthetic", "--length", "16"])
    assert "no weights are called 'nothing'" in told
    words = ["train", "--recipe", "odd.yaml", "--data", "synthetic", "--length", "16", "--from-scratch"]
    assert main([*words, "--quiet", "--epochs", "1", "--no-test"]) == 0
    assert "from random weights" in capsys.readouterr().err


def test_what_is_no_checkpoint_of_ours_needs_a_recipe(tmp_path, capsys):
    data_files.microsoft(tmp_path / "raw", {"train": 8, "valid": 8, "test": 2})
    (tmp_path / "odd.pth").write_bytes(b"no checkpoint at all")
    words = ["evaluate", "--data", "raw", "--checkpoint"]
    assert "odd.pth" in _error(capsys, [*words, "odd.pth", "--recipe", "tiny.yaml"])
    torch.save({"model": {"stn.nothing": torch.zeros(3)}, "epoch": 3}, "best.pth")
    assert main([*words, "best.pth", "--recipe", "tiny.yaml"]) == 1 and "best.pth" in capsys.readouterr().err
    save_file({"conv.weight": torch.zeros(1)}, "plain.safetensors")
    assert "holds no recipe" in _error(capsys, [*words, "plain.safetensors"])
    assert "no device" in _error(capsys, [*words, "best.pth", "--recipe", "tiny.yaml", "--device", "cuda:99"])
    train = ["train", "--recipe", "tiny.yaml", "--data", "synthetic"]
    assert "no device 'abacus'" in _error(capsys, [*train, "--device", "abacus"])
    assert "--batch-size 0" in _error(capsys, [*words, "best.pth", "--batch-size", "0"])


def test_evaluate_measures_the_network_of_the_checkpoint(tmp_path, ferplus, capsys):
    train = ["train", "--recipe", "tiny.yaml", "--data", str(ferplus), "--out", "run", "--quiet"]
    assert main([*train, "--device", "cpu"]) == 0
    capsys.readouterr()
    words = ["evaluate", "--data", str(ferplus), "--checkpoint", "run/best.safetensors", "--device", "cpu"]
    assert main([*words, "--record", "record.json", "--batch-size", "8"]) == 0
    ours = json.loads((tmp_path / "record.json").read_text())
    at_the_end = json.loads((tmp_path / "run" / "test.json").read_text())
    for mine, other in zip(ours["numbers"], at_the_end["numbers"], strict=True):
        assert mine == pytest.approx(other, abs=1e-6)  # the order of additions follows the batch size
    stored = checkpoints.load("run/best.safetensors")
    stored["recipe"]["speed"] = 5  # a recipe of another version of this library
    recipe = load_recipe("run/recipe.yaml")
    model = build_model(recipe, 8)
    checkpoints.save("odd.safetensors", model, {"recipe": stored["recipe"]})
    words[words.index("run/best.safetensors")] = "odd.safetensors"
    assert "odd.safetensors: unknown key 'speed'" in _error(capsys, words)
