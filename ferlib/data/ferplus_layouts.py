"""The three forms in which people have FER+ on their disk, each turned into one :class:`Source`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ferlib.data.base import DataError
from ferlib.data.ferplus_files import NO_VOTES, PixelRows, read_fer2013new, read_label_csv, scan_lines
from ferlib.data.images import SUFFIXES
from ferlib.data.labels import EMOTIONS_FERPLUS
from ferlib.data.listing import Skip, common_side, list_folder, read_table, safe_name, usable_files
from ferlib.data.sources import FileReader, Source

SPLITS = ("train", "valid", "test")
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}
USAGE = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}
# The Neural Resizer's csv gives FER+'s private test images the name PublicTest, and the public ones
# PrivateTest.
USAGE_NEURAL_RESIZER = {"train": "Training", "valid": "PrivateTest", "test": "PublicTest"}
FIRST_TEST_IMAGE = 32220  # fer0032220.png is the first PrivateTest image in Microsoft's numbering
KAGGLE_FILES = ("fer2013.csv", "icml_face_data.csv")
UPSCALED = ("", "_x8_SR", "_x4_SR", "_x2_SR", "_SR")  # what super-resolution tools append to a name
_PLACES = ("", "data", "FERPlus", "FERPlus/data", "fer2013", "data/fer2013")


def microsoft_folder(root: Path, split: str) -> Path | None:
    """The folder ``FER2013Train`` (``Valid``, ``Test``) below a root. Shape: path, text -> path or None."""
    for place in ("data", "", "FERPlus/data", "FERPlus"):
        if (folder := root / place / FOLDERS[split]).is_dir():
            return folder
    return None


def _find_file(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / p / n for p in _PLACES for n in names if (root / p / n).is_file()), None)


def kaggle_files(root: Path) -> tuple[Path | None, Path | None]:
    """Kaggle's pixel csv and Microsoft's ``fer2013new.csv`` below a root. Shape: path -> two paths or
    None.
    """
    return _find_file(root, KAGGLE_FILES), _find_file(root, ("fer2013new.csv",))


def _first_line(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.readline(500).lower()
    except OSError:
        return b""  # a csv that cannot be opened is not the one that is looked for


def neural_resizer_csv(root: Path) -> tuple[Path, Path] | None:
    """The Neural Resizer's label csv (columns "Image Name" and "emotion") and the folder of train/ and test/.

    Shape: path -> two paths, or None.
    """
    for folder in (root, root / "data"):
        for path in sorted(folder.glob("*.csv"), key=lambda p: (p.name != "fer2013new_jin2.csv", p.name)):
            header = _first_line(path)
            if b"image name" not in header or b"emotion" not in header:
                continue
            for base in (folder, folder / "data"):
                if any((base / split).is_dir() for split in SPLITS):
                    return path, base
    return None


def microsoft(root: Path, split: str) -> Source:
    """Microsoft's folders: ``FER2013Train/*.png`` beside ``label.csv``. Shape: path, text -> Source (grey,
    N faces).
    """
    folder = microsoft_folder(root, split)
    if folder is None:
        raise DataError(f"{root}: no folder {FOLDERS[split]} for split {split!r} in it or in its data/")
    names, votes, skipped = read_label_csv(folder / "label.csv")
    good = usable_files(folder, names, skipped)
    listed = {*names, *(skip.name for skip in skipped)}
    for file in list_folder(folder):
        if file.lower().endswith(SUFFIXES) and file not in listed:
            skipped.append(Skip(file, "no row in label.csv"))
    kept = [name for name, ok in zip(names, good, strict=True) if ok]
    if not kept:
        raise DataError(
            f"{folder}: none of the {len(names):,} images named in label.csv is there. Write them with "
            "Microsoft's generate_training_data.py, or put Kaggle's fer2013.csv beside fer2013new.csv"
        )
    paths = [folder / name for name in kept]
    side = common_side(paths, 48)
    return Source(
        "ferplus", "microsoft", split, EMOTIONS_FERPLUS, kept, torch.full((len(kept),), -1),
        votes[torch.tensor(good)], FileReader(paths, "L", side), side, 1, skipped,
    )  # fmt: skip


def kaggle(root: Path, split: str) -> Source:
    """Kaggle's ``fer2013.csv`` (or ``icml_face_data.csv``) with votes from ``fer2013new.csv``, joined by
    position.

    Shape: path, text -> Source (grey 48 px). Raises DataError if one of the files is missing, or if they
    do not have the same number of rows and the same Usage in each.
    """
    pixels, new = kaggle_files(root)
    if pixels is None or new is None:
        missing = (
            "fer2013new.csv (Microsoft's FERPlus repository)" if pixels else "fer2013.csv (Kaggle, FER2013)"
        )
        raise DataError(f"{root}: {missing} is not there; both csv files belong in one folder")
    usage, names, votes = read_fer2013new(new)
    header, starts, ends = scan_lines(pixels)
    if "pixels" not in header or "Usage" not in header:
        raise DataError(f"{pixels}: columns are {', '.join(header)}; expected emotion, pixels and Usage")
    if len(starts) != len(names):
        raise DataError(
            f"{pixels} has {len(starts):,} faces and {new.name} {len(names):,} rows; they must match "
            "row by row. Take both files whole and unsorted"
        )
    wrong = next((i for i, (u, e) in enumerate(zip(usage, ends, strict=True)) if u.encode() not in e), None)
    if wrong is not None:
        raise DataError(
            f"{pixels}: face {wrong + 1} is not marked {usage[wrong]!r} as {new.name} has it: another "
            "order, or a damaged line; take both files anew"
        )
    skipped, rows, seen = [], [], set()
    for i in range(len(names)):
        if usage[i] != USAGE[split]:
            continue
        reason = None
        if not names[i]:
            reason = "no image name in fer2013new.csv (FER+ removed the picture)"
        elif votes[i].sum() == 0:
            reason = NO_VOTES
        elif names[i] in seen:
            reason = "named again (the first row counts)"
        if reason:
            skipped.append(Skip(names[i] or f"row {i + 1}", reason))
        else:
            rows.append(i)
        seen.add(names[i])
    if not rows:
        raise DataError(f"{new}: no row of usage {USAGE[split]!r}, so split {split!r} is empty")
    kept = [names[i] for i in rows]
    reader = PixelRows(pixels, [starts[i] for i in rows], header.index("pixels"), kept)
    return Source(
        "ferplus", "kaggle", split, EMOTIONS_FERPLUS, kept, torch.full((len(rows),), -1), votes[rows],
        reader, 48, 1, skipped, ["votes come from fer2013new.csv; label.csv differs for some images"],
    )  # fmt: skip


def _image_number(name: str) -> int:
    digits = "".join(c for c in Path(name).stem.split("_")[0] if c.isdigit())
    return int(digits) if digits else -1


def _usage_names(rows: list[list[str]], usage: int, name: int) -> tuple[dict[str, str], str]:
    """Which Usage name means which split in a Neural Resizer csv, told by the image numbers where they can
    tell.
    """
    public = [n for row in rows if row[usage] == "PublicTest" and (n := _image_number(row[name])) >= 0]
    private = [n for row in rows if row[usage] == "PrivateTest" and (n := _image_number(row[name])) >= 0]
    # FER2013's order is training, public, private: of two groups the one with the higher numbers is private
    if public and private and max(public) < min(private) and min(private) >= FIRST_TEST_IMAGE:
        return USAGE, "its Usage names are Microsoft's"
    return USAGE_NEURAL_RESIZER, (
        "the csv's PrivateTest is Microsoft's PublicTest and the other way round; "
        "'valid' and 'test' mean Microsoft's here"
    )


def neural_resizer(root: Path, split: str) -> Source:
    """The Neural Resizer repository's layout: ``train/``, ``test/`` and a csv of decided labels.

    Its csv exchanges the names PublicTest and PrivateTest against Microsoft's (fer0032223.png is
    PrivateTest there, PublicTest here); ``split`` always means Microsoft's, so "test" reads the rows
    marked PublicTest. The file's vote columns are one-hot, so there are labels but no votes. Images may be
    super-resolved (``..._x8_SR.png``).

    Shape: path, text -> Source (grey, labels given, no votes). Raises DataError as :func:`microsoft`.
    """
    found = neural_resizer_csv(root)
    if found is None:
        raise DataError(f"{root}: no csv with columns 'Image Name' and 'emotion' beside train/ and test/")
    path, base = found
    header, *table = read_table(path)
    cells = [cell.lower() for cell in header]
    if "usage" not in cells:
        raise DataError(f"{path}: columns are {', '.join(header)}; expected Usage, Image Name and emotion")
    usage, name, emotion = (cells.index(c) for c in ("usage", "image name", "emotion"))
    whole = [row for row in table if len(row) == len(header)]
    torn = [row for row in table if len(row) != len(header)]
    skipped = [Skip(",".join(row)[:40], f"row has not {len(header)} columns") for row in torn]
    meaning, note = _usage_names(whole, usage, name)
    rows = [row for row in whole if row[usage] == meaning[split]]
    folder = next((f for s in (split, "train", "test") if (f := base / s).is_dir()), base)
    present = set(list_folder(folder))
    kept, labels, paths, seen = [], [], [], set()
    for row in rows:
        reason, file = None, None
        try:
            stem, dot, suffix = safe_name(row[name]).rpartition(".")
            file = next((f for u in UPSCALED if (f := f"{stem}{u}{dot}{suffix}") in present), None)
            reason = None if file else "file is not there"
        except DataError as error:
            reason = str(error)
        if row[name] in seen:
            reason = "named again (the first row counts)"
        elif not reason and row[emotion] not in {str(k) for k in range(len(EMOTIONS_FERPLUS))}:
            reason = "emotion is not one of 0 to 7"
        seen.add(row[name])
        if reason or file is None:
            skipped.append(Skip(row[name], reason or "file is not there"))
        else:
            kept.append(row[name])
            labels.append(int(row[emotion]))
            paths.append(folder / file)
    if not kept:
        raise DataError(f"{folder}: none of the {len(rows):,} {split!r} images named in {path.name} is there")
    side = common_side(paths, 48)
    return Source(
        "ferplus", "neural-resizer", split, EMOTIONS_FERPLUS, kept, torch.tensor(labels), None,
        FileReader(paths, "L", side), side, 1, skipped, [note],
    )  # fmt: skip
