"""What goes wrong in mid-run: files that vanish, losses that are no number; batches added up to a step."""

import copy
import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ferlib.data.base import DataError, FaceDataset
from ferlib.images import read_image
from ferlib.training import Recipe, TrainingError, best_epoch, build_optimizer, fit
from ferlib.training.batches import Batches, FaultyDataError
from ferlib.training.loop import accumulated_step
from ferlib.training.recipes import RecipeError
from ferlib.weights import checkpoints
from tests.tiny import Net, Spots, net

CPU = torch.device("cpu")
RECIPE = Recipe(
    name="tiny", loss="cross-entropy", epochs=2, batch_size=8, lr=1e-2, warmup=0, augment="light", ema=0.9
)
VALID = Spots(16, seed=2)


class Files(FaceDataset):
    """Spots as PNG files that are read when they are wanted."""

    classes = Spots.classes

    def __init__(self, folder: Path, count: int = 40) -> None:
        folder.mkdir()
        spots = Spots(count, seed=1)
        self.labels = spots.labels
        self.paths = [folder / f"{i:03d}.png" for i in range(count)]
        for path, image in zip(self.paths, spots.images, strict=True):
            Image.fromarray(image[0].numpy()).save(path)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.from_numpy(np.array(read_image(self.paths[index])))
        return {"image": image, "label": int(self.labels[index]), "name": str(self.paths[index])}


def run(data, folder, recipe=RECIPE, model=None, **options):
    options = {"run_dir": folder, "progress": None, "device": "cpu"} | options
    return fit(model or net(), nn.CrossEntropyLoss(), data, VALID, recipe, **options)


def spoil(data: Files, names: list[int]):
    """A callback that, after the first epoch, removes, empties or cuts files in turn."""

    def after(model, record):
        for n, row in enumerate(names):
            if n % 3 == 0:
                data.paths[row].unlink(missing_ok=True)
            else:
                data.paths[row].write_bytes(data.paths[row].read_bytes()[: 0 if n % 3 == 1 else 60])

    return after


