"""What can end or interrupt the service, in words for whoever reads its log."""


class SyncError(Exception):
    """Any failure that the service explains."""


class SettingsError(SyncError):
    """A setting in the environment has a value that it cannot have."""


class DirectoryGoneError(SyncError):
    """The directory is not there, or is no longer the one that was watched."""


class EventsLostError(SyncError):
    """File events were lost: only a look at the whole directory tells what has changed."""


class RedisAwayError(SyncError):
    """Redis does not answer, or refuses to do what it was asked."""
