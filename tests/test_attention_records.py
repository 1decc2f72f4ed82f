"""The attention that chapter 8 carries is what its scripts say: whole, quantised, and of drawn faces only."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest

from ferlib import data
from ferlib.evaluation import ResultRecord
from ferlib.evaluation.records import folders

NAMES = ("attention_small_networks", "attention_poster_v2")
FACES = 5


def unpack(packed: dict) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8).reshape(packed["shape"])


def shares(packed: dict) -> np.ndarray:
    squares = unpack(packed).astype(float) ** 2
    return squares / squares.sum(-1, keepdims=True)


@pytest.fixture(scope="module", params=NAMES)
def record(request) -> ResultRecord:
    return ResultRecord.load(request.param)


def tables(record: ResultRecord) -> dict[str, dict]:
    """Every table of attention in a record, by a name."""
    found = {}
    for name, network in record.extra.items():
        if isinstance(network, dict) and "layers" in network:
            for kind in ("layers", "rollout"):
                found |= {f"{name} {kind} {layer}": rows for layer, rows in network[kind].items()}
    for kind in ("cross", "vit"):
        found |= {f"{kind} {layer}": rows for layer, rows in record.extra.get(kind, {}).items()}
    return found | ({"levels": record.extra["levels"]} if "levels" in record.extra else {})


def test_all_layers_are_there() -> None:
    small, large = (tables(ResultRecord.load(name)) for name in NAMES)
    for n, (side, heads) in enumerate(((14, 2), (14, 2), (7, 4), (7, 4)), start=1):
        assert small[f"Swin layers layer {n}"]["shape"] == [FACES, heads, side**2, side**2]
        assert small[f"ViT layers layer {n}"]["shape"] == [FACES, 4, 49, 49]
        for network in ("Swin", "ViT"):
            assert small[f"{network} rollout layer {n}"]["shape"] == [FACES, 49, 49]
    assert [large[f"cross level {side}"]["shape"] for side in (28, 14, 7)] == [[FACES, 1, 49, 49]] * 3
    assert large["levels"]["shape"] == [FACES, 1, 147, 147]
    assert [large[f"vit block {n}"]["shape"] for n in (1, 2)] == [[FACES, 1, 148, 148]] * 2


def test_rows_are_shares_and_no_row_is_empty(record: ResultRecord) -> None:
    found = tables(record)
    assert len(found) >= 6
    for name, packed in found.items():
        codes = unpack(packed)
        assert (codes.max(-1) == 255).all(), f"{name}: each row is scaled by its largest share"
        np.testing.assert_allclose(shares(packed).sum(-1), 1, atol=1e-9, err_msg=name)
        assert np.ptp(codes) > 50, f"{name}: an attention without any preference is none that was learned"


def test_swin_asks_inside_its_windows_and_the_second_layer_cuts_them_elsewhere() -> None:
    swin = tables(ResultRecord.load("attention_small_networks"))
    rows = np.arange(14)
    plain = np.kron(np.eye(2), np.ones((7, 7)))  # which rows of places share a window
    group = np.where(rows < 3, 0, np.where(rows < 10, 1, 2))  # shifted by 3: 3 places, 7, 4
    shifted = (group[:, None] == group[None]).astype(float)
    for layer, along in ((1, plain), (2, shifted)):
        allowed = np.kron(along, along) > 0
        weights = shares(swin[f"Swin layers layer {layer}"])
        assert (weights[..., ~allowed] == 0).all()
        assert (weights[..., allowed] > 0).mean() > 0.5


def test_the_faces_are_the_books_own(record: ResultRecord) -> None:
    images = unpack(record.extra["images"])
    assert images.shape == (FACES, 1, 48, 48) and len(record.data["faces"]) == FACES
    named = (data.the_hard_face, data.the_easy_twin, data.the_false_friend)
    for row, (name, face) in enumerate(
        zip(("the hard face", "the easy twin", "the false friend"), named, strict=True)
    ):
        assert record.data["faces"][row] == name
        drawn = face(framing="ferplus")["image"].numpy()
        difference = np.abs(images[row].astype(int) - drawn.astype(int))
        assert difference.mean() < 1, f"{name} is drawn otherwise now: run book/records/attention_maps.py"


def test_batch_attention_of_the_large_network_is_complete() -> None:
    batch = ResultRecord.load("attention_poster_v2").extra["batch"]
    assert unpack(batch["images"]).shape == (8, 1, 48, 48) and len(batch["names"]) == 8
    for key, shape in (("query", [8, 8, 49]), ("key", [8, 8, 49]), ("value", [8, 8])):
        assert batch[key]["shape"] == shape
        values = np.array(batch[key]["values"])
        assert values.size == np.prod(shape) and np.isfinite(values).all()


def test_the_page_stays_light() -> None:
    sizes = [(folders()[-2] / f"{name}.json").stat().st_size for name in NAMES]
    assert sum(sizes) < 1_500_000


def test_every_network_has_every_score() -> None:
    record = ResultRecord.load("attention_scores")
    networks = [
        name for name, extra in record.extra.items() if isinstance(extra, dict) and "agreement" in extra
    ]
    assert len(networks) >= 4
    for network in networks:
        for method in ("rollout", "gradient-rollout", "grad-cam", "noise"):
            for score in ("pointing", "energy", "auc", "deletion", "insertion", "turned auc", "occluder auc"):
                interval = record.get(score, method, network)
                assert 0 <= interval.low <= interval.value <= interval.high <= 1
        assert record.extra[network]["faces"] >= 192
        noise = record.get("auc", "noise", network)
        assert abs(noise.value - 0.5) < 0.05, "random numbers know nothing"
