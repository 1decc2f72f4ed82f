"""From the files people download to one compact, checksummed folder: what ``ferlib prepare`` does."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ferlib.data.base import DataError
from ferlib.data.cache import FORMAT, MANIFEST, is_cache, read_manifest, verify
from ferlib.data.cache_writer import WORK, SplitWriter, fingerprint, locked
from ferlib.data.listing import Skip, check_root, summarise
from ferlib.data.sources import Source, with_size
from ferlib.data.superresolution import make_upscaler

#: Data sets that can be prepared, and the modules that read them.
DATASETS = {
    "ferplus": "ferlib.data.ferplus",
    "rafdb": "ferlib.data.rafdb",
    "affectnet": "ferlib.data.affectnet",
}
PIECE_BYTES = 4 << 20  # what is decoded, enlarged and written at once, and so what a kill can lose


@dataclass
class PrepareReport:
    """What was prepared: ``out``, faces per split, what was left out, notes, and which splits were already
    there.

    Shape: ``counts`` split -> N; ``skipped`` split -> list of Skip; ``str(report)`` is text for people.
    Chapter 1.
    """

    out: Path
    dataset: str
    layout: str
    side: int
    counts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, list[Skip]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    already: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.dataset} ({self.layout}), {self.side} x {self.side} px, in {self.out}"]
        for split, count in self.counts.items():
            again = " (was already there)" if split in self.already else ""
            lines.append(f"  {split:<6}{count:8,} faces{again}")
            if skipped := self.skipped[split]:
                lines.append(f"        {len(skipped):8,} left out:")
                lines += ["         " + line for line in summarise(skipped).splitlines()]
            lines += [f"         note: {note}" for note in self.notes[split]]
        if any(self.skipped.values()):
            lines.append(f"  every face left out, with its reason: {self.out / 'skipped.csv'}")
        return "\n".join(lines)


def prepare(
    dataset: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    size: int | None = None,
    upscale: int = 1,
    method: str = "bicubic",
    weights: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
    wait: bool = False,
) -> PrepareReport:
    """Read a downloaded data set once, check every face, and store it as plain arrays (see
    ``ferlib.data.cache``).

    Killed at any moment and started again with the same words it goes on where it stopped, and the files
    it leaves are the same, byte by byte, as those of an undisturbed run.

    Parameters
    ----------
    dataset: ``"ferplus"``, ``"rafdb"`` or ``"affectnet"``.
    source, out: the downloaded folder (any layout, or another prepared folder); the folder to make.
    splits: which splits; default: all that are there.
    size: resize every face to this side first; default: faces keep the data set's size, others are left out.
    upscale, method, weights: enlarge by a whole factor with a method of ``ferlib.data.superresolution``.
        ``"dic"`` is what the Neural Resizer's authors used: eight times, with their weights file; it gives
        RGB, also for grey faces (12.5 GB for FER+), and is slow without a GPU: 408 billion multiply-adds for
        a face of 48 pixels. It can be stopped and goes on at the face where it was.
    workers: decoding threads (default: one per processor, at most 8).
    progress: show a bar on standard error.
    wait: when another process prepares the same folder, wait for it instead of refusing.

    Shape: stores uint8 ``(N, C, S, S)``, S = upscale * size. Returns a :class:`PrepareReport`.

    Raises
    ------
    DataError: nothing usable found, ``out`` holds something else, no room on the disk, unknown method.

    Chapter 1.
    """
    if dataset not in DATASETS:
        raise DataError(f"data set {dataset!r} is not known; choose one of {', '.join(DATASETS)}")
    module = import_module(DATASETS[dataset])
    source, out = check_root(source), Path(out).expanduser()
    if out.resolve() == source.resolve():
        raise DataError(f"{out}: source and out are the same folder; give another --out")
    if splits is None and not (splits := module.available_splits(source)):
        raise DataError(f"{source}: no {module.TITLE} found. {module.EXPECTED}")
    enlarge = make_upscaler(method, upscale, weights)
    sources = [with_size(module.open_source(source, split), size) for split in splits]
    settings = {"size": size, "upscale": upscale, "method": method if upscale > 1 else None}
    if weights is not None:
        settings["weights"] = [Path(weights).name, Path(weights).stat().st_size]
    side = {s.side for s in sources}
    if len(side) > 1:
        raise DataError(f"{source}: splits have faces of {sorted(side)} pixels; choose one with --size")
    first = sources[0]
    shape = (enlarge.channels or first.channels, first.side * upscale, first.side * upscale)
    try:
        _check_out(out)
        with locked(out / WORK, wait=wait):
            manifest = _start(out, first, settings, shape)
            for one in sources:
                _prepare_split(out, one, manifest, settings, shape, enlarge, workers, progress)
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be written ({error.strerror}); mend that and give the same "
            "command again: it goes on where it stopped"
        ) from None
    shutil.rmtree(out / WORK, ignore_errors=True)
    return report(out, [s.split for s in sources if s.split in manifest["already"]])


def report(out: str | os.PathLike[str], already: Sequence[str] = ()) -> PrepareReport:
    """What a prepared folder holds, from its own description. Shape: path -> PrepareReport. Raises
    DataError.
    """
    out = Path(out)
    manifest = read_manifest(out)
    result = PrepareReport(
        out, manifest["dataset"], manifest["layout"], manifest["shape"][1], already=list(already)
    )
    for split, record in manifest["splits"].items():
        result.counts[split] = record["count"]
        result.skipped[split] = [Skip(name, reason) for name, reason in record["skipped"]]
        result.notes[split] = record["notes"]
    return result


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: a file; --out must be a folder")
    if out.is_dir() and not is_cache(out) and any(entry.name != WORK for entry in out.iterdir()):
        loose = [e.name for e in out.iterdir() if e.name != WORK and e.suffix not in (".npy", ".txt")]
        if loose:
            raise DataError(f"{out}: holds other files ({sorted(loose)[0]}, ...); give a new or empty --out")
    out.mkdir(parents=True, exist_ok=True)


def _start(out: Path, source: Source, settings: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """The manifest to complete: a fresh one, or that of an earlier run with the same settings."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "dataset": source.dataset,
        "layout": source.layout,
        "classes": list(source.classes),
        "shape": list(shape),
        "settings": settings,
        "splits": {},
    }
    if is_cache(out):
        old = read_manifest(out)
        different = [k for k in manifest if k != "splits" and old.get(k) != manifest[k]]
        if different:
            what = ", ".join(f"{k} {old.get(k)!r} there, {manifest[k]!r} now" for k in different)
            raise DataError(
                f"{out}: was prepared otherwise ({what}); give another --out or remove that folder"
            )
        manifest["splits"] = old["splits"]
    manifest["already"] = []
    return manifest


