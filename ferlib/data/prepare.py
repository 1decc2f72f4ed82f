"""From the files people download to one compact, checksummed folder: what ``ferlib prepare`` does.

A prepared folder opens in no time and is read without decoding::

    cache.json            what it is: data set, layout, classes, image shape, per split counts and checksums
    train.images.npy      uint8 (N, C, H, W), memory-mapped; numpy.load reads it too
    train.labels.npy      int16 (N,), -1 where a rule on the votes decides
    train.votes.npy       float32 (N, columns), where the data set has votes
    train.names.txt       N names, one a line
    skipped.csv           split, name, reason of every face that was left out

``cache.json`` is written last, so a folder with it is whole. Checksums are CRC-32 of 4 MiB blocks. While it
is made, images are appended to ``.prepare/<split>.images.npy``; after each piece one line goes to the
journal beside it, so that a kill at any moment loses at most one piece. numpy's memory maps cannot do that:
they need the number of readable faces before the first is read, and a full disk ends the process.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from ferlib.data.base import DataError, FaceDataset, Skip, Source, SourceDataset, summarize
from ferlib.data.twins import find_twins, told
from ferlib.errors import cell, choose
from ferlib.files import write_text
from ferlib.images import to_pillow, to_planes

FORMAT = 1
MANIFEST, WORK = "cache.json", ".prepare"
BLOCK = 4 << 20  # bytes of a checksum
PIECE_BYTES = 4 << 20  # what is decoded, enlarged and written at once, and so what a kill can lose
AGAIN = "prepare it again with `ferlib prepare`"


def check_root(root: str | os.PathLike[str]) -> Path:
    """A data folder as a path. Raises DataError if it is missing or no folder."""
    root = Path(root).expanduser()
    if root.is_dir():
        return root
    raise DataError(
        "a file; give the folder it lies in" if root.exists() else "the folder is not there", root
    )


def list_folder(folder: Path) -> list[str]:
    """Sorted names in a folder, without hidden ones. Raises DataError if it cannot be opened."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith((".", "__MACOSX")))
    except OSError as error:
        raise DataError(f"cannot be opened as a folder ({error.strerror})", folder) from None


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return [path for name in list_folder(folder) if (path := folder / name).is_dir()]


# ---- the data sets, and the layouts in which they come ----


@dataclass(frozen=True)
class Kind:
    """A data set that people download, in whichever layout its folder has.

    Attributes:
        name, title: "rafdb", "RAF-DB".
        expected: The layouts that are known, for people.
        classes: Its classes in label order.
        splits: The splits it has, with the names of their folders.
        look: Folder -> layout, and for each split that is there where it lies; None for another data set.
        read: Where the splits lie, layout, split -> Source.
        instead: Split -> what is read where it is not there.
        published: How many faces each split has.
        first: The number of the first class where its folders are numbered.
    """

    name: str
    title: str
    expected: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    look: Callable[[Path], tuple[str, dict[str, Any]] | None]
    read: Callable[[dict[str, Any], str, str], Source]
    instead: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    first: int = 0

    def find(self, root: Path) -> tuple[str, dict[str, Any]]:
        """The layout of a folder, "" for none, and where each split that it holds lies.

        Where a folder holds nothing but one other folder, as unpacked archives do, that one is looked at.
        """
        while True:
            if is_cache(root):
                manifest = read_manifest(root)
                ours = manifest["dataset"] == self.name
                return ("prepared", dict.fromkeys(manifest["splits"], root)) if ours else ("", {})
            if found := self.look(root):
                return found
            if len(entries := list_folder(root)) != 1 or not (root := root / entries[0]).is_dir():
                return "", {}

    def open(self, root: str | os.PathLike[str], split: str) -> Source:
        """One split of a folder.

        Raises:
            DataError: The folder holds no such data set, or lacks the split, or its classes are numbered
                otherwise.
        """
        root = check_root(root)
        if split not in self.splits:
            raise DataError(f"split {split!r}; choose one of {', '.join(self.splits)}")
        layout, there = self.find(root)
        if not layout:
            raise DataError(f"no {self.title} found. Expected one of: {self.expected}", root)
        real = self.instead.get(split, split) if split not in there else split
        if real not in there:
            raise DataError(f"has no split {split!r}, only {', '.join(there)}", root)
        source = _prepared(there[real], real) if layout == "prepared" else self.read(there, layout, real)
        if source.classes != self.classes:
            raise DataError(f"its classes are {', '.join(map(str, source.classes))}; {AGAIN}", root)
        if real != split:
            source.split = split
            source.notes.append(
                f"{self.title}'s {split} set was never published; papers report on its validation set, so "
                f"{split!r} reads that"
            )
        return source

    def doubts(self, sources: Mapping[str, Source]) -> list[str]:
        """What may be wrong with splits that can be read, one line for each."""
        found = []
        for split, source in sources.items():
            there, gone = len(source), len(source.skipped)
            if 5 * gone > there:
                found.append(f"{split}: {gone:,} faces of {there + gone:,} are left out")
        labels = {label for source in sources.values() for label in source.labels.tolist()}
        if all(source.votes is None for source in sources.values()):  # votes give labels by a rule
            found += [f"no face of {name!r}" for k, name in enumerate(self.classes) if k not in labels]
        return found


