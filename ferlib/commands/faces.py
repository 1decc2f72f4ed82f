"""Which faces a command works on: a data set on disk by its kind, or the drawn ones."""

from __future__ import annotations

import argparse

import torch

from ferlib.data import (
    EMOTIONS_FERPLUS,
    AffectNet,
    DataError,
    FaceDataset,
    FERPlus,
    SyntheticFaces,
    class_mapping,
)
from ferlib.data.faces import SYNTHETIC_LENGTHS, KeptFaces, SomeFaces
from ferlib.data.rafdb import RAFDB
from ferlib.losses import FERPLUS_PRIOR

KINDS = ("ferplus", "rafdb", "affectnet", "affectnet7")
_SEEDS = {"train": 0, "valid": 1_000_003, "test": 2_000_003}
HELD_OUT = 10  # every tenth training face, where a data set has no validation split of its own


def add_face_arguments(parser: argparse.ArgumentParser) -> None:
    """``--data``, ``--dataset``, ``--length``. Shape: a parser in, nothing out."""
    parser.add_argument("--data", required=True, metavar="DIR", help="the data set's folder, or 'synthetic'")
    parser.add_argument("--dataset", choices=KINDS, default="ferplus", help="its kind (default ferplus)")
    parser.add_argument("--length", type=int, metavar="N", help="only N faces of each split")


def open_split(options: argparse.Namespace, split: str) -> FaceDataset:
    """One split of the faces that the options name.

    RAF-DB and AffectNet have no third split. Their test (validation) images are what papers report, so they
    are
    not used to choose an epoch: "valid" is every tenth training face, "train" the other nine.

    Shape: options and "train", "valid" or "test" in, a data set of N faces out. Raises ``DataError``.
    """
    if options.data == "synthetic":
        drawn = SyntheticFaces(
            options.length or SYNTHETIC_LENGTHS[split], size=48, seed=_SEEDS[split], framing="ferplus"
        )
        return KeptFaces(drawn)
    if options.dataset == "ferplus":
        faces: FaceDataset = FERPlus(options.data, split)
    else:
        faces = _without_third_split(options, split)
    if options.length and options.length < len(faces):
        order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
        faces = SomeFaces(faces, order[: options.length].sort().values)
    return faces


def _without_third_split(options: argparse.Namespace, split: str) -> FaceDataset:
    if options.dataset == "rafdb":
        faces: FaceDataset = RAFDB(options.data, "test" if split == "test" else "train")
    else:
        classes = 7 if options.dataset == "affectnet7" else 8
        faces = AffectNet(options.data, "valid" if split == "test" else "train", classes=classes)
    if split == "test":
        return faces
    held = torch.arange(len(faces)) % HELD_OUT == 0
    return SomeFaces(faces, torch.nonzero(held if split == "valid" else ~held)[:, 0])


def prior_for(classes: tuple[str, ...]) -> torch.Tensor | None:
    """FER+'s prior matrix in another data set's class order; None where that has classes FER+ lacks.

    Shape: K names in, (K, K) with rows that sum to one out.
    """
    index = class_mapping(classes, EMOTIONS_FERPLUS)
    if (index < 0).any():
        return None
    prior = torch.as_tensor(FERPLUS_PRIOR)[index][:, index]
    return prior / prior.sum(1, keepdim=True)


def check_classes(found: int, wanted: int, what: str) -> None:
    """Stop where a network and a data set disagree. Shape: two counts in. Raises ``DataError``."""
    if found != wanted:
        raise DataError(
            f"{what} knows {found} expressions, the data set has {wanted}: choose the matching --dataset"
        )
