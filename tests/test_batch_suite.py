"""Batches of every size and company: encoded once, the answers are those of whole forward passes."""

import pytest
import torch

from ferlib.data import SyntheticFaces
from ferlib.data.faces import KeptFaces, SomeFaces
from ferlib.evaluation import ResultRecord, batch_dependence, batch_predictor, compose, predict
from ferlib.evaluation.suites import COMPOSITIONS
from ferlib.models import btn_small
from tests.tiny import Spots, net


@pytest.fixture(scope="module")
def faces():
    return KeptFaces(SyntheticFaces(40, size=48, framing="ferplus", seed=4))


@pytest.fixture(scope="module")
def network(faces):
    """The small network, untrained, with scores that differ from face to face and a batch that says much."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = btn_small(8, dim=32, depth=1, widths=(8, 16, 32), blocks=(1, 1, 1))
        for layer in (model.levels.query, model.levels.key):
            torch.nn.init.normal_(layer.weight, std=0.5)
        torch.nn.init.normal_(model.vit.head.weight, std=10.0)
        model.vit.head.bias.data -= predict(model.eval(), faces)[0].mean(0) / 2  # BT is about twice V
    return model.train()


class CrowdNet(torch.nn.Module):
    """Answers with the brightness of four quarters, and the mean of all answers: it has no encoder."""

    def forward(self, images):
        own = torch.nn.functional.adaptive_avg_pool2d(images, 2).mean(1).flatten(1)
        return own + 3 * own.mean(0)


def test_batches_hold_every_face_once():
    labels = torch.tensor([2, 0, 1, 0, 2, 2, 0, 0, 1])
    for how in COMPOSITIONS:
        batches = compose(labels, 4, how, seed=1)
        assert sorted(torch.cat(batches).tolist()) == list(range(9))
        assert max(len(rows) for rows in batches) == 4
    assert all(len(labels[rows].unique()) == 1 for rows in compose(labels, 4, "one class only"))
    assert labels[torch.cat(compose(labels, 4, "sorted by class"))].tolist() == sorted(labels.tolist())
    shuffled = [torch.cat(compose(labels, 4, "shuffled", seed)).tolist() for seed in (1, 1, 2)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    with pytest.raises(ValueError, match="'mixed'"):
        compose(labels, 4, "mixed")


@pytest.mark.parametrize("inference", ["bt", "cba", "vit"])
def test_encoded_faces_answer_as_whole_passes_do(network, faces, inference):
    network.inference = inference
    some = SomeFaces(faces, range(12))
    predict_in = batch_predictor(network, some, batch_size=8)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    in_order, mixed = predict_in(torch.arange(12).split(5)), predict_in(order.split(5))
    torch.testing.assert_close(in_order, predict(network, some, batch_size=5)[0], rtol=1e-4, atol=1e-4)
    whole = predict(network, some, batch_size=5, shuffle=3)[0]
    torch.testing.assert_close(mixed, whole, rtol=1e-4, atol=1e-4)
    assert network.training  # given back as it was
    if inference != "vit":
        assert (in_order - mixed).abs().max() > 0.01


def test_the_suite_finds_the_dependence_there_is(network, faces, tmp_path):
    network.inference = "bt"
    record = batch_dependence(network, faces, sizes=(1, 2, 8, 64), rounds=12, resamples=100)
    assert record.extra["depends on the batch"] and record.extra["largest change of a probability"] > 0.01
    found = {(n.arm, n.condition) for n in record.numbers if n.metric == "accuracy"}
    batches = {(how, f"batches of {size}") for how in COMPOSITIONS for size in (2, 8, 64)}
    assert found == {("alone", None), *batches}
    base = record.get("accuracy", "alone").value
    for place in batches:
        change = record.get("accuracy change", *place).value
        assert change == pytest.approx(record.get("accuracy", *place).value - base)
    alone, labels = predict(network, faces, batch_size=1)
    right = (alone.argmax(1) == labels).double().mean().item()
    assert record.get("accuracy", "alone").value == pytest.approx(right)
    assert len(record.extra["accuracy by round"]) == 12
    assert record.extra["batch size of the spread"] == 20  # not the one batch of all 40
    assert 0 < record.get("label changes").value <= 1
    assert ResultRecord.load(record.save(tmp_path / "r.json")) == record
    assert "one class only, batches of 8" in record.table()
    again = batch_dependence(network, faces, sizes=(1, 2, 8, 64), rounds=12, resamples=100)
    assert again.numbers == record.numbers and again.extra == record.extra


def test_a_network_without_encoder_is_asked_anew():
    record = batch_dependence(CrowdNet(), Spots(60), sizes=(1, 8), rounds=5, resamples=50)
    assert record.extra["depends on the batch"]
    alike, mixed = (
        record.get("accuracy", how, "batches of 8").value for how in ("one class only", "shuffled")
    )
    assert alike > mixed  # the other images of one's own class give the label away


def test_a_network_that_looks_at_no_neighbour_is_said_to():
    record = batch_dependence(net(), Spots(50), rounds=5, resamples=50)
    assert record.extra["depends on the batch"] is False
    (found,) = record.numbers
    assert (found.metric, found.arm) == ("accuracy", "any batch")
    logits, labels = predict(net(), Spots(50))
    right = (logits.argmax(1) == labels).double().mean().item()
    assert found.value == pytest.approx(right)
