"""Errors that every floor may raise, and how text of a stranger's file is checked and printed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

T = TypeVar("T")


class FerlibError(ValueError):
    """Something of the reader's that cannot be used: a file, a value, an option, a computer.

    The message names it, says what was expected and what to do. The command line prints it as one line and
    ends with exit status 1; any other exception is a defect of the library, and its traceback is shown.
    """


class DataError(FerlibError):
    """A file or value that cannot be used.

    Attributes:
        reason: The message without the name of the file.
    """

    def __init__(self, message: str, where: object = ""):
        super().__init__(f"{where}: {message}" if where else message)
        self.reason = message


def choose(name: str, given: T, known: Collection[T], error: type[FerlibError] = FerlibError) -> T:
    """The value of an option that has a few.

    Raises:
        FerlibError: It is none of them; of the kind ``error``.
    """
    if given not in known:
        raise error(f"{name}={given!r:.80} is unknown; choose one of {', '.join(map(str, known))}")
    return given


def printable(text: str) -> str:
    """Text as a terminal may get it: control characters and bytes that are no text are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def cell(text: str) -> str:
    """Printable text for a cell of a table, which a spreadsheet does not take for a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def class_names(found: Any) -> tuple[str, ...]:
    """The names of the classes as a file gives them. Raises ValueError unless they are distinct texts."""
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) and name for name in found):
        raise ValueError(f"class names are {str(found)[:80]!r}, expected a list of names")
    if len(set(found)) < len(found) or len(found) < 2:
        raise ValueError(f"class names are {', '.join(found)[:80]}: expected at least two, all different")
    return tuple(found)
