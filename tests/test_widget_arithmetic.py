"""The explorers' arithmetic without a browser: Node runs it on random numbers, torch is the reference."""

import inspect
import json
import math
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from book.builder.notebooks import ROOT
from book.figures.token_attention import computed
from ferlib.data import EMOTIONS_FERPLUS as CLASSES
from ferlib.models import class_batch_attention
from ferlib.widgets import pack, unpack
from ferlib.widgets.base import module
from tests.explorers import inputs, network, toy_layers

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")


def node(files: tuple[str, ...], script: str, **given) -> dict:
    """What a script returns that sees the explorers' functions and ``given``."""
    source = f"{module(*files)}\n(async (given) => {{ {script} }})({json.dumps(given)})"
    source += ".then((found) => console.log(JSON.stringify(found)));"
    done = subprocess.run([NODE, "-"], input=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("scale", [8**-0.5, 49**-0.5])
def test_class_batch_attention(scale: float) -> None:
    generator = torch.Generator().manual_seed(11)
    query, key = torch.randn(2, 6, 8, 49, generator=generator)
    value = torch.randn(6, 8, generator=generator)
    members = [0, 2, 3, 5]
    found = node(
        ("attend.js",),
        "const net = given; return { bt: net.members.map((i) => scoresOf(net, net.members, i, net.scale).bt),"
        " rows: [0, 1].map((c) => net.members.map((i) => weightsOf(net, net.members, i, c, net.scale))) };",
        query=query.flatten().tolist(),
        key=key.flatten().tolist(),
        value=value.flatten().tolist(),
        classes=8,
        width=49,
        members=members,
        scale=scale,
    )
    inputs = (part[members] for part in (query, key, value))
    cba, weights = class_batch_attention(*inputs, scale=scale, return_weights=True)
    np.testing.assert_allclose(found["bt"], cba + value[members], atol=1e-4)
    np.testing.assert_allclose(found["rows"], weights[:2], atol=1e-4)


def test_a_row_with_a_weight_set_by_hand_sums_to_one() -> None:
    row = torch.rand(5, generator=torch.Generator().manual_seed(2)).softmax(0).tolist()
    script = "return given.sets.map((set) => edited(given.row, [0, 1, 2, 3, 4], set));"
    found = np.array(node(("attend.js",), script, row=row, sets=[{"1": 0.7}, {"0": 0, "3": 0.5}, {"2": 1}]))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-9)
    assert found[0, 1] == 0.7 and found[1, 0] == 0 and found[1, 3] == 0.5
    np.testing.assert_allclose(found[0, [0, 2]] / found[0, 0], np.array(row)[[0, 2]] / row[0], atol=1e-9)
    np.testing.assert_allclose(found[2], [0, 0, 1, 0, 0], atol=1e-9)


class Changed(torch.nn.Module):
    """The attention of one block with its weights changed by a function."""

    def __init__(self, change) -> None:
        super().__init__()
        self.listeners, self.change = [], change

    def forward(self, query, key, value, *, scale=None, bias=None):
        scores = query @ key.mT / query.shape[-1] ** 0.5
        return self.change(scores) @ value


RUN = """
globalThis.atob ||= (text) => Buffer.from(text, "base64").toString("binary");
const net = await openNetwork(given.network), result = net.run(given.face, given.edits);
const { q, k } = vectorsOf(result.layers[1], 1, 0, 20);
return { logits: result.logits, weights: result.layers.map((one) => Array.from(one.weights)),
  score: result.layers[1].scores[148 * 148 + 20], dot: q.reduce((sum, v, e) => sum + v * k[e], 0) };
"""
FILES = ("attend.js", "transformer.js")


def expected(changes=(None, None)):
    """The logits "vit" of torch, from the tokens that the page has, with blocks' attention changed."""
    model = network()
    packed = computed(model, inputs(2), CLASSES)["network"]
    sequence = torch.from_numpy(unpack(packed["tokens"])).float()
    vit, kept = model.vit, []
    with torch.no_grad():
        for block, change in zip(vit.blocks, changes, strict=True):
            before = block.attn.attention
            if change is not None:
                block.attn.attention = Changed(change)
            else:
                block.attn.attention.listeners.append(kept.append)
            sequence = block(sequence)
            before.listeners.clear()
            block.attn.attention = before
        logits = vit.head(vit.se_block(vit.norm(sequence)[:, 0]))
    return packed, logits, kept


