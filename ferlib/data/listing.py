"""Looking through folders and label files: which names are there, which are safe, which are left out and
why.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ferlib.data.base import DataError
from ferlib.data.images import SUFFIXES, image_side


@dataclass(frozen=True)
class Skip:
    """One face that is left out: its name, and why. Shape: two strings. Chapter 1."""

    name: str
    reason: str


def check_root(root: str | os.PathLike[str]) -> Path:
    """A data folder as a path. Shape: path -> path. Raises DataError if it is missing or no folder."""
    root = Path(root).expanduser()
    if root.is_dir():
        return root
    if root.exists():
        raise DataError(f"{root}: a file; give the folder it lies in")
    raise DataError(f"{root}: the folder is not there")


def check_split(split: str, splits: Sequence[str]) -> None:
    """Refuse an unknown split with the known ones. Shape: text, texts -> None."""
    if split not in splits:
        raise DataError(f"split {split!r}; choose one of {', '.join(splits)}")


def list_folder(folder: Path) -> list[str]:
    """Sorted names in a folder, without hidden ones. Shape: path -> texts. Raises DataError if it cannot
    be opened.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        raise DataError(f"{folder}: the folder is not there") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be opened as a folder ({error.strerror})") from None


def summarise(skipped: Sequence[Skip], shown: int = 5) -> str:
    """Skipped faces as text: for each reason its count and the first names. Shape: list -> lines of text."""
    groups: dict[str, list[str]] = {}
    for skip in skipped:
        groups.setdefault(skip.reason, []).append(skip.name)
    lines = []
    for reason, names in sorted(groups.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(names) > shown else ""
        lines.append(f"{len(names):7,}  {reason}: {', '.join(names[:shown])}{more}")
    return "\n".join(lines)


def safe_name(name: str) -> str:
    """A file name from a label file, if it stays inside its folder.

    Shape: text -> the same text. Raises DataError for absolute names, drive letters, back-slashes, ``..``,
    control characters and empty names.
    """
    path = PurePosixPath(name)
    bad = (
        not name.strip()
        or "\\" in name
        or ":" in name
        or any(ord(c) < 32 for c in name)
        or path.is_absolute()
        or ".." in path.parts
    )
    if bad:
        raise DataError("not a name inside the folder")
    return name


def read_table(path: Path, *, delimiter: str | None = ",") -> list[list[str]]:
    """Rows of a small text table, cells stripped, blank lines left out; ``delimiter=None`` splits at white
    space.

    Shape: path -> N lists of text. Raises DataError if the file is missing, unreadable, empty or no UTF-8
    text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: the label file is not there") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8: save the label file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if delimiter is None:
        rows = [line.split() for line in text.splitlines()]
    else:
        try:
            rows = [
                [cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter)
            ]
        except csv.Error as error:
            raise DataError(f"{path}: not a readable csv file ({error})") from None
    rows = [row for row in rows if any(row)]
    if not rows:
        raise DataError(f"{path}: the label file is empty")
    return rows


def usable_files(folder: Path, wanted: Iterable[str], skipped: list[Skip]) -> list[bool]:
    """Which named files exist below a folder, in order; the others join ``skipped``, as do second mentions
    of a name.

    Shape: N names -> N booleans.
    """
    list_folder(folder)  # says clearly when the folder cannot be opened
    solid = {entry.name for entry in os.scandir(folder) if not entry.is_symlink()}
    good, seen = [], set()
    for name in wanted:
        reason = None
        try:
            safe_name(name)
            if name in seen:
                reason = "named again (the first row counts)"
            elif name not in solid and not os.path.exists(folder / name):  # links may lead nowhere
                reason = "file is not there"
        except DataError as error:
            reason = str(error)
        seen.add(name)
        if reason:
            skipped.append(Skip(name, reason))
        good.append(reason is None)
    return good


def class_folders(
    folder: Path, labels: Mapping[str, int], what: str
) -> tuple[list[str], list[int], list[Skip]]:
    """Images in one folder per class, sorted by class and name.

    ``labels``: folder name in lower case -> label; ``what`` says in words which names are classes.

    Shape: returns N names ("class/file"), N labels, and what was left out: other folders, files that are
    no images.
    """
    names, numbers, skipped = [], [], []
    for entry in sorted(list_folder(folder), key=lambda e: (labels.get(e.lower(), 99), e)):
        label = labels.get(entry.lower())
        if not (folder / entry).is_dir():
            skipped.append(Skip(entry, "lies beside the class folders, so it has no label"))
            continue
        for name in list_folder(folder / entry):
            inner = f"{entry}/{name}"
            if label is None:
                skipped.append(Skip(inner, f"its folder is no class ({what})"))
            elif not name.lower().endswith(SUFFIXES):
                skipped.append(Skip(inner, "not an image by its ending"))
            else:
                names.append(inner)
                numbers.append(label)
    return names, numbers, skipped


def common_side(paths: Sequence[Path], usual: int) -> int:
    """The side most of some 25 square pictures have, taken from the whole list, so that damaged files at its
    front do not decide; the usual one on a tie or where none can be read.

    Shape: paths -> pixels.
    """
    some = paths[:: max(1, -(-len(paths) // 25))]
    sides = Counter(side for side in map(image_side, some) if side)
    best = max(sides.values(), default=0)
    winners = [side for side, count in sides.items() if count == best]
    return usual if usual in winners or not winners else max(winners)
