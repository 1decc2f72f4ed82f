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
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from ferlib.data.base import DataError, FaceDataset, Skip
from ferlib.data.images import Source, SourceDataset
from ferlib.data.twins import find_twins, told
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


def check_split(split: str, splits: Sequence[str]) -> None:
    """Refuse an unknown split with the known ones."""
    if split not in splits:
        raise DataError(f"split {split!r}; choose one of {', '.join(splits)}")


# ---- the data sets, and the layouts in which they come ----


@dataclass(frozen=True)
class Kind:
    """A data set that people download, in whichever layout its folder has.

    Attributes:
        name, title: "rafdb", "RAF-DB".
        expected: The layouts that are known, for people.
        splits: The splits it has.
        look: Folder -> layout, and for each split that is there where it lies; None for another data set.
        read: Where it lies, layout, split -> Source.
        instead: Split -> what is read where it is not there.
    """

    name: str
    title: str
    expected: str
    splits: tuple[str, ...]
    look: Callable[[Path], tuple[str, dict[str, Any]] | None]
    read: Callable[[Any, str, str], Source]
    instead: Mapping[str, str] = field(default_factory=dict)

    def find(self, root: Path) -> tuple[str, dict[str, Any]]:
        """The layout of a folder, "" for none, and where each split that it holds lies."""
        if is_cache(root):
            manifest = read_manifest(root)
            ours = manifest["dataset"] == self.name
            return ("prepared", dict.fromkeys(manifest["splits"], root)) if ours else ("", {})
        return self.look(root) or ("", {})

    def open(self, root: str | os.PathLike[str], split: str, size: int | None = None) -> Source:
        """One split of a folder, faces resized to ``size`` pixels if that is given.

        Raises:
            DataError: The folder holds no such data set, or lacks the split.
        """
        root = check_root(root)
        check_split(split, self.splits)
        layout, there = self.find(root)
        if not layout:
            raise DataError(f"no {self.title} found. Expected one of: {self.expected}", root)
        real = self.instead.get(split, split) if split not in there else split
        if real not in there:
            raise DataError(f"has no split {split!r}, only {', '.join(there)}", root)
        source = _prepared(root, real) if layout == "prepared" else self.read(there[real], layout, real)
        if real != split:
            source.split = split
            source.notes.append(
                f"{self.title}'s {split} set was never published; papers report on its validation set, so "
                f"{split!r} reads that"
            )
        return source.resized(size)


#: The data sets by name; ``ferlib.data.ferplus`` and ``ferlib.data.folders`` enter theirs.
DATASETS: dict[str, Kind] = {}


# ---- a prepared folder ----


def is_cache(root: Path) -> bool:
    """Whether a folder is a prepared one."""
    return (root / MANIFEST).is_file()


def read_manifest(root: Path) -> dict[str, Any]:
    """The contents of ``cache.json``. Raises DataError if it is missing, damaged or newer."""
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"damaged ({error}); {AGAIN}", path) from None
    needed = {"format", "dataset", "layout", "classes", "shape", "splits"}
    if not isinstance(manifest, dict) or not needed <= manifest.keys():
        raise DataError(f"not the description of a prepared data set; {AGAIN}", path)
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
    for split in manifest["splits"] if splits is None else splits:
        for name, record in manifest["splits"][split]["files"].items():
            path, sums = root / name, record["crc32"]
            try:
                if (size := path.stat().st_size) != record["bytes"]:
                    raise DataError(f"{size:,} bytes, {record['bytes']:,} were written; {AGAIN}", path)
                blocks = range(len(sums)) if full else sorted({0, len(sums) - 1})
                if block_checksums(path, blocks) != [sums[block] for block in blocks]:
                    raise DataError(f"its bytes changed since they were written; {AGAIN}", path)
            except OSError as error:
                raise DataError(f"{error.strerror}; {AGAIN}", path) from None
    return manifest