def test_a_computed_network_gives_torch_s_attention_and_logits() -> None:
    packed, logits, kept = expected()
    found = node(FILES, RUN, network=packed, face=1, edits={"covered": [], "layers": {}, "rows": {}})
    np.testing.assert_allclose(found["logits"], logits[1], atol=1e-4)
    for got, want in zip(found["weights"], kept, strict=True):
        np.testing.assert_allclose(np.reshape(got, (2, 148, 148)), want[1], atol=1e-4)
    assert found["score"] == pytest.approx(found["dot"] / 16**0.5, abs=1e-4)


def test_covered_places_equal_weights_and_one_row_by_hand() -> None:
    def cover(scores):
        scores[..., [30, 79, 128]] = -torch.inf
        return scores.softmax(-1)

    def one_row(scores):
        weights = cover(scores)
        row = weights[1, 0, 0]
        row *= 0.2 / (1 - row[5])
        row[5] = 0.8
        return weights

    def equal(scores):
        return torch.zeros_like(scores).index_fill(-1, torch.tensor([30, 79, 128]), -torch.inf).softmax(-1)

    for changes, edits in [
        ((cover, cover), {"layers": {}, "rows": {}}),
        ((cover, equal), {"layers": {"1": "equal"}, "rows": {}}),
        ((one_row, cover), {"layers": {}, "rows": {"0/0/0": {"5": 0.8}}}),
    ]:
        packed, logits, _ = expected(changes)
        found = node(FILES, RUN, network=packed, face=1, edits={"covered": [30, 79, 128], **edits})
        np.testing.assert_allclose(found["logits"], logits[1], atol=1e-4)


def test_permuted_weights_keep_their_values() -> None:
    packed, _, kept = expected()
    edits = {"covered": [], "layers": {"0": "permuted"}, "rows": {}}
    found = node(FILES, RUN, network=packed, face=0, edits=edits)
    got = np.reshape(found["weights"][0], (2, 148, 148))
    np.testing.assert_allclose(np.sort(got), np.sort(kept[0][0]), atol=1e-4)
    assert np.abs(got - kept[0][0].numpy()).max() > 0.01


def edge_cells(images: torch.Tensor) -> torch.Tensor:
    """Chapter 4's features of gray faces: (B, 1, 48, 48) -> (B, 49, 8)."""
    x = F.interpolate(images.float() / 255, size=58, mode="bilinear")
    across = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    down = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    direction = torch.arange(8).view(1, 8, 1, 1) * math.pi / 4
    facing = torch.relu(torch.cos(torch.atan2(down, across) - direction)) ** 2
    found = F.avg_pool2d(torch.hypot(across, down) * facing, 8)
    return (found / (found.norm(dim=1, keepdim=True) + 0.05)).flatten(2).transpose(1, 2)


def test_a_face_of_the_reader_s_own_gets_chapter_4_s_query_key_and_value() -> None:
    chapter = json.loads((ROOT / "notebooks" / "04_batch_attention.ipynb").read_text(encoding="utf-8"))
    assert any(
        inspect.getsource(edge_cells).splitlines()[-1] in "".join(c["source"]) for c in chapter["cells"]
    )
    face = torch.randint(0, 256, (1, 1, 48, 48), generator=torch.Generator().manual_seed(4))
    layers = toy_layers()
    script = """
      globalThis.atob ||= (text) => Buffer.from(text, "base64").toString("binary");
      const found = toyOf(given.face, 48, await openToy(given.layers));
      return Object.fromEntries(Object.entries(found).map(([name, part]) => [name, Array.from(part)]));"""
    packed = {name: [pack(part, "float32") for part in layer] for name, layer in layers.items()}
    found = node(("attend.js", "edges.js"), script, face=face.flatten().tolist(), layers=packed)
    cells = edge_cells(face)
    for name in ("query", "key"):
        want = F.linear(cells, *layers[name]).mT
        np.testing.assert_allclose(np.reshape(found[name], (1, 8, 49)), want, atol=1e-4)
    np.testing.assert_allclose(found["value"], F.linear(cells.flatten(1), *layers["value"])[0], atol=1e-4)
