"""The arithmetic of the explorers, run by Node.js without a page, against the library's."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pytest
import torch

from ferlib.explain import attention_score
from ferlib.models import class_batch_attention
from ferlib.widgets.base import module

driver = pytest.importorskip("playwright._impl._driver", reason="Playwright, which brings Node.js, is absent")


def run(sources: tuple[str, ...], expression: str, **given: Any) -> Any:
    """The value of a JavaScript expression after the explorers' sources; ``given`` names its inputs."""
    node, _ = driver.compute_driver_executable()
    inputs = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in given.items())
    script = f"{module(*sources)}\n{inputs}console.log(JSON.stringify({expression}));"
    done = subprocess.run([node, "-"], input=script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("size", [0.05, 3.0])
def test_class_batch_attention_is_torchs(size: float) -> None:
    draw = torch.Generator().manual_seed(8)
    query, key = size * torch.randn(2, 12, 8, 49, generator=draw)
    value, members, scale = torch.randn(12, 8, generator=draw), [1, 2, 5, 6, 9, 11], 8**-0.5
    net = {"classes": 8, "width": 49} | {
        name: tensor.flatten().tolist()
        for name, tensor in {"query": query, "key": key, "value": value}.items()
    }
    found = run(
        ("attend.js",),
        "members.map((i) => [scoresOf(net, members, i, scale),"
        " Array.from({ length: 8 }, (_, c) => weightsOf(net, members, i, c, scale))])",
        net=net,
        members=members,
        scale=scale,
    )
    parts = (tensor[members] for tensor in (query, key, value))
    cba, weights = class_batch_attention(*parts, scale=scale, return_weights=True)
    for row, (scores, mine) in enumerate(found):
        np.testing.assert_allclose(mine, weights[:, row], atol=1e-4)
        np.testing.assert_allclose(scores["cba"], cba[row], atol=1e-4)
        np.testing.assert_allclose(scores["bt"], cba[row] + value[members[row]], atol=1e-4)


@pytest.mark.parametrize(
    ("by_hand", "expected"),
    [
        ({}, [0.5, 0.3, 0.2]),
        ({"4": 0.9}, [0.5 / 7, 0.9, 0.2 / 7]),  # the others keep their proportion
        ({"2": 0.2, "4": 0.2}, [0.2, 0.2, 0.6]),
        ({"2": 1, "4": 1, "7": 2}, [0.25, 0.25, 0.5]),  # a whole row by hand is scaled to one
        ({"2": 0, "4": 0, "7": 0}, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_an_edited_row_sums_to_one(by_hand: dict[str, float], expected: list[float]) -> None:
    found = run(("attend.js",), "edited([0.5, 0.3, 0.2], [2, 4, 7], byHand)", byHand=by_hand)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_scores_of_a_map_are_attention_scores() -> None:
    draw = torch.Generator().manual_seed(3)
    heat, truth = torch.randn(4, 7, 7, generator=draw), torch.zeros(4, 30, 24)
    truth[:, 5:14, 3:19] = 1
    heat[1] = 0  # a map that is zero everywhere counts as uniform
    want = attention_score(heat, truth)
    inside = (truth >= 0.5).flatten(1).int()
    for n in range(len(heat)):
        found = run(
            ("heat.js",),
            "scoreOf({ values: Float64Array.from(values), width: 7, height: 7 },"
            " { inside, area, wide: 24, high: 30 })",
            values=heat[n].flatten().tolist(),
            inside=inside[n].tolist(),
            area=int(inside[n].sum()),
        )
        for name in ("pointing", "energy", "auc", "area"):
            assert found[name] == pytest.approx(float(want[name][n]), abs=1e-4)
