"""What makes one face: every number the renderer needs, drawn from a seed and an index."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from ferlib.data.base import DataError
from ferlib.data.synthetic.expressions import ACTION_UNITS, AU_INDEX, LATERAL, draw_action_units
from ferlib.data.synthetic.paint import LUMINANCE, table

#: Proportions of a person, each a standard normal number (0 is the average face).
SHAPE = (
    "face_width", "jaw_width", "chin_length", "face_length", "eye_size", "eye_tilt", "eye_gap", "brow_height",
    "brow_arch", "nose_length", "nose_width", "mouth_width", "mouth_height", "upper_lip", "lower_lip",
    "cheeks",
)  # fmt: skip
#: Looks of a person, each in [0, 1].
LOOK = (
    "skin", "redness", "age", "femininity", "beard", "hair_style", "hair_colour", "hair_length", "curl",
    "fringe", "parting", "brow_thickness", "iris", "lip_colour", "freckles", "cloth", "cloth_hue", "volume",
)  # fmt: skip
_S = {name: i for i, name in enumerate(SHAPE)}
_L = {name: i for i, name in enumerate(LOOK)}
OCCLUSIONS = ("none", "glasses", "hand", "mask", "scarf")
#: Uniform numbers drawn for every face; a fixed count, so that adding a use never shifts the others.
DRAWS = 128


@dataclass
class FaceParameters:
    """All parameters of B faces; change a field and render again to see what it does.

    Shape: every field has B rows. ``shape (B, 16)`` standard normal proportions (``SHAPE``); ``look (B,
    18)`` in
    [0, 1] (``LOOK``); ``action_units (B, 21)`` in about [0, 1] (``ACTION_UNITS``); ``side (B,)`` in [-1,
    1], how
    one-sided the face moves; ``pose (B, 3)`` yaw, pitch, roll in degrees; ``gaze (B, 2)``; ``light (B, 4)``
    azimuth and elevation in degrees, ambient share, hardness; ``camera (B, 3)`` place of the point between
    the eyes and
    distance of the outer eye corners as shares of the picture; ``tone (B, 3)`` gain, contrast, grain;
    ``background (B, 4)`` in [0, 1]; ``occlusion (B,)`` index into ``OCCLUSIONS``; ``occlusion_place (B,
    4)`` in [0, 1];
    ``resolution (B,)`` effective pixels across, 0 for full; ``phase (B, 8)`` where noise is read. Chapter 1.
    """

    shape: torch.Tensor
    look: torch.Tensor
    action_units: torch.Tensor
    side: torch.Tensor
    pose: torch.Tensor
    gaze: torch.Tensor
    light: torch.Tensor
    camera: torch.Tensor
    tone: torch.Tensor
    background: torch.Tensor
    occlusion: torch.Tensor
    occlusion_place: torch.Tensor
    resolution: torch.Tensor
    phase: torch.Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: slice | torch.Tensor | list[int]) -> FaceParameters:
        return FaceParameters(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})

    def replace(self, **changes: torch.Tensor) -> FaceParameters:
        """Copy with some fields changed; a field of one row is repeated for every face."""
        fixed = {}
        for name, value in changes.items():
            old = getattr(self, name)
            value = torch.as_tensor(value, dtype=old.dtype)
            if value.dim() == old.dim() - 1:
                value = value[None]
            fixed[name] = value.expand(len(self), *old.shape[1:]).clone() if len(value) == 1 else value
        return dataclasses.replace(self, **fixed)

    def repeat(self, count: int) -> FaceParameters:
        """Every face ``count`` times in a row: B faces become ``B * count``."""
        return self[torch.arange(len(self)).repeat_interleave(count)]

    def get(self, name: str) -> torch.Tensor:
        """One named proportion or look as ``(B,)``."""
        return self.shape[:, _S[name]] if name in _S else self.look[:, _L[name]]


def _normal(u: torch.Tensor, limit: float = 2.2) -> torch.Tensor:
    return torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)).clamp(-limit, limit)


SKIN = [
    (244, 211, 192),
    (234, 190, 163),
    (216, 168, 136),
    (190, 138, 102),
    (152, 104, 74),
    (112, 74, 52),
    (84, 55, 40),
]


def skin_colour(skin: torch.Tensor, redness: torch.Tensor) -> torch.Tensor:
    """Skin tone from two looks: ``(B,), (B,) -> (B, 3)``, light to dark, a little redder or yellower."""
    tint = (redness - 0.5)[:, None] * torch.tensor([0.03, -0.02, -0.03])
    return (table(SKIN, skin**1.5) * (1 + tint)).clamp(0, 1)


def uniforms(seed: int, indices: list[int]) -> torch.Tensor:
    """The random numbers that belong to faces: ``(n, DRAWS)``, a function of seed and index only."""
    rows = []
    for index in indices:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + index * 7_919 + 12_345) % (2**63))
        rows.append(torch.rand(DRAWS, generator=generator))
    return torch.stack(rows)


#: Where the point between the eyes lies, how far apart the outer eye corners are (shares of the picture), and
#: how much they vary. FER+'s frontal training faces have (0.520, 0.394, 0.552).
FRAMINGS = {
    "portrait": ((0.5, 0.435, 0.415), (0.012, 0.012, 0.010)),
    "ferplus": ((0.512, 0.394, 0.55), (0.02, 0.025, 0.03)),
}


def camera_of(framing: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean camera and its spread, each ``(3,)``. Raises ``DataError`` for an unknown framing."""
    if framing not in FRAMINGS:
        raise DataError(f"framing={framing!r}: expected one of {', '.join(FRAMINGS)}")
    centre, spread = FRAMINGS[framing]
    return torch.tensor(centre), torch.tensor(spread)


