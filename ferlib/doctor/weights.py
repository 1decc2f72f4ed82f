"""What is in a weights file, told from its names and shapes; nothing in it is run, and little of it is
read.
"""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open

from ferlib.doctor.finding import Finding
from ferlib.models.official import CheckpointError, architectures, place_official, state_dict_in
from ferlib.models.official_files import StateDict, read_official
from ferlib.models.pretrained import PRETRAINED, Pretrained, find_pretrained, place, weights_folder

SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt", "67.60pth")


def describe_weights(path: Path) -> tuple[str, str, str]:
    """Which network's weights a file holds.

    Shape: path -> (status, text, advice); status "ok", "odd" (readable, of no known network) or "broken".
    """
    try:
        tensors = _names_and_shapes(path)
    except Exception as error:  # damaged files fail in as many ways as there are writers
        text = str(error).splitlines()[0][:90] if str(error) else type(error).__name__
        return "broken", f"cannot be read ({text})", "take the file anew, or leave it out"
    count = sum(prod(t.shape) for t in tensors.values())
    text = f"{len(tensors)} tensors, {count / 1e6:.2f} M numbers"
    fits = [found for name in architectures() if (found := _fits(tensors, name))]
    if fits:
        whole = [name for name in fits if ":" not in name]
        return "ok", f"{text}, {' or '.join(whole or fits)}", ""
    return "odd", f"{text}, of no network known here", f"known: {', '.join(architectures())}"


def _fits(tensors: StateDict, architecture: str) -> str:
    """The architecture, or "architecture: part of it" where the file holds more than that, or ""."""
    report = place(tensors, architecture)[1]
    if report.complete:
        return f"{architecture}: its part {report.part}" if report.part else architecture
    if architecture.startswith("btn-"):
        report = place_official(tensors, architecture, part="poster-v2")[1]
        if report.complete and report.unexpected:
            return f"{architecture}: its part poster-v2 ({len(report.unexpected)} names without a place)"
    return ""


def _names_and_shapes(path: Path) -> StateDict:
    """Tensors without memory where the file's kind allows that; nothing in it is run."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return StateDict(
                (name, torch.empty(file.get_slice(name).get_shape(), device="meta"))
                for name in file.keys()  # noqa: SIM118 - not a dict
                if not name.startswith("state/")
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about old formats
            return StateDict(state_dict_in(torch.load(path, map_location="meta", weights_only=True)))
    except CheckpointError:
        raise
    except Exception:  # refused: there is more than tensors in it
        return read_official(path)


def look_at_weights(given: Sequence[str | os.PathLike[str]] | None) -> list[Finding]:
    """Checkpoints in named files or folders, else in the folder of weights; and the files that would help.

    Shape: paths -> list of Finding.
    """
    section, found = "Weights", []
    folders = [Path(p).expanduser() for p in given or []] or [weights_folder()]
    seen = set()
    for path in folders:
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.name.endswith(SUFFIXES))
        for file in files:
            status, text, advice = describe_weights(file)
            lines: list[str] = []
            for entry in PRETRAINED.values():
                if find_pretrained(entry.kind, file.parent) == file:
                    seen.add(entry.kind)
                    status, text, advice = _as_expected(entry, status, text, advice)
                    lines = [entry.gives] if status == "ok" else []
            status = status if given or status != "broken" else "odd"
            found.append(Finding(section, status, file.name, text, advice, lines))
        if given and not files:
            text = (
                f"no {', '.join(SUFFIXES[:-1])} file in {path}" if path.exists() else f"{path} is not there"
            )
            found.append(Finding(section, "broken", path.name, text, "give a checkpoint file or its folder"))
    if any(path.is_file() for path in folders):
        return found
    if not found:
        text = f"none in {folders[0]}; the chapters need none, they train their own small networks"
        found.append(Finding(section, "missing", "weights", text))
    absent = [entry for entry in PRETRAINED.values() if entry.kind not in seen]
    lines = [line for entry in absent for line in _wanted(entry)]
    if absent and not any(finding.status == "broken" for finding in found):
        text = f"{len(absent)} that would help the large networks are not there; put them into {folders[0]}"
        found.append(Finding(section, "missing", "pretrained", text, lines=lines))
    return found


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
    return [
        f"{entry.kind}: {entry.gives}",
        *textwrap.wrap(where, 84, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False),
    ]
