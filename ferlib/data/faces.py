"""The faces the book runs on: its own, made by the renderer, or a reader's FER+."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ferlib import files
from ferlib.data.base import DataError, FaceDataset
from ferlib.data.ferplus import SPLITS, FERPlus
from ferlib.data.prepare import DATASETS, check_root, is_cache, prepare
from ferlib.errors import choose
from ferlib.files import cache_root

#: How many faces each split has when the book renders them.
SYNTHETIC_LENGTHS = {"train": 4096, "valid": 1024, "test": 1024}
SEEDS = {"train": 0, "valid": 1_000_003, "test": 2_000_003}


def open_faces(split: str = "train", *, length: int | None = None) -> FaceDataset:
    """The faces a chapter works on; which they are is the reader's choice, not the chapter's.

    With the environment variable ``FERLIB_DATA`` set to a FER+ folder (any layout) these are real faces,
    prepared once into ``cache_root()``; otherwise synthetic ones, gray and framed as FER+ frames them,
    rendered once and then kept in memory. Items are ``dict(image=uint8 (1, 48, 48), label=int,
    votes=(8,), name=str, ...)``. Chapter 1; used in all chapters.

    Args:
        split: ``"train"``, ``"valid"`` or ``"test"``; each renders from a seed of its own.
        length: How many faces (default: all real ones, or 4096 / 1024 / 1024 synthetic ones).

    Raises:
        DataError: ``FERLIB_DATA`` is no FER+ folder, lacks the split, or has fewer faces than asked for.
    """
    choose("split", split, SPLITS, DataError)
    if length is not None and length < 1:
        raise DataError(f"length={length}; expected at least one face")
    root = files.place("FERLIB_DATA")
    if not root:
        return drawn_faces(split, length=length)
    faces = FERPlus(_prepared(check_root(root)), split)
    if length is None:
        return faces
    if length > len(faces):
        raise DataError(f"{split} has {len(faces):,} labeled faces, {length:,} were asked for", root)
    return SomeFaces.drawn(faces, length)


def drawn_faces(split: str = "train", *, length: int | None = None) -> FaceDataset:
    """Synthetic faces as FER+ shows its own: gray, and framed from brows to chin.

    Each split has people of its own; they are rendered once and then kept in memory. There are 4096 / 1024 /
    1024 of them unless ``length`` says otherwise; for the rest see :func:`open_faces`. Chapter 1.
    """
    from ferlib.data.synthetic import SyntheticFaces  # the renderer is loaded only where it draws

    count = SYNTHETIC_LENGTHS[split] if length is None else length
    return KeptFaces(SyntheticFaces(count, size=48, seed=SEEDS[split], channels=1, framing="ferplus"))


def _prepared(root: Path) -> Path:
    """The prepared form of a FER+ folder, made at the first call."""
    if is_cache(root):
        return root
    # label files and folders tell by size and time whether the data set was exchanged
    places = sorted([*root.glob("*"), *root.glob("*/*"), *root.glob("*/*/label.csv")])
    stats = [(str(p), p.stat()) for p in places if p.is_dir() or p.suffix == ".csv"]
    facts = [str(root.resolve()), *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)]
    key = hashlib.blake2b(json.dumps(facts).encode(), digest_size=6).hexdigest()
    out, find = cache_root() / f"ferplus-{key}", DATASETS["ferplus"].find
    if not is_cache(out) or find(out)[1].keys() < find(root)[1].keys():
        prepare("ferplus", root, out, progress=False, wait=True)
    return out


class KeptFaces(FaceDataset):
    """Another data set's faces, each read once and then kept in memory.

    They are read in blocks of neighbors, the same blocks whoever is asked for first: synthetic faces depend
    on those rendered with them by a rounding, and a resumed run must see the very pixels of one never
    stopped. ``batch`` gives image, label and votes, a single item everything it has.
    """

    BLOCK = 64

    def __init__(self, faces: FaceDataset):
        self.faces, self.classes = faces, faces.classes
        self.labels, self.votes = faces.labels, faces.votes
        self._blocks: dict[int, torch.Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "faces":
            raise AttributeError(name)
        return getattr(self.faces, name)  # landmarks, action units, ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.faces[index], "image": self.batch([index])["image"][0]}

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        index = torch.arange(len(self))[torch.as_tensor(indices, dtype=torch.long)]  # -1 is the last one
        images = []
        for row in index.tolist():
            block, place = divmod(row, self.BLOCK)
            if block not in self._blocks:
                rows = range(row - place, min(row - place + self.BLOCK, len(self)))
                self._blocks[block] = self.faces.batch(rows)["image"]
            images.append(self._blocks[block][place])
        votes = {} if self.votes is None else {"votes": self.votes[index]}
        image = torch.stack(images) if images else torch.empty(0, dtype=torch.uint8)
        return {"image": image, "label": self.labels[index], **votes}


class SomeFaces(FaceDataset):
    """Chosen rows (n,) of a data set, as a data set."""

    def __init__(self, faces: FaceDataset, rows: torch.Tensor | np.ndarray | Sequence[int]):
        self.faces, self.rows = faces, torch.as_tensor(rows).long()
        self.classes = faces.classes
        self.labels = faces.labels[self.rows]
        self.votes = None if faces.votes is None else faces.votes[self.rows]

    @classmethod
    def drawn(cls, faces: FaceDataset, length: int) -> SomeFaces:
        """That many of them, drawn at random and kept in their order."""
        order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
        return cls(faces, order[:length].sort().values)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.faces[int(self.rows[index])]

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        return self.faces.batch(self.rows[torch.as_tensor(indices)])