class MappedImages:
    """Faces in a memory-mapped array. Only the path travels to a loader process, which maps the file
    itself."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.images = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{error}; {AGAIN}", path) from None

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return MappedImages, (self.path,)

    def __call__(self, index: int) -> np.ndarray:
        return np.array(self.images[index])

    def many(self, rows: torch.Tensor) -> torch.Tensor:
        """Many rows (n,) at once: uint8 (n, C, H, W)."""
        return torch.from_numpy(self.images[rows.numpy()])


def _prepared(root: Path, split: str) -> Source:
    """One split of a prepared folder. Raises DataError if it is damaged."""
    manifest = verify(root, full=False, splits=[split])
    record, channels, side = manifest["splits"][split], *manifest["shape"][:2]
    names = (root / f"{split}.names.txt").read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]
    arrays = {
        part: torch.from_numpy(np.load(root / name, allow_pickle=False))
        for part in ("labels", "votes")
        if (name := f"{split}.{part}.npy") in record["files"]
    }
    return Source(
        manifest["dataset"],
        manifest["layout"],
        split,
        tuple(manifest["classes"]),
        names,
        arrays["labels"].long(),
        arrays.get("votes"),
        MappedImages(images := root / f"{split}.images.npy"),
        [images, root / MANIFEST],
        side,
        channels,
        [Skip(name, reason) for name, reason in record["skipped"]],
        list(record["notes"]),
    )


# ---- enlarging ----


class Interpolation:
    """One of Pillow's: "nearest", "bilinear", "bicubic" or "lanczos".

    An object with the same attributes is a method, too, such as what ``ferlib.weights.dic_upscaler`` makes of
    the weights of DIC, which the Neural Resizer's authors used.

    Attributes:
        name: What a prepared folder says of it.
        scales: The factors it can do.
        channels: Of what it gives; None: as many as it gets.
        at_once: Faces worth a piece of their own when a data set is prepared, for slow methods.
    """

    scales, channels, at_once = range(1, 17), None, None

    def __init__(self, name: str):
        if name not in METHODS:
            raise DataError(f"method {name!r} is not known; choose one of {', '.join(METHODS)}")
        self.name = name

    def __call__(self, images: torch.Tensor, scale: int) -> torch.Tensor:
        size = (images.shape[3] * scale, images.shape[2] * scale)
        large = [to_pillow(planes).resize(size, METHODS[self.name]) for planes in images.numpy()]
        return torch.from_numpy(np.stack([to_planes(np.array(image)) for image in large]))


#: The interpolations by name.
METHODS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}


def upscale(
    images: torch.Tensor, scale: int, method: str | Callable[..., torch.Tensor] = "bicubic"
) -> torch.Tensor:
    """Enlarge faces by a whole factor. The Neural Resizer takes 384 px; FER+ faces have 48. Chapter 1.

    Args:
        images: uint8 (B, C, H, W).
        scale: The factor.
        method: A name of ``METHODS``, or an object like :class:`Interpolation`.

    Returns:
        uint8 (B, C, scale * H, scale * W), or as many channels as the method gives.

    Raises:
        DataError: Unknown method, a factor it cannot do, or pixels that are not uint8.
    """
    method = _method(method, scale)
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise DataError(f"expected uint8 (B, C, H, W), found {images.dtype} {tuple(images.shape)}")
    try:
        large = method(images, scale)
    except ValueError as error:  # networks know nothing of data sets and have errors of their own
        raise DataError(f"method {method.name!r}: {error}") from None
    size = (images.shape[2] * scale, images.shape[3] * scale)
    expected = (len(images), method.channels or images.shape[1], *size)
    if large.dtype != torch.uint8 or tuple(large.shape) != expected:
        raise DataError(
            f"method {method.name!r} gave {large.dtype} {tuple(large.shape)}; expected uint8 {expected}"
        )
    return large


def _method(method: str | Callable[..., torch.Tensor], scale: int) -> Any:
    found: Any = Interpolation(method) if isinstance(method, str) else method
    if scale not in found.scales:
        known = ", ".join(map(str, found.scales))
        raise DataError(f"method {found.name!r} enlarges {known} times, not {scale}; choose one of these")
    return found


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

    @property
    def counts(self) -> dict[str, int]:
        return {split: record["count"] for split, record in self.manifest["splits"].items()}

    @property
    def skipped(self) -> dict[str, list[Skip]]:
        return {
            split: [Skip(*pair) for pair in record["skipped"]]
            for split, record in self.manifest["splits"].items()
        }

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


def summarize(skipped: Sequence[Skip], shown: int = 5) -> str:
    """Skipped faces as lines of text: for each reason its count and the first names."""
    groups: dict[str, list[str]] = {}
    for skip in skipped:
        groups.setdefault(skip.reason, []).append(skip.name)
    lines = []
    for reason, names in sorted(groups.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(names) > shown else ""
        lines.append(f"{len(names):7,}  {reason}: {', '.join(names[:shown])}{more}")
    return "\n".join(lines)


def prepare(
    dataset: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    size: int | None = None,
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
        size: Resize every face to this side first (default: faces of another size than the data set's are
            left out).
        upscale: Enlarge by this whole factor.
        method: How, as :func:`upscale` takes it.
        twins: ``"keep"`` all faces, or ``"drop-across"``: leave out of "train" the faces with a copy, exact
            or nearly so, in another split of the folder. The other splits stay whole, so that accuracy on
            them can be compared with what is published.
        workers: Decoding threads (default: one per processor, at most 8).
        progress: Show a bar on standard error.
        wait: When another process prepares the same folder, wait for it instead of refusing.

    Returns:
        What was prepared: uint8 (N, C, S, S) with S = upscale * size, and what was left out.

    Raises:
        DataError: Nothing usable found, ``out`` holds something else, no room on the disk, unknown method.
    """
    check_split(dataset, list(DATASETS))
    if twins not in ("keep", "drop-across"):
        raise DataError(f"twins={twins!r}; choose keep or drop-across")
    kind, root, out = DATASETS[dataset], check_root(source), Path(out).expanduser()
    if out.resolve() == root.resolve():
        raise DataError("source and out are the same folder; give another --out", out)
    if not (there := kind.find(root)[1]):
        raise DataError(f"no {kind.title} found. Expected one of: {kind.expected}", root)
    method = _method(method, upscale)
    sources = [kind.open(root, split, size) for split in splits or there]
    if len(sides := {s.side for s in sources}) > 1:
        raise DataError(f"splits have faces of {sorted(sides)} pixels; choose one with --size", root)
    settings = {"size": size, "upscale": upscale, "method": method.name if upscale > 1 else None}
    if twins != "keep":
        settings["twins"] = twins
    first, already = sources[0], []
    shape = (method.channels or first.channels, first.side * upscale, first.side * upscale)

    try:
        _check_out(out)
        with FileLock(out / WORK / "lock", timeout=-1 if wait else 0):
            manifest = _start(out, first, settings, shape)
            dropped = {}
            if twins != "keep" and any(one.split == "train" for one in sources):
                dropped = copies_across({split: kind.open(root, split) for split in there})
            for one in sources:
                leave = dropped if one.split == "train" else {}
                key = _key(one, settings, leave)
                if _holds(out, manifest, one.split, key):
                    already.append(one.split)
                    continue
                enlarge = partial(_enlarged, method=method, scale=upscale)
                record = _write(out, one, key, shape, leave, enlarge, method.at_once, workers, progress)
                manifest["splits"][one.split] = record
                manifest.pop("twins", None)
                _describe(out, manifest)
            if "twins" not in manifest:
                faces = [SourceDataset(_prepared(out, split)) for split in manifest["splits"]]
                manifest["twins"] = find_twins(*faces, near=False).counts(list(manifest["splits"]))
                _describe(out, manifest)
    except Timeout:
        raise DataError("another process is preparing it right now; wait for it", out) from None
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror}); mend that and give the same command again: it goes on "
            "where it stopped",
            error.filename or out,
        ) from None
    shutil.rmtree(out / WORK, ignore_errors=True)
    return PrepareReport(out, manifest, already)