#: The data sets by name; ``ferlib.data.ferplus`` and ``ferlib.data.folders`` enter theirs.
DATASETS: dict[str, Kind] = {}


def kinds_in(root: Path) -> list[Kind]:
    """The data sets that a folder may hold: of several, those whose classes fit, the best one first.

    Folders with the expressions' names fit RAF-DB and AffectNet; with numbers only one of them. The best one
    has the fewest classes without a face, and then leaves out the fewest files.
    """
    kinds = [kind for kind in DATASETS.values() if kind.find(root)[0]]
    empty: dict[str, tuple[int, int]] = {}
    for kind in kinds if len(kinds) > 1 else []:
        try:
            source = kind.open(root, next(iter(kind.find(root)[1])))
        except DataError:
            continue
        lacking = int((torch.bincount(source.labels, minlength=len(kind.classes)) == 0).sum())
        empty[kind.name] = lacking, len(source.skipped)
    return sorted((k for k in kinds if k.name in empty), key=lambda k: empty[k.name]) or kinds


# ---- a prepared folder ----


def is_cache(root: Path) -> bool:
    """Whether a folder is a prepared one."""
    return (root / MANIFEST).is_file()


def read_manifest(root: Path) -> dict[str, Any]:
    """The contents of ``cache.json``. Raises DataError if it is missing, damaged or newer."""
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"damaged ({error}); {AGAIN}", path) from None
    types = {"format": int, "dataset": str, "layout": str, "classes": list, "shape": list, "splits": dict}
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(k), t) for k, t in types.items()):
        raise DataError(f"not the description of a prepared data set; {AGAIN}", path)
    try:
        told(manifest.get("twins", {}))
        "".join(manifest["classes"])
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"damaged ({error}); {AGAIN}", path) from None
    if manifest["format"] != FORMAT:
        raise DataError(f"format {manifest['format']!r}, this version reads {FORMAT}; {AGAIN}", path)
    return manifest