def _prepare_split(
    out: Path,
    source: Source,
    manifest: dict[str, Any],
    settings: dict[str, Any],
    shape: tuple[int, int, int],
    enlarge: Callable[[torch.Tensor], torch.Tensor],
    workers: int | None,
    progress: bool,
) -> None:
    key = fingerprint(source, settings)
    if manifest["splits"].get(source.split, {}).get("fingerprint") == key and _whole(out, source.split):
        manifest["already"].append(source.split)
        return
    writer = SplitWriter(out, source, key, shape)
    per_face = int(np.prod(shape))
    _check_room(out, (len(source) - writer.next) * per_face)
    piece = enlarge.at_once or max(1, PIECE_BYTES // per_face)
    bar = tqdm(total=len(source), initial=writer.next, desc=source.split, unit="face", disable=not progress)
    if writer.next and progress:
        bar.write(f"{source.split}: going on at face {writer.next:,} of {len(source):,}", file=sys.stderr)
    with bar, ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        while writer.next < len(source):
            indices = range(writer.next, min(writer.next + piece, len(source)))
            faces, left_out = [], {}
            for index, face in zip(indices, pool.map(lambda i: _try(source, i), indices), strict=True):
                if isinstance(face, str):
                    left_out[index] = face
                else:
                    faces.append(face)
            large = (
                enlarge(torch.from_numpy(np.stack(faces))).numpy()
                if faces
                else np.empty((0, *shape), np.uint8)
            )
            writer.append(large, indices.stop, left_out)
            bar.update(len(indices))
    if len(writer.left_out) == len(source):
        reasons = summarise(
            [Skip(source.names[i], why) for i, why in sorted(writer.left_out.items())], shown=3
        )
        raise DataError(f"{source.split}: not one of {len(source):,} faces can be used:\n{reasons}")
    manifest["splits"][source.split] = writer.finish()
    _write_description(out, manifest)


def _try(source: Source, index: int) -> np.ndarray | str:
    """A face, or why it cannot be used."""
    try:
        return source.read(index)
    except DataError as error:
        return getattr(error, "reason", str(error))


def _whole(out: Path, split: str) -> bool:
    try:
        verify(out, full=True, splits=[split])
    except DataError:
        return False
    return True


def _check_room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free on that disk"
        )


def _write_description(out: Path, manifest: dict[str, Any]) -> None:
    """``skipped.csv`` and then ``cache.json``, each atomically; the second makes the folder a prepared
    one.
    """
    order = sorted(manifest["splits"], key=["train", "valid", "test"].index)
    manifest["splits"] = {split: manifest["splits"][split] for split in order}
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["split", "name", "reason"])
    rows.writerows([split, *pair] for split in order for pair in manifest["splits"][split]["skipped"])
    kept = {key: value for key, value in manifest.items() if key != "already"}
    for name, text in (("skipped.csv", table.getvalue()), (MANIFEST, json.dumps(kept, indent=1) + "\n")):
        temporary = out / WORK / name
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
        os.replace(temporary, out / name)
