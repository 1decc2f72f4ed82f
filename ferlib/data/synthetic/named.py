"""Three fixed faces that the reader meets in every chapter: one person, afraid twice, surprised once."""

from __future__ import annotations

from typing import Any

import torch

from ferlib.data.synthetic.expressions import ACTION_UNITS, AU_INDEX, EXPRESSIONS_8
from ferlib.data.synthetic.identity import LOOK, FaceParameters, draw_parameters, uniforms
from ferlib.data.synthetic.render import render_faces

_SEED = 41
# The person: looks that leave brows and mouth in plain sight.
_PERSON = {
    "skin": 0.30, "redness": 0.6, "age": 0.25, "femininity": 0.9, "beard": 0.0, "hair_style": 0.6,
    "hair_colour": 0.26,
    "hair_length": 0.62, "curl": 0.2, "fringe": 0.1, "parting": 0.75, "brow_thickness": 0.8, "iris": 0.15,
    "lip_colour": 0.45, "freckles": 0.2, "cloth": 0.5, "cloth_hue": 0.55, "volume": 0.55,
}  # fmt: skip
_FACES: dict[str, tuple[str, dict[str, float], dict[str, int], tuple[float, float, float]]] = {
    "the hard face": (
        "fear",
        {"AU1": 0.85, "AU2": 0.6, "AU4": 0.25, "AU5": 0.85, "AU20": 0.3, "AU25": 0.8, "AU26": 0.65},
        {"fear": 6, "surprise": 3, "neutral": 1},
        (-4.0, 1.0, -1.0),
    ),
    "the easy twin": (
        "fear",
        {
            "AU1": 1.0,
            "AU2": 0.35,
            "AU4": 0.65,
            "AU5": 1.0,
            "AU7": 0.1,
            "AU20": 1.0,
            "AU25": 0.9,
            "AU26": 0.35,
            "AU16": 0.4,
        },
        {"fear": 9, "sadness": 1},
        (3.0, 1.0, 2.0),
    ),
    "the false friend": (
        "surprise",
        {"AU1": 0.95, "AU2": 0.95, "AU5": 0.9, "AU25": 0.8, "AU26": 1.1, "AU22": 0.4},
        {"surprise": 9, "fear": 1},
        (-4.0, 0.0, 1.0),
    ),
}


def named_parameters(name: str) -> FaceParameters:
    """Parameters of one of the three faces, to be varied: light, pose, size, action units.

    Shape: ``"the hard face"``, ``"the easy twin"`` or ``"the false friend"`` in, ``FaceParameters`` of one
    row out. Chapter 1.
    """
    expression, units, _, pose = _FACES[name]
    label = torch.tensor([EXPRESSIONS_8.index(expression)])
    p = draw_parameters(
        uniforms(_SEED, [0]),
        label,
        intensity=(1, 1),
        framing="portrait",
        variation=0.6,
        occlusion=0.0,
        resolution=None,
    )
    vector = torch.zeros(1, len(ACTION_UNITS))
    for unit, value in units.items():
        vector[0, AU_INDEX[unit]] = value
    look = torch.tensor([[_PERSON[name] for name in LOOK]])
    light = torch.tensor([[-28.0, 38.0, 0.55, 0.5]])
    backdrop = torch.tensor([[0.45, 0.35, 0.6, 0.1]])
    p = p.replace(look=look, shape=p.shape * 0.5, light=light, background=backdrop)
    return p.replace(action_units=vector, pose=torch.tensor([pose]), side=torch.zeros(1))


def _named(name: str, size: int) -> dict[str, Any]:
    expression, _, votes, _ = _FACES[name]
    p = named_parameters(name)
    drawn = render_faces(p, size, channels=3, masks=True)
    counts = torch.tensor([float(votes.get(e, 0)) for e in EXPRESSIONS_8])
    return dict(
        image=drawn.image[0],
        label=EXPRESSIONS_8.index(expression),
        votes=counts,
        landmarks=drawn.landmarks[0],
        action_units=p.action_units[0],
        masks={key: value[0] for key, value in drawn.masks.items()},
        path="synthetic:" + name.replace(" ", "-"),
    )


def the_hard_face(size: int = 96) -> dict[str, Any]:
    """The face this book follows: fear that three of ten annotators call surprise.

    Shape: an item as of ``SyntheticFaces(channels=3, masks=True)``, image uint8 ``(3, size, size)``. Every
    chapter.
    """
    return _named("the hard face", size)


def the_easy_twin(size: int = 96) -> dict[str, Any]:
    """The same person, plainly afraid.

    Shape: an item as of ``the_hard_face``, image uint8 ``(3, size, size)``. Every chapter.
    """
    return _named("the easy twin", size)


def the_false_friend(size: int = 96) -> dict[str, Any]:
    """The same person, surprised.

    Shape: an item as of ``the_hard_face``, image uint8 ``(3, size, size)``. Every chapter.
    """
    return _named("the false friend", size)
