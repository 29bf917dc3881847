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
            self[name] = str(conflict)

    def note(self, name: bytes, disk: str, redis: str) -> None:
        """Take note that both sides have changed a name, and of what each has."""
        conflict = Conflict(time.time(), disk, redis)
        words = str(conflict)
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
        self._notes.note_conflicts({name: conflict})

    def settle(self, name: bytes) -> None:
        """Take note that a name is in conflict no more."""
        if self.pop(name, None) is not None:
            self._notes.clear_conflicts([name])
