"""Expressions as facial action units (FACS): which muscles move, how far, and what each one shifts and shows.

An expression is a few *prototypes* (as in EMFACS: anger with pressed lips, anger with bared teeth, ...); a
prototype gives action units an intensity, of which 1 is strong; an action unit shifts landmarks by a fixed
displacement times its intensity. Lengths are in units of the distance between the outer eye corners.
Chapter 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

#: The action units the renderer knows, in the order of the vector ``action_units``; 43 is lid drooping.
ACTION_UNITS = tuple(
    f"AU{n}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 20, 22, 23, 24, 25, 26, 27, 43)
)
AU_INDEX = {name: i for i, name in enumerate(ACTION_UNITS)}
#: A muscle pulls no harder than this.
STRONGEST = 1.5
#: How far a one-sided expression (contempt) takes an action unit to its own side, or (below 0) to the other:
#: one corner of the mouth and one brow go up, the other brow and corner down. The rest differ by a quarter.
LATERAL = dict(AU2=1.0, AU5=0.8, AU10=1.0, AU12=1.0, AU14=1.0, AU4=-0.6, AU7=-0.6, AU15=-1.0, AU43=-0.6)
SHARE = torch.tensor([LATERAL.get(name, 0.25) for name in ACTION_UNITS])
#: The expressions, in the order of FER+.
EXPRESSIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

# Landmark, dx and dy at full intensity, in hundredths of the outer-eye distance, for the viewer's left half
# (x < 0) and the midline; the other half mirrors it. Sizes follow the mean landmark shift of each FER+
# expression against neutral (a landmark network run over 8,000 training faces, numbers only), scaled to a
# full contraction.
_SHIFTS = """
AU1  21 0 -14, 20 0 -12, 19 0 -7, 18 0 -2, 27 0 -2
AU2  17 0 -6, 18 -1 -11, 19 -1 -11, 20 -1 -6, 21 0 -1
AU4  21 3 10.5, 20 3 10.5, 19 2 8.5, 18 2 4.5, 17 1 2, 27 0 2
AU5  37 0 -6, 38 0 -6, 41 0 1.2, 40 0 1.2, 36 0 -0.6, 39 0 -0.4
AU6  41 0 -1.8, 40 0 -1.6, 36 0 0.3, 37 0 0.8, 17 0 1, 18 0 1
AU7  37 0 1.8, 38 0 1.8, 41 0 -1.6, 40 0 -1.8
AU9  31 -1.5 -4, 32 -1 -3.5, 33 0 -2.5, 30 0 -2, 21 1 3, 20 1 3, 19 0 2, 50 0 -3, 51 0 -3, 49 0 -3,
     61 0 -2.5, 62 0 -2.5, 40 0 -1.5, 41 0 -1.2, 37 0 1, 38 0 1
AU10 48 0 -1, 49 -2 -5.5, 50 -1 -5, 51 0 -4, 61 -1 -6, 62 0 -5, 60 0 -1, 31 -1 -2, 32 0 -1
AU12 48 -11 -10, 60 -11 -9.5, 49 -7 -8, 50 -2.5 -5, 51 0 -4.5, 61 -3 -4.5, 62 0 -4, 59 -8.5 -5, 58 -3.5 -1,
     57 0 0, 67 -3.5 -1.5, 66 0 -1, 31 -2.5 -2.5, 32 -1 -1.5, 3 -1.5 0, 4 -1.5 0
AU14 48 -9 -5, 60 -8.5 -5, 49 -7.5 -3, 59 -7.5 -2, 58 -6.5 -0.5, 50 -6.5 -1.5, 51 -6.5 -0.5, 57 -6.5 0,
     61 -7 -1, 62 -6.5 -0.5, 66 -6.5 0, 67 -7 0, 52 -5.5 0, 53 -5 0, 54 -4.5 0, 55 -5 0, 56 -5.5 0,
     63 -5.5 0, 64 -4.5 0, 65 -5.5 0, 31 -1.5 -1, 32 -1.2 -0.5, 33 -1 0, 30 -0.6 0, 8 -1.5 0, 7 -1 0, 9 -1 0