def copies_across(sources: Mapping[str, Source]) -> dict[int, str]:
    """The training faces with a copy in another split: index in the training split -> why it is left out."""
    faces = {split: _Readable(source) for split, source in sources.items()}
    groups = dict(zip(faces, find_twins(*faces.values()).groups, strict=True))
    copies = {
        int(group): f"has a copy in {split}"
        for split in faces
        if split != "train"
        for i, group in enumerate(groups[split])
        if i not in faces[split].failed
    }
    train = enumerate(groups["train"].tolist())
    return {i: copies[group] for i, group in train if group in copies and i not in faces["train"].failed}


class _Readable(FaceDataset):
    """All faces of a source; black stands for one that cannot be read."""

    def __init__(self, source: Source):
        self.source, self.labels, self.failed = source, source.labels, set[int]()

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return {"image": torch.from_numpy(self.source.read(index))}
        except DataError:
            self.failed.add(index)
            shape = (self.source.channels, self.source.side, self.source.side)
            return {"image": torch.zeros(shape, dtype=torch.uint8)}


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError("a file; --out must be a folder", out)
    if out.is_dir() and not is_cache(out):
        loose = [e.name for e in out.iterdir() if e.name != WORK and e.suffix not in (".npy", ".txt")]
        if loose:
            raise DataError(f"holds other files ({sorted(loose)[0]}, ...); give a new or empty --out", out)
    (out / WORK).mkdir(parents=True, exist_ok=True)


