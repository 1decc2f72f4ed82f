"""FER+: 35,710 gray faces of 48 pixels with the votes of ten annotators each, in the forms people have it."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ferlib.data.base import DataError, Skip, Source, SourceDataset
from ferlib.data.folders import AGAIN, Listing, read_table
from ferlib.data.labels import EMOTIONS_FERPLUS, VOTE_COLUMNS, majority_label, read_class
from ferlib.data.prepare import DATASETS, Kind
from ferlib.images import SUFFIXES

SPLITS = ("train", "valid", "test")
SIDE = 48  # pixels of a face as published
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}
USAGE = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}
# The Neural Resizer's csv calls FER+'s private test images PublicTest, and the public ones PrivateTest.
USAGE_NEURAL_RESIZER = {"train": "Training", "valid": "PrivateTest", "test": "PublicTest"}
FIRST_TEST_IMAGE = 32220  # fer0032220.png is the first PrivateTest image in Microsoft's numbering
FILES = (("fer2013.csv", "icml_face_data.csv"), ("fer2013new.csv",))  # Kaggle's pixels, Microsoft's votes
UPSCALED = ("", "_x8_SR", "_x4_SR", "_x2_SR", "_SR")  # what super-resolution tools append to a name
NO_VOTES = "votes sum to zero"
_PLACES = ("data", "", "FERPlus/data", "FERPlus", "fer2013", "data/fer2013")


# ---- the label and pixel files ----


def _votes(cells: Sequence[str]) -> np.ndarray | str:
    """Ten votes, or the reason why they cannot be used."""
    try:
        votes = np.array(cells, dtype=np.float64)
    except ValueError:
        return "votes are not numbers"
    if not ((votes == 0) | ((votes >= 1e-6) & (votes <= 1e6))).all():  # NaN is neither
        return "votes are no counts from 0 to a million"
    return votes.astype(np.float32) if votes.any() else NO_VOTES


def read_label_csv(path: str | Path) -> tuple[list[str], torch.Tensor, list[Skip]]:
    """Microsoft's ``label.csv``: rows of name, box, ten votes, with no header (one is tolerated). Chapter 1.

    Returns:
        N names, float32 votes (N, 10), and the rows that were left out with reasons.

    Raises:
        DataError: The file is missing, empty, or its first row has not 12 columns.
    """
    table = read_table(Path(path))
    wide = 2 + len(VOTE_COLUMNS)
    if len(table[0]) != wide:
        raise DataError(
            f"the first row has {len(table[0])} columns; expected {wide}: name, box, "
            f"{', '.join(VOTE_COLUMNS)}. Take label.csv from Microsoft's FERPlus repository",
            path,
        )
    kept, skipped = [], []
    for row in table[table[0][2].lower() == "neutral" :]:
        votes = _votes(row[2:]) if len(row) == wide else f"row has not {wide} columns"
        if isinstance(votes, str):
            skipped.append(Skip(row[0], votes))
        else:
            kept.append((row[0], votes))
    votes = np.array([votes for _, votes in kept], np.float32).reshape(-1, len(VOTE_COLUMNS))
    return [name for name, _ in kept], torch.from_numpy(votes), skipped


def read_fer2013new(path: str | Path) -> tuple[list[str], list[str], torch.Tensor]:
    """Microsoft's ``fer2013new.csv``, row by row as Kaggle's csv has its pictures. Chapter 1.

    Returns:
        N usages ("Training", "PublicTest", "PrivateTest"), N image names ("" where FER+ removed the picture)
        and float32 votes (N, 10).

    Raises:
        DataError: Columns are missing or a row is damaged.
    """
    header, *table = read_table(Path(path))
    expected = ["Usage", "Image name", *VOTE_COLUMNS]
    if [cell.lower() for cell in header] != [cell.lower() for cell in expected]:
        raise DataError(f"columns are {', '.join(header)}; expected {', '.join(expected)}", path)
    found = np.zeros((len(table), len(VOTE_COLUMNS)), np.float32)
    for number, row in enumerate(table):
        votes = _votes(row[2:]) if len(row) == len(expected) else "short"
        if not isinstance(votes, str):
            found[number] = votes
        elif votes != NO_VOTES:
            # rows are matched to Kaggle's by position, so one damaged row makes all after it doubtful
            raise DataError(f"line {number + 2} is damaged ({','.join(row)[:60]}); {AGAIN}", path)
    return [row[0] for row in table], [row[1] for row in table], torch.from_numpy(found)


def read_pixels(text: str) -> np.ndarray:
    """One row of pixels as FER2013's csv holds it: 48 * 48 numbers 0..255 between spaces. Chapter 1.

    Returns:
        uint8 (1, 48, 48).

    Raises:
        DataError: Another count of numbers, something that is no whole number, or a number outside 0..255.
    """
    try:
        values = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        raise DataError("the pixels hold something that is no whole number") from None
    if len(values) != SIDE * SIDE:
        raise DataError(f"{len(values):,} pixels; expected {SIDE * SIDE:,} ({SIDE} x {SIDE})")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"pixel values from {values.min()} to {values.max()}; expected 0 to 255")
    return values.astype(np.uint8).reshape(1, SIDE, SIDE)


def _load_row(path: Path, starts: Sequence[int], column: int, names: Sequence[str], index: int) -> np.ndarray:
    """A face of Kaggle's csv, by the byte where its line starts."""
    try:
        with path.open("rb") as file:
            file.seek(starts[index])
            row = next(csv.reader([file.readline().decode("utf-8")]))
        return read_pixels(row[column])
    except IndexError:
        reason = "the row is cut short"
    except (DataError, UnicodeDecodeError, csv.Error, OSError) as error:
        reason = str(error)
    raise DataError(reason, f"{path} ({names[index]})")


