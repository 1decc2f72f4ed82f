"""Weights and inputs made from their names: the rule behind the reference numbers of the original programs.

The files in ``tests/contracts`` hold only outputs of the original programs (which, and how far two machines
differ, stands in its ``README.md``). The weights that gave them are drawn anew from their names: a tensor
called ``key`` under the word ``salt`` comes from its own generator, seeded by ``crc32(salt + ":" + key)``.

How a contract test uses it::

    rows = read_rows("nr_resizer")                              # key, shape, rule of every tensor
    official = fill_state_dict(rows)                            # as the original would have saved it
    model.load_state_dict(from_official(official, "neural-resizer"))
    image = fill_input("image384", (2, 3, 384, 384))
    expected = reference("nr_resizer")
    assert_summary(model(image), expected, "eval_out", rtol=1e-5)
"""

import csv
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

SALT = os.environ.get("FERLIB_CONTRACT_SALT", "public")  # the word the reference files were made with
CONTRACTS = Path(os.environ.get("FERLIB_CONTRACTS", Path(__file__).parent / "contracts"))


@dataclass(frozen=True)
class Row:
    """One tensor of an original state dict: its name, its shape and the rule that fills it."""

    key: str
    shape: tuple[int, ...]
    rule: str


def read_rows(name: str, prefix: str = "") -> list[Row]:
    """The tensors of ``state_dicts/<name>.csv`` in order; or only those with a prefix."""
    with open(CONTRACTS / "state_dicts" / f"{name}.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = []
    for line in lines:
        shape = () if line["shape"] == "scalar" else tuple(int(n) for n in line["shape"].split("x"))
        if line["key"].startswith(prefix):
            rows.append(Row(line["key"], shape, line["rule"]))
    assert rows, f"{name}.csv has no key that begins with {prefix!r}"
    return rows


def fill(key: str, shape: tuple[int, ...], rule: str, salt: str = SALT) -> torch.Tensor | None:
    """One tensor from its name: drawn in float64, cast to float32 once. None where the rule says ``keep``."""
    if rule == "keep":
        return None
    if rule == "zero_int":
        return torch.zeros(shape, dtype=torch.int64)
    draw = np.random.Generator(np.random.PCG64(zlib.crc32(f"{salt}:{key}".encode())))
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)
    values = {
        "running_var": lambda: draw.uniform(0.5, 1.5, shape),
        "running_mean": lambda: 0.1 * draw.standard_normal(shape),
        "norm_weight": lambda: draw.uniform(0.8, 1.2, shape),
        "prelu_weight": lambda: 0.25 + 0.05 * draw.standard_normal(shape),
        "bias": lambda: 0.02 * draw.standard_normal(shape),
        "fan_in_normal": lambda: draw.standard_normal(shape) / math.sqrt(fan_in),
        "standard_normal": lambda: draw.standard_normal(shape),
        "uniform01": lambda: draw.uniform(0.0, 1.0, shape),
    }[rule]()
    return torch.from_numpy(np.ascontiguousarray(values).astype(np.float32))


def fill_state_dict(rows: list[Row], salt: str = SALT, drop_prefix: str = "") -> dict[str, torch.Tensor]:
    """An original state dict, filled. Names are filled with their prefix and may be given back without it."""
    filled = {}
    for row in rows:
        tensor = fill(row.key, row.shape, row.rule, salt)
        if tensor is not None:
            filled[row.key.removeprefix(drop_prefix)] = tensor
    return filled


def fill_input(
    name: str, shape: tuple[int, ...], rule: str = "standard_normal", salt: str = SALT
) -> torch.Tensor:
    """One input tensor from its name (the reference files hash ``input:<name>``)."""
    tensor = fill(f"input:{name}", shape, rule, salt)
    assert tensor is not None
    return tensor


def reference(name: str) -> dict[str, np.ndarray]:
    """The arrays of one reference file, by name."""
    with np.load(CONTRACTS / SALT / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def assert_summary(
    actual: torch.Tensor,
    expected: dict[str, np.ndarray],
    name: str,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    statistics_rtol: float = 1e-4,
) -> None:
    """Compare a tensor with its stored summary: shape, mean, standard deviation, first and strided values.

    A float64 tensor is compared with the values of the float64 run, a float32 tensor with those of the
    float32 run. ``rtol`` is relative to the largest stored value (a value near zero is not more exact than
    its neighbours); mean and standard deviation come from the float32 run and are compared at
    ``statistics_rtol`` of the deviation.
    """
    assert tuple(actual.shape) == tuple(expected[f"{name}_shape"]), f"{name}: shape {tuple(actual.shape)}"
    flat = actual.detach().reshape(-1)
    deviation = float(expected[f"{name}_std"])
    for statistic, value in (("mean", flat.double().mean()), ("std", flat.double().std(correction=0))):
        assert abs(float(value) - float(expected[f"{name}_{statistic}"])) <= statistics_rtol * deviation, (
            statistic
        )
    suffix = "_float64" if actual.dtype == torch.float64 else ""
    found = [key for key in expected if key.startswith((f"{name}_first", f"{name}_strided"))]
    compared = [key for key in found if key.endswith("_float64") == bool(suffix)]
    assert compared, f"{name}: no stored values for {actual.dtype}"
    for key in compared:
        count = len(expected[key])
        start = f"{name}_first" in key
        values = flat[:count] if start else flat[:: max(1, flat.numel() // count)][:count]
        stored = torch.from_numpy(expected[key])
        tolerance = rtol * float(stored.abs().max()) + atol
        torch.testing.assert_close(
            values, stored, rtol=0.0, atol=tolerance, msg=lambda text, k=key: f"{k}: {text}"
        )
