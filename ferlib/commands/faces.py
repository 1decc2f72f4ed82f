"""Which faces a command works on: a data set on disk by its kind, or the drawn ones."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from ferlib.data import RAFDB, AffectNet, DataError, FaceDataset, FERPlus
from ferlib.data.faces import SomeFaces, drawn_faces
from ferlib.data.prepare import DATASETS, Kind, is_cache, read_manifest
from ferlib.doctor import look_at_data

KINDS = ("ferplus", "rafdb", "affectnet7", "affectnet8", "affectnet")
HELD_OUT = 10  # every tenth training face, where a data set has no validation split of its own


def add_face_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """``--data``, ``--dataset``, ``--length``. Shape: a parser in, nothing out."""
    parser.add_argument(
        "--data",
        required=required,
        metavar="DIR",
        help="the data set's folder, prepared or not, or 'synthetic'",
    )
    parser.add_argument(
        "--dataset", choices=KINDS, help="its kind (default: what the recipe is for, or what was prepared)"
    )
    parser.add_argument("--length", type=int, metavar="N", help="only N faces of each split")


@dataclass(frozen=True)
class Faces:
    """Where faces come from: a folder (or "synthetic"), its kind, and how many of each split are wanted.

    RAF-DB and AffectNet have no third split. Their test (validation) images are what papers report, so they
    do not choose an epoch: "valid" is every tenth training face, "train" the other nine. So it is with FER+
    where its validation faces are not there.

    Shape: strings and a count.
    """

    data: str
    kind: str
    length: int | None = None

    def open(self, split: str, *, whole: bool = False) -> FaceDataset:
        """One split, N faces; ``whole`` leaves nothing of "train" for "valid".

        Raises ``DataError`` where it is not there, and where a class has no face to learn from.
        """
        if self.data == "synthetic":
            return drawn_faces(split, length=self.length)
        hold_out = split != "test" and not self._has_valid()
        faces = self._read("train" if hold_out else split)
        if split == "train":
            self._check_training_faces(faces)
        if hold_out and not whole:
            held = torch.arange(len(faces)) % HELD_OUT == 0
            faces = SomeFaces(faces, torch.nonzero(held if split == "valid" else ~held)[:, 0])
        if self.length and self.length < len(faces):
            order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
            faces = SomeFaces(faces, order[: self.length].sort().values)
        return faces

    def open_test(self) -> tuple[FaceDataset | None, str]:
        """The test split, or None and why there is none. Shape: -> N faces or None, and one line."""
        try:
            return self.open("test"), ""
        except DataError as error:
            return None, str(error)

    def _read(self, split: str) -> FaceDataset:
        if self.kind == "ferplus":
            return FERPlus(self.data, split)
        if self.kind == "rafdb":
            return RAFDB(self.data, split)
        # of the released AffectNet papers know "train" and "valid" only, and report on the second
        return AffectNet(self.data, "valid" if split == "test" else split, classes=int(self.kind[-1]))

    def _has_valid(self) -> bool:
        """Whether the layout has a validation split: damaged or not, no other faces stand in for it."""
        return self.kind == "ferplus" and "valid" in DATASETS["ferplus"].find(Path(self.data))[1]

    def _check_training_faces(self, faces: FaceDataset) -> None:
        """A class without a face is mostly another data set's folder."""
        lacking = [
            name for name, n in zip(faces.classes, faces.class_counts().tolist(), strict=True) if not n
        ]
        if lacking and self.kind != "ferplus":
            kind = _kind(self.kind)
            raise DataError(
                f"{self.data}: no training face of {lacking[0]!r} of {kind.title} ({len(faces.classes)} "
                "expressions); is it another data set, or another number of expressions (--dataset, "
                f"--recipe)? Expected one of: {kind.expected}"
            )


def choose_faces(
    data: str, dataset: str | None = None, recipe_kind: str | None = None, length: int | None = None
) -> Faces:
    """The faces that are meant, after a look at the folder's layout; nothing is read yet.

    The kind is ``dataset`` where it was given, else the recipe's, else what the folder was prepared from,
    else FER+.

    Shape: a folder or "synthetic" in, :class:`Faces` out. Raises ``DataError``, with the doctor's words, for
    a folder that holds no such data set.
    """
    if length is not None and length < 1:
        raise DataError(f"--length {length}: expected at least one face")
    if data == "synthetic":
        return Faces(data, "synthetic", length)
    root = Path(data).expanduser()
    kind = dataset or recipe_kind
    if kind is None:
        kind = read_manifest(root)["dataset"] if is_cache(root) else "ferplus"
    kind = "affectnet8" if kind == "affectnet" else kind
    check_layout(root, kind)
    return Faces(str(root), kind, length)


def check_layout(root: Path, kind: str) -> None:
    """Stop unless a folder holds the data set of this kind.

    Shape: a path and a kind in. Raises ``DataError`` that says what is there instead, where the data set
    lies, or which layouts are known.
    """
    wanted = _kind(kind)
    if root.is_dir():
        if wanted.find(root)[0]:
            return
        for other in DATASETS.values():
            if other.find(root)[0]:
                raise DataError(
                    f"{root} holds {other.title}, {wanted.title} is wanted: give its folder, or a recipe for "
                    f"{other.title}, or --dataset {other.name}"
                )
        for inner in sorted(path for path in root.glob("*") if path.is_dir()):
            if wanted.find(inner)[0]:
                raise DataError(f"{root}: {wanted.title} lies in {inner}: give that folder")
    found = look_at_data([root])[0]
    raise DataError(f"{found.text}. {wanted.title}: {wanted.expected}; {found.advice}")


def tell_left_out(faces: FaceDataset, data: str, split: str) -> None:
    """Say on standard error how many files could not be used. Shape: N faces in, nothing out."""
    while isinstance(faces, SomeFaces):
        faces = faces.faces
    if skipped := getattr(faces, "skipped", None):
        print(
            f"{split}: {len(skipped)} files or rows left out, `ferlib doctor --data {data}` lists them",
            file=sys.stderr,
        )


def check_classes(found: int, wanted: int, what: str) -> None:
    """Stop where a network and a data set disagree. Shape: two counts in. Raises ``DataError``."""
    if found != wanted:
        raise DataError(
            f"{what} knows {found} expressions, the data set has {wanted}: choose the matching --dataset"
        )


def _kind(kind: str) -> Kind:
    return DATASETS[kind.rstrip("78")]
