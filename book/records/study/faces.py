"""The study's faces: shares of FER+, wrong labels, turned faces, priors, and the two halves of validation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ferlib.data import EMOTIONS_AFFECTNET, EMOTIONS_FERPLUS, FERPlus, class_mapping, confusion_prior
from ferlib.data.base import FaceDataset
from ferlib.data.faces import open_faces
from ferlib.data.transforms import Augment, to_float
from ferlib.losses import FERPLUS_PRIOR

TILT = 30.0  # degrees either way


class Held(FaceDataset):
    """Faces in memory. Shape: images uint8 (N, 1, S, S), labels (N,), votes (N, K)."""

    def __init__(self, images: Tensor, labels: Tensor, votes: Tensor, classes: Sequence[str]) -> None:
        self.images, self.labels, self.votes, self.classes = images, labels, votes, tuple(classes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self.labels[index]), "votes": self.votes[index]}

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        rows = torch.as_tensor(indices)
        return {"image": self.images[rows], "label": self.labels[rows], "votes": self.votes[rows]}

    def some(self, rows: Tensor) -> Held:
        """Chosen faces."""
        return Held(self.images[rows], self.labels[rows], self.votes[rows], self.classes)


def held(split: str) -> Held:
    """One split of the faces that ``FERLIB_DATA`` names."""
    faces = open_faces(split)
    batch = faces.batch(range(len(faces)))
    return Held(batch["image"], batch["label"], batch["votes"][:, : len(faces.classes)], faces.classes)


def fingerprint(faces: Held) -> str:
    """As ``ferlib.data.fingerprint`` of all faces, written out: 16 hexadecimal digits."""
    code = hashlib.sha256("\n".join(faces.classes).encode())
    code.update(faces.labels.numpy().astype("<i8").tobytes())
    for images in faces.images.split(256):
        code.update(f"{tuple(images.shape[1:])}".encode())
        code.update(images.contiguous().numpy())
    return code.hexdigest()[:16]


def share(faces: Held, count: int | None, seed: int, after: int = 0) -> Held:
    """``count`` faces drawn by ``seed``, those behind the first ``after``: two shares do not overlap."""
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))
    return faces.some(order[after : None if count is None else after + count])


def mislabelled(faces: Held, wrong: float, seed: int) -> Held:
    """A share of the labels replaced by another class, any with the same chance; the rest as it was.

    The votes of the two classes change places, so that they are as sure as before, of the wrong thing. Faces
    that are wrong at 20 % are wrong in the same way at 40 %.
    """
    draw, classes = torch.Generator().manual_seed(1_000 + seed), len(faces.classes)
    broken = torch.rand(len(faces), generator=draw) < wrong
    other = (faces.labels + torch.randint(1, classes, faces.labels.shape, generator=draw)) % classes
    votes, rows = faces.votes.clone(), torch.nonzero(broken)[:, 0]
    was, now = faces.labels[rows], other[rows]
    votes[rows, was], votes[rows, now] = faces.votes[rows, now], faces.votes[rows, was]
    return Held(faces.images, torch.where(broken, other, faces.labels), votes, faces.classes)


def turned(faces: Held, seed: int = 1) -> Held:
    """Each face turned in its plane by its own angle of up to ``TILT`` degrees."""
    turn = Augment(flip=0.0, rotation=TILT)
    images = turn(to_float(faces.images), torch.Generator().manual_seed(seed))
    return Held((255 * images).round().to(torch.uint8), faces.labels, faces.votes, faces.classes)


def halves(faces: FaceDataset) -> tuple[Tensor, Tensor]:
    """Two halves with as many faces of each class, the same ones in every run: rows of the first and second.

    The first half chooses and the second stands in for a test set; then they change places.
    """
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    by_class = order[faces.labels[order].argsort(stable=True)]
    return by_class[::2].sort().values, by_class[1::2].sort().values


def prior(name: str) -> Tensor | None:
    """A prior by its name: None for the published one (from fer2013new.csv).

    ``label.csv``: the same rule on the votes of that file. ``another order``: the published rows as they
    stand, for classes that come in AffectNet's order, as the released code uses them; here rewritten for
    FER+'s order, so that only the mismatch differs.
    """
    if name == "published":
        return None
    if name == "label.csv":
        return confusion_prior(FERPlus(os.environ["FERLIB_DATA"], "train", labels="half").all_votes)
    if name == "another order":
        order = class_mapping(EMOTIONS_FERPLUS, EMOTIONS_AFFECTNET)
        prior = FERPLUS_PRIOR[order][:, order]
        return prior / prior.sum(1, keepdim=True)
    raise ValueError(f"no prior {name!r}")
