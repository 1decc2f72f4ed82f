"""What computed a run or a result: versions, device, source, data, command, times. Chapters 6 and 7."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

import ferlib
from ferlib.data.base import DataError, FaceDataset, fingerprint
from ferlib.data.synthetic import SyntheticFaces

_ALL, _SAMPLE = 50_000, 1024  # larger data sets are told apart by a sample of their images
_FEW = 64  # images that every start of a run looks at


def versions() -> dict[str, str]:
    """Versions of Python, torch and ferlib, and the machine, by name."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ferlib": ferlib.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": str(torch.get_num_threads()),
    }


@cache
def commit(package: Path = Path(ferlib.__file__).parent) -> str:
    """The git commit of the source that runs: 40 digits, with ``+changes`` behind them where files that git
    tracks differ from it; ``package ferlib <version>`` where ferlib runs from an installed package.

    It is looked up once per process: files that change while it runs did not compute its numbers.
    """
    root = package.resolve().parent
    words = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        if (root / ".git").exists():  # the library's own repository, not one that it merely lies in
            return subprocess.run(
                words, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass  # no git, no commit yet, or a repository that git must not read
    return f"package ferlib {ferlib.__version__}"


def data_code(data: FaceDataset) -> str:
    """The number of faces, a short code for their labels, and one for some of their pictures.

    Synthetic faces differ by a rounding from processor to processor, so of them labels have to do; so have
    they where a picture cannot be read.
    """
    labels = torch.as_tensor(data.labels).numpy().astype("<i8").tobytes()
    code, inner = f"{len(data)} {sha256(labels).hexdigest()[:16]}", data
    while isinstance(getattr(inner, "faces", None), FaceDataset):
        inner = inner.faces
    if not isinstance(inner, SyntheticFaces):
        with suppress(DataError, OSError):
            code += f" {fingerprint(data, _FEW)}"
    return code


def same_data(one: str, two: str) -> bool:
    """Whether two codes of :func:`data_code` agree in what both say; those of before have labels alone."""
    return all(a == b for a, b in zip(one.split(), two.split(), strict=False))


def environment(fabric: Fabric, train: FaceDataset, valid: FaceDataset) -> dict[str, Any]:
    """The machine and the data of a run, for its ``environment.json``."""
    return {
        **versions(),
        "computes on": str(fabric.device),
        "processes": fabric.world_size,
        "commit": commit(),
        "data": {"train": _data_facts(train), "valid": _data_facts(valid)},
    }


def _data_facts(data: FaceDataset) -> dict[str, Any]:
    """Kind, number of faces, fingerprint (of a sample where the data set is large)."""
    sample = None if len(data) <= _ALL else _SAMPLE
    try:
        code = fingerprint(data, sample)
    except (DataError, OSError) as error:
        code = f"none: {error}"
    of = f"{sample} images" if sample else "all images"
    return {"kind": type(data).__name__, "faces": len(data), "fingerprint": code, "fingerprint of": of}


def start_facts(position: str) -> dict[str, Any]:
    """Where a run begins or goes on, when, in which process and by which command."""
    program = Path(sys.argv[0]).name or "python"
    program = "ferlib" if program == "__main__.py" else program
    return {
        "from": position,
        "started": now(),
        "process": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join([program, *sys.argv[1:]]),
    }


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
