"""Errors that every floor may raise."""

from __future__ import annotations


class DataError(ValueError):
    """A file or value that cannot be used; the message names it, says what was expected and what to do.

    Attributes:
        reason: The message without the name of the file.
    """

    def __init__(self, message: str, where: object = ""):
        super().__init__(f"{where}: {message}" if where else message)
        self.reason = message
