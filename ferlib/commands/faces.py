"""Which faces a command works on: a data set on disk by its kind, or synthetic ones."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from ferlib.data import RAFDB, AffectNet, DataError, FaceDataset, FERPlus
from ferlib.data.faces import SomeFaces, drawn_faces
from ferlib.data.labels import CLASSES
from ferlib.data.prepare import DATASETS, Kind, is_cache, read_manifest
from ferlib.doctor import data_sets_in, look_at_data
from ferlib.errors import choose
from ferlib.evaluation.records import origin

HELD_OUT = 10  # every tenth training face, where a data set has no validation split of its own


def add_face_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """``--data``, ``--dataset``, ``--length``."""
    where = "the data set's folder, prepared or not, or 'synthetic'"
    kind = "its kind (default: what the recipe is for, or what was prepared)"
    parser.add_argument("--data", required=required, metavar="DIR", help=where)
    parser.add_argument("--dataset", choices=CLASSES, help=kind)
    parser.add_argument("--length", type=int, metavar="N", help="only N faces of each split")


@dataclass(frozen=True)
class Faces:
    """Where faces come from.

    RAF-DB and AffectNet have no third split. Their test (validation) images are what papers report, so they
    do not choose an epoch: "valid" is every tenth training face, "train" the other nine. So it is with FER+
    where the layout has no validation faces; where they are damaged, that is an error.

    Attributes:
        data: A folder, or "synthetic".
        kind: The data set, one of ``CLASSES`` or "synthetic".
        length: How many of each split are wanted.
    """

    data: str
    kind: str
    length: int | None = None

    def open(self, split: str, *, whole: bool = False) -> FaceDataset:
        """One split; with ``whole`` "train" keeps what would otherwise be held out.

        Raises:
            DataError: It is not there, cannot be read, or a class has no face to learn from.
        """
        if self.data == "synthetic":
            return drawn_faces(split, length=self.length)
        hold_out = split != "test" and self.holds_out
        faces = self._read("train" if hold_out else split)
        if split == "train" and self.kind != "ferplus" and not faces.class_counts().all():
            name = faces.classes[int(faces.class_counts().argmin())]
            kind = _kind(self.kind)
            raise DataError(
                f"no training face of {name!r} of {kind.title} ({len(faces.classes)} expressions): is it "
                "another data set, or another number of expressions (--dataset, --recipe)? Expected one of: "
                f"{kind.expected}",
                self.data,
            )
        if hold_out and not whole:
            held = (torch.arange(len(faces)) % HELD_OUT == 0) == (split == "valid")
            faces = SomeFaces(faces, torch.nonzero(held)[:, 0])
        if self.length and self.length < len(faces):
            faces = SomeFaces.drawn(faces, self.length)
        return faces

    def open_test(self) -> tuple[FaceDataset | None, str]:
        """The test split; or None and why, where the data set lies there without one.

        Raises:
            DataError: It is there and cannot be read.
        """
        if self.kind != "synthetic" and not self._has("test"):
            return None, f"{self.data} has no test split"
        return self.open("test"), ""

    @property
    def holds_out(self) -> bool:
        """Whether the data set's layout has no validation faces, so that training faces are held out."""
        return self.kind != "synthetic" and (self.kind != "ferplus" or not self._has("valid"))

    def _has(self, split: str) -> bool:
        kind = _kind(self.kind)
        return kind.instead.get(split, split) in kind.find(Path(self.data))[1]

    def _read(self, split: str) -> FaceDataset:
        if self.kind == "ferplus":
            return FERPlus(self.data, split)
        if self.kind == "rafdb":
            return RAFDB(self.data, split)
        # of the released AffectNet papers know "train" and "valid" only, and report on the second
        return AffectNet(self.data, "valid" if split == "test" else split, classes=int(self.kind[-1]))


def choose_faces(
    data: str, dataset: str | None = None, recipe_kind: str | None = None, length: int | None = None
) -> Faces:
    """The faces that are meant, after a look at the folder's layout; nothing is read yet.

    The kind is ``dataset`` where it was given, else the recipe's, else what the folder was prepared from,
    else FER+.

    Raises:
        DataError: A folder that holds no such data set, in the doctor's words.
    """
    if length is not None and length < 1:
        raise DataError(f"--length {length}: expected at least one face")
    if data == "synthetic":
        return Faces(data, "synthetic", length)
    root = Path(data).expanduser()
    kind = dataset or recipe_kind or (read_manifest(root)["dataset"] if is_cache(root) else "ferplus")
    kind = "affectnet8" if kind == "affectnet" else kind
    wanted = _kind(kind)
    if not root.is_dir() or not wanted.find(root)[0]:
        for other, folder in data_sets_in(root) if root.is_dir() else []:
            if other is wanted:
                raise DataError(f"{wanted.title} lies in {folder}: give that folder", root)
            raise DataError(
                f"{folder} holds {other.title}, {wanted.title} is wanted: give its folder, or a recipe for "
                f"{other.title}, or --dataset {other.name}"
            )
        found = look_at_data([root])[0]
        near = "; ".join(line for line in found.lines if line.startswith("found "))
        raise DataError(f"{found.text}. {near or f'{wanted.title}: {wanted.expected}'}; {found.advice}")
    return Faces(str(root), kind, length)


def tell_left_out(faces: FaceDataset, data: str, split: str) -> None:
    """Say on standard error how many files could not be used."""
    if skipped := getattr(origin(faces)[0], "skipped", None):
        more = f"`ferlib doctor --data {data}` lists them"
        print(f"{split}: {len(skipped)} files or rows left out, {more}", file=sys.stderr)


def _kind(kind: str) -> Kind:
    return DATASETS[choose("data set", kind.rstrip("78"), DATASETS, DataError)]
