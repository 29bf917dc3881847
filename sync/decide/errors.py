"""What cannot be decided, in words for whoever has tried."""

from sync.core.errors import SyncError


class CannotDecideError(SyncError):
    """There is nothing to decide, or it cannot be done; `str` says why, and the way out."""
