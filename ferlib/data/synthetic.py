"""Synthetic faces as a data set, and the three faces that the reader meets in every chapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ferlib.data.base import DataError, FaceDataset
from ferlib.losses import FERPLUS_PRIOR
from ferlib.synthetic.expressions import ACTION_UNITS, EXPRESSIONS, rows
from ferlib.synthetic.identity import (
    FRAMINGS,
    LOOK,
    OCCLUSIONS,
    FaceParameters,
    camera_of,
    draw_parameters,
    generator,
    uniforms,
)
from ferlib.synthetic.render import render_faces

ANNOTATORS = 10
#: Share of each expression among the 25,045 FER+ training faces (majority after outlier removal).
FERPLUS_FREQUENCIES = tuple(n / 25045 for n in (8733, 7284, 3136, 3022, 2098, 116, 536, 120))


def vote_probabilities(noise: float) -> torch.Tensor:
    r"""How likely an annotator names each expression (columns) when another is meant (rows): ``(8, 8)``.

    .. math:: Q_{yc} = \nu P_{yc} \;(c \ne y), \qquad Q_{yy} = 1 - \sum_{c \ne y} Q_{yc}

    with FER+'s confusion prior P and the noise level nu: 0 makes every annotator right, 1 gives P, and above
    1 more confusion, the share of right votes never falling below a tenth.

    Args:
        noise: nu.

    Raises:
        DataError: for a noise below 0.
    """
    if not noise >= 0:
        raise DataError(
            f"vote_noise={noise!r}: expected a number of at least 0 (0 = all agree, 1 = as noisy as FER+)"
        )
    prior = FERPLUS_PRIOR.double().round(decimals=6)
    prior = prior / prior.sum(1, keepdim=True)
    off = prior * (1 - torch.eye(len(prior), dtype=torch.float64))
    wrong = off.sum(1, keepdim=True)
    off = off * torch.minimum(torch.full_like(wrong, float(noise)), 0.9 / wrong)
    return (off + torch.diag(1 - off.sum(1))).float()


def draw_votes(labels: torch.Tensor, probabilities: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Count the votes ``(B, K)`` of the annotators, which sum to ``ANNOTATORS``.

    Takes labels ``(B,)``, probabilities ``(K, K)`` and uniform numbers ``(B, ANNOTATORS)``.
    """
    cumulative = probabilities.double().cumsum(1)[labels]
    choice = (u.double()[:, :, None] > cumulative[:, None, :-1]).sum(2)
    return torch.nn.functional.one_hot(choice, probabilities.shape[0]).sum(1).float()


