"""What ``ferlib doctor`` looks at: the computer, the data sets, the weights; and what it says about them."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from math import prod
from pathlib import Path

import torch

from ferlib import files
from ferlib.data.base import DataError, Source, SourceDataset, summarize
from ferlib.data.labels import majority_label
from ferlib.data.prepare import DATASETS, Kind, folders_in, is_cache, kinds_in, read_manifest, verify
from ferlib.data.twins import find_twins, told
from ferlib.errors import FerlibError
from ferlib.files import cache_root
from ferlib.weights import (
    ARCHITECTURES,
    PRETRAINED,
    find_pretrained,
    place_official,
    read_weights,
    weights_folder,
)

__all__ = ["Finding", "examine", "render"]

MARKS = {"ok": "ok", "missing": "--", "odd": "??", "broken": "!!"}
WIDTH = 100  # columns of the report
TRIED = 24  # images per split that are opened to see whether they can be read
SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt", "67.60pth")
DEEP, WIDE = 3, 200  # folders below the named one, and entries of each, that are looked at
#: What people have instead of a known layout, as a pattern of its path in lower case, and what it needs.
NEAR_MISSES = (
    (r".*\.(zip|tar|tgz|gz|rar|7z)", "unpacking"),
    (r".*list_partition_label\.txt", "the name list_patition_label.txt, spelled as it was published"),
    (r".*image/original", "the aligned faces beside it, Image/aligned, which RAF-DB's authors give"),
    (r".*validation", "the name valid"),
    (
        r".*/(fer2013)?_?(training|(public|private)_?(test)?)",
        "Microsoft's names FER2013Train, FER2013Valid, FER2013Test, and in each label.csv with the votes",
    ),
    (r".*/(0\d|class_?\d|\d+[ ._-]+[a-z]+)", "the class's number or name alone, such as 1 or surprise"),
    (r".*(train|valid|val|test)(_set)?/[^/]*\.(png|jpe?g)", "a folder for its class, or a label file"),
    (
        r".*\.(csv|xlsx?|json|parquet|npz|h5)",
        "the names and columns of the published label files, or a folder for each class",
    ),
)


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
    section, indent = "", " " * 10
    for finding in findings:
        if finding.section != section:
            lines += ["", section := finding.section]
        width = max(len(other.what) for other in findings if other.section == section)
        lines.append(f"  {MARKS[finding.status]}  {finding.what:<{width}}  {finding.text}")
        lines += [indent + line for line in finding.lines]
        if finding.advice:  # a command stays in one line, to be copied
            wide = 10_000 if " --" in finding.advice else WIDTH
            lines += _wrap(finding.advice, wide, indent + "-> ", indent + "   ")
    broken = [finding.what for finding in findings if finding.status == "broken"]
    lines += ["", f"{len(broken)} broken: {', '.join(broken)}" if broken else "Nothing is broken."]
    return "\n".join(lines[1:])


def _wrap(text: str, width: int, first: str = "", later: str = "") -> list[str]:
    kept = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=later, **kept)


# The computer: Python, packages, GPU, disk.


def _look_at_computer() -> Iterator[Finding]:
    def found(what: str, text: str, advice: str = "", status: str = "odd") -> Finding:
        return Finding("Computer", status if advice else "ok", what, text, advice)

    text = f"{platform.python_version()} on {platform.system()}"
    yield found("Python", text, "" if sys.version_info >= (3, 11) else "use Python 3.11 or newer")
    for name in ("torch", "torchvision", "timm"):
        yield found(name, version(name))
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        yield found("GPU", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB")
    elif torch.backends.mps.is_available():
        yield found("GPU", "Apple (mps)")
    else:
        yield Finding("Computer", "missing", "GPU", "none; the chapters need none, full training runs do")
    home = os.environ.get("FERLIB_HOME")
    if home and Path(home).expanduser().is_dir():
        yield found("FERLIB_HOME", home)
    elif home:
        advice = "mount the drive first, or make the folder"
        yield found("FERLIB_HOME", f"{home} is not a folder", advice, "broken")
    yield found("processor", f"{os.cpu_count() or 1} cores, torch uses {torch.get_num_threads()}")
    for what, path in (("disk here", Path.cwd()), ("disk, cache", cache_root())):
        while not path.exists():
            path = path.parent
        free = shutil.disk_usage(path).free / 1e9
        advice = "" if free > 2 else "make room: the environment takes some 2 GB, prepared FER+ 0.1 GB"
        yield found(what, f"{free:,.0f} GB free", advice)


# Data sets: which lie in a folder, in which layout, with how many faces, and what is wrong with them.


def look_at_data(given: Sequence[str | os.PathLike[str]] | None, *, every: bool = False) -> list[Finding]:
    """Data sets in named folders, else in $FERLIB_DATA, else in ``data`` and the cache."""
    own = files.place("FERLIB_DATA")
    named = [Path(path).expanduser() for path in given or ([own] if own else [])]
    found: list[Finding] = []
    for root in named or [Path("data"), cache_root()]:
        here = _data_sets(root, every) if root.is_dir() else []
        found += here
        if named and not here:
            text = f"no data set found in {root}" if root.is_dir() else f"{root} is not a folder"
            near = [line for line in _near_misses(root) for line in _wrap(line, 88)]
            known = (f"{kind.title}: {kind.expected}" for kind in DATASETS.values())
            lines = near + [line for text_of in known for line in _wrap(text_of, 88)]
            advice = "give the folder that holds one of these"
            found.append(Finding("Data", "broken", "data", text, advice, lines))
    if not found:
        text = "no real faces: the chapters render synthetic ones"
        advice = "for real ones: FERLIB_DATA=/path/to/FERPlus, or ferlib doctor --data PATH"
        found.append(Finding("Data", "missing", "data", text, advice))
    return found


def _levels(root: Path) -> Iterator[list[Path]]:
    """The folder, the folders in it, and those in them."""
    level = [root]
    for _ in range(DEEP):
        yield level
        level = [inner for folder in level for inner in folders_in(folder)[:WIDE]][:WIDE]


def data_sets_in(root: Path) -> list[tuple[Kind, Path]]:
    """The data sets in a folder, or else in the folders right below it, or below those."""
    return next(
        (found for level in _levels(root) if (found := [(k, f) for f in level for k in kinds_in(f)[:1]])), []
    )


def _data_sets(root: Path, every: bool) -> list[Finding]:
    try:
        return [_data_set(kind, folder, every) for kind, folder in data_sets_in(root)]
    except DataError as error:  # a folder that cannot be opened, or a prepared one that is damaged
        return [Finding("Data", "broken", root.name, str(error))]


def _near_misses(root: Path, *, folders: bool = False) -> Iterator[str]:
    """For each kind of near miss the first one: "found X, needs Y"; of folders alone, if so wanted."""
    if not root.is_dir():
        return
    entries = [p for level in _levels(root) for folder in level for p in sorted(folder.iterdir())[:WIDE]]
    entries = [path for path in entries if path.is_dir() or not folders]
    names = {path.relative_to(root).as_posix(): path for path in entries}
    for pattern, needed in NEAR_MISSES:
        found = next((name for name in names if re.fullmatch(pattern, f"/{name}".lower())), None)
        if found:
            yield f"found {found}, needs {needed}"


def _data_set(kind: Kind, root: Path, every: bool) -> Finding:
    layout, there = kind.find(root)
    finding = Finding("Data", "ok", kind.title, f"{layout} layout in {root}")
    sources: dict[str, Source] = {}
    damaged, closed = [], []  # files, and splits that cannot be opened at all
    try:
        if is_cache(root):
            verify(root)
    except DataError as error:
        damaged.append(str(error))
    for split in there:
        try:
            source = sources[split] = kind.open(root, split)
        except DataError as error:
            closed.append(str(error))
            continue
        damaged += _unreadable(source, every)
        if len(source) < (published := kind.published.get(split, 0)):
            finding.lines.append(f"{split}: {len(source):,} faces, {published:,} were published")
        finding.lines += [f"{split}: {note}" for note in source.notes]
        if source.skipped:
            finding.lines += [
                f"{split}: left out",
                *summarize(source.skipped, shown=10**9 if every else 3).splitlines(),
            ]
    doubts = kind.doubts(sources) if sources else []
    absent = [split for split in kind.splits if split not in [*there, *kind.instead]]
    if sources:
        what, copies = _copies(root, sources, every and not damaged)
        finding.lines[:0] = [*_table(sources), *(f"{what}: {line}" for line in told(copies) if what)]
        if across := [split for split, others in copies.items() if others.keys() - {split}]:
            leave = "ferlib prepare --twins drop-across leaves them out of train"
            doubts.append(f"{' and '.join(across)}: faces with a copy in another split; {leave}")
    if layout != "prepared":
        command = f"ferlib prepare {kind.name} --source {shlex.quote(str(root))} --out FOLDER"
        finding.advice = f"{command} makes it read faster"
    if absent:
        finding.advice = f"add what belongs to {' and '.join(absent)}"
        finding.lines += _near_misses(root, folders=True)
    if numbers := layout == "class-folders" and _numbers(there):
        read = (f"{n} {name}" for n, name in enumerate(kind.classes, kind.first))
        finding.lines.append(f"the folders' numbers are read as {', '.join(read)}")
    if numbers and (closed or any(line.startswith("no face of") for line in doubts)):
        finding.advice = "look at a face of each folder: if it is not that, name the folders by expression"
    if absent or doubts:
        finding.status = "odd"
        finding.lines += doubts
    if closed or damaged:
        finding.status = "broken"
        finding.lines += dict.fromkeys([*closed, *damaged])
        if not (numbers and closed):
            finding.advice = "mend what is named above"
    if damaged:
        instead = (
            "prepare it again" if is_cache(root) else "ferlib prepare leaves damaged files out and lists them"
        )
        more = "" if every else f"; {TRIED} images of each split were opened, --every opens all"
        finding.advice = f"take the named files anew; {instead}{more}"
    return finding


def _numbers(there: dict[str, Path]) -> bool:
    """Whether class folders are numbered, not named."""
    return any(inner.name.isdecimal() for folder in there.values() for inner in folders_in(folder))


def _copies(root: Path, sources: dict[str, Source], every: bool) -> tuple[str, dict[str, dict[str, int]]]:
    """What copies were counted, if any: all and near ones now, or those that were counted before."""
    if every:
        counts = find_twins(*map(SourceDataset, sources.values())).counts(list(sources))
        return "copies, also mirrored, shifted or compressed again", counts
    if is_cache(root) and "twins" in (manifest := read_manifest(root)):
        return "copies with the same pixels", manifest["twins"]
    return "", {}


def _table(sources: dict[str, Source]) -> list[str]:
    """Counts per class and split."""
    rows: dict[str, list[int]] = {}
    for source in sources.values():
        labels = source.labels
        if source.votes is not None:
            labels = majority_label(source.votes)
        none, *counts = torch.bincount(labels.clamp_min(-1) + 1, minlength=len(source.classes) + 1).tolist()
        names = (*source.classes, "labeled", "no majority")
        for name, count in zip(names, (*counts, sum(counts), none), strict=True):
            rows.setdefault(name, []).append(count)
    if not any(rows["no majority"]):
        del rows["no majority"]
    lines = [f"{'':<12}" + "".join(f"{split:>9}" for split in sources)]
    return lines + [f"{name:<12}" + "".join(f"{count:9,}" for count in row) for name, row in rows.items()]


def _unreadable(source: Source, every: bool) -> list[str]:
    """Errors of a few images, spread over the split, or of all."""
    count, errors = len(source), []
    for index in range(0, count, 1 if every else max(1, count // TRIED)):
        try:
            source.read(index)
        except DataError as error:
            errors.append(str(error))
    return errors


# Weights: what a file holds, told from its names and shapes; nothing in it is run, little of it is read.


def _look_at_weights(given: Sequence[str | os.PathLike[str]] | None) -> Iterator[Finding]:
    """Checkpoints in named files or folders, else in the folder of weights; and the files that would help."""
    named, seen, count = [Path(path).expanduser() for path in given or []], set(), 0
    for path in named or [weights_folder()]:
        inside = sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES))
        for file in [path] if path.is_file() else inside:
            kinds = [kind for kind in PRETRAINED if find_pretrained(kind, file.parent) == file]
            finding, count = _describe_weights(file, kinds), count + 1
            seen.update(kinds)
            if finding.status == "broken" and not given:
                finding.status = "odd"
            yield finding
        if given and not path.is_file() and not inside:
            text = (
                f"no {', '.join(SUFFIXES[:-1])} file in {path}" if path.exists() else f"{path} is not there"
            )
            yield Finding("Weights", "broken", path.name, text, "give a checkpoint file or its folder")
    if any(path.is_file() for path in named):
        return
    folder = (named or [weights_folder()])[0]
    if not count:
        text = f"none in {folder}; the chapters need none, they train their own small networks"
        yield Finding("Weights", "missing", "weights", text)
    absent = [entry for kind, entry in PRETRAINED.items() if kind not in seen]
    if absent:
        lines = []
        for entry in absent:
            where = _wrap(f"{entry.files[0]}: {entry.source}", 84, "    ", "      ")
            lines += [f"{entry.kind}: {entry.gives}", *where]
        text = f"{len(absent)} that would help the large networks are not there; put them into {folder}"
        yield Finding("Weights", "missing", "pretrained", text, lines=lines)


def _describe_weights(path: Path, kinds: Sequence[str]) -> Finding:
    """Which network's weights a file holds, and whether it is what its name says (a key of PRETRAINED)."""
    finding = Finding("Weights", "broken", path.name, "", "take the file anew, or leave it out")
    try:
        tensors = read_weights(path, numbers=False)
    except (FerlibError, OSError) as error:
        finding.text = f"cannot be read ({str(error).splitlines()[0][:90]})"
        return finding
    finding.text = (
        f"{len(tensors)} tensors, {sum(prod(t.shape) for t in tensors.values()) / 1e6:.2f} M numbers"
    )
    fits = []
    for name in ARCHITECTURES:
        for part in (None, *ARCHITECTURES[name].parts):
            report = place_official(tensors, name, part=part)[1]
            if report.complete:
                rest = f" ({len(report.unexpected)} names without a place)" if report.unexpected else ""
                fits.append(f"{name}: its part {report.part}{rest}" if report.part else name)
                break
    entries = [PRETRAINED[kind] for kind in kinds]
    fits = (
        [name for name in fits if ":" not in name]
        or fits
        or ["for timm"] * any(not e.architecture for e in entries)
    )
    finding.text += f", {' or '.join(fits)}" if fits else ", of no network known here"
    for entry in entries:
        if entry.architecture not in finding.text:
            finding.text += f", but its name says {entry.kind}"
            finding.advice = f"take it anew: {entry.source}"
            return finding
    finding.lines = [entry.gives for entry in entries]
    finding.status, finding.advice = ("ok", "") if fits else ("odd", f"known: {', '.join(ARCHITECTURES)}")
    return finding
