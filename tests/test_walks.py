"""How many rooms of the library a reader passes: from a file to a loss, from a network to an explorer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ferlib import data
from ferlib.explain import AttentionRecorder
from ferlib.training import build_model, load_recipe
from ferlib.training.batches import Batches
from ferlib.training.build import build_criterion
from ferlib.training.loop import train_step
from ferlib.widgets import AttentionExplorer, TokenAttention
from tests import data_files

LIBRARY = Path(data.__file__).resolve().parents[1]


def walk(go: Callable[[], object]) -> list[str]:
    """The modules of the library whose functions are entered while something runs, in that order."""
    entered: dict[str, None] = {}

    def note(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and LIBRARY in path.parents and frame.f_code.co_name != "<module>":
            name = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
            entered.setdefault(name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        go()
    finally:
        sys.setprofile(before)
    return list(entered)


def told(what: str, modules: list[str]) -> None:
    print(f"{what}: {len(modules)}\n  " + "\n  ".join(modules))


def test_a_face_goes_from_file_to_loss_through_few_modules(tmp_path: Path) -> None:
    data_files.microsoft(tmp_path, {"train": 12, "valid": 4})

    recipe = load_recipe("pocket-ferplus").replace(loss="f-pdls", batch_size=4, loss_options={})
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 8))
    criterion, optimizer = build_criterion(recipe), torch.optim.SGD(model.parameters(), 0.1)

    def go() -> None:
        batches = Batches(data.FERPlus(tmp_path, "train"), recipe, torch.device("cpu"), shuffle=True)
        images, target = next(batches.epoch(1))
        train_step(model, criterion, optimizer, images, target)

    modules = walk(go)
    told("a FER+ face, from file to loss", modules)
    assert {"data.ferplus", "data.images", "data.transforms", "losses"} <= set(modules)
    assert len(modules) <= 12


def test_an_attention_map_goes_from_network_to_explorer_through_one_codec() -> None:
    model = build_model(load_recipe("btn-small-synthetic")).eval()
    images = data.model_input(data.the_hard_face(framing="ferplus")["image"][None])

    def go() -> None:
        with torch.no_grad(), AttentionRecorder(model, only="vit") as recorder:
            model(images)
        recorded = json.loads(json.dumps(TokenAttention.of(recorder.records).packed))
        AttentionExplorer({"the hard face": images[0]}, {"the transformer": recorded})

    modules = [name for name in walk(go) if not name.startswith("models.")]
    told("an attention map, from network to explorer", modules)
    assert [name for name in modules if name.endswith("codec")] == ["widgets.codec"]
    assert len(modules) <= 8
