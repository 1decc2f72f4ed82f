"""A prepared data set: one folder of plain arrays that opens in no time and is read without decoding.

::

    cache.json            what it is: data set, layout, classes, image shape, per split counts and checksums
    train.images.npy      uint8 (N, C, H, W), memory-mapped; numpy.load reads it too
    train.labels.npy      int16 (N,), -1 where a rule on the votes decides
    train.votes.npy       float32 (N, columns), where the data set has votes
    train.names.txt       N names, one a line
    skipped.csv           split, name, reason of every face that was left out

``cache.json`` is written last, so a folder with it is whole. Checksums are CRC-32 of 4 MiB blocks.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ferlib.data.base import DataError
from ferlib.data.listing import Skip
from ferlib.data.sources import Source

FORMAT = 1
MANIFEST = "cache.json"
BLOCK = 4 << 20
AGAIN = "prepare it again with `ferlib prepare`"


def is_cache(root: Path) -> bool:
    """Whether a folder is a prepared cache. Shape: path -> bool."""
    return (root / MANIFEST).is_file()


def block_checksums(path: Path, blocks: list[int] | None = None) -> list[int]:
    """CRC-32 of a file's 4 MiB blocks, all of them or the chosen ones. Shape: path -> ints, one per block."""
    total = max(1, -(-path.stat().st_size // BLOCK))
    sums = []
    with path.open("rb") as file:
        for block in range(total) if blocks is None else blocks:
            file.seek(block * BLOCK)
            sums.append(zlib.crc32(file.read(BLOCK)))
    return sums


def file_record(path: Path) -> dict[str, Any]:
    """Size and checksums of a file as the manifest keeps them. Shape: path -> dict(bytes, crc32)."""
    return {"bytes": path.stat().st_size, "crc32": block_checksums(path)}


def read_manifest(root: Path) -> dict[str, Any]:
    """The contents of ``cache.json``. Shape: path -> dict. Raises DataError if it is missing, damaged or
    newer.
    """
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{root}: no prepared data ({MANIFEST} is not there); {AGAIN}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); {AGAIN}") from None
    needed = {"format", "dataset", "layout", "classes", "shape", "splits"}
    if not isinstance(manifest, dict) or not needed <= manifest.keys():
        raise DataError(f"{path}: not the description of a prepared data set; {AGAIN}")
    if manifest["format"] != FORMAT:
        raise DataError(f"{path}: format {manifest['format']!r}, this version reads {FORMAT}; {AGAIN}")
    return manifest


def verify(root: str | Path, *, full: bool = True, splits: Sequence[str] | None = None) -> dict[str, Any]:
    """Check a prepared cache against its checksums and return its manifest.

    ``full=False`` checks every file's size, the small files, and the first and last block of the images;
    ``True`` every byte.

    Shape: path -> the manifest's dict.

    Raises
    ------
    DataError: a file is missing, has another size, or other bytes than were written.

    Chapter 1.
    """
    root = Path(root)
    manifest = read_manifest(root)
    for split in manifest["splits"] if splits is None else splits:
        for name, record in manifest["splits"][split]["files"].items():
            path = root / name
            try:
                size = path.stat().st_size
                if size != record["bytes"]:
                    raise DataError(f"{path}: {size:,} bytes, {record['bytes']:,} were written; {AGAIN}")
                last = len(record["crc32"]) - 1
                blocks = list(range(last + 1)) if full or last < 2 else [0, last]
                if block_checksums(path, blocks) != [record["crc32"][b] for b in blocks]:
                    raise DataError(f"{path}: its bytes changed since they were written; {AGAIN}")
            except OSError as error:
                raise DataError(f"{path}: {error.strerror}; {AGAIN}") from None
    return manifest


class MappedImages:
    """Faces in a memory-mapped array. Shape: index -> uint8 ``(C, H, W)``; ``many(rows)`` -> ``(n, C, H,
    W)``.

    Only the path travels to a loader process, which maps the file itself.
    """

    def __init__(self, path: Path):
        self.path = path
        self._open()

    def _open(self) -> None:
        try:
            self.images = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: {error}; {AGAIN}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()

    def __call__(self, index: int) -> np.ndarray:
        return np.array(self.images[index])

    def content(self) -> list[int]:
        """The checksums of the array's blocks. Shape: -> ints."""
        return block_checksums(self.path)

    def many(self, rows: torch.Tensor) -> torch.Tensor:
        """Read many rows at once. Shape: int64 ``(n,)`` -> uint8 ``(n, C, H, W)``."""
        return torch.from_numpy(self.images[rows.numpy()])


def cached_source(root: str | Path, split: str, dataset: str) -> Source:
    """One split of a prepared cache. Shape: path, text, text -> Source.

    Raises DataError if the cache is damaged, holds another data set, or lacks the split.
    """
    root = Path(root)
    manifest = read_manifest(root)
    if manifest["dataset"] != dataset:
        raise DataError(f"{root}: holds {manifest['dataset']!r}, not {dataset!r}")
    if split not in manifest["splits"]:
        raise DataError(f"{root}: has no split {split!r}, only {', '.join(manifest['splits'])}")
    verify(root, full=False, splits=[split])
    names = (root / f"{split}.names.txt").read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]
    labels = torch.from_numpy(np.load(root / f"{split}.labels.npy", allow_pickle=False)).long()
    votes = root / f"{split}.votes.npy"
    channels, side, _ = manifest["shape"]
    record = manifest["splits"][split]
    return Source(
        dataset, manifest["layout"], split, tuple(manifest["classes"]), names, labels,
        torch.from_numpy(np.load(votes, allow_pickle=False)) if votes.name in record["files"] else None,
        MappedImages(root / f"{split}.images.npy"), side, channels,
        [Skip(name, reason) for name, reason in record["skipped"]], list(record["notes"]),
    )  # fmt: skip
