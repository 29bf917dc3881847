"""Puts values into files: whole, in their places, and never over what nobody has looked at."""

from sync.core.changes import Signature
from sync.core.errors import SyncError


class CannotBeError(SyncError):
    """A key cannot be a file; `str` completes a sentence that begins with its name."""


class NotAsExpectedError(SyncError):
    """Something else is there than was looked at; or somebody writes to it: look again."""


__all__ = ["CannotBeError", "NotAsExpectedError", "Signature"]