def _start(out: Path, source: Source, settings: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """The description to complete: a fresh one, or that of an earlier run with the same settings."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "dataset": source.dataset,
        "layout": source.layout,
        "classes": list(source.classes),
        "shape": list(shape),
        "settings": settings,
    }
    if not is_cache(out):
        return {**manifest, "splits": {}}
    old = read_manifest(out)
    different = [key for key in manifest if old.get(key) != manifest[key]]
    if different:
        what = ", ".join(f"{key} {old.get(key)!r} there, {manifest[key]!r} now" for key in different)
        raise DataError(f"was prepared otherwise ({what}); give another --out or remove that folder", out)
    return old


def _key(source: Source, settings: dict[str, Any], dropped: dict[int, str]) -> str:
    """Changes when anything changes from which a prepared split follows; not the bytes of every image."""
    facts = {name: value for name, value in vars(source).items() if name not in ("load", "files", "notes")}
    files = [
        block_checksums(path) if path.name == MANIFEST else path.stat().st_size if path.is_file() else -1
        for path in source.files
    ]
    text = json.dumps(
        [FORMAT, facts, files, settings, sorted(dropped.items())],
        default=lambda value: value.tolist() if isinstance(value, torch.Tensor) else vars(value),
    )
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _holds(out: Path, manifest: dict[str, Any], split: str, key: str) -> bool:
    """Whether the folder holds this very split, undamaged."""
    if manifest["splits"].get(split, {}).get("fingerprint") != key:
        return False
    try:
        verify(out, splits=[split])
    except DataError:
        return False
    return True


def _enlarged(faces: list[np.ndarray], method: Any, scale: int) -> np.ndarray:
    if scale == 1 or not faces:
        return np.array(faces, np.uint8)
    return upscale(torch.from_numpy(np.stack(faces)), scale, method).numpy()


def _write(
    out: Path,
    source: Source,
    key: str,
    shape: tuple[int, ...],
    dropped: dict[int, str],
    enlarge: Callable[[list[np.ndarray]], np.ndarray],
    at_once: int | None,
    workers: int | None,
    progress: bool,
) -> dict[str, Any]:
    """Write a split, from where an earlier run stopped; gives its part of the description."""

    def face(index: int) -> np.ndarray | str:
        try:
            return dropped.get(index) or source.read(index)
        except DataError as error:
            return error.reason

    work, split, total, per_face = out / WORK, source.split, len(source), int(np.prod(shape))
    files = {
        part: work / f"{split}.{part}" for part in ("images.npy", "labels.npy", "votes.npy", "names.txt")
    }
    images, journal = files["images.npy"], work / f"{split}.journal"
    lines = _resume(images, journal, [key, list(shape), total], shape)
    start = lines[-1]["stop"] if len(lines) > 1 else 0
    needed, free = (total - start) * per_face, shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free on that disk", out
        )
    with (
        images.open("ab", buffering=0) as pixels,
        journal.open("a", buffering=1, encoding="utf-8") as notes,
        tqdm(total=total, initial=start, desc=split, unit="face", disable=not progress) as bar,
        ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool,
    ):
        if start:
            bar.write(f"{split}: going on at face {start:,} of {total:,}", file=sys.stderr)
        while start < total:
            indices = range(start, min(start + (at_once or max(1, PIECE_BYTES // per_face)), total))
            found = list(pool.map(face, indices))
            data = enlarge([one for one in found if not isinstance(one, str)]).tobytes()
            left_out = [(i, why) for i, why in zip(indices, found, strict=True) if isinstance(why, str)]
            line = {"stop": indices.stop, "bytes": len(data), "crc32": zlib.crc32(data), "left_out": left_out}
            pixels.write(data)
            notes.write(json.dumps(line) + "\n")
            lines.append(line)
            bar.update(len(indices))
            start = indices.stop
    reasons = {index: reason for line in lines[1:] for index, reason in line["left_out"]}
    skips = [Skip(source.names[i], reason) for i, reason in reasons.items()]
    rows = [i for i in range(total) if i not in reasons]
    if not rows:
        raise DataError(f"{split}: not one of {total:,} faces can be used:\n{summarize(skips, shown=3)}")
    with images.open("r+b") as file:
        _write_header(file, len(rows), shape)
    np.save(files["labels.npy"], source.labels[rows].numpy().astype("<i2"))
    if source.votes is None:
        del files["votes.npy"]
    else:
        np.save(files["votes.npy"], source.votes[rows].numpy().astype("<f4"))
    names = "".join(source.names[i] + "\n" for i in rows)
    files["names.txt"].write_bytes(names.encode("utf-8", "surrogateescape"))
    records = {
        path.name: {"bytes": path.stat().st_size, "crc32": block_checksums(path)} for path in files.values()
    }
    for path in files.values():
        os.replace(path, out / path.name)
    journal.unlink()
    skipped = [[skip.name, skip.reason] for skip in (*source.skipped, *skips)]
    return {
        "count": len(rows),
        "fingerprint": key,
        "files": records,
        "skipped": skipped,
        "notes": source.notes,
    }


def _write_header(file: IO[bytes], count: int, shape: tuple[int, ...]) -> None:
    """As long for any count: numpy leaves room for it to grow."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _resume(images: Path, journal: Path, head: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """The journal's lines whose pieces are written whole; whatever is behind them is cut off."""
    found = _whole_lines(journal)
    known = images.is_file() and found[:1] == [head]
    lines: list[Any] = [head]
    with images.open("r+b" if known else "w+b") as file:
        _write_header(file, 0, shape)
        place = file.tell()
        for line in found[1:] if known else []:
            piece = file.read(line["bytes"])
            if len(piece) != line["bytes"] or zlib.crc32(piece) != line["crc32"]:
                break
            place = file.tell()
            lines.append(line)
        file.truncate(place)
    temporary = journal.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    os.replace(temporary, journal)
    return lines


def _whole_lines(path: Path) -> list[Any]:
    """A journal's lines; one torn by a kill ends it."""
    lines: list[Any] = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


def _describe(out: Path, manifest: dict[str, Any]) -> None:
    """``skipped.csv`` and then ``cache.json``, each in one move; with the second the folder is prepared."""
    order = sorted(manifest["splits"], key=["train", "valid", "test"].index)
    manifest["splits"] = {split: manifest["splits"][split] for split in order}
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["split", "name", "reason"])
    rows.writerows([split, *pair] for split in order for pair in manifest["splits"][split]["skipped"])
    for name, text in (("skipped.csv", table.getvalue()), (MANIFEST, json.dumps(manifest, indent=1) + "\n")):
        temporary = out / WORK / name
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
        os.replace(temporary, out / name)
