"""How a run is judged: what the released code does otherwise, and that only who asks for it gets it."""

import pytest
import torch
from torch import nn

from ferlib.training import Recipe, best_epoch, fit
from ferlib.training.batches import Batches
from ferlib.training.loop import Tally, validate
from ferlib.training.runs import log_text
from tests.tiny import Spots, net

PAPER = Recipe(
    name="tiny",
    loss="cross-entropy",
    epochs=4,
    batch_size=16,
    lr=1e-2,
    schedule="step",
    step_size=2,
    decay=0.25,
    warmup=0,
    augment="neural-resizer",
)
RELEASED = PAPER.with_protocol("released")
CPU = torch.device("cpu")
TRAIN, VALID = Spots(56, seed=1), Spots(40, seed=2)


def _pixels(recipe, epoch=1, **options):
    return torch.cat([images for images, _ in Batches(VALID, recipe, CPU, **options).epoch(epoch)])


def test_the_first_drop_comes_one_epoch_earlier():
    """StepLR stepped before each epoch: 15 epochs a stair become 14 at the first."""
    rates = {}
    for recipe in (PAPER, RELEASED):
        history = fit(net(), nn.CrossEntropyLoss(), TRAIN, VALID, recipe, progress=None, device="cpu")
        rates[recipe.protocol] = [round(record["lr"] / recipe.lr, 6) for record in history]
    assert rates == {"paper": [1, 1, 0.25, 0.25], "released": [1, 0.25, 0.25, 0.0625]}
    full = Recipe(schedule="step", step_size=15, decay=0.25, warmup=0, epochs=100, lr=1.0)
    drops = {}
    for name in ("paper", "released"):
        staircase = full.with_protocol(name)
        drops[name] = next(e for e in range(1, 101) if staircase.lr_at(e - 1) < 1)
    assert drops == {"paper": 16, "released": 15}


def test_judged_faces_are_untouched_in_the_papers_protocol_and_varied_in_the_released():
    plain = _pixels(PAPER.replace(augment="none"))
    assert torch.equal(_pixels(PAPER), plain) and torch.equal(_pixels(PAPER, epoch=2), plain)
    varied = _pixels(RELEASED)
    assert varied.shape == plain.shape and not torch.equal(varied, plain)
    assert torch.equal(varied, _pixels(RELEASED))  # the same again, so that a resumed run goes on
    assert not torch.equal(varied, _pixels(RELEASED, epoch=2))
    labels = torch.cat([target for _, target in Batches(VALID, RELEASED, CPU).epoch(1)])
    assert not torch.equal(labels, VALID.labels) and torch.equal(labels.sort()[0], VALID.labels.sort()[0])


def test_the_last_small_batch_is_learned_from_unless_it_is_a_single_face():
    def faces(recipe, count):
        batches = Batches(Spots(count), recipe, CPU, shuffle=True)
        sizes = [len(target) for _, target in batches.epoch(1)]
        assert len(sizes) == len(batches)
        return sizes

    assert faces(PAPER, 40) == [16, 16]
    assert faces(RELEASED, 40) == [16, 16, 8]
    assert faces(RELEASED, 33) == [16, 16]


def test_means_over_faces_and_means_of_batch_means():
    logits = torch.eye(4)[torch.tensor([0, 0, 0, 0, 1])]
    target = torch.tensor([0, 0, 0, 1, 1])
    for by_batch, loss, accuracy in ((False, (4 * 1.0 + 5.0) / 5, 4 / 5), (True, 3.0, (3 / 4 + 1) / 2)):
        tally = Tally(by_batch)
        tally.add(1.0, logits[:4], target[:4])
        tally.add(5.0, logits[4:], target[4:])
        assert tally.averages("x") == pytest.approx({"x_loss": loss, "x_accuracy": accuracy})
    model, criterion = net().eval(), nn.CrossEntropyLoss()
    recipe = RELEASED.replace(augment="none", batch_size=32)  # 40 faces: a batch of 32 and one of 8
    with torch.no_grad():
        parts = [(model(x), y) for x, y in Batches(VALID, recipe, CPU).epoch(3)]
    right = [(z.argmax(1) == y).float().mean().item() for z, y in parts]
    by_batch = validate(model, criterion, Batches(VALID, recipe, CPU), 3).averages("valid")
    assert by_batch["valid_accuracy"] == pytest.approx(sum(right) / 2)
    whole = sum(r * len(y) for r, (_, y) in zip(right, parts, strict=True)) / 40
    by_face = validate(model, criterion, Batches(VALID, recipe.with_protocol("paper"), CPU)).averages("valid")
    assert by_face["valid_accuracy"] == pytest.approx(whole)


def test_best_is_the_lowest_loss_and_the_told_number_the_highest_accuracy():
    rows = [(1, 0.5, 1.0), (2, 0.7, 1.2), (3, 0.6, 0.9)]
    history = [
        {"epoch": e, "valid_accuracy": a, "valid_loss": loss, "train_loss": 1.0, "train_accuracy": 0.5}
        for e, a, loss in rows
    ]
    assert best_epoch(history, PAPER) == 2 and best_epoch(history, RELEASED) == 3
    released = log_text(history, RELEASED, "test").splitlines()
    assert released[:2] == ["Epoch 1: Avg. Train Loss: 1.0000", "Epoch 1: Avg. Train Acc.: 0.5000"]
    assert released[3] == "Epoch 1: Avg. Test Acc.: 0.5000"
    assert released[-1] == "Best Test Accuracy at Epoch 2, 0.7000"
    chosen = log_text(history, PAPER.replace(select="loss")).splitlines()
    assert chosen[3] == "Epoch 1: Avg. Validation Acc.: 0.5000"
    assert chosen[-1] == "Chosen Validation Accuracy at Epoch 3, 0.6000"
