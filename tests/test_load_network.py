"""One door from any file to a network: what it builds, what it fills, and what a file may not choose."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import ferlib
from ferlib.models import NETWORKS, PocketNet, PosterV2, btn_small, vt_nr_small
from ferlib.training import Recipe, load_recipe
from ferlib.training.build import check_network, start_from
from ferlib.weights import ARCHITECTURES, CheckpointError, checkpoints, load_network

TINY = {"in_size": 16, "out_size": 16, "widths": (4, 4, 8, 8), "blocks": (1, 1, 1, 1), "resizer": "bilinear"}


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def test_a_checkpoint_of_ours_says_itself_what_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PocketNet(5, **TINY)
    recipe = Recipe(name="tiny", model="PocketNet", model_options=TINY)
    path = checkpoints.save(tmp_path / "a.safetensors", model, {"recipe": vars(recipe)})
    found = ferlib.load_network(path)
    assert isinstance(found, PocketNet) and found.num_classes == 5 and not found.training
    assert same(found, model)
    other = PocketNet(5, **TINY)
    assert load_network(path, other) is other and same(other, model)
    with pytest.raises(CheckpointError, match="5 classes, expected 7"):
        load_network(path, num_classes=7)


def test_plain_weights_take_a_recipe_by_name_file_or_object(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = load_recipe("btn-small-synthetic")
    model = btn_small(8, **recipe.model_options)
    path = checkpoints.save(tmp_path / "a.safetensors", model)
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    for given in ("btn-small-synthetic", tmp_path / "mine.yaml", recipe):
        assert same(ferlib.load_network(path, given), model)
    with pytest.raises(CheckpointError, match="of no network known here"):
        ferlib.load_network(path)


@pytest.mark.parametrize("classes", [7, 8])
def test_a_file_of_the_original_is_recognized(tmp_path: Path, classes: int) -> None:
    torch.manual_seed(0)
    model = PosterV2(classes)
    named = ARCHITECTURES["poster-v2-7"].official_name
    official = {f"module.{named(name)}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": official, "epoch": 3}, tmp_path / "best.pth")
    found = ferlib.load_network(tmp_path / "best.pth")
    assert isinstance(found, PosterV2) and same(found, model)


def a_server() -> tuple[HTTPServer, list[str]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, asked


def test_a_file_chooses_nothing_that_is_imported_fetched_or_written(tmp_path: Path) -> None:
    server, asked = a_server()
    address = f"http://127.0.0.1:{server.server_port}/weights.py"
    overlay = {"url": address, "hf_hub_id": None, "architecture": "vit_tiny_patch16_224"}
    model = vt_nr_small(num_classes=8)
    try:
        for options in (
            {"pretrained": True},
            {"backbone_options": [{"depth": {"pretrained": 1}}]},
            {"colour": "blue"},
            {"pretrained": True, "cache_dir": str(tmp_path / "site"), "pretrained_cfg_overlay": overlay},
            {"backbone_options": {"checkpoint_path": str(tmp_path / "evil.pth")}},
            {"backbone_options": {"pretrained": True, "pretrained_cfg": overlay}},
            {"pretrained_file": str(tmp_path / "evil.pth")},
            {"backbone": f"hf-hub:{address}"},
        ):
            for name in ("vt_nr_small", "ResizedTransformer"):
                recipe = {"name": "evil", "model": name, "model_options": options}
                members = [{"model": name, "model_options": options}]
                ensemble = {"name": "evil", "model": "Ensemble", "model_options": {"members": members}}
                for stored in (recipe, ensemble):
                    path = checkpoints.save(tmp_path / "a.safetensors", model, {"recipe": stored})
                    with pytest.raises(CheckpointError):
                        load_network(path)
        for name in ("os.system", "Ensemble.__init__", "ferlib.cli.main", "nn", "warp"):
            path = checkpoints.save(tmp_path / "a.safetensors", model, {"recipe": {"model": name}})
            with pytest.raises(CheckpointError, match=repr(name)):
                load_network(path)
    finally:
        server.shutdown()
    assert not asked
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_without_a_network_the_fetch_fails_at_once_and_with_one_it_is_tried(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    server, asked = a_server()
    try:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        check_network()
    finally:
        server.shutdown()
        server.server_close()
    assert len(asked) == 1
    begin = time.monotonic()
    with pytest.raises(CheckpointError, match="fetching it failed"):
        start_from(torch.nn.Identity(), load_recipe("vt-nr-ferplus"), tmp_path)
    assert time.monotonic() - begin < 20


WRONG = ({"model_options": 3}, {"model_options": {"widths": "x"}}, {"model_options": {"in_size": -3}})


@pytest.mark.parametrize("recipe", [3, [], {"model": None}, *({"model": "PocketNet", **w} for w in WRONG)])
def test_damaged_recipes_are_one_kind_of_error(tmp_path: Path, recipe: object) -> None:
    path = checkpoints.save(tmp_path / "a.safetensors", PocketNet(5, **TINY), {"recipe": recipe})
    with pytest.raises(CheckpointError):
        load_network(path)


def test_every_network_of_a_bundled_recipe_is_registered() -> None:
    from ferlib.training import bundled

    assert {load_recipe(name).model for name in bundled()} <= set(NETWORKS)