def _scan_lines(path: Path) -> tuple[list[str], list[int], list[bytes]]:
    """The header of a pixel csv, where each further line starts, and the two ends of each."""
    starts, ends = [], []
    try:
        with path.open("rb") as file:
            header = [cell.strip(' "\r\n').lower() for cell in file.readline().decode("utf-8-sig").split(",")]
            place = file.tell()
            for line in file:
                if line.strip():
                    starts.append(place)
                    ends.append(line[:24] + b" | " + line[-24:])
                place += len(line)
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"cannot be read as text in UTF-8 ({error}); {AGAIN}", path) from None
    return header, starts, ends


# ---- the layouts ----


def microsoft_folder(root: Path, split: str) -> Path | None:
    """The folder ``FER2013Train`` (``Valid``, ``Test``) below a root."""
    return next((f for place in _PLACES[:4] if (f := root / place / FOLDERS[split]).is_dir()), None)


def _is_label_csv(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            line = file.readline(500).lower()
    except OSError:
        return False
    return b"image name" in line and b"emotion" in line


def _splits(path: Path | None, usage: dict[str, str]) -> Sequence[str]:
    """The splits that a csv has rows of; all where it cannot tell."""
    try:
        text = path.read_bytes() if path else b""
    except OSError:
        return SPLITS
    return [split for split in SPLITS if usage[split].encode() in text] or SPLITS


def _look(root: Path) -> tuple[str, dict[str, Any]] | None:
    folders = {split: f for split in SPLITS if (f := microsoft_folder(root, split))}
    # a clone of Microsoft's repository has label.csv in the folders, but no images
    if any(path.suffix.lower() in SUFFIXES for f in folders.values() for path in f.iterdir()):
        return "microsoft", folders
    for folder in (root, root / "data"):
        for path in sorted(folder.glob("*.csv"), key=lambda p: (p.name != "fer2013new_jin2.csv", p.name)):
            bases = (b for b in (folder, folder / "data") if any((b / split).is_dir() for split in SPLITS))
            if _is_label_csv(path) and (base := next(bases, None)):
                there = _splits(path, USAGE_NEURAL_RESIZER)
                return "neural-resizer", dict.fromkeys(there, (path, base))
    pixels, votes = (
        next((path for place in _PLACES for name in names if (path := root / place / name).is_file()), None)
        for names in FILES
    )
    if pixels and (votes or not folders):
        return "kaggle", dict.fromkeys(_splits(votes, USAGE), (pixels, votes))
    return ("microsoft", folders) if folders else None


def _microsoft(folder: Path, split: str) -> Source:
    """Microsoft's folders: ``FER2013Train/*.png`` beside ``label.csv``."""
    names, votes, skipped = read_label_csv(folder / "label.csv")
    listing = Listing("ferplus", "microsoft", split, folder)
    for skip in skipped:
        listing.skip(skip.name, skip.reason)
    for name, ballot in zip(names, votes.tolist(), strict=True):
        listing.add(name, ballot)
    listing.unlisted("no row in label.csv")
    return listing.source(
        EMOTIONS_FERPLUS,
        SIDE,
        1,
        f"none of the {len(names):,} images named in label.csv is there. Write them with Microsoft's "
        "generate_training_data.py, or put Kaggle's fer2013.csv beside fer2013new.csv",
    )


def _kaggle(files: tuple[Path, Path | None], split: str) -> Source:
    """Kaggle's ``fer2013.csv`` or ``icml_face_data.csv``, with votes from ``fer2013new.csv`` by position."""
    pixels, new = files
    if new is None:
        raise DataError("fer2013new.csv (Microsoft's FERPlus repository) is not beside it", pixels)
    usage, names, votes = read_fer2013new(new)
    header, starts, ends = _scan_lines(pixels)
    if not {"pixels", "usage"} <= {*header}:
        raise DataError(f"columns are {', '.join(header)}; expected emotion, pixels and Usage", pixels)
    if len(starts) != len(names):
        raise DataError(
            f"has {len(starts):,} faces and {new.name} {len(names):,} rows; they must match row by row. Take "
            "both files whole and unsorted",
            pixels,
        )
    wrong = next((i for i, (u, e) in enumerate(zip(usage, ends, strict=True)) if u.encode() not in e), None)
    if wrong is not None:
        raise DataError(
            f"face {wrong + 1} is not marked {usage[wrong]!r} as {new.name} has it: another order, or a "
            "damaged line; take both files anew",
            pixels,
        )
    listing, places = Listing("ferplus", "kaggle", split, None), {}
    for i in (i for i, u in enumerate(usage) if u == USAGE[split]):
        if not names[i]:
            listing.skip(f"row {i + 1}", "no image name in fer2013new.csv (FER+ removed the picture)")
        elif not votes[i].any():
            listing.skip(names[i], NO_VOTES)
        else:
            places.setdefault(names[i], starts[i])
            listing.add(names[i], votes[i].tolist())
    source = listing.source(EMOTIONS_FERPLUS, SIDE, 1, f"{new.name} has no row of usage {USAGE[split]!r}")
    rows = [places[name] for name in source.names]
    source.load = partial(_load_row, pixels, rows, header.index("pixels"), source.names)
    source.files = [pixels]
    source.notes.append("votes come from fer2013new.csv; label.csv differs for some images")
    return source


def _usage_names(rows: list[tuple[str, str]]) -> tuple[dict[str, str], str]:
    """Which Usage name means which split in a Neural Resizer csv, told by the image numbers if they can."""
    public, private = (
        [int(number[0]) for usage, name in rows if usage == which and (number := re.search(r"\d+", name))]
        for which in ("PublicTest", "PrivateTest")
    )
    # FER2013's order is training, public, private: of two groups the one with the higher numbers is private
    if public and private and max(public) < min(private) and min(private) >= FIRST_TEST_IMAGE:
        return USAGE, "its Usage names are Microsoft's"
    return USAGE_NEURAL_RESIZER, (
        "the csv's PrivateTest is Microsoft's PublicTest and the other way round; "
        "'valid' and 'test' mean Microsoft's here"
    )


def _neural_resizer(files: tuple[Path, Path], split: str) -> Source:
    """The Neural Resizer repository's layout: ``train/``, ``test/`` and a csv of decided labels.

    Its csv exchanges the names PublicTest and PrivateTest against Microsoft's (fer0032223.png is PrivateTest
    there, PublicTest here); ``split`` always means Microsoft's, so "test" reads the rows marked PublicTest.
    The file's vote columns are one-hot, so there are labels but no votes. Images may be super-resolved
    (``..._x8_SR.png``).
    """
    path, base = files
    header, *table = read_table(path)
    cells = [cell.lower() for cell in header]
    if "usage" not in cells:
        raise DataError(f"columns are {', '.join(header)}; expected Usage, Image Name and emotion", path)
    usage, name, emotion = (cells.index(c) for c in ("usage", "image name", "emotion"))
    meaning, note = _usage_names([(row[usage], row[name]) for row in table if len(row) == len(header)])
    folder = next((f for s in (split, "train", "test") if (f := base / s).is_dir()), base)
    listing = Listing("ferplus", "neural-resizer", split, folder)
    for row in table:
        if len(row) != len(header):
            listing.skip(",".join(row)[:40], f"row has not {len(header)} columns")
        elif row[usage].lower() != meaning[split].lower():
            continue
        elif (label := read_class(row[emotion], EMOTIONS_FERPLUS)) is None:
            listing.skip(row[name], "emotion is not one of 0 to 7")
        else:
            stem, dot, suffix = row[name].rpartition(".")
            listing.add(row[name], label, [f"{stem}{u}{dot}{suffix}" for u in UPSCALED])
    source = listing.source(
        EMOTIONS_FERPLUS, SIDE, 1, f"none of the {split!r} images named in {path.name} is there"
    )
    source.notes.append(note)
    return source


_READERS = {"microsoft": _microsoft, "kaggle": _kaggle, "neural-resizer": _neural_resizer}
DATASETS["ferplus"] = Kind(
    "ferplus",
    "FER+",
    "Microsoft's folders data/FER2013Train, FER2013Valid, FER2013Test with png files and label.csv; Kaggle's "
    "fer2013.csv (or icml_face_data.csv) beside fer2013new.csv; the Neural Resizer's train/ and test/ beside "
    "its label csv; or a folder made by `ferlib prepare ferplus`",
    EMOTIONS_FERPLUS,
    dict.fromkeys(SPLITS, ()),
    _look,
    lambda there, layout, split: _READERS[layout](there[split], split),
    published={"train": 28_558, "valid": 3_579, "test": 3_573},
)


class FERPlus(SourceDataset):
    """FER+ faces of one split, labeled by a named rule.

    Reads Microsoft's folders, Kaggle's csv joined with ``fer2013new.csv``, the Neural Resizer's folders, and
    what ``ferlib prepare ferplus`` makes of any of them (much the fastest). "valid" is FER2013's PublicTest
    and "test" its PrivateTest in every layout, also in the Neural Resizer's, whose csv exchanges the two
    names. Items are ``dict(image=uint8 (1, S, S), label=int, votes=float (8,), name=str)``, S = 48 as
    published (pictures of another size are refused).

    Source: Barsoum et al. 2016 (FER+); label rule of the Neural Resizer. Chapter 1.

    Args:
        root: The folder.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        labels: ``"majority"`` (after outlier removal: 25,045 / 3,191 faces of label.csv in train / valid),
            ``"half"`` (at least half of all votes) or ``"votes"`` (every face with a vote for an expression;
            train on the votes); see :func:`ferlib.data.majority_label`.

    Attributes:
        votes: float32 (N, 8), counts for the expressions; None in the Neural Resizer's layout, whose file has
            none.
        all_votes: float32 (N, 10), with "unknown" and "not a face".
        skipped: Files and rows that cannot be used.

    Raises:
        DataError: Unknown layout, split or rule; damaged files, when they are read.
    """

    def __init__(self, root: str | Path, split: str = "train", labels: str = "majority"):
        source = DATASETS["ferplus"].open(root, split)
        if source.votes is not None:
            chosen = majority_label(source.votes, labels)
        elif labels == "majority":
            chosen = source.labels
        else:
            raise DataError(f"holds decided majority labels, no votes; rule {labels!r} needs votes", root)
        super().__init__(source, chosen)
        self.all_votes = self.votes
        self.votes = None if self.votes is None else self.votes[:, : len(EMOTIONS_FERPLUS)]