def test_a_file_that_vanishes_stops_the_run_with_its_name_and_the_run_goes_on_when_it_is_back(tmp_path):
    whole = net()
    expected = run(Files(tmp_path / "whole-files"), tmp_path / "whole", model=whole)
    data = Files(tmp_path / "files")
    kept = data.paths[17].read_bytes()
    with pytest.raises(FaultyDataError, match=r"017\.png: the file is not there.*on_fault: skip") as caught:
        run(data, tmp_path / "run", on_epoch=spoil(data, [17]))
    assert isinstance(caught.value, DataError)
    data.paths[17].write_bytes(kept)
    model = net(seed=3)
    history = run(data, tmp_path / "run", model=model, resume=True)
    clockless = [[{**record, "seconds": 0} for record in records] for records in (history, expected)]
    assert clockless[0] == clockless[1]
    for a, b in zip(model.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("workers", [0, 2])
def test_faces_are_skipped_counted_and_named_where_the_recipe_says_so(tmp_path, capsys, workers):
    data = Files(tmp_path / "files")
    recipe = RECIPE.replace(on_fault="skip", epochs=3)
    history = run(data, tmp_path / "run", recipe, on_epoch=spoil(data, [3, 11, 29]), workers=workers)
    assert [record["left_out"] for record in history] == [0, 3, 3]
    log, told = (tmp_path / "run" / "log.txt").read_text(), capsys.readouterr().err
    for name, why in (("003", "not there"), ("011", "is empty"), ("029", "damaged image")):
        line = next(line for line in log.splitlines() if f"{name}.png" in line)
        assert line.startswith("Left out from epoch 2 on: face ") and why in line
        assert log.count(f"{name}.png") == 1 and line in told
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["left_out"] == 3


def test_what_is_left_of_a_batch_is_what_it_would_have_been(tmp_path):
    data = Files(tmp_path / "files")
    recipe = RECIPE.replace(on_fault="skip")
    before = list(Batches(data, recipe, CPU, shuffle=True).read(1))
    spoil(data, [5])(None, None)
    after = list(Batches(data, recipe, CPU, shuffle=True).read(1))
    for old, new in zip(before, after, strict=True):
        kept = [i for i, name in enumerate(old.names) if not name.endswith("005.png")]
        torch.testing.assert_close(new.images, old.images[kept], rtol=0, atol=0)
        assert torch.equal(new.target, old.target[kept]) and len(new.lost) == len(old.names) - len(kept)
    with pytest.raises(FaultyDataError, match=r"005\.png"):
        list(Batches(data, RECIPE, CPU, shuffle=True).epoch(1))


def test_more_than_half_of_a_batch_is_too_much_and_a_defect_is_no_fault(tmp_path):
    data = Files(tmp_path / "files")
    for path in data.paths[:30]:
        path.unlink()
    with pytest.raises(FaultyDataError, match="of 8 faces of a batch cannot be read, more than half: face "):
        run(data, tmp_path / "run", RECIPE.replace(on_fault="skip"))
    data.paths = None
    with pytest.raises(TypeError):
        run(data, None, RECIPE.replace(on_fault="skip"))


def test_a_loss_that_is_no_number_names_the_faces(tmp_path):
    """One pixel of one face makes it: the message names the batch that this face is in."""

    class Poisoned(Net):
        epochs = 0

        def forward(self, images):
            out = super().forward(images)
            hit = self.epochs and any(torch.equal(image, poison) for image in images)
            return out * math.inf if hit else out

    data = Files(tmp_path / "files")
    recipe = RECIPE.replace(augment="none")
    batches = list(Batches(data, recipe, CPU, shuffle=True).read(2))
    poison, model = batches[3].images[0], Poisoned()
    with pytest.raises(TrainingError, match=r"(nan|inf) \(epoch 2, step 4 of 5, learning rate") as caught:
        run(data, tmp_path / "run", recipe, model=model, on_epoch=lambda *_: setattr(model, "epochs", 1))
    shown = str(caught.value)
    assert all(name in shown for name in batches[3].names[:4]) and "and 4 more" in shown
    assert batches[2].names[0] not in shown and "last checkpoint is sound" in shown
    stored = checkpoints.load(tmp_path / "run" / "last.safetensors")
    assert stored["epoch"] == 1 and all(torch.isfinite(t).all() for t in stored["model"].values())


def pictures(count: int, side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, side, side, generator=draw), torch.arange(count) % 4


@pytest.mark.parametrize("rho", [None, 0.05])
def test_batches_added_up_are_one_batch_to_a_network_that_answers_face_by_face(rho):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    images, target = pictures(12, 16)
    images = images.double()
    results = []
    for sizes in ([12], [4, 4, 4], [5, 5, 2]):
        copied = copy.deepcopy(model)
        optimizer = build_optimizer(RECIPE.replace(sam_rho=rho, optimizer="sgd", lr=0.1), copied)
        parts = list(zip(images.split(sizes), target.split(sizes), strict=True))
        answers = accumulated_step(copied, nn.CrossEntropyLoss(), optimizer, parts, clip=0.5)
        assert [len(logits) for _, logits in answers] == sizes
        results.append(torch.cat([p.detach().flatten() for p in copied.parameters()]))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_an_image_size_that_the_network_cannot_take(tmp_path):
    class Rigid(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3 * 16 * 16, 4)

        def forward(self, images):
            return self.head(images.flatten(1))

    for side, error in ((20, RecipeError), (16, None), (None, None)):
        recipe = Recipe(name="rigid", epochs=1, batch_size=8, loss="cross-entropy", image_size=side)
        with pytest.raises(error, match=r"'rigid': image_size 20 .*768") if error else nullcontext():
            assert len(run(Spots(16), tmp_path / str(side), recipe, model=Rigid())) == 1


def test_a_run_accumulates_batches_into_steps(tmp_path):
    sizes: list[int] = []

    class Count(Net):
        def forward(self, images):
            sizes.append(len(images))
            return super().forward(images)

    recipe = RECIPE.replace(accumulate=3, epochs=1, ema=None)
    batches = Batches(Spots(40), recipe, CPU, shuffle=True)
    assert batches.steps_per_epoch == 2 and [len(parts) for _, parts in batches.steps(1)] == [3, 2]
    assert [(step, len(parts)) for step, parts in batches.steps(1, 1)] == [(1, 2)]
    history = run(Spots(40), tmp_path / "run", recipe, model=Count())
    assert sizes == [8] * 5 + [8, 8] and history[0]["lr"] == recipe.lr_at(0.5, 0.5)


class Overflowing(Net):
    """A network whose outputs are NaN when it is evaluated, once ``broken`` is set."""

    def forward(self, images):
        return super().forward(images) * (math.nan if self.broken and not self.training else 1.0)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_validation_that_is_nan_is_never_kept(tmp_path, epoch):
    recipe = RECIPE.replace(select="loss", ema=None)
    model = Overflowing()
    model.broken = epoch == 1
    breaks = lambda evaluated, record: setattr(model, "broken", True)  # noqa: E731
    with pytest.raises(TrainingError, match=f"validation loss of epoch {epoch} is nan"):
        run(Files(tmp_path / "files"), tmp_path / "run", recipe, model=model, on_epoch=breaks)
    best = tmp_path / "run" / "best.safetensors"
    assert best.exists() == (epoch == 2) and (epoch == 1 or checkpoints.peek(best)["epoch"] == 1)
    assert best_epoch([], recipe) == 0
    nan = {"epoch": 1, "valid_loss": math.nan, "valid_accuracy": 0.9}
    assert best_epoch([nan, {"epoch": 2, "valid_loss": 2.0, "valid_accuracy": 0.1}], recipe) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_nan_are_never_saved(tmp_path, value):
    data = Files(tmp_path / "files")

    def poison(model, record):
        if record["epoch"] == 2:
            with torch.no_grad():
                next(trained.parameters()).fill_(value)

    trained = net()
    with pytest.raises(TrainingError, match="epoch 3"):
        run(data, tmp_path / "run", RECIPE.replace(epochs=3), model=trained, on_epoch=poison)
    stored = checkpoints.load(tmp_path / "run" / "last.state.safetensors")
    assert len(stored["history"]) == 1 and all(t.isfinite().all() for t in stored["model"].values())
    assert len(run(data, tmp_path / "run", RECIPE.replace(epochs=3), resume=True)) == 3
