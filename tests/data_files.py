"""Tiny data sets in every layout, written from random pixels, for the tests of ferlib.data."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ferlib.data.ferplus import FOLDERS, USAGE
from ferlib.data.labels import VOTE_COLUMNS

FIRST = {"train": 0, "valid": 28638, "test": 32220}  # first image numbers of FER2013's splits


def picture(seed: int, side: int = 48, channels: int = 1) -> np.ndarray:
    """Random pixels (side, side) or (side, side, 3)."""
    shape = (side, side) if channels == 1 else (side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def votes_for(label: int, count: int = 7, unknown: int = 0) -> list[int]:
    """Ten votes: `count` for one expression, `unknown` for "unknown", the rest for the next expression."""
    votes = [0] * len(VOTE_COLUMNS)
    votes[label] = count
    votes[8] = unknown
    votes[(label + 1) % 8] += 10 - count - unknown
    return votes


def name_of(split: str, i: int) -> str:
    return f"fer{FIRST[split] + i:07d}.png"


def write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def microsoft(root: Path, counts: dict[str, int], side: int = 48) -> Path:
    """Microsoft's layout; face i of a split has label i % 8."""
    for split, count in counts.items():
        folder = root / "data" / FOLDERS[split]
        rows = []
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(picture(FIRST[split] + i, side)).save(folder / name_of(split, i))
            rows.append([name_of(split, i), f"(0, 0, {side}, {side})", *votes_for(i % 8)])
        write_rows(folder / "label.csv", rows)
    return root


def kaggle(root: Path, counts: dict[str, int], *, icml: bool = False) -> Path:
    """Kaggle's csv of pixels beside fer2013new.csv, the same faces as `microsoft`."""
    new = [["Usage", "Image name", *VOTE_COLUMNS]]
    pixels = [["emotion", " Usage", " pixels"]] if icml else [["emotion", "pixels", "Usage"]]
    for split, count in counts.items():
        for i in range(count):
            new.append([USAGE[split], name_of(split, i), *map(str, votes_for(i % 8))])
            text = " ".join(map(str, picture(FIRST[split] + i).ravel()))
            pixels.append(["0", USAGE[split], text] if icml else ["0", text, USAGE[split]])
    write_rows(root / "fer2013new.csv", new)
    write_rows(root / ("icml_face_data.csv" if icml else "fer2013.csv"), pixels)
    return root


def neural_resizer(root: Path, counts: dict[str, int], *, suffix: str = "", side: int = 48) -> Path:
    """The Neural Resizer's layout, with the two test names exchanged as in its csv."""
    usage = {"train": "Training", "valid": "PrivateTest", "test": "PublicTest"}
    rows = [["Usage", "Image Name", *map(str, range(8)), "UNK", "NF", "emotion"]]
    for split, count in counts.items():
        folder = root / "data" / split
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            name = name_of(split, i)
            Image.fromarray(picture(FIRST[split] + i, side)).save(
                folder / name.replace(".png", f"{suffix}.png")
            )
            hot = [1.0 if k == i % 8 else 0.0 for k in range(10)]
            rows.append([usage[split], name, *hot, i % 8])
    write_rows(root / "data" / "fer2013new_jin2.csv", rows)
    return root


def rafdb_official(root: Path, counts: dict[str, int]) -> Path:
    """RAF-DB's official layout; face i has label i % 7 (written 1 to 7)."""
    images = root / "basic" / "Image" / "aligned"
    images.mkdir(parents=True, exist_ok=True)
    lines = []
    for split, count in counts.items():
        for i in range(count):
            Image.fromarray(picture(i, 100, 3)).save(images / f"{split}_{i + 1:05d}_aligned.jpg", quality=95)
            lines.append(f"{split}_{i + 1:05d}.jpg {i % 7 + 1}")
    labels = root / "basic" / "EmoLabel" / "list_patition_label.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("\n".join(lines) + "\n")
    return root


def class_folders(root: Path, splits: dict[str, int], labels: Sequence[str], side: int = 100) -> Path:
    """split/label/*.jpg with the given number of faces per class."""
    for split, count in splits.items():
        for k, label in enumerate(labels):
            folder = root / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.fromarray(picture(100 * k + i, side, 3)).save(folder / f"{split}_{k}_{i}.jpg")
    return root


def affectnet_official(root: Path, expressions: dict[str, Sequence[int]], side: int = 64) -> Path:
    """AffectNet's official layout: face i of a split is annotated with expressions[split][i]."""
    for split, numbers in expressions.items():
        for part in ("images", "annotations"):
            (root / split / part).mkdir(parents=True, exist_ok=True)
        for i, number in enumerate(numbers):
            Image.fromarray(picture(i, side, 3)).save(root / split / "images" / f"{i}.jpg")
            np.save(root / split / "annotations" / f"{i}_exp.npy", np.array(str(number)))
            np.save(root / split / "annotations" / f"{i}_val.npy", np.array("0.5"))
    return root
