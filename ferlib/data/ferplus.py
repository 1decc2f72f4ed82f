"""FER+: 35,710 grey faces of 48 pixels with the votes of ten annotators each."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ferlib.data.base import DataError
from ferlib.data.cache import cached_source, is_cache, read_manifest
from ferlib.data.ferplus_layouts import (
    SPLITS,
    kaggle,
    kaggle_files,
    microsoft,
    microsoft_folder,
    neural_resizer,
    neural_resizer_csv,
)
from ferlib.data.images import SUFFIXES
from ferlib.data.labels import EMOTIONS_FERPLUS, LABEL_RULES, majority_label
from ferlib.data.listing import Skip, check_root, check_split
from ferlib.data.sources import Source, SourceDataset, with_size

TITLE = "FER+"
EXPECTED = (
    "Expected one of: Microsoft's folders data/FER2013Train, FER2013Valid, FER2013Test with png files and "
    "label.csv; Kaggle's fer2013.csv (or icml_face_data.csv) beside fer2013new.csv; the Neural Resizer's "
    "train/ and test/ beside its label csv; or a folder made by `ferlib prepare ferplus`"
)


def find_layout(root: Path) -> str | None:
    """Which layout of FER+ lies in a folder: "prepared", "microsoft", "kaggle", "neural-resizer" or None.

    Shape: path -> text or None.
    """
    if is_cache(root):
        return "prepared" if read_manifest(root)["dataset"] == "ferplus" else None
    folders = [f for split in SPLITS if (f := microsoft_folder(root, split))]
    # a clone of Microsoft's repository has label.csv in the folders, but no images
    if any(entry.name.lower().endswith(SUFFIXES) for folder in folders for entry in os.scandir(folder)):
        return "microsoft"
    if neural_resizer_csv(root):
        return "neural-resizer"
    if all(kaggle_files(root)):
        return "kaggle"
    if folders:
        return "microsoft"
    return "kaggle" if kaggle_files(root)[0] else None


def available_splits(root: Path) -> list[str]:
    """Which of train, valid, test a folder offers. Shape: path -> list of text."""
    layout = find_layout(root)
    if layout == "prepared":
        return list(read_manifest(root)["splits"])
    if layout == "microsoft":
        return [split for split in SPLITS if microsoft_folder(root, split)]
    return [] if layout is None else list(SPLITS)


def open_source(root: str | Path, split: str) -> Source:
    """One split of FER+ in whichever layout the folder has.

    Shape: path, text -> Source. Raises DataError if no layout is recognised or the split is missing.
    """
    root = check_root(root)
    check_split(split, SPLITS)
    layout = find_layout(root)
    if layout is None:
        raise DataError(f"{root}: no FER+ found. {EXPECTED}")
    if layout == "prepared":
        return cached_source(root, split, "ferplus")
    return {"microsoft": microsoft, "kaggle": kaggle, "neural-resizer": neural_resizer}[layout](root, split)


class FERPlus(SourceDataset):
    """FER+ faces of one split, labelled by a named rule.

    Reads Microsoft's folders, Kaggle's csv joined with ``fer2013new.csv``, the Neural Resizer's folders,
    and what ``ferlib prepare ferplus`` makes of any of them (much the fastest). "valid" is FER2013's
    PublicTest and "test" its PrivateTest in every layout, also in the Neural Resizer's, whose csv
    exchanges the two names.

    Parameters
    ----------
    root: the folder.
    split: ``"train"``, ``"valid"`` or ``"test"``.
    labels: ``"majority"`` (after outlier removal: 25,045 / 3,191 faces of label.csv in train / valid),
    ``"half"`` (at
        least half of all votes) or ``"votes"`` (every face with a vote for an expression; train on
        ``vote_distribution(dataset.votes)``); see :func:`ferlib.data.labels.majority_label`.
    size: side in pixels to resize to; default: as stored, and pictures of another size are refused.

    Attributes: ``classes`` (8 names), ``labels`` int64 ``(N,)``, ``votes`` float32 ``(N, 8)`` (counts for the
    expressions) and ``all_votes`` ``(N, 10)`` with "unknown" and "not a face" (both None in the Neural
    Resizer's layout, whose file has none), ``skipped`` (files and rows that cannot be used) and
    ``unlabelled`` (faces the rule leaves without a label), each a list of :class:`Skip`.

    Shape: items ``dict(image uint8 (1, S, S), label int, votes (8,), path str)``, S = 48 as published.

    Raises
    ------
    DataError: unknown layout, split or rule; damaged files, when they are read.

    Source: Barsoum et al. 2016 (FER+); label rule of the Neural Resizer. Chapter 1.
    """

    def __init__(
        self, root: str | Path, split: str = "train", labels: str = "majority", *, size: int | None = None
    ):
        if labels not in LABEL_RULES:
            raise DataError(f"label rule {labels!r} is not known; choose one of {', '.join(LABEL_RULES)}")
        source = with_size(open_source(root, split), size)
        if source.votes is None:
            if labels != "majority":
                raise DataError(
                    f"{root}: holds decided majority labels, no votes; rule {labels!r} needs votes"
                )
            chosen = source.labels
        else:
            chosen = majority_label(source.votes, labels, classes=len(EMOTIONS_FERPLUS))
        rows = torch.nonzero(chosen >= 0)[:, 0]
        votes = None if source.votes is None else source.votes[rows]
        super().__init__(
            source, rows, chosen[rows], None if votes is None else votes[:, : len(EMOTIONS_FERPLUS)]
        )
        self.all_votes = votes
        self.unlabelled = [
            Skip(source.names[i], f"votes give no label by rule {labels!r}")
            for i in torch.nonzero(chosen < 0)[:, 0].tolist()
        ]