AU15 48 0 9.5, 60 0 9, 49 0 3, 59 -0.5 6, 58 0 1
AU16 57 0 4.5, 58 -1 4.5, 59 -1 3, 66 0 5, 67 -1 5
AU17 57 0 -3.5, 58 0 -3.5, 59 0 -2, 66 0 -3.5, 67 0 -3.5, 62 0 -3.5, 61 0 -3.5, 51 0 -2, 50 0 -2, 49 0 -1.5,
     48 0 -0.5, 60 0 -1, 8 0 -4, 7 0 -3, 6 0 -2
AU20 48 -8.5 3, 60 -8.5 3, 49 -5 1, 59 -6.5 3.5, 58 -2.5 1.5, 67 -3 1, 61 -3 0
AU22 48 6 0, 60 5 0, 49 3 -2, 50 0 -3, 51 0 -2.5, 61 1 -2.5, 62 0 -2.5, 59 4 3, 58 1 4, 57 0 4, 67 1 3,
     66 0 3
AU23 49 0.5 1, 50 0 1.8, 51 0 1.8, 58 0 -2, 57 0 -2, 59 0.5 -1.5, 48 1.5 0, 60 1.5 0
AU24 49 1 1.5, 50 0 2, 51 0 2, 58 0 -2.5, 57 0 -2.5, 59 1 -2, 48 2.5 0, 60 2.5 0
AU25 61 0 -1, 62 0 -1, 67 0 2.5, 66 0 2.5, 57 0 2, 58 0 2, 59 0 1
AU26 67 0 10, 66 0 10, 57 0 10.5, 58 0 10.5, 59 1 7.5, 48 2.5 3, 60 2.5 3, 61 0.5 -0.5, 62 0 -0.5, 49 1 0.5,
     8 0 9, 7 0 8.5, 6 0.5 7.5, 5 1 5, 4 1 2.5
AU27 67 2 25, 66 0 27, 57 0 27, 58 2 26, 59 4 17, 48 5 8, 60 5 8, 61 1 -2, 62 0 -2, 50 0.5 -1.5, 51 0 -1.5,
     49 2 0, 8 0 22, 7 0 21, 6 1 18, 5 2 11, 4 2 6
AU43 37 0 4.5, 38 0 4.5, 41 0 -0.5, 40 0 -0.5
"""
# Inner brow raised and brows drawn together at once (1 + 4 without 2) make more than the sum: the brows slant
# and the upper lids become triangles.
_OBLIQUE = """
both 17 0 1.4, 18 0 5.4, 19 1.4 5.4, 20 2.8 -3.6, 21 0 -7, 36 -1.4 2.6, 37 0.4 3.2, 38 0 -1.2, 39 0.7 -4.2,
     40 0 -2.6, 41 0 -2.1
"""
# The weight of a prototype, then action units with the lowest and highest intensity.
_PROTOTYPES = """
neutral   1, AU24 0 0.25, AU43 0 0.12, AU4 0 0.1
happiness 1, AU6 0.5 1, AU12 0.8 1.15, AU25 0.6 1, AU26 0.1 0.6, AU10 0 0.3
happiness 0.35, AU6 0.5 0.9, AU12 0.9 1.2, AU14 0.1 0.5
happiness 0.35, AU6 0.7 1, AU12 0.85 1.15, AU25 0.8 1, AU26 0.6 1.2, AU7 0 0.4
surprise  1, AU1 0.6 1, AU2 0.6 1, AU5 0.4 0.9, AU25 0.5 1, AU26 0.7 1.3, AU22 0 0.6
surprise  0.6, AU1 0.7 1, AU2 0.7 1, AU5 0.5 0.9, AU25 0.5 1, AU27 0.5 1, AU22 0 0.5
sadness   1, AU1 0.9 1.2, AU4 0.7 1, AU6 0.2 0.6, AU7 0.4 0.8, AU15 1 1.25, AU17 0.3 0.8, AU20 0.7 1.2,
          AU24 0.3 0.7, AU43 0.5 0.9
