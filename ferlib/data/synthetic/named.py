"""Three fixed faces that the reader meets in every chapter: one person, afraid twice, surprised once."""

from __future__ import annotations

from typing import Any

import torch

from ferlib.data.synthetic.expressions import ACTION_UNITS, AU_INDEX, EXPRESSIONS_8
from ferlib.data.synthetic.identity import LOOK, FaceParameters, camera_of, draw_parameters, uniforms
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
        {
            "AU1": 1.0,
            "AU2": 0.45,
            "AU4": 0.45,
            "AU5": 1.2,
            "AU10": 0.25,
            "AU15": 0.25,
            "AU16": 0.3,
            "AU20": 0.75,
            "AU25": 0.95,
            "AU26": 0.95,
        },
        {"fear": 6, "surprise": 3, "neutral": 1},
        (-4.0, 1.0, -1.0),
    ),
    "the easy twin": (
        "fear",
        {
            "AU1": 1.1,
            "AU2": 0.1,
            "AU4": 0.8,
            "AU5": 1.5,
            "AU10": 0.5,
            "AU15": 0.5,
            "AU16": 0.6,
            "AU20": 1.4,
            "AU25": 1.0,
            "AU26": 1.2,
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


def named_parameters(name: str, framing: str = "portrait") -> FaceParameters:
    """Parameters of one of the three faces, to be varied: light, pose, size, action units.

    Args:
        name: ``"the hard face"``, ``"the easy twin"`` or ``"the false friend"``.
        framing: ``"portrait"``, or ``"ferplus"``: as FER+ crops its photographs, from brows to chin.

    Returns:
        ``FaceParameters`` of one row.
    """
    expression, units, _, pose = _FACES[name]
    p = draw_parameters(
        uniforms(_SEED, [0]),
        torch.tensor([EXPRESSIONS_8.index(expression)]),
        intensity=(1, 1),
        framing="portrait",
        variation=0.6,
        occlusion=0.0,
        resolution=None,
    )
    vector = torch.zeros(1, len(ACTION_UNITS))
    for unit, value in units.items():
        vector[0, AU_INDEX[unit]] = value
    if framing != "portrait":
        p = p.replace(camera=camera_of(framing)[0])
    return p.replace(
        look=[_PERSON[name] for name in LOOK],
        shape=p.shape * 0.5,
        light=[-28.0, 38.0, 0.55, 0.5],
        background=[0.45, 0.35, 0.6, 0.1],
        action_units=vector,
        pose=pose,
        side=torch.zeros(1),
    )


def _named(name: str, size: int | None, framing: str) -> dict[str, Any]:
    expression, _, votes, _ = _FACES[name]
    p = named_parameters(name, framing)
    portrait = framing == "portrait"
    drawn = render_faces(p, size or (96 if portrait else 48), channels=3 if portrait else 1, masks=True)
    return dict(
        image=drawn.image[0],
        label=EXPRESSIONS_8.index(expression),
        votes=torch.tensor([float(votes.get(e, 0)) for e in EXPRESSIONS_8]),
        landmarks=drawn.landmarks[0],
        action_units=p.action_units[0],
        masks={key: value[0] for key, value in drawn.masks.items()},
        path="synthetic:" + name.replace(" ", "-"),
    )


def the_hard_face(size: int | None = None, framing: str = "portrait") -> dict[str, Any]:
    """The face this book follows: fear that three of ten annotators call surprise.

    Args:
        size: width and height in pixels; default 96, or 48 framed as in FER+.
        framing: ``"portrait"``, in color, or ``"ferplus"``, gray and from brows to chin as networks get it.

    Returns:
        An item of ``SyntheticFaces(masks=True)``, image uint8 ``(3, size, size)`` or ``(1, size, size)``.
    """
    return _named("the hard face", size, framing)


def the_easy_twin(size: int | None = None, framing: str = "portrait") -> dict[str, Any]:
    """The same person, plainly afraid: an item as of :func:`the_hard_face`."""
    return _named("the easy twin", size, framing)


def the_false_friend(size: int | None = None, framing: str = "portrait") -> dict[str, Any]:
    """The same person, surprised: an item as of :func:`the_hard_face`."""
    return _named("the false friend", size, framing)
