"""One writer for a run's folder: the system holds the lock, and frees it when we die. Chapter 6."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ferlib.training.environment import now
from ferlib.weights import CheckpointError

LOCK = ".lock"


@contextmanager
def only_writer(folder: str | Path) -> Iterator[Path]:
    """Make a run's folder and hold it while inside; a process may enter the folder it holds again.

    A killed process holds nothing: the lock belongs to its open file, not to the file's existence.

    Shape: a path in, the path out. Raises ``CheckpointError`` where another process holds it (naming that
    process) and where the folder cannot be written. Chapter 6.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.resolve() / LOCK, is_singleton=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"{folder} is being written by {_holder(folder)}: wait for it, stop it, or choose another folder"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"cannot write {folder}: {error}; is it a folder, is it writable, has the disk room?"
        ) from error
    try:
        _sign(folder)
        yield folder
    finally:
        lock.release()


def _sign(folder: Path) -> None:
    try:
        text = f"process {os.getpid()} on {socket.gethostname()} (since {now()})"
        (folder / LOCK).write_text(text, encoding="utf-8")
    except OSError:  # a full disk: the lock holds without a name, and saving will tell
        pass


def _holder(folder: Path) -> str:
    try:
        return (folder / LOCK).read_text(encoding="utf-8").strip() or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"