class SyntheticFaces(FaceDataset):
    """Rendered faces with known expression, landmarks, action units, regions and ten simulated votes.

    Face number ``i`` of a seed is always the same person with the same expression, whatever the length, the
    batch or the size of the picture. An item has ``image`` uint8 ``(C, H, W)``, ``label``, ``votes`` ``(K,)``
    summing to 10, ``landmarks`` ``(68, 2)`` in pixels from the top left corner of the picture in 300-W order,
    ``action_units`` ``(21,)``, ``name`` and, where asked for, ``masks``. Chapter 1.

    Args:
        length: number of faces.
        size: width and height in pixels, 48 to 384 look best.
        seed: another seed, other faces.
        channels: 1 gray, 3 RGB.
        framing: ``"portrait"`` (head, hair, shoulders) or ``"ferplus"`` (the face fills the picture).
        expression: ``None`` all in turn; a name; or a sequence of names.
        intensity: lowest and highest strength of the expression; 1 is full.
        variation: 0 an average person under soft light facing the camera, 1 natural variety.
        occlusion: probability that something hides part of the face, or ``glasses``, ``hand``, ``mask``,
            ``scarf``.
        resolution: ``None``, or lowest and highest number of effective pixels across.
        vote_noise: 0 all annotators agree, 1 they differ as in FER+, more is noisier.
        frequencies: ``None`` all expressions equally often, or ``"ferplus"`` as often as there.
        masks: also give ``masks``, region name -> float ``(H, W)``.

    Raises:
        DataError: for arguments out of range.
    """

    def __init__(
        self,
        length: int = 1024,
        size: int = 64,
        seed: int = 0,
        channels: int = 1,
        framing: str = "portrait",
        *,
        expression: str | Sequence[str] | None = None,
        intensity: tuple[float, float] = (0.7, 1.0),
        variation: float = 1.0,
        occlusion: float | str = 0.0,
        resolution: tuple[float, float] | None = None,
        vote_noise: float = 1.0,
        frequencies: str | None = None,
        masks: bool = False,
    ):
        likely = occlusion in OCCLUSIONS if isinstance(occlusion, str) else 0 <= occlusion <= 1
        detail = resolution is None or (len(resolution) == 2 and 4 <= resolution[0] <= resolution[1])
        strong = len(intensity) == 2 and 0 <= intensity[0] <= intensity[1] <= 1.5
        whole = [isinstance(number, int) for number in (length, size, seed)]
        for name, value, fine, expected in (
            ("length", length, whole[0] and length >= 1, "a whole number of at least 1"),
            ("size", size, whole[1] and 16 <= size <= 1024, "whole pixels from 16 to 1024"),
            ("seed", seed, whole[2] and seed >= 0, "a whole number of at least 0"),
            ("channels", channels, channels in (1, 3), "1 (gray) or 3 (RGB)"),
            ("framing", framing, framing in FRAMINGS, f"one of {', '.join(FRAMINGS)}"),
            ("intensity", intensity, strong, "(lowest, highest) with 0 <= lowest <= highest <= 1.5"),
            ("variation", variation, 0 <= variation <= 2, "a number from 0 to 2"),
            ("occlusion", occlusion, likely, f"a probability or one of {', '.join(OCCLUSIONS)}"),
            ("resolution", resolution, detail, "(lowest, highest) pixels with 4 <= lowest <= highest"),
            ("frequencies", frequencies, frequencies in (None, "ferplus"), "None or 'ferplus'"),
        ):
            if not fine:
                raise DataError(f"{name}={value!r}: expected {expected}")
        self.classes = EXPRESSIONS
        self.size, self.seed, self.channels, self.masks = size, seed, channels, masks
        self._options = {
            "intensity": tuple(intensity),
            "framing": framing,
            "variation": float(variation),
            "occlusion": occlusion,
            "resolution": resolution,
        }
        table = vote_probabilities(vote_noise)
        self.labels = self._choose(length, expression, frequencies)
        self.votes = draw_votes(self.labels, table, self._uniform(length, ANNOTATORS, 1))

    def _uniform(self, count: int, numbers: int, stream: int) -> torch.Tensor:
        """Random numbers of each face: ``(count, numbers)``."""
        draws = (generator(self.seed, i, stream) for i in range(count))
        return torch.stack([torch.rand(numbers, generator=draw) for draw in draws])

    def _choose(self, length: int, expression: Any, frequencies: Any) -> torch.Tensor:
        k = len(self.classes)
        if expression is not None:
            names = [expression] if isinstance(expression, str) else list(expression)
            unknown = [name for name in names if name not in self.classes]
            if unknown or not names:
                raise DataError(f"expression={expression!r}: expected some of {', '.join(self.classes)}")
            which = torch.tensor([self.classes.index(name) for name in names])
            return which[torch.arange(length) % len(which)]
        if frequencies is None:  # every block of K faces shows each expression once, in random order
            count = -(-length // k)
            blocks = [torch.randperm(k, generator=generator(self.seed, b, 2)) for b in range(count)]
            return torch.cat(blocks)[:length]
        weights = torch.tensor(FERPLUS_FREQUENCIES, dtype=torch.float64)
        edges = (weights / weights.sum()).cumsum(0)[:-1]
        return (self._uniform(length, 1, 3) > edges).sum(1)

    def parameters(self, indices: Sequence[int] | torch.Tensor) -> FaceParameters:
        """All that the renderer knows about some faces: ``FaceParameters`` with one row per index."""
        indices = self._check(indices)
        return draw_parameters(uniforms(self.seed, indices), self.labels[indices], **self._options)

    def _check(self, indices: Sequence[int] | torch.Tensor) -> list[int]:
        found = [int(i) for i in indices]
        for i in found:
            if not -len(self) <= i < len(self):
                raise IndexError(f"face {i} of {len(self)}")
        return [i % len(self) for i in found]

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        """Draw many faces at once: the item's keys stacked, ``image (n, C, H, W)`` and so on."""
        indices = self._check(indices)
        p = self.parameters(indices)
        drawn = render_faces(p, self.size, self.channels, self.masks)
        out = {
            "image": drawn.image,
            "label": self.labels[indices],
            "votes": self.votes[indices],
            "landmarks": drawn.landmarks,
            "action_units": p.action_units,
            "name": [f"synthetic:{self.seed}:{i}" for i in indices],
        }
        return out | {"masks": drawn.masks} if self.masks else out


#: The three named faces: one person, with looks that leave brows and mouth in plain sight, afraid twice and
#: surprised once.
_NAMED = {
    name: {key: float(value) for key, value in entries}
    for name, entries in rows("""
person            skin 0.3, redness 0.6, age 0.25, femininity 0.9, beard 0, hair_style 0.6, hair_color 0.26,
                  hair_length 0.62, curl 0.2, fringe 0.1, parting 0.75, brow_thickness 0.8, iris 0.15,
                  lip_color 0.45, cloth 0.5, cloth_hue 0.55, volume 0.55
the-hard-face     AU1 1, AU2 0.45, AU4 0.45, AU5 1.2, AU10 0.25, AU15 0.25, AU16 0.3, AU20 0.75, AU25 0.95,
                  AU26 0.95, yaw -4, pitch 1, roll -1, fear 6, surprise 3, neutral 1
the-easy-twin     AU1 1.1, AU2 0.1, AU4 0.8, AU5 1.5, AU10 0.5, AU15 0.5, AU16 0.6, AU20 1.4, AU25 1,
                  AU26 1.2, yaw 3, pitch 1, roll 2, fear 9, sadness 1
the-false-friend  AU1 0.95, AU2 0.95, AU5 0.9, AU22 0.4, AU25 0.8, AU26 1.1, yaw -4, pitch 0, roll 1,
                  surprise 9, fear 1
""")
}


def _numbers(name: str, keys: Sequence[str]) -> list[float]:
    """What the table of named faces has under some keys; 0 where it has none."""
    return [_NAMED[name.replace(" ", "-")].get(key, 0.0) for key in keys]


def named_parameters(name: str, framing: str = "portrait") -> FaceParameters:
    """Parameters of one of the three faces, to be varied: light, pose, size, action units.

    Args:
        name: ``"the hard face"``, ``"the easy twin"`` or ``"the false friend"``.
        framing: ``"portrait"``, or ``"ferplus"``: as FER+ crops its photographs, from brows to chin.

    Returns:
        ``FaceParameters`` of one row.
    """
    options = dict(intensity=(1, 1), variation=0.6, occlusion=0.0, resolution=None)
    p = draw_parameters(uniforms(41, [0]), torch.tensor([0]), framing="portrait", **options)
    return p.replace(
        look=_numbers("person", LOOK),
        shape=p.shape * 0.5,
        light=[-28.0, 38.0, 0.55],
        camera=p.camera if framing == "portrait" else camera_of(framing)[0],
        background=[0.45, 0.35, 0.6, 0.1],
        action_units=_numbers(name, ACTION_UNITS),
        pose=_numbers(name, ("yaw", "pitch", "roll")),
        side=torch.zeros(1),
    )


def _named(name: str, size: int | None, framing: str) -> dict[str, Any]:
    p, portrait = named_parameters(name, framing), framing == "portrait"
    drawn = render_faces(p, size or (96 if portrait else 48), channels=3 if portrait else 1, masks=True)
    votes = torch.tensor(_numbers(name, EXPRESSIONS))
    return {
        "image": drawn.image[0],
        "label": int(votes.argmax()),
        "votes": votes,
        "landmarks": drawn.landmarks[0],
        "action_units": p.action_units[0],
        "masks": {key: value[0] for key, value in drawn.masks.items()},
        "name": "synthetic:" + name.replace(" ", "-"),
    }


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
