"""What makes one face: every number the renderer needs, drawn from a seed and an index."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from ferlib.errors import DataError, choose
from ferlib.synthetic.expressions import AU_INDEX, EXPRESSIONS, draw_action_units, sided
from ferlib.synthetic.paint import LUMINANCE, table

#: Proportions of a person, each a standard normal number (0 is the average face).
SHAPE = (
    "face_width",
    "jaw_width",
    "chin_length",
    "face_length",
    "eye_size",
    "eye_tilt",
    "eye_gap",
    "brow_height",
    "brow_arch",
    "nose_length",
    "nose_width",
    "mouth_width",
    "mouth_height",
    "upper_lip",
    "lower_lip",
    "cheeks",
)
#: Looks of a person, each in [0, 1].
LOOK = (
    "skin",
    "redness",
    "age",
    "femininity",
    "beard",
    "hair_style",
    "hair_color",
    "hair_length",
    "curl",
    "fringe",
    "parting",
    "brow_thickness",
    "iris",
    "lip_color",
    "cloth",
    "cloth_hue",
    "volume",
)
OCCLUSIONS = ("none", "glasses", "hand", "mask", "scarf")
#: Uniform numbers drawn for every face; a fixed count, so that adding a use never shifts the others.
DRAWS = 128
#: Where the point between the eyes lies, how far apart the outer eye corners are (shares of the picture), and
#: how much they vary. FER+'s frontal training faces have (0.520, 0.394, 0.552).
FRAMINGS = {
    "portrait": ((0.5, 0.435, 0.415), (0.012, 0.012, 0.010)),
    "ferplus": ((0.512, 0.394, 0.55), (0.02, 0.025, 0.03)),
}
SKIN = "f4d3c0 eabea3 d8a888 be8a66 98684a 704a34 543728"


@dataclass
class FaceParameters:
    """All parameters of B faces; change a field and render again to see what it does.

    Attributes:
        shape: ``(B, 16)`` standard normal proportions (``SHAPE``).
        look: ``(B, 17)`` in [0, 1] (``LOOK``).
        action_units: ``(B, 21)`` in [0, 1.5], 1 being strong (``ACTION_UNITS``).
        side: ``(B,)`` in [-1, 1], how one-sided the face moves.
        pose: ``(B, 3)`` yaw, pitch, roll in degrees.
        gaze: ``(B, 2)``.
        light: ``(B, 3)`` azimuth and elevation in degrees, ambient share.
        camera: ``(B, 3)`` place of the point between the eyes and distance of the outer eye corners as shares
            of the picture.
        tone: ``(B, 3)`` gain, contrast, grain.
        background: ``(B, 4)`` in [0, 1].
        occlusion: ``(B,)`` index into ``OCCLUSIONS``.
        occlusion_place: ``(B, 4)`` in [0, 1].
        resolution: ``(B,)`` effective pixels across, 0 for full.
        phase: ``(B, 8)`` where noise is read.
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
        return self.shape[:, SHAPE.index(name)] if name in SHAPE else self.look[:, LOOK.index(name)]

    def unit(self, name: str, side: int = 0) -> torch.Tensor:
        """Intensity of one action unit, ``(B,)`` in [0, 1.3]; of one half (-1 left, 1 right) where given."""
        units = self.action_units if side == 0 else sided(self.action_units, self.side)[(side + 1) // 2]
        return units[:, AU_INDEX[name]].clamp(0, 1.3)


def _normal(u: torch.Tensor, limit: float = 2.2) -> torch.Tensor:
    return torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)).clamp(-limit, limit)


def skin_color(skin: torch.Tensor, redness: torch.Tensor) -> torch.Tensor:
    """Skin tone from two looks: ``(B,), (B,) -> (B, 3)``, light to dark, a little redder or yellower."""
    tint = (redness - 0.5)[:, None] * torch.tensor([0.03, -0.02, -0.03])
    return (table(SKIN, skin**1.5) * (1 + tint)).clamp(0, 1)


def generator(seed: int, number: int, stream: int = 0) -> torch.Generator:
    """Random numbers that belong to one face of a seed; another stream, other numbers."""
    start = seed * 1_000_003 + number * 7_919 + stream * 15_485_863 + 12_345
    return torch.Generator().manual_seed(start % 2**63)


def uniforms(seed: int, indices: list[int]) -> torch.Tensor:
    """The random numbers that faces are drawn from: ``(n, DRAWS)``, a function of seed and index only."""
    return torch.stack([torch.rand(DRAWS, generator=generator(seed, index)) for index in indices])


def camera_of(framing: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean camera and its spread, each ``(3,)``. Raises ``DataError`` for an unknown framing."""
    centre, spread = FRAMINGS[choose("framing", framing, FRAMINGS, DataError)]
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
    look = torch.cat([u[:, 16:30], u[:, 31:34]], 1)
    shape = _normal(u[:, :16]) * min(variation, 1.5)
    woman = look[:, LOOK.index("femininity")]
    woman.copy_((woman - 0.5).sign() * (woman - 0.5).abs().mul(2).pow(0.5) / 2 + 0.5)
    shape[:, SHAPE.index("jaw_width")] -= (woman - 0.5) * 1.2
    shape[:, SHAPE.index("upper_lip")] += (woman - 0.5) * 0.8
    strength = intensity[0] + (intensity[1] - intensity[0]) * u[:, 34]
    units = draw_action_units(labels, strength, u[:, 35:60])
    side = (u[:, 60] - 0.5) * 0.24 * variation
    sad, contempt = labels == EXPRESSIONS.index("sadness"), labels == EXPRESSIONS.index("contempt")
    side = torch.where(contempt, (u[:, 60] - 0.5).sign() * (0.8 + 0.2 * u[:, 61]), side)
    angle = _normal(u[:, 62:65]) * variation
    ferplus = framing == "ferplus"
    pose = angle * torch.tensor([11.0, 5.0, 7.0] if ferplus else [8.0, 4.0, 5.0])
    pose[:, 2] += sad * (u[:, 66] - 0.5) * 10 * variation
    pose[:, 1] -= sad * 5 * variation
    pose[:, 2] -= contempt * side * 8 * variation
    gaze = _normal(u[:, 67:69]) * torch.tensor([0.012, 0.006]) * variation
    azimuth = (u[:, 70] - 0.5) * 110 * min(variation, 1.3)
    light = torch.stack([azimuth, 20 + 40 * u[:, 71], 0.45 + 0.2 * u[:, 72]], 1)
    jitter = _normal(u[:, 74:77]) * variation
    centre, spread = camera_of(framing)
    camera = centre + jitter * spread
    tone = torch.stack([0.9 + 0.3 * u[:, 78], 0.9 + 0.3 * u[:, 79], 0.004 + 0.012 * u[:, 80]], 1)
    tone = torch.lerp(torch.tensor([1.05, 1.0, 0.004]), tone, min(variation, 1.0))
    if ferplus:  # those photographs are exposed for the face: dark skin is lit longer, contrast is high
        bright = (skin_color(look[:, 0], look[:, 1]) * LUMINANCE).sum(1)
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
    background, place, phase = (u[:, i:j].clone() for i, j in ((82, 86), (89, 93), (100, 108)))
    person, scene = (shape, look, units, side, pose, gaze), (light, camera, tone, background)
    return FaceParameters(*person, *scene, kind, place, effective, phase)
