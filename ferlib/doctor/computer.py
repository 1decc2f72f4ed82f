"""Python, packages, GPU, disk."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ferlib.data.faces import cache_root
from ferlib.doctor.finding import Finding


def look_at_computer() -> list[Finding]:
    """The computer and its software. Shape: -> list of Finding."""
    section, found = "Computer", []
    python = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = "" if fits else "use Python 3.11, 3.12 or 3.13"
    found.append(
        Finding(section, "ok" if fits else "odd", "Python", f"{python} on {platform.system()}", advice)
    )
    for name in ("torch", "torchvision", "timm"):
        try:
            found.append(Finding(section, "ok", name, version(name)))
        except PackageNotFoundError:
            advice = "pip install -r requirements.txt"
            found.append(Finding(section, "odd", name, "not installed", advice))
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        found.append(Finding(section, "ok", "GPU", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB"))
    elif torch.backends.mps.is_available():
        found.append(Finding(section, "ok", "GPU", "Apple (mps)"))
    else:
        text = "none; the chapters need none, full training runs do"
        found.append(Finding(section, "missing", "GPU", text))
    if home := os.environ.get("FERLIB_HOME"):
        there = Path(home).expanduser().is_dir()
        advice = "" if there else "mount the drive first, or make the folder"
        text = home if there else f"{home} is not a folder"
        found.append(Finding(section, "ok" if there else "broken", "FERLIB_HOME", text, advice))
    cores = os.cpu_count() or 1
    found.append(Finding(section, "ok", "processor", f"{cores} cores, torch uses {torch.get_num_threads()}"))
    for what, path in (("disk here", Path.cwd()), ("disk, cache", cache_root())):
        while not path.exists():
            path = path.parent
        free = shutil.disk_usage(path).free / 1e9
        advice = "" if free > 2 else "make room: the environment takes some 2 GB, prepared FER+ 0.1 GB"
        found.append(Finding(section, "ok" if free > 2 else "odd", what, f"{free:,.0f} GB free", advice))
    return found
