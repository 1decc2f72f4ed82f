"""The faces of the experiments: every FER+ image outside the test split, with both data sets' labels.

The training folder is what counts; the validation folder is for pilots (rates, epochs, projections).
"""

from __future__ import annotations

import csv
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from book.experiments.twins import ferplus_groups
from ferlib.data import EMOTIONS_FERPLUS, majority_label
from ferlib.data.base import FaceDataset
from ferlib.data.ferplus import open_source

FOLDERS = ("FER2013Valid", "FER2013Train")  # pilots first
SPLITS = {"FER2013Valid": "valid", "FER2013Train": "train"}
FER2013 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
LABELS = (
    "ferplus",
    "fer2013",
)  # the two sets of labels: 8 classes by majority of votes, and 7 by one annotator


@dataclass(frozen=True)
class Faces:
    """N images and what is known of them.

    Attributes:
        names: File names, (N,).
        pilot: Whether an image lies in the validation folder, (N,).
        images: Gray values, uint8 (N, 48, 48).
        votes: Counts for the ten columns of FER+, float32 (N, 10).
        ferplus: Majority label of eight classes, -1 where the rule gives none, (N,).
        fer2013: Label of seven classes in the order of ``FER2013``, -1 where it is blank, (N,).
    """

    names: np.ndarray
    pilot: np.ndarray
    images: np.ndarray
    votes: np.ndarray
    ferplus: np.ndarray
    fer2013: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def labels(self, which: str) -> np.ndarray:
        """The labels of one data set, -1 where a face has none."""
        return {"ferplus": self.ferplus, "fer2013": self.fer2013}[which]

    def classes(self, which: str) -> int:
        """How many classes a data set has."""
        return {"ferplus": 8, "fer2013": 7}[which]

    def shares(self) -> np.ndarray:
        """The votes for the eight expressions as shares, float32 (N, 8); zeros where there is none."""
        votes = self.votes[:, :8]
        return votes / np.maximum(votes.sum(1, keepdims=True), 1e-9)


def read(folder: Path, fer2013_labels: Path) -> Faces:
    """Read Microsoft's folders and a list of FER2013's labels (columns: folder, name, fer2013).

    Raises:
        SystemExit: Where a face of the folders has no row in the list.
    """
    with fer2013_labels.open(newline="", encoding="utf-8") as file:
        given = {(row["folder"], row["name"]): row["fer2013"] for row in csv.DictReader(file)}
    parts: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Faces)}
    for name in FOLDERS:
        source = open_source(folder, SPLITS[name])
        files = [Path(path).name for path in source.names]
        images = np.stack([np.asarray(source.read(i)).reshape(48, 48) for i in range(len(files))])
        votes = np.asarray(source.votes, dtype=np.float32)
        try:
            blank_or_label = [given[name, file] for file in files]
        except KeyError as missing:
            raise SystemExit(
                f"{fer2013_labels} has no row for {missing}: is it made from other images?"
            ) from None
        parts["names"].append(np.array(files))
        parts["pilot"].append(np.full(len(files), name == FOLDERS[0]))
        parts["images"].append(images.astype(np.uint8))
        parts["votes"].append(votes)
        parts["ferplus"].append(majority_label(torch.from_numpy(votes)).numpy())
        parts["fer2013"].append(np.array([FER2013.index(label) if label else -1 for label in blank_or_label]))
    return Faces(**{key: np.concatenate(found) for key, found in parts.items()})


def save(faces: Faces, store: Path) -> None:
    """Keep the faces as one file."""
    with tempfile.NamedTemporaryFile(dir=store, suffix=".npz", delete=False) as file:
        np.savez(file, **{field.name: getattr(faces, field.name) for field in fields(Faces)})
    Path(file.name).rename(store / "faces.npz")


def load(store: Path) -> Faces:
    """The faces that ``save`` kept."""
    with np.load(store / "faces.npz") as arrays:
        return Faces(**{field.name: arrays[field.name] for field in fields(Faces)})


def groups(faces: Faces) -> np.ndarray:
    """The frozen group of twins of each face, (N,)."""
    return ferplus_groups(faces.names)


def without_twins(faces: Faces, groups: np.ndarray) -> np.ndarray:
    """Whether a pilot face has no twin in the training folder, (N,); False for training faces."""
    return faces.pilot & ~np.isin(groups, groups[~faces.pilot])


def grouped_folds(groups: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each face, (N,): twins share one, classes are spread evenly, and each seed deals anew.

    Args:
        groups: The group of twins of each face, (N,).
        labels: Labels by which folds are balanced, (N,); a group counts as its first face's class.
        folds: How many folds.
        seed: Of the order within a class.
    """
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    dealt = order[np.argsort(labels[first][order], kind="stable")]
    fold = np.empty(len(first), dtype=int)
    fold[dealt] = np.arange(len(first)) % folds
    return fold[member]


class ArrayFaces(FaceDataset):
    """Faces in memory for the training loop: images uint8 (N, 1, 48, 48), labels (N,), votes (N, 8)."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, votes: torch.Tensor) -> None:
        self.images, self.labels, self.votes, self.classes = images, labels, votes, EMOTIONS_FERPLUS

    @classmethod
    def of(cls, faces: Faces, rows: np.ndarray) -> ArrayFaces:
        """Chosen faces with their FER+ labels."""
        parts = faces.images[rows][:, None], faces.ferplus[rows], faces.votes[rows, :8]
        return cls(*map(torch.from_numpy, parts))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self.labels[index]), "votes": self.votes[index]}

    def batch(self, indices: Any) -> dict[str, Any]:
        rows = torch.as_tensor(indices)
        return {"image": self.images[rows], "label": self.labels[rows], "votes": self.votes[rows]}
