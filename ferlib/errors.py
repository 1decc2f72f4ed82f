"""Errors that every floor may raise."""

from __future__ import annotations


class DataError(ValueError):
    """A file or value that cannot be used; the message names it, says what was expected and what to do."""
