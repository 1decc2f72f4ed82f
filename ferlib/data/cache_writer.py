"""Writing a prepared split piece by piece, so that a kill at any moment loses at most one piece.

Images are appended to ``<out>/.prepare/<split>.images.npy``; after each piece one line goes to the journal
beside it, with the piece's checksum and the faces that were left out. Whoever comes back checks the
written pieces against the journal, cuts off what is not in it, and goes on. Files move to their place when
they are complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ferlib.data.base import DataError
from ferlib.data.cache import FORMAT, file_record
from ferlib.data.listing import Skip
from ferlib.data.sources import Source

WORK = ".prepare"
HEADER = 128  # bytes before the pixels: numpy's format, padded so that the final count fits in later


def npy_header(count: int, shape: tuple[int, int, int]) -> bytes:
    """The first 128 bytes of a .npy file of uint8 images. Shape: N and (C, H, W) -> bytes."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(count, *shape)}, }}"
    room = HEADER - 10
    if len(text) + 1 > room:
        raise DataError(f"images of shape {(count, *shape)} are too large to store")
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1).encode("latin1") + b"\n"


def fingerprint(source: Source, settings: dict[str, Any]) -> str:
    """One short text that changes when anything changes from which a prepared split follows. Shape: -> 32
    hex digits.

    It covers names, labels, votes, what is already left out, file sizes and settings; not the bytes of
    every image.
    """
    digest = hashlib.blake2b(digest_size=16)
    facts = [
        FORMAT,
        source.dataset,
        source.layout,
        source.split,
        source.classes,
        source.side,
        source.channels,
    ]
    digest.update(json.dumps([*facts, settings, source.names], sort_keys=True).encode())
    digest.update(json.dumps([[s.name, s.reason] for s in source.skipped]).encode())
    digest.update(source.labels.numpy().astype("<i8").tobytes())
    digest.update(b"" if source.votes is None else source.votes.numpy().astype("<f4").tobytes())
    digest.update(json.dumps(source.read.content()).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder for one process; a second one waits or is refused. Shape: path -> context. Raises
    DataError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            import fcntl  # POSIX only; elsewhere two processes at once stay the user's care
        except ImportError:
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise DataError(
                f"{folder.parent}: another process is preparing it right now; wait for it"
            ) from None
        yield


class SplitWriter:
    """One split on its way into the cache.

    ``next`` is the index of the first face of the source that is not yet written; ``append`` takes the
    faces from there on, and ``finish`` puts the complete files into their place.

    Shape: pieces of uint8 ``(n, C, H, W)``. Raises DataError where writing fails.
    """

    def __init__(self, out: Path, source: Source, key: str, shape: tuple[int, int, int]):
        self.out, self.source, self.shape = out, source, shape
        self.work = out / WORK
        self.work.mkdir(parents=True, exist_ok=True)
        self.images = self.work / f"{source.split}.images.npy"
        self.journal = self.work / f"{source.split}.journal"
        self.head = {"fingerprint": key, "shape": list(shape), "total": len(source)}
        self.next, self.pieces = 0, 0
        self.left_out: dict[int, str] = {}
        self._resume()

    def _resume(self) -> None:
        place = HEADER
        lines = _journal_lines(self.journal)
        if self.images.is_file() and lines and lines[0] == self.head:
            with self.images.open("rb") as file:
                file.seek(HEADER)
                for line in lines[1:]:
                    piece = file.read(line["bytes"])
                    if len(piece) != line["bytes"] or zlib.crc32(piece) != line["crc32"]:
                        break  # the tail is not what was written: from here on it is made again
                    place += line["bytes"]
                    self._count(line)
        kept = lines[: 1 + self.pieces] if lines and lines[0] == self.head else [self.head]
        if not self.images.is_file():
            self.images.write_bytes(b"")
        with self.images.open("r+b") as file:
            file.truncate(max(place, HEADER))
            file.seek(0)
            file.write(npy_header(0, self.shape))
        temporary = self.journal.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.journal)

    def _count(self, line: dict[str, Any]) -> None:
        self.pieces += 1
        self.next = line["stop"]
        self.left_out.update((index, reason) for index, reason in line["left_out"])

    def append(self, images: np.ndarray, stop: int, left_out: dict[int, str]) -> None:
        """Add the faces ``next .. stop`` but those left out. Shape: uint8 ``(n, C, H, W)``, index, index
        -> reason.
        """
        data = np.ascontiguousarray(images).tobytes()
        line = {
            "stop": stop,
            "bytes": len(data),
            "crc32": zlib.crc32(data),
            "left_out": sorted(left_out.items()),
        }
        with self.images.open("ab") as file:
            file.write(data)
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._count(line)

    def finish(self) -> dict[str, Any]:
        """Complete the split's files and move them into their place. Shape: -> the split's part of the
        manifest.
        """
        source, split = self.source, self.source.split
        rows = [i for i in range(len(source)) if i not in self.left_out]
        with self.images.open("r+b") as file:
            file.write(npy_header(len(rows), self.shape))
        arrays = {f"{split}.labels.npy": source.labels[rows].numpy().astype("<i2")}
        if source.votes is not None:
            arrays[f"{split}.votes.npy"] = source.votes[rows].numpy().astype("<f4")
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            (self.work / name).write_bytes(buffer.getvalue())
        names = f"{split}.names.txt"
        lines = "".join(source.names[i] + "\n" for i in rows)
        (self.work / names).write_bytes(lines.encode("utf-8", "surrogateescape"))
        files = [self.images.name, *arrays, names]
        records = {name: file_record(self.work / name) for name in files}
        for name in files:
            os.replace(self.work / name, self.out / name)
        self.journal.unlink()
        skipped = [*source.skipped, *(Skip(source.names[i], why) for i, why in sorted(self.left_out.items()))]
        return {
            "count": len(rows),
            "fingerprint": self.head["fingerprint"],
            "files": records,
            "skipped": [[skip.name, skip.reason] for skip in skipped],
            "notes": source.notes,
        }


def _journal_lines(path: Path) -> list[dict[str, Any]]:
    """The journal's whole lines; a line torn by a kill ends it."""
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                line = json.loads(text) if text.endswith("\n") else None
            except ValueError:
                line = None
            if not isinstance(line, dict):
                break
            lines.append(line)
    return lines
