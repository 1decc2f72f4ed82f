"""Faces made harder to read, in five steps each: hidden, coarse, dark, noisy, turned away.

The Batch Transformer paper reports faces that are occluded, reduced to 28 pixels, turned (RAF-DB) and dark
(Oulu-CASIA). Its sets of occluded and turned faces are lists of photographs (:mod:`ferlib.evaluation.lists`
reads such lists); these steps can be taken with any faces. What happens to face i depends on its number and
the seed alone, not on the batch it is in; and a later step goes further in the same way: the same place
hidden, the same noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ferlib.data.base import DataError, FaceDataset
from ferlib.data.faces import KeptFaces, ResizedFaces, SomeFaces
from ferlib.data.synthetic import SyntheticFaces
from ferlib.data.transforms import resize
from ferlib.evaluation.records import innermost
from ferlib.synthetic import Rendering, render_faces

#: What the five steps of each kind are. Occlusion: side of the square as a share of the picture's.
#: Resolution: pixels across; 28 is the paper's. Darkness: share of the light. Noise: standard deviation in
#: grey levels of 255. Pose: degrees to the side.
ALTERATIONS: dict[str, tuple[float, ...]] = {
    "occlusion": (0.2, 0.3, 0.4, 0.5, 0.6),
    "resolution": (40, 28, 20, 14, 10),
    "darkness": (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32),
    "noise": (8, 16, 24, 36, 48),
    "pose": (15, 25, 35, 45, 55),
}
_WORDS = {
    "occlusion": "a grey square hides {:.0%} of the width and height",
    "resolution": "{:.0f} pixels across",
    "darkness": "{:.3g} of the light",
    "noise": "noise of {:.0f} grey levels",
    "pose": "turned {:.0f} degrees to the side",
}
GAMMA = 2.2  # pixels are roughly the light to the power 1 / 2.2


def describe(kind: str, severity: int) -> str:
    """What a step does, in words: ``describe("resolution", 2)`` is "28 pixels across".

    Shape: a kind and 1 to 5 in, a string out. Raises ``DataError`` for others. Chapter 7.
    """
    return _WORDS[kind].format(_value(kind, severity))


def alter(images: Tensor, kind: str, severity: int, rows: Tensor | Sequence[int], seed: int = 0) -> Tensor:
    r"""Make faces harder to read; ``rows`` are their numbers, from which the random part is drawn.

    Occlusion: a square of one grey, at a place of the face's own, that grows with the step. Resolution:
    reduced and enlarged again, bicubic, antialiased; a face that is not larger stays as it is. Darkness:
    :math:`x' = x\,\ell^{1/2.2}` with the share :math:`\ell` of the light, in whole grey levels. Noise:
    normal, independent for each pixel and channel.

    Shape: uint8 (B, C, H, W) and B numbers -> uint8 (B, C, H, W). Raises ``DataError`` for another kind or
    step, and for "pose", which needs the face and not its picture: :class:`Altered`. Chapter 7.
    """
    value = _value(kind, severity)
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(rows):
        raise DataError(
            f"images are {images.dtype} of shape {tuple(images.shape)} with {len(rows)} numbers: expected "
            "uint8 (B, C, H, W) and one number per face"
        )
    if kind == "pose":
        raise DataError("a picture cannot be turned to the side: Altered does it with drawn faces")
    if kind == "resolution":
        pixels = int(value)
        small = pixels < min(images.shape[-2:])
        return resize(resize(images, pixels), images.shape[-1]) if small else images.clone()
    if kind == "darkness":
        return (images.float() * value ** (1 / GAMMA)).round_().to(torch.uint8)
    draws = [_generator(kind, int(row), seed) for row in rows]
    if kind == "noise":
        noise = torch.stack([torch.randn(images.shape[1:], generator=draw) for draw in draws])
        return (images + value * noise.to(images.device)).round_().clamp_(0, 255).to(torch.uint8)
    return _hide(images, value, torch.stack([torch.rand(3, generator=draw) for draw in draws]))


def _hide(images: Tensor, share: float, draws: Tensor) -> Tensor:
    """A square at (draws 0 and 1), of the grey of draw 2; a larger share covers what a smaller one does."""
    height, width = images.shape[-2:]
    edges = []
    for u, length in ((draws[:, 0], height), (draws[:, 1], width)):
        start = (u * (1 - share) * length).floor()
        place = torch.arange(length)
        end = ((u * (1 - share) + share) * length).ceil()
        edges.append((place >= start[:, None]) & (place < end[:, None]))
    inside = (edges[0][:, None, :, None] & edges[1][:, None, None, :]).to(images.device)
    grey = (draws[:, 2] * 255).round().to(torch.uint8).to(images.device)
    return torch.where(inside, grey[:, None, None, None], images)


class Altered(FaceDataset):
    """Another data set's faces, made harder to read; labels, votes and names are the same.

    Parameters
    ----------
    faces: any data set; for "pose" drawn faces, which are drawn again with the head turned to the side they
        already look to.
    kind, severity: what to do, and how far, 1 to 5 (``ALTERATIONS``).
    seed: other places hidden, other noise.

    Shape: items as the data set has them, image uint8 (C, H, W). Raises ``DataError`` for another kind or
    step, and for "pose" with faces that are not drawn. Chapter 7.
    """

    def __init__(self, faces: FaceDataset, kind: str, severity: int, seed: int = 0) -> None:
        _value(kind, severity)
        if kind == "pose" and _renderer(faces) is None:
            raise DataError(f"{type(innermost(faces)).__name__}: {NO_POSE}")
        self.faces, self.kind, self.severity, self.seed = faces, kind, severity, seed
        self.classes, self.labels, self.votes = faces.classes, faces.labels, faces.votes
        # drawn in fixed blocks, since drawing may round a pixel by who is drawn beside it
        self._turned = KeptFaces(_Turned(faces, _value(kind, severity))) if kind == "pose" else None

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        """Many faces at once: the wrapped batch with other images (B, C, H, W)."""
        rows = torch.as_tensor(indices).long() % len(self)
        batch = dict(self.faces.batch(rows))
        if self._turned is not None:
            batch["image"] = self._turned.batch(rows)["image"]
            if "landmarks" in batch or "masks" in batch:
                new = _turned(self.faces, rows, self._turned.faces.degrees)
                batch |= {key: getattr(new, key) for key in ("landmarks", "masks") if key in batch}
        else:
            batch["image"] = alter(batch["image"], self.kind, self.severity, rows, self.seed)
        return batch

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"face {index} of {len(self)}")
        many = self.batch([index])
        item = {key: value[0] for key, value in many.items() if not isinstance(value, dict)}
        item |= {
            key: {k: v[0] for k, v in value.items()} for key, value in many.items() if isinstance(value, dict)
        }
        return {**item, "label": int(item["label"])}


NO_POSE = (
    "nothing is known about the pose of these faces, and only drawn ones can be turned; a published list of "
    "turned faces can be measured"
)


def kinds_for(faces: FaceDataset) -> tuple[tuple[str, ...], dict[str, str]]:
    """The kinds that can be made from a data set, and why the others cannot.

    Shape: N faces in, names and reasons by name out. Chapter 7.
    """
    if _renderer(faces) is not None:
        return tuple(ALTERATIONS), {}
    return tuple(kind for kind in ALTERATIONS if kind != "pose"), {"pose": NO_POSE}


def _renderer(faces: FaceDataset) -> SyntheticFaces | None:
    """The drawn data set inside wrappers that :func:`_turned` can follow, or None."""
    while isinstance(faces, KeptFaces | SomeFaces | ResizedFaces):
        faces = faces.faces
    return faces if isinstance(faces, SyntheticFaces) else None


class _Turned(FaceDataset):
    """Drawn faces with the head turned to the side they already look to: image uint8 (C, H, W)."""

    def __init__(self, faces: FaceDataset, degrees: float) -> None:
        self.drawn, self.degrees = faces, degrees
        self.classes, self.labels, self.votes = faces.classes, faces.labels, faces.votes

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        return {"image": _turned(self.drawn, torch.as_tensor(indices), self.degrees).image}


def _turned(faces: FaceDataset, rows: Tensor, degrees: float) -> Rendering:
    if isinstance(faces, SyntheticFaces):
        p = faces.parameters(rows)
        yaw = torch.where(p.pose[:, 0] < 0, -degrees, degrees)
        pose = torch.cat([yaw[:, None], p.pose[:, 1:]], 1)
        return render_faces(p.replace(pose=pose), faces.size, faces.channels, faces.masks)
    if isinstance(faces, SomeFaces):
        return _turned(faces.faces, faces.rows[rows], degrees)
    new = _turned(faces.faces, rows, degrees)
    if isinstance(faces, ResizedFaces):
        new.image = resize(new.image, faces.size)
    return new


def _value(kind: str, severity: int) -> float:
    if kind not in ALTERATIONS:
        raise DataError(f"no alteration {kind!r}: expected one of {', '.join(ALTERATIONS)}")
    if severity not in range(1, 6):
        raise DataError(f"severity is {severity!r}: expected 1 (slight) to 5 (severe)")
    return ALTERATIONS[kind][severity - 1]


def _generator(kind: str, row: int, seed: int) -> torch.Generator:
    """A random stream that belongs to one face: the same in every batch, and for every severity."""
    code = hashlib.blake2b(f"{seed} {kind} {row}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(code, "big") >> 1)
