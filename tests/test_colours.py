"""Figures share one palette, which colour-blind readers can tell apart; maps are readable in grey."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from ferlib.style import EMOTION_COLOURS, INK, KEY, QUERY, VALUE

ROOT = Path(__file__).resolve().parents[1]
PALETTE = {colour.lower() for colour in (*EMOTION_COLOURS.values(), KEY, QUERY, VALUE, INK)}
# Lighter and darker shades of the palette, for what stands behind or beside one of its colours.
SHADES = {"#9fb6d3", "#b9c7d8", "#2f4f7f", "#7a2f5a", "#6f8fb5", "#d3e6f4", "#fbe7bf", "#cdebdf", "#2f86c9"}
MAPS = {"viridis", "gray", "cividis", "magma", "RdBu_r"}
DRAWING = ("notebooks/[0-9]*.ipynb", "ferlib/*.py", "book/figures/*.py", "book/experiments/two_systems.py")


def is_grey(colour: str) -> bool:
    parts = [int(colour[n : n + 2], 16) for n in (1, 3, 5)]
    return max(parts) - min(parts) <= 12


def test_figures_take_their_colours_from_the_palette() -> None:
    for path in (path for pattern in DRAWING for path in sorted(ROOT.glob(pattern))):
        text = path.read_text(encoding="utf-8")
        named = {colour.lower() for colour in re.findall(r"#[0-9A-Fa-f]{6}\b", text)}
        assert {c for c in named if not is_grey(c)} <= PALETTE | SHADES, (
            f"{path.name}: not of ferlib/style.py"
        )
        assert set(re.findall(r"cmap=\\?[\"'](\w+)", text)) <= MAPS, path.name


def seen_by(colour: str, kind: str) -> np.ndarray:
    """A colour (sRGB) as a dichromat sees it: Viénot, Brettel and Mollon 1999, for protans and deutans."""
    rgb = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }[kind]
    seen = np.clip(np.array(matrix) @ linear, 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_expressions_keep_apart_for_colour_blind_readers(kind: str) -> None:
    for (one, first), (other, second) in combinations(EMOTION_COLOURS.items(), 2):
        apart = np.abs(seen_by(first, kind) - seen_by(second, kind)).max()
        assert apart > 0.1, f"{one} and {other} look alike"