def draw_parameters(
    u: torch.Tensor,
    labels: torch.Tensor,
    *,
    intensity: tuple[float, float],
    framing: str,
    variation: float,
    occlusion: float | str,
    resolution: tuple[float, float] | None,
) -> FaceParameters:
    """Turn uniform numbers ``(B, DRAWS)`` and labels ``(B,)`` into B faces; options as in SyntheticFaces."""
    look = u[:, 16:34].clone()
    shape = _normal(u[:, :16]) * min(variation, 1.5)
    woman = look[:, _L["femininity"]]
    look[:, _L["femininity"]] = (woman - 0.5).sign() * (woman - 0.5).abs().mul(2).pow(0.5) / 2 + 0.5
    shape[:, _S["jaw_width"]] -= (woman - 0.5) * 1.2
    shape[:, _S["upper_lip"]] += (woman - 0.5) * 0.8
    strength = intensity[0] + (intensity[1] - intensity[0]) * u[:, 34]
    units = draw_action_units(labels, strength, u[:, 35:60])
    side = (u[:, 60] - 0.5) * 0.24 * variation
    contempt = labels == 7
    side = torch.where(contempt, (u[:, 60] - 0.5).sign() * (0.8 + 0.2 * u[:, 61]), side)
    angle = _normal(u[:, 62:65]) * variation
    ferplus = framing == "ferplus"
    pose = angle * torch.tensor([11.0, 5.0, 7.0] if ferplus else [8.0, 4.0, 5.0])
    pose[:, 2] += (labels == 3) * (u[:, 66] - 0.5) * 10 * variation
    pose[:, 1] -= (labels == 3) * 5 * variation
    pose[:, 2] -= contempt * side * 8 * variation
    gaze = _normal(u[:, 67:69]) * torch.tensor([0.012, 0.006]) * variation
    light = torch.stack(
        [
            (u[:, 70] - 0.5) * 110 * min(variation, 1.3),
            20 + 40 * u[:, 71],
            0.45 + 0.2 * u[:, 72],
            u[:, 73],
        ],
        1,
    )
    jitter = _normal(u[:, 74:77]) * variation
    centre, spread = camera_of(framing)
    camera = centre + jitter * spread
    tone = torch.stack([0.9 + 0.3 * u[:, 78], 0.9 + 0.3 * u[:, 79], 0.004 + 0.012 * u[:, 80]], 1)
    tone = torch.lerp(torch.tensor([1.05, 1.0, 0.004]), tone, min(variation, 1.0))
    if ferplus:  # those photographs are exposed for the face: dark skin is lit longer, contrast is high
        bright = (skin_colour(look[:, _L["skin"]], look[:, _L["redness"]]) * LUMINANCE).sum(1)
        tone[:, 0] = 1 + (tone[:, 0] - 1.05) * 1.6
        tone[:, 1] = 1 + (tone[:, 1] - 1.05) * 1.8
        tone[:, 0] *= 1.08 * (0.66 / bright) ** 0.6
        tone[:, 1] *= 1.15
    if isinstance(occlusion, str):
        kind = torch.full((len(u),), OCCLUSIONS.index(occlusion))
    else:
        kind = torch.where(u[:, 86] < occlusion, (u[:, 87] * 4).long().clamp(max=3) + 1, 0)
    effective = torch.zeros(len(u))
    if resolution is not None:
        effective = resolution[0] * (resolution[1] / resolution[0]) ** u[:, 88]
    return FaceParameters(
        shape, look, units, side, pose, gaze, light, camera, tone, u[:, 82:86].clone(), kind,
        u[:, 89:93].clone(), effective, u[:, 100:108].clone(),
    )  # fmt: skip


_SHARE = torch.full((len(ACTION_UNITS),), 0.25)
for _name, _share in LATERAL.items():
    _SHARE[AU_INDEX[_name]] = _share


def sided(units: torch.Tensor, side: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split action units ``(B, n_au)`` into those of the viewer's left and right half by ``side (B,)``."""
    lean = side[:, None] * _SHARE
    return units * (1 - lean.clamp(min=0)), units * (1 + lean.clamp(max=0))