sadness   0.5, AU1 0.9 1.2, AU4 0.7 1, AU6 0.2 0.6, AU7 0.3 0.7, AU15 0.9 1.2, AU20 0.7 1.2, AU24 0.3 0.7,
          AU43 0.7 1
sadness   0.4, AU1 0.9 1.2, AU4 0.7 1, AU6 0.2 0.6, AU7 0.5 0.9, AU15 0.9 1.2, AU20 0.8 1.2, AU25 0.3 0.7,
          AU43 0.5 0.9
anger     1, AU4 1.2 1.5, AU5 0 0.2, AU7 0.4 0.8, AU9 0.5 0.9, AU10 0.3 0.8, AU15 0.2 0.5, AU17 0.6 1,
          AU23 0.4 0.8, AU24 0.7 1.1
anger     0.7, AU4 1.1 1.4, AU7 0.4 0.9, AU9 0.6 1, AU10 0.9 1.2, AU16 0.6 1, AU20 0 0.3, AU25 0.8 1,
          AU26 0.3 0.9
anger     0.6, AU4 1.1 1.4, AU7 0.4 0.9, AU9 0.6 1, AU10 0.9 1.2, AU16 0.3 0.7, AU25 0.8 1, AU27 0.5 1
disgust   1, AU1 0.3 0.6, AU9 1.2 1.5, AU10 1.3 1.5, AU15 1 1.4, AU17 0.3 0.8, AU7 0.6 1, AU43 0.5 0.9,
          AU6 0 0.4, AU16 0.1 0.5, AU25 0.3 0.8, AU26 0.4 0.8
disgust   0.4, AU1 0.3 0.6, AU9 1.2 1.5, AU10 1.3 1.5, AU15 1 1.4, AU17 0.8 1.2, AU7 0.6 1, AU43 0.5 0.9,
          AU6 0 0.4, AU16 0.3 0.8, AU25 0.1 0.5, AU26 0.1 0.4
fear      1, AU1 0.9 1.3, AU2 0 0.3, AU4 0.5 0.8, AU5 1.2 1.5, AU20 1.1 1.5, AU10 0.4 0.8, AU15 0.4 0.8,
          AU16 0.4 0.8, AU25 0.9 1.2, AU26 0.8 1.3
fear      0.6, AU1 0.9 1.3, AU2 0 0.4, AU4 0.5 0.8, AU5 1.2 1.5, AU20 1.1 1.5, AU10 0.4 0.8, AU15 0.5 0.9,
          AU16 0.3 0.7, AU25 0.9 1.2, AU26 1.1 1.5
contempt  1, AU12 0.7 1.2, AU14 1.1 1.5, AU2 0.4 0.8, AU4 0.8 1.2, AU5 0.5 0.9, AU7 0.4 0.8, AU9 0.2 0.6,
          AU15 0.6 1, AU17 0.8 1.2, AU23 0.2 0.6, AU24 0.9 1.2, AU43 0.1 0.4
"""
REGIONS = ("forehead", "brows", "glabella", "eyes", "nose", "cheeks", "mouth", "chin")
# Where each action unit shows.
_SHOWS = """
AU1  brows 1, forehead 0.7
AU2  brows 1, forehead 0.7
AU4  brows 1, glabella 1
AU5  eyes 1
AU6  eyes 0.7, cheeks 0.8
AU7  eyes 1
AU9  nose 1, glabella 0.6
AU10 mouth 0.8, cheeks 0.4, nose 0.3
AU12 mouth 1, cheeks 0.6
AU14 mouth 1
AU15 mouth 1, chin 0.3
AU16 mouth 1
AU17 chin 1, mouth 0.5
AU20 mouth 1
AU22 mouth 1
AU23 mouth 1
AU24 mouth 1
AU25 mouth 0.8
AU26 mouth 1, chin 0.4
AU27 mouth 1, chin 0.5
AU43 eyes 1
"""

#: Index of the mirror image of each of the 68 points (300-W order).
MIRROR = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46]
MIRROR += [39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]


def rows(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Read a table: a row is a name and entries between commas, and goes on where it is indented."""
    for row in re.split(r"\n(?! )", text.strip()):
        name, entries = row.split(maxsplit=1)
        yield name, [entry.split() for entry in entries.split(",")]


