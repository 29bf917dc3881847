"""What can end or interrupt the service, in words for whoever reads its log."""

from sync.core.causes import ReconcileCause


class SyncError(Exception):
    """Any failure that the service explains."""


class SettingsError(SyncError):
    """A setting in the environment has a value that it cannot have."""


class DirectoryGoneError(SyncError):
    """The directory is not there, or is no longer the one that was watched."""

    cause = ReconcileCause.DIRECTORY_AWAY  # what a reconcile after it is for


class RedisAwayError(SyncError):
    """Redis does not answer, or refuses to do what it was asked."""

    cause = ReconcileCause.REDIS_AWAY  # what a reconcile after it is for


class RedisForbidsError(RedisAwayError):
    """The user that the service has in Redis lacks a right."""


class RedisChangedError(RedisAwayError):
    """Redis no longer holds what was put there: it was flushed, or another mirror writes to it."""

    cause = ReconcileCause.REDIS_CHANGED


class OverlapError(RedisAwayError):
    """Another service works with keys that are among this one's, or the other way round."""

    cause = ReconcileCause.KEYS_IN_THE_WAY


class StandsByError(RedisChangedError):
    """Another service works with the same keys, and this one stands by."""

    def __init__(self, holder: object) -> None:
        """Say by `holder` who works, in words."""
        super().__init__(f"another mdvp-sync works with the same keys: {holder}")
        self.holder = str(holder)


class MeanwhileError(RedisChangedError):
    """What was to be done was void, since somebody had changed what it depended on."""


class RedisRefusedError(SyncError):
    """Redis has refused a transaction and done nothing of it: perhaps for one of its names."""

    def __init__(self, words: str, *, out_of_memory: bool = False) -> None:
        """Say why, in the server's words; whether it is short of memory."""
        super().__init__(words)
        self.out_of_memory = out_of_memory


class CannotBeError(SyncError):
    """A key cannot be a file; `str` completes a sentence that begins with its name."""


class NotAsExpectedError(SyncError):
    """Something else is there than was looked at; or somebody writes to it: look again."""
