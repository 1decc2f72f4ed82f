"""How many modules of the library a face, weights and an attention map pass."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

import ferlib
from book.figures.token_attention import TokenAttention
from ferlib import data
from ferlib.explain import AttentionRecorder
from ferlib.training import build_criterion, build_model, load_recipe
from ferlib.training.batches import Batches
from ferlib.training.loop import train_step
from ferlib.weights import checkpoints
from ferlib.widgets import AttentionExplorer
from tests import data_files

LIBRARY = Path(data.__file__).resolve().parents[1]


def walk(go: Callable[[], object]) -> list[str]:
    """The modules of the library whose functions are entered while something runs, in that order."""
    entered: dict[str, None] = {}

    def note(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and LIBRARY in path.parents and frame.f_code.co_name != "<module>":
            entered.setdefault(".".join(path.relative_to(LIBRARY).with_suffix("").parts))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        go()
    finally:
        sys.setprofile(before)
    print(len(entered), *entered, sep="\n  ")
    return list(entered)


def test_a_face_goes_from_file_to_loss(tmp_path: Path) -> None:
    data_files.microsoft(tmp_path, {"train": 12, "valid": 4})
    recipe = load_recipe("pocket-ferplus").replace(loss="f-pdls", batch_size=4, loss_options={})
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 8))
    criterion, optimizer = build_criterion(recipe), torch.optim.SGD(model.parameters(), 0.1)

    def go() -> None:
        batches = Batches(data.FERPlus(tmp_path, "train"), recipe, torch.device("cpu"), shuffle=True)
        images, target = next(batches.epoch(1))
        train_step(model, criterion, optimizer, images, target)

    modules = walk(go)
    assert {"data.ferplus", "data.transforms", "losses"} <= set(modules)
    assert len(modules) <= 12


def test_a_checkpoint_becomes_a_network_through_one_door(tmp_path: Path) -> None:
    recipe = load_recipe("pocket-ferplus")
    checkpoints.save(tmp_path / "a.safetensors", build_model(recipe), {"recipe": asdict(recipe)})
    networks = []
    modules = walk(lambda: networks.append(ferlib.load_network(tmp_path / "a.safetensors")))
    assert not networks[0].training
    assert len([name for name in modules if not name.startswith("models.")]) <= 8


def test_an_attention_map_goes_from_network_to_explorer_through_one_codec() -> None:
    model = build_model(load_recipe("btn-small-synthetic")).eval()
    images = data.model_input(data.the_hard_face(framing="ferplus")["image"][None])

    def go() -> None:
        with torch.no_grad(), AttentionRecorder(model) as recorder:
            model(images)
        recorded = json.loads(json.dumps(TokenAttention.of(recorder.find("vit")).packed))
        AttentionExplorer({"the hard face": images[0]}, {"the transformer": recorded})

    modules = [name for name in walk(go) if not name.startswith("models.")]
    assert [name for name in modules if name.endswith("codec")] == ["widgets.codec"]
    assert len(modules) <= 8
