"""What a reconcile can be for: a closed set, so that each can have a figure of its own."""

from enum import StrEnum


class ReconcileCause(StrEnum):
    """What a reconcile is for, in words for people; `slug` is for programs."""

    START = "start"
    RESCAN = "rescan"
    TAKEOVER = "takeover"
    EVENTS_LOST = "events were lost"
    MESSAGES_LOST = "messages were lost"
    DIRECTORY_AWAY = "the directory was away"
    REDIS_AWAY = "Redis was away"
    REDIS_CHANGED = "Redis was changed"
    REDIS_OUT_OF_MEMORY = "Redis was out of memory"
    REDIS_READ_ONLY = "Redis was read-only"
    KEYS_IN_THE_WAY = "another service's keys were in the way"

    @property
    def slug(self) -> str:
        """A word for programs, which stays as it is: `redis_away`."""
        return self.name.lower()
