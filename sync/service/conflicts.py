"""What both sides have changed, name by name, until somebody decides."""

import logging
import time

from sync.core.changes import shown
from sync.redis.notes import Conflict, Notes

log = logging.getLogger(__name__)


class Conflicts(dict[bytes, str]):
    """Names in conflict, each with words that complete a sentence about it."""

    def __init__(self, notes: Notes) -> None:
        """Keep in Redis, by way of `notes`, what there is, for whoever decides."""
        super().__init__()
        self._notes = notes

    def begin(self) -> None:
        """Take up what was in conflict the last time."""
        super().clear()
        for name, conflict in self._notes.conflicts().items():
            self[name] = _words(conflict.disk, conflict.redis)

    def note(self, name: bytes, disk: str, redis: str) -> None:
        """Take note that both sides have changed a name, and of what each has."""
        words = _words(disk, redis)
        if self.get(name) == words:
            return
        if name not in self:
            log.warning(
                "%s %s; both stay as they are until somebody decides: `mdvp-sync resolve NAME "
                "--take disk|redis`",
                shown(name),
                words,
            )
        self[name] = words
        self._notes.note_conflicts({name: Conflict(time.time(), disk, redis)})

    def settle(self, name: bytes) -> None:
        """Take note that a name is in conflict no more."""
        if self.pop(name, None) is not None:
            self._notes.clear_conflicts([name])


def _words(disk: str, redis: str) -> str:
    return f"was changed on both sides: {disk} on disk, {redis} in Redis"
