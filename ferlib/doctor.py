"""What ``ferlib doctor`` looks at: the computer, the data sets, the weights; and what it says about them."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path

import torch

from ferlib import files
from ferlib.data.base import DataError, Source, SourceDataset, summarize
from ferlib.data.faces import cache_root
from ferlib.data.labels import majority_label
from ferlib.data.prepare import DATASETS, Kind, is_cache, kinds_in, read_manifest, verify
from ferlib.data.twins import find_twins, told
from ferlib.weights import (
    ARCHITECTURES,
    PRETRAINED,
    Pretrained,
    find_pretrained,
    place_official,
    read_weights,
    weights_folder,
)
from ferlib.weights.reading import StateDict

__all__ = ["Finding", "examine", "render"]

MARKS = {"ok": "ok", "missing": "--", "odd": "??", "broken": "!!"}
WIDTH = 100  # columns of the report
TRIED = 24  # images per split that are opened to see whether they can be read
SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt", "67.60pth")


@dataclass
class Finding:
    """One thing the doctor found.

    Attributes:
        section: "Computer", "Data" or "Weights".
        status: "ok"; "missing" (not needed by everybody); "odd" (works, but look at it); "broken" (was
            named, does not work).
        what: What it is about.
        text: What was found.
        advice: The one thing to do.
        lines: Details below it.
    """

    section: str
    status: str
    what: str
    text: str
    advice: str = ""
    lines: list[str] = field(default_factory=list)


def examine(
    data: Sequence[str | os.PathLike[str]] | None = None,
    weights: Sequence[str | os.PathLike[str]] | None = None,
    *,
    every: bool = False,
) -> list[Finding]:
    """Look at the computer, at data sets and at weights; nothing is changed. Chapter 1.

    Args:
        data: Folders to look in (default: $FERLIB_DATA, else the folder ``data`` and what ``ferlib``
            prepared before).
        weights: Files or folders (default: the folder of weights).
        every: Open every image of the data sets, which takes minutes for a large one; otherwise some of
            each split.
    """
    return [*_look_at_computer(), *look_at_data(data, every=every), *_look_at_weights(weights)]


def render(findings: Sequence[Finding]) -> str:
    """Findings as aligned text, at most 100 columns where words allow it."""
    lines: list[str] = []
    indent = " " * 10
    for number, finding in enumerate(findings):
        if number == 0 or finding.section != findings[number - 1].section:
            lines += [*([""] if lines else []), finding.section]
        width = max(len(f.what) for f in findings if f.section == finding.section)
        head = f"  {MARKS[finding.status]}  {finding.what:<{width}}  "
        lines.append(head + finding.text)
        lines += [indent + line for line in finding.lines]
        if finding.advice:
            width = 10_000 if " --" in finding.advice else WIDTH  # a command stays in one line, to be copied
            lines += _wrap(finding.advice, width, indent + "-> ", indent + "   ")
    broken = [f.what for f in findings if f.status == "broken"]
    lines += ["", f"{len(broken)} broken: {', '.join(broken)}" if broken else "Nothing is broken."]
    return "\n".join(lines)


def _wrap(text: str, width: int, first: str = "", later: str = "") -> list[str]:
    wrapper = textwrap.TextWrapper(
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapper.wrap(text)


# The computer: Python, packages, GPU, disk.


def _look_at_computer() -> list[Finding]:
    found: list[Finding] = []

    def add(status: str, what: str, text: str, advice: str = "") -> None:
        found.append(Finding("Computer", status, what, text, "" if status == "ok" else advice))

    python = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    text = f"{python} on {platform.system()}"
    add("ok" if fits else "odd", "Python", text, "use Python 3.11, 3.12 or 3.13")
    for name in ("torch", "torchvision", "timm"):
        try:
            add("ok", name, version(name))
        except PackageNotFoundError:
            add("odd", name, "not installed", "pip install -r requirements.txt")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        add("ok", "GPU", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB")
    elif torch.backends.mps.is_available():
        add("ok", "GPU", "Apple (mps)")
    else:
        add("missing", "GPU", "none; the chapters need none, full training runs do")
    if home := os.environ.get("FERLIB_HOME"):
        there = Path(home).expanduser().is_dir()
        text = home if there else f"{home} is not a folder"
        advice = "mount the drive first, or make the folder"
        add("ok" if there else "broken", "FERLIB_HOME", text, advice)
    add("ok", "processor", f"{os.cpu_count() or 1} cores, torch uses {torch.get_num_threads()}")
    for what, path in (("disk here", Path.cwd()), ("disk, cache", cache_root())):
        while not path.exists():
            path = path.parent
        free = shutil.disk_usage(path).free / 1e9
        advice = "make room: the environment takes some 2 GB, prepared FER+ 0.1 GB"
        add("ok" if free > 2 else "odd", what, f"{free:,.0f} GB free", advice)
    return found


# Data sets: which lie in a folder, in which layout, with how many faces, and what is wrong with them.


def look_at_data(given: Sequence[str | os.PathLike[str]] | None, *, every: bool = False) -> list[Finding]:
    """Data sets in named folders, else in $FERLIB_DATA, else in ``data`` and the cache.

    Args:
        given: The named folders.
        every: Open all images.
    """
    named = [Path(p).expanduser() for p in given or []]
    if not given and (own := files.place("FERLIB_DATA")):
        named = [own]
    found: list[Finding] = []
    for root in named:
        here = _data_sets(root, every)
        found += here
        if not here:
            text = f"no data set found in {root}" if root.is_dir() else f"{root} is not a folder"
            lines = []
            for kind in DATASETS.values():
                lines += _wrap(f"{kind.title}: {kind.expected}", 88)
            advice = "give the folder that holds one of these"
            found.append(Finding("Data", "broken", "data", text, advice, lines))
    if not named:
        for root in (Path("data"), cache_root()):
            found += _data_sets(root, every) if root.is_dir() else []
        if not found:
            text = "no real faces: the chapters render synthetic ones"
            advice = "for real ones: FERLIB_DATA=/path/to/FERPlus, or ferlib doctor --data PATH"
            found.append(Finding("Data", "missing", "data", text, advice))
    return found


def _data_sets(root: Path, every: bool) -> list[Finding]:
    """Data sets in a folder, or in the folders right below it."""
    for places in ([root] if root.is_dir() else [], sorted(p for p in root.glob("*") if p.is_dir())):
        found = []
        for folder in places:
            try:
                found += [_data_set(kind, folder, every) for kind in kinds_in(folder)[:1]]
            except DataError as error:
                found.append(Finding("Data", "broken", folder.name, str(error)))
        if found:
            return found
    return []


def _data_set(kind: Kind, root: Path, every: bool) -> Finding:
    layout, there = kind.find(root)
    finding = Finding("Data", "ok", kind.title, f"{layout} layout in {root}")
    sources: dict[str, Source] = {}
    problems: list[str] = []
    if is_cache(root):
        try:
            verify(root)
        except DataError as error:
            problems.append(str(error))
    for split in there:
        try:
            sources[split] = kind.open(root, split)
            problems += _unreadable(sources[split], None if every else TRIED)
        except DataError as error:
            problems.append(str(error))
    if sources:
        finding.lines += _table(sources)
    finding.lines += _copies(root, sources, every and not problems)
    for split, source in sources.items():
        finding.lines += [f"{split}: {note}" for note in source.notes]
        if source.skipped:
            finding.lines += [f"{split}: left out", *summarize(source.skipped, shown=3).splitlines()]
        if len(source) < (published := kind.published.get(split, 0)):
            finding.lines.append(f"{split}: {len(source):,} faces, {published:,} were published")
    if sources and (doubts := kind.doubts(sources)):
        finding.status = "odd"
        finding.lines += doubts
    absent = [split for split in kind.splits if split not in there]
    if absent and list(kind.instead) != absent:
        finding.status = "odd"
        finding.lines.append(f"not there: {', '.join(absent)}")
        finding.advice = f"add what belongs to {' and '.join(absent)}"
    if layout != "prepared" and sources and not finding.advice:
        command = f"ferlib prepare {kind.name} --source {shlex.quote(str(root))} --out FOLDER"
        finding.advice = f"{command} makes it read faster"
    if problems:
        finding.status = "broken"
        finding.lines += dict.fromkeys(problems)
        damaged = "prepare it again"
        if not is_cache(root):
            damaged = "ferlib prepare leaves damaged files out and lists them"
        more = "" if every else f"; {TRIED} images of each split were opened, --every opens all"
        finding.advice = f"take the named files anew; {damaged}{more}"
    return finding


def _copies(root: Path, sources: dict[str, Source], every: bool) -> list[str]:
    """How many faces have a copy within and across splits: as counted before, or all and near ones now."""
    if every:
        counts = find_twins(*map(SourceDataset, sources.values())).counts(list(sources))
        return [f"copies, also mirrored, shifted or compressed again: {line}" for line in told(counts)]
    if is_cache(root) and "twins" in (manifest := read_manifest(root)):
        return [f"copies with the same pixels: {line}" for line in told(manifest["twins"])]
    return []


def _table(sources: dict[str, Source]) -> list[str]:
    """Counts per class and split."""
    rows: dict[str, list[int]] = {}
    for source in sources.values():
        labels = source.labels
        if source.votes is not None:
            labels = majority_label(source.votes, classes=len(source.classes))
        none, *counts = torch.bincount(labels.clamp_min(-1) + 1, minlength=len(source.classes) + 1).tolist()
        for name, count in zip(source.classes, counts, strict=False):
            rows.setdefault(name, []).append(count)
        rows.setdefault("labeled", []).append(sum(counts))
        rows.setdefault("no majority", []).append(none)
    if not any(rows["no majority"]):
        del rows["no majority"]
    lines = [f"{'':<12}" + "".join(f"{split:>9}" for split in sources)]
    return lines + [f"{name:<12}" + "".join(f"{count:9,}" for count in row) for name, row in rows.items()]


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


# Weights: what a file holds, told from its names and shapes; nothing in it is run, little of it is read.


def _look_at_weights(given: Sequence[str | os.PathLike[str]] | None) -> list[Finding]:
    """Checkpoints in named files or folders, else in the folder of weights; and the files that would help."""
    found: list[Finding] = []
    folders = [Path(p).expanduser() for p in given or []] or [weights_folder()]
    seen = set()
    for path in folders:
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.name.endswith(SUFFIXES))
        for file in files:
            status, text, advice = _describe_weights(file)
            lines: list[str] = []
            for entry in PRETRAINED.values():
                if find_pretrained(entry.kind, file.parent) == file:
                    seen.add(entry.kind)
                    status, text, advice = _as_expected(entry, status, text, advice)
                    lines = [entry.gives] if status == "ok" else []
            status = status if given or status != "broken" else "odd"
            found.append(Finding("Weights", status, file.name, text, advice, lines))
        if given and not files:
            text = f"{path} is not there"
            if path.exists():
                text = f"no {', '.join(SUFFIXES[:-1])} file in {path}"
            advice = "give a checkpoint file or its folder"
            found.append(Finding("Weights", "broken", path.name, text, advice))
    if any(path.is_file() for path in folders):
        return found
    if not found:
        text = f"none in {folders[0]}; the chapters need none, they train their own small networks"
        found.append(Finding("Weights", "missing", "weights", text))
    absent = [entry for entry in PRETRAINED.values() if entry.kind not in seen]
    lines = [line for entry in absent for line in _wanted(entry)]
    if absent and not any(finding.status == "broken" for finding in found):
        text = f"{len(absent)} that would help the large networks are not there; put them into {folders[0]}"
        found.append(Finding("Weights", "missing", "pretrained", text, lines=lines))
    return found


def _describe_weights(path: Path) -> tuple[str, str, str]:
    """Status, text and advice: which network's weights a file holds."""
    try:
        tensors = read_weights(path, numbers=False)
    except Exception as error:  # damaged files fail in as many ways as there are writers
        text = str(error).splitlines()[0][:90] if str(error) else type(error).__name__
        return "broken", f"cannot be read ({text})", "take the file anew, or leave it out"
    count = sum(prod(t.shape) for t in tensors.values())
    text = f"{len(tensors)} tensors, {count / 1e6:.2f} M numbers"
    fits = [found for name in ARCHITECTURES if (found := _fits(tensors, name))]
    if fits:
        whole = [name for name in fits if ":" not in name]
        return "ok", f"{text}, {' or '.join(whole or fits)}", ""
    return "odd", f"{text}, of no network known here", f"known: {', '.join(ARCHITECTURES)}"