def mirrored(points: list[list[str]], scale: float = 1.0) -> torch.Tensor:
    """Landmarks of one half and their mirror images: entries ``point x y`` over scale -> ``(68, 2)``."""
    out = torch.zeros(68, 2)
    for point, x, y in points:
        out[int(point)] = torch.tensor([float(x), float(y)]) / scale
        out[MIRROR[int(point)]] = torch.tensor([-float(x), float(y)]) / scale
    return out


def _displacements() -> tuple[torch.Tensor, torch.Tensor]:
    left = torch.zeros(len(ACTION_UNITS), 68, 2)
    right = torch.zeros_like(left)
    for name, shifts in rows(_SHIFTS):
        for point, dx, dy in shifts:
            here, there = int(point), MIRROR[int(point)]
            scale = 200 if here == there else 100  # the midline moves half with each side
            left[AU_INDEX[name], here] = torch.tensor([float(dx), float(dy)]) / scale
            right[AU_INDEX[name], there] = torch.tensor([-float(dx), float(dy)]) / scale
    return left, right


def _intensities() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    found: dict[str, list[tuple[float, list[list[str]]]]] = {name: [] for name in EXPRESSIONS}
    for name, ((weight,), *units) in rows(_PROTOTYPES):
        found[name].append((float(weight), units))
    most = max(map(len, found.values()))
    low, high = torch.zeros(2, len(EXPRESSIONS), most, len(ACTION_UNITS))
    cumulative = torch.full((len(EXPRESSIONS), most), 2.0)
    for k, prototypes in enumerate(found.values()):
        total, reached = sum(weight for weight, _ in prototypes), 0.0
        for j, (weight, units) in enumerate(prototypes):
            reached += weight / total
            cumulative[k, j] = reached if j < len(prototypes) - 1 else 2.0
            for unit, lowest, highest in units:
                low[k, j, AU_INDEX[unit]], high[k, j, AU_INDEX[unit]] = float(lowest), float(highest)
    return low, high, cumulative


def _shown() -> torch.Tensor:
    weights = torch.zeros(len(ACTION_UNITS), len(REGIONS))
    for name, regions in rows(_SHOWS):
        for region, weight in regions:
            weights[AU_INDEX[name], REGIONS.index(region)] = float(weight)
    return weights


DISPLACE_LEFT, DISPLACE_RIGHT = _displacements()
OBLIQUE = mirrored(next(rows(_OBLIQUE))[1], 100)
LOW, HIGH, CUMULATIVE = _intensities()
#: How strongly each action unit shows in each region.
SHOWN = _shown()


def oblique(units: torch.Tensor) -> torch.Tensor:
    """How far action units 1 and 4 act together without 2: ``(B, n_au) -> (B,)`` in [0, 1]."""
    one, two, four = (units[:, AU_INDEX[a]].clamp(0, 1) for a in ("AU1", "AU2", "AU4"))
    return torch.minimum(one, 1.5 * four) * (1 - two)


def draw_action_units(labels: torch.Tensor, intensity: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Draw action units ``(B, n_au)``: a prototype each, units uniform in their ranges, times the intensity.

    Takes labels and intensity ``(B,)``, and uniform numbers ``(B, 1 + n_au)`` or more.
    """
    which = (u[:, :1] > CUMULATIVE[labels]).sum(1).clamp(max=LOW.shape[1] - 1)
    low, high = LOW[labels, which], HIGH[labels, which]
    units = (low + (high - low) * u[:, 1 : 1 + len(ACTION_UNITS)]) * intensity[:, None]
    return units.clamp(max=STRONGEST)


def sided(units: torch.Tensor, side: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split action units ``(B, n_au)`` into those of the viewer's left and right half by ``side (B,)``."""
    lean = side[:, None] * SHARE
    return units * (1 - lean.clamp(min=0)), units * (1 + lean.clamp(max=0))
