"""What computed a run: versions, device, source, data, command, times. Chapters 6 and 7."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

import ferlib
from ferlib.data.base import DataError, FaceDataset
from ferlib.data.fingerprint import fingerprint
from ferlib.training.provenance import commit

_ALL, _SAMPLE = 50_000, 1024  # larger data sets are told apart by a sample of their images


def versions() -> dict[str, str]:
    """Versions of what computes: Python, torch, ferlib, the machine.

    Shape: strings by name. Chapters 6 and 7.
    """
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ferlib": ferlib.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": str(torch.get_num_threads()),
    }


def describe(data: FaceDataset) -> dict[str, Any]:
    """A data set in a few words: kind, number of faces, fingerprint (of a sample where it is large).

    Shape: N faces -> a dictionary for JSON. Chapter 6.
    """
    sample = None if len(data) <= _ALL else _SAMPLE
    try:
        code = fingerprint(data, sample)
    except (DataError, OSError) as error:
        code = f"none: {error}"
    of = f"{sample} images" if sample else "all images"
    return {"kind": type(data).__name__, "faces": len(data), "fingerprint": code, "fingerprint of": of}


def label_code(data: FaceDataset) -> str:
    """A short code for the labels alone, which needs no file to be read.

    Shape: N faces in, the count and 16 hexadecimal digits out, as ``"4096 1f..."``. Chapter 6.
    """
    labels = torch.as_tensor(data.labels).numpy().astype("<i8").tobytes()
    return f"{len(data)} {sha256(labels).hexdigest()[:16]}"


def environment(fabric: Fabric, train: FaceDataset, valid: FaceDataset) -> dict[str, Any]:
    """All that a reader of a run folder may ask about the machine and the material.

    Shape: a dictionary for JSON. Chapter 6.
    """
    return {
        **versions(),
        "computes on": str(fabric.device),
        "processes": fabric.world_size,
        "commit": commit(),
        "data": {"train": describe(train), "valid": describe(valid)},
    }


def this_start(at: str) -> dict[str, Any]:
    """Who begins (or goes on with) a run now, and where in it. Shape: text -> a dictionary for JSON."""
    program = Path(sys.argv[0]).name or "python"
    program = "ferlib" if program == "__main__.py" else program
    return {
        "from": at,
        "started": now(),
        "process": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join([program, *sys.argv[1:]]),
    }


def now() -> str:
    """The time, UTC, ISO 8601. Shape: -> text."""
    return datetime.now(UTC).isoformat(timespec="seconds")