def block_checksums(path: Path, blocks: Sequence[int] | None = None) -> list[int]:
    """CRC-32 of a file's 4 MiB blocks, all of them or the chosen ones."""
    sums = []
    with path.open("rb") as file:
        for block in range(max(1, -(-path.stat().st_size // BLOCK))) if blocks is None else blocks:
            file.seek(block * BLOCK)
            sums.append(zlib.crc32(file.read(BLOCK)))
    return sums


def verify(root: str | Path, *, full: bool = True, splits: Sequence[str] | None = None) -> dict[str, Any]:
    """Check a prepared folder against its checksums and return its description. Chapter 1.

    Args:
        root: The folder.
        full: Check every byte; otherwise every file's size, its first and its last block.
        splits: Which splits (default: all).

    Raises:
        DataError: A file is missing, has another size, or other bytes than were written.
    """
    root = Path(root)
    manifest = read_manifest(root)
    try:
        for split in manifest["splits"] if splits is None else splits:
            for name, record in manifest["splits"][split]["files"].items():
                path, sums = root / name, record["crc32"]
                if (size := path.stat().st_size) != record["bytes"]:
                    raise DataError(f"{size} bytes, {record['bytes']} were written; {AGAIN}", path)
                blocks = range(len(sums)) if full else sorted({0, len(sums) - 1})
                if block_checksums(path, blocks) != [sums[block] for block in blocks]:
                    raise DataError(f"its bytes changed since they were written; {AGAIN}", path)
    except OSError as error:
        raise DataError(f"{error.strerror}; {AGAIN}", path) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"damaged ({error!r}); {AGAIN}", root / MANIFEST) from None
    return manifest


class MappedImages:
    """Faces in a memory-mapped array. Only the path travels to a loader process, which maps the file
    itself."""

    def __init__(self, path: Path):
        self.path, self.images = path, np.load(path, mmap_mode="r", allow_pickle=False)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return MappedImages, (self.path,)

    def __call__(self, index: int) -> np.ndarray:
        return np.array(self.images[index])


def _prepared(root: Path, split: str) -> Source:
    """One split of a prepared folder. Raises DataError if it is damaged."""
    manifest = verify(root, full=False, splits=[split])
    try:
        record, (channels, side, _) = manifest["splits"][split], manifest["shape"]
        text = (root / f"{split}.names.txt").read_bytes().decode("utf-8", "surrogateescape")
        labels, votes = (
            torch.from_numpy(np.load(root / name, allow_pickle=False)) if name in record["files"] else None
            for name in (f"{split}.labels.npy", f"{split}.votes.npy")
        )
        return Source(
            manifest["dataset"],
            manifest["layout"],
            split,
            tuple(manifest["classes"]),
            text.split("\n")[:-1],
            labels.long(),
            votes,
            MappedImages(images := root / f"{split}.images.npy"),
            [images, root / MANIFEST],
            side,
            channels,
            [Skip(*pair) for pair in record["skipped"]],
            list(record["notes"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise DataError(f"damaged ({error!r}); {AGAIN}", root / MANIFEST) from None


# ---- enlarging ----


#: The interpolations of Pillow by name.
METHODS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}


def upscale(
    images: torch.Tensor, scale: int, method: str | Callable[..., torch.Tensor] = "bicubic"
) -> torch.Tensor:
    """Enlarge faces by a whole factor. The Neural Resizer takes 384 px; FER+ faces have 48. Chapter 1.

    Args:
        images: uint8 (B, C, H, W).
        scale: The factor, at most 16.
        method: A name of ``METHODS``, or a network that enlarges, such as ``ferlib.weights.dic_upscaler``
            makes: ``method(images, scale)`` with a ``name``, the ``scales`` it can do, the ``channels`` that
            it gives, and ``at_once``, the faces worth a piece of their own when a data set is prepared.

    Returns:
        uint8 (B, C, scale * H, scale * W), or as many channels as the method gives.

    Raises:
        DataError: Unknown method, a factor it cannot do, or pixels that are not uint8.
    """
    _check_method(method, scale)
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise DataError(f"expected uint8 (B, C, H, W), found {images.dtype} {tuple(images.shape)}")
    if isinstance(method, str):
        size = (images.shape[3] * scale, images.shape[2] * scale)
        large = [to_pillow(planes).resize(size, METHODS[method]) for planes in images.numpy()]
        return torch.from_numpy(np.stack([to_planes(np.array(image)) for image in large]))
    try:
        return method(images, scale)
    except ValueError as error:  # networks know nothing of data sets and have errors of their own
        raise DataError(f"method {method.name!r}: {error}") from None


def _check_method(method: str | Callable[..., torch.Tensor], scale: int) -> None:
    if isinstance(method, str):
        choose("method", method, METHODS, DataError)
    choose("upscale", scale, getattr(method, "scales", range(1, 17)), DataError)


# ---- preparing ----


@dataclass
class PrepareReport:
    """What a prepared folder holds; ``str(report)`` is text for people. Chapter 1.

    Attributes:
        out: The folder.
        manifest: Its description, as ``cache.json`` has it.
        already: Splits that were there before.
        counts: Faces of each split.
        skipped: What was left out of each split.
    """

    out: Path
    manifest: dict[str, Any]
    already: list[str]

    def __post_init__(self) -> None:
        splits = self.manifest["splits"].items()
        self.counts = {split: record["count"] for split, record in splits}
        self.skipped = {split: [Skip(*pair) for pair in record["skipped"]] for split, record in splits}

    def __str__(self) -> str:
        of, side = self.manifest, self.manifest["shape"][1]
        lines = [f"{of['dataset']} ({of['layout']}), {side} x {side} px, in {self.out}"]
        for split, skipped in self.skipped.items():
            again = " (was already there)" if split in self.already else ""
            lines.append(f"  {split:<6}{self.counts[split]:8,} faces{again}")
            if skipped:
                lines.append(f"        {len(skipped):8,} left out:")
                lines += ["         " + line for line in summarize(skipped).splitlines()]
            lines += [f"         note: {note}" for note in of["splits"][split]["notes"]]
        lines += [f"  copies with the same pixels: {line}" for line in told(of["twins"])]
        if any(self.skipped.values()):
            lines.append(f"  every face left out, with its reason: {self.out / 'skipped.csv'}")
        return "\n".join(lines)


def prepare(
    dataset: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    upscale: int = 1,
    method: str | Callable[..., torch.Tensor] = "bicubic",
    twins: str = "keep",
    workers: int | None = None,
    progress: bool = True,
    wait: bool = False,
) -> PrepareReport:
    """Read a downloaded data set once, check every face, and store it as plain arrays.

    Killed at any moment and started again with the same words it goes on where it stopped, and the files it
    leaves are the same, byte by byte, as those of an undisturbed run. Chapter 1.

    Args:
        dataset: ``"ferplus"``, ``"rafdb"`` or ``"affectnet"``.
        source: The downloaded folder, in any layout, or another prepared folder.
        out: The folder to make.
        splits: Which splits (default: all that are there).
        upscale: Enlarge by this whole factor.
        method: How, as :func:`upscale` takes it.
        twins: ``"keep"`` all faces, or ``"drop-across"``: leave out of "train" the faces with a copy, exact
            or nearly so, in another split of the folder. The other splits stay whole, so that accuracy on
            them can be compared with what is published.
        workers: Decoding threads (default: one per processor, at most 8).
        progress: Show a bar on standard error.
        wait: When another process prepares the same folder, wait for it instead of refusing.

    Returns:
        What was prepared: uint8 (N, C, S, S), S ``upscale`` times the side as stored, and what was left out.

    Raises:
        DataError: Nothing usable found, ``out`` holds something else, no room on the disk, unknown method.
    """
    kind = DATASETS[choose("dataset", dataset, DATASETS, DataError)]
    choose("twins", twins, ("keep", "drop-across"), DataError)
    root, out = check_root(source), Path(out).expanduser()
    if out.resolve() == root.resolve():
        raise DataError("source and out are the same folder; give another --out", out)
    _check_method(method, upscale)
    there = kind.find(root)[1]
    sources = [kind.open(root, split) for split in splits or there or kind.splits]
    if len(sides := {s.side for s in sources}) > 1:
        raise DataError(f"splits have faces of {sorted(sides)} pixels; prepare each with --splits", root)
    settings = {"upscale": upscale, "method": getattr(method, "name", method) if upscale > 1 else None}
    if twins != "keep":
        settings["twins"] = twins
    first, already = sources[0], []
    side = upscale * first.side
    new = {
        "format": FORMAT,
        "dataset": dataset,
        "layout": first.layout,
        "classes": list(first.classes),
        "shape": [getattr(method, "channels", first.channels), side, side],
        "settings": settings,
    }
    try:
        _existing(out)
        lock, held = FileLock(out / WORK / "lock", timeout=-1 if wait else 0), None
        while held is None:
            (out / WORK).mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another process has just finished, and removed the folder
                held = lock.acquire()
        with held:
            manifest = {**new, "splits": {}, **_existing(out)}
            for key in (key for key in new if manifest[key] != new[key]):
                what = f"{key} {manifest[key]!r} there, {new[key]!r} now"
                raise DataError(f"was prepared otherwise ({what}); give another --out, or remove it", out)
            dropped = {}
            if twins != "keep" and any(one.split == "train" for one in sources):
                dropped = copies_across({split: kind.open(root, split) for split in there})
            for one in sources:
                split = _Split(one, out, manifest, dropped if one.split == "train" else {})
                if split.is_done():
                    already.append(one.split)
                    continue
                manifest["splits"][one.split] = split.write(method, upscale, workers, progress)
                manifest.pop("twins", None)
                _describe(out, manifest)
            if "twins" not in manifest:
                faces = [SourceDataset(_prepared(out, split)) for split in manifest["splits"]]
                manifest["twins"] = find_twins(*faces, near=False).counts(list(manifest["splits"]))
                _describe(out, manifest)
            shutil.rmtree(out / WORK, ignore_errors=True)
    except Timeout:
        raise DataError("another process is preparing it right now; wait for it", out) from None
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror}); mend that and give the same command again: it goes on "
            "where it stopped",
            error.filename or out,
        ) from None
    return PrepareReport(out, manifest, already)


def copies_across(sources: Mapping[str, Source]) -> dict[int, str]:
    """The training faces with a copy in another split: index in the training split -> why it is left out."""
    faces = {split: _Readable(source) for split, source in sources.items()}
    groups = dict(zip(faces, find_twins(*faces.values()).groups, strict=True))
    others: dict[int, str] = {}
    for split in (split for split in faces if split != "train"):
        others |= dict.fromkeys(groups[split][~faces[split].failed].tolist(), f"has a copy in {split}")
    train = enumerate(groups["train"].tolist())
    return {i: others[group] for i, group in train if group in others and not faces["train"].failed[i]}


class _Readable(FaceDataset):
    """All faces of a source; black stands for one that cannot be read."""

    def __init__(self, source: Source):
        self.source, self.labels = source, source.labels
        self.failed = torch.zeros(len(source), dtype=torch.bool)

    def batch(self, indices: Sequence[int] | torch.Tensor) -> dict[str, Any]:
        images = np.zeros((len(indices), self.source.channels, self.source.side, self.source.side), np.uint8)
        for place, index in enumerate(indices):
            try:
                images[place] = self.source.read(int(index))
            except DataError:
                self.failed[index] = True
        return {"image": torch.from_numpy(images)}


def _existing(out: Path) -> dict[str, Any]:
    """The description of what an earlier run has finished in a folder, which must hold nothing else."""
    if out.exists() and not out.is_dir():
        raise DataError("a file; --out must be a folder", out)
    if is_cache(out):
        return read_manifest(out)
    there = list_folder(out) if out.is_dir() else []
    if loose := [name for name in there if not name.endswith((".npy", ".txt"))]:
        raise DataError(f"holds other files ({loose[0]}, ...); give a new or empty --out", out)
    return {}


class _Split:
    """One split on its way into a prepared folder.

    Args:
        source: Its faces.
        out: The folder.
        manifest: Its description so far.
        dropped: Faces to leave out, with the reason.

    Attributes:
        key: Changes when anything changes from which the prepared split follows (not every image's bytes).
    """

    def __init__(self, source: Source, out: Path, manifest: dict[str, Any], dropped: dict[int, str]):
        self.source, self.out, self.manifest, self.dropped = source, out, manifest, dropped
        self.shape, self.images = manifest["shape"], out / WORK / f"{source.split}.images.npy"
        self.journal = out / WORK / f"{source.split}.journal"
        facts = {name: it for name, it in vars(source).items() if name not in ("load", "files", "notes")}
        files = [
            block_checksums(path) if path.name == MANIFEST else path.stat().st_size if path.is_file() else -1
            for path in source.files
        ]
        text = json.dumps(
            [FORMAT, facts, files, manifest["settings"], sorted(dropped.items())],
            default=lambda value: value.tolist() if isinstance(value, torch.Tensor) else vars(value),
        )
        self.key = blake2b(text.encode(), digest_size=16).hexdigest()

    def is_done(self) -> bool:
        """Whether the folder holds this very split, undamaged."""
        if self.manifest["splits"].get(self.source.split, {}).get("fingerprint") != self.key:
            return False
        try:
            return bool(verify(self.out, splits=[self.source.split]))
        except DataError:
            return False

    def read(self, index: int) -> np.ndarray | str:
        """One face, or why it is left out."""
        try:
            return self.dropped.get(index) or self.source.read(index)
        except DataError as error:
            return error.reason

    def write(self, method: Any, scale: int, workers: int | None, progress: bool) -> dict[str, Any]:
        """Write the split, from where an earlier run stopped; gives its part of the description."""
        source, split, total = self.source, self.source.split, len(self.source)
        per_face = int(np.prod(self.shape))
        at_once = getattr(method, "at_once", None) or max(1, PIECE_BYTES // per_face)
        start, left_out = self._resume()
        needed, free = (total - start) * per_face, shutil.disk_usage(self.out).free
        if needed > free:
            raise DataError(f"{needed:,} bytes are needed and {free:,} are free on that disk", self.out)
        with (
            self.images.open("ab", buffering=0) as pixels,
            self.journal.open("a", buffering=1, encoding="utf-8") as notes,
            tqdm(total=total, initial=start, desc=split, unit="face", disable=not progress) as bar,
            ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool,
        ):
            if start:
                bar.write(f"{split}: going on at face {start:,} of {total:,}", file=sys.stderr)
            while start < total:
                indices = range(start, min(start + at_once, total))
                found = list(pool.map(self.read, indices))
                faces = [face for face in found if not isinstance(face, str)]
                if faces and scale > 1:
                    faces = upscale(torch.from_numpy(np.stack(faces)), scale, method).numpy()
                data = np.array(faces, np.uint8).tobytes()
                why = [(i, one) for i, one in zip(indices, found, strict=True) if isinstance(one, str)]
                start = indices.stop
                pixels.write(data)
                notes.write(json.dumps([start, len(data), zlib.crc32(data), why]) + "\n")
                left_out |= dict(why)
                bar.update(len(indices))
        skips = [Skip(source.names[i], reason) for i, reason in left_out.items()]
        rows = [i for i in range(total) if i not in left_out]
        if not rows:
            raise DataError(f"{split}: not one of {total:,} faces can be used:\n{summarize(skips, shown=3)}")
        with self.images.open("r+b") as file:
            _write_header(file, len(rows), self.shape)
        files = [self.images]
        for part, values, kind in (("labels", source.labels, "<i2"), ("votes", source.votes, "<f4")):
            if values is not None:
                files.append(self.images.with_name(f"{split}.{part}.npy"))
                np.save(files[-1], values[rows].numpy().astype(kind))
        files.append(self.images.with_name(f"{split}.names.txt"))
        names = "".join(source.names[i] + "\n" for i in rows)
        files[-1].write_bytes(names.encode("utf-8", "surrogateescape"))
        records = {
            path.name: {"bytes": path.stat().st_size, "crc32": block_checksums(path)} for path in files
        }
        for path in files:
            os.replace(path, self.out / path.name)
        self.journal.unlink()
        skipped = [[skip.name, skip.reason] for skip in (*source.skipped, *skips)]
        what = {"count": len(rows), "fingerprint": self.key, "files": records}
        return {**what, "skipped": skipped, "notes": source.notes}

    def _resume(self) -> tuple[int, dict[int, str]]:
        """How many faces are done, and which of them are left out; what is not written whole is cut off."""
        head = [self.key, self.shape, len(self.source)]
        text = self.journal.read_text("utf-8", "replace") if self.journal.is_file() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        known = self.images.is_file() and lines[:1] == [head]
        start, left_out, kept = 0, {}, [head]
        with self.images.open("r+b" if known else "w+b") as file:
            _write_header(file, 0, self.shape)
            place = file.tell()
            for line in lines[1:] if known else []:
                stop, size, code, why = line
                if zlib.crc32(piece := file.read(size)) != code or len(piece) != size:
                    break
                start, place = stop, file.tell()
                left_out |= dict(why)
                kept.append(line)
            file.truncate(place)
        write_text(self.journal, "".join(json.dumps(line) + "\n" for line in kept))
        return start, left_out


def _write_header(file: IO[bytes], count: int, shape: Sequence[int]) -> None:
    """As long for any count: numpy leaves room for it to grow."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _describe(out: Path, manifest: dict[str, Any]) -> None:
    """``skipped.csv`` and then ``cache.json``, each in one move; with the second the folder is prepared."""
    order = sorted(manifest["splits"], key=["train", "valid", "test"].index)
    manifest["splits"] = {split: manifest["splits"][split] for split in order}
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["split", "name", "reason"])
    for split, record in manifest["splits"].items():
        rows.writerows([split, cell(name), cell(reason)] for name, reason in record["skipped"])
    for name, text in (("skipped.csv", table.getvalue()), (MANIFEST, json.dumps(manifest, indent=1) + "\n")):
        temporary = out / WORK / name  # a kill leaves it where the next run removes it
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
        os.replace(temporary, out / name)