def _fits(tensors: StateDict, architecture: str) -> str:
    """The architecture, or "architecture: part of it" where the file holds more than that, or ""."""
    report = place_official(tensors, architecture)[1]
    if report.complete:
        return f"{architecture}: its part {report.part}" if report.part else architecture
    if architecture.startswith("btn-"):
        report = place_official(tensors, architecture, part="poster-v2")[1]
        if report.complete and report.unexpected:
            return f"{architecture}: its part poster-v2 ({len(report.unexpected)} names without a place)"
    return ""


def _as_expected(entry: Pretrained, status: str, text: str, advice: str) -> tuple[str, str, str]:
    """A file whose name says what it is: is it that?"""
    if not entry.architecture:  # timm's own names; timm checks them when it loads them
        return ("ok" if status != "broken" else status), f"{text}, for timm", ""
    if status == "ok" and entry.architecture in text:
        return "ok", text, ""
    if status == "broken":
        return status, text, advice
    return "broken", f"{text}, but its name says {entry.kind}", f"take it anew: {entry.source}"


def _wanted(entry: Pretrained) -> list[str]:
    """What is not there, what it would give, and who tells where it is."""
    where = f"{entry.files[0]}: {entry.source}"
    return [f"{entry.kind}: {entry.gives}", *_wrap(where, 84, "    ", "      ")]
