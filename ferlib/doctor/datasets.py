"""Which data sets lie in a folder, in which layout, with how many faces, and what is wrong with them."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from ferlib.data.base import DataError
from ferlib.data.cache import is_cache, verify
from ferlib.data.faces import cache_root
from ferlib.data.labels import majority_label
from ferlib.data.listing import summarise
from ferlib.data.prepare import DATASETS
from ferlib.data.sources import Source
from ferlib.doctor.finding import Finding

TRIED = 24  # images per split that are opened to see whether they can be read


def look_at_data(given: Sequence[str | os.PathLike[str]] | None, *, every: bool = False) -> list[Finding]:
    """Data sets in named folders, else in $FERLIB_DATA, else in ``data`` and the cache; ``every`` opens all
    their images. Shape: paths -> list of Finding.
    """
    section = "Data"
    named = [Path(p).expanduser() for p in given or []]
    if not given and os.environ.get("FERLIB_DATA"):
        named = [Path(os.environ["FERLIB_DATA"]).expanduser()]
    found: list[Finding] = []
    for root in named:
        here = _data_sets(root, every)
        found += here
        if not here:
            text = f"no data set found in {root}" if root.is_dir() else f"{root} is not a folder"
            lines = []
            for module in DATASETS.values():
                reader = import_module(module)
                expected = reader.EXPECTED.removeprefix("Expected one of: ")
                lines += textwrap.wrap(f"{reader.TITLE}: {expected}", 88, break_on_hyphens=False)
            advice = "give the folder that holds one of these"
            found.append(Finding(section, "broken", "data", text, advice, lines))
    if not named:
        for root in (Path("data"), cache_root()):
            found += _data_sets(root, every) if root.is_dir() else []
        if not found:
            text = "no real faces: the chapters draw their own"
            advice = "for real ones: FERLIB_DATA=/path/to/FERPlus, or ferlib doctor --data PATH"
            found.append(Finding(section, "missing", "data", text, advice))
    return found


def _data_sets(root: Path, every: bool) -> list[Finding]:
    """Data sets in a folder, or in the folders right below it."""
    for places in ([root], sorted(p for p in root.glob("*") if p.is_dir())):
        found = []
        for place in places:
            for name, module in DATASETS.items():
                reader = import_module(module)
                try:
                    if place.is_dir() and reader.find_layout(place):
                        found.append(_data_set(name, reader, place, every))
                except DataError as error:
                    found.append(Finding("Data", "broken", reader.TITLE, str(error)))
                    break
        if found:
            return found
    return []


def _data_set(name: str, reader: ModuleType, root: Path, every: bool) -> Finding:
    layout = reader.find_layout(root)
    finding = Finding("Data", "ok", reader.TITLE, f"{layout} layout in {root}")
    sources: dict[str, Source] = {}
    problems: list[str] = []
    if is_cache(root):
        try:
            verify(root)
        except DataError as error:
            problems.append(str(error))
    for split in reader.available_splits(root):
        try:
            sources[split] = reader.open_source(root, split)
            problems += _unreadable(sources[split], None if every else TRIED)
        except DataError as error:
            problems.append(str(error))
    if sources:
        finding.lines += _table(sources)
    for split, source in sources.items():
        finding.lines += [f"{split}: {note}" for note in source.notes]
        if source.skipped:
            finding.lines += [f"{split}: left out", *summarise(source.skipped, shown=3).splitlines()]
    absent = [s for s in reader.SPLITS if s not in reader.available_splits(root)]
    if absent and not (name == "affectnet" and absent == ["test"]):
        finding.status = "odd"
        finding.lines.append(f"not there: {', '.join(absent)}")
        finding.advice = f"add what belongs to {' and '.join(absent)}; what is here can be used as it is"
    if layout != "prepared" and sources and not finding.advice:
        command = f"ferlib prepare {name} --source {shlex.quote(str(root))} --out FOLDER"
        finding.advice = f"{command} makes it read faster"
    if problems:
        finding.status = "broken"
        finding.lines += problems
        damaged = (
            "prepare it again" if is_cache(root) else "ferlib prepare leaves damaged files out and lists them"
        )
        more = "" if every else f"; {TRIED} images of each split were opened, --every opens all"
        finding.advice = f"take the named files anew; {damaged}{more}"
    return finding


def _labels(source: Source) -> torch.Tensor:
    if source.votes is None:
        return source.labels
    return majority_label(source.votes, classes=len(source.classes))


def _table(sources: dict[str, Source]) -> list[str]:
    """Counts per class and split."""
    any_source = next(iter(sources.values()))
    counts = {s: torch.bincount(_labels(v).clamp_min(-1) + 1, minlength=9) for s, v in sources.items()}
    lines = [f"{'':<12}" + "".join(f"{split:>9}" for split in sources)]
    for k, name in enumerate(any_source.classes):
        lines.append(f"{name:<12}" + "".join(f"{int(counts[s][k + 1]):9,}" for s in sources))
    lines.append(f"{'labelled':<12}" + "".join(f"{int(counts[s][1:].sum()):9,}" for s in sources))
    if any(int(counts[s][0]) for s in sources):
        lines.append(f"{'no majority':<12}" + "".join(f"{int(counts[s][0]):9,}" for s in sources))
    return lines


def _unreadable(source: Source, tried: int | None) -> list[str]:
    """Errors of a few images, spread over the split, or of all."""
    errors, count = [], len(source)
    few = range(count) if tried is None else torch.linspace(0, count - 1, min(tried, count)).int().tolist()
    for index in sorted(set(few)):
        try:
            source.read(index)
        except DataError as error:
            errors.append(str(error))
    return errors
