"""Where a reader's files lie, and how a file is written: whole or not at all.

``FERLIB_HOME`` names one folder for what a reader brings and makes. In Colab it is a folder of a mounted
drive, elsewhere any folder::

    FERLIB_HOME/
        data/FERPlus/    FER+, in any layout that is read here     FERLIB_DATA
        weights/         pretrained weights and checkpoints        FERLIB_WEIGHTS
        runs/            what training writes                      FERLIB_RUNS
        cache/           prepared faces                            FERLIB_CACHE

A variable of the right column that is set by itself wins over the home.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["PLACES", "cache_root", "place", "replacing", "write_text"]

#: Each variable, and the folders of the home it may stand for: the first that is there, or the first.
PLACES = {
    "FERLIB_DATA": ("data/FERPlus", "data/ferplus"),
    "FERLIB_WEIGHTS": ("weights",),
    "FERLIB_RUNS": ("runs",),
    "FERLIB_CACHE": ("cache",),
}


def place(variable: str) -> Path | None:
    """The folder that a variable of ``PLACES`` names, or its folder in ``FERLIB_HOME``, or None.

    ``FERLIB_DATA`` has a folder in the home only where the faces are there: without them the chapters render
    their own. A home that is no folder is named in a warning and not used. Chapter 1.
    """
    if given := os.environ.get(variable):
        return Path(given).expanduser()
    if not (given := os.environ.get("FERLIB_HOME")):
        return None
    home = Path(given).expanduser().resolve()
    if not home.is_dir():
        text = f"FERLIB_HOME={home} is no folder and is not used: mount the drive first, or make the folder"
        warnings.warn(text, stacklevel=2)
        return None
    folders = [home / name for name in PLACES[variable]]
    there = next((folder for folder in folders if folder.is_dir()), None)
    return there if there or variable == "FERLIB_DATA" else folders[0]


def cache_root() -> Path:
    """Where prepared data is kept: ``$FERLIB_CACHE``, or ``~/.cache/ferlib``. Chapter 1."""
    return place("FERLIB_CACHE") or Path.home() / ".cache" / "ferlib"


_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_HALF = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})-(?P<process>[1-9][0-9]{0,8})-[a-z0-9_]{8}\.half", re.S)
_HOUR = 3600


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write to a temporary file beside ``path``; move it there when the block ends without an error.

    Missing folders are made. After an error the file that was there before is untouched. What killed
    processes have left of their own files in that folder is removed.

    Raises:
        OSError: From the file system: a read-only folder, a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(path.parent)
    start = f".{path.name[:50]}.{_HOST}-{os.getpid()}-"  # not longer than names may be
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=start, suffix=".half")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; a result is for everyone
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in one move."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _remove_left(folder: Path) -> None:
    """Remove temporary files of ``replacing`` whose process is gone, or that are an hour old."""
    with suppress(OSError):
        for one in list(os.scandir(folder)):
            if found := _HALF.fullmatch(one.name):
                with suppress(OSError):  # another process has just removed or moved it
                    old = time.time() - one.stat(follow_symlinks=False).st_mtime > _HOUR
                    if old or (found["host"] == _HOST and _is_gone(int(found["process"]))):
                        os.unlink(one.path)


def _is_gone(process: int) -> bool:
    if os.name != "posix":  # elsewhere asking would end the process
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # somebody else's
    return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
