"""What both sides have changed, name by name, until somebody decides."""

import logging
import time

from sync.core.changes import shown
from sync.redis.notes import Conflict, Notes
from sync.report.log import Lines

log = logging.getLogger(__name__)


class Conflicts(dict[bytes, str]):
    """Names in conflict, each with words that complete a sentence about it.

    What is noted or settled is kept in Redis, for whoever decides, when it is written.
    """

    def __init__(self, notes: Notes) -> None:
        """Keep in Redis, by way of `notes`, what there is."""
        super().__init__()
        self._notes = notes
        self._new: dict[bytes, Conflict] = {}
        self._settled: set[bytes] = set()
        self._lines = Lines(
            log,
            logging.WARNING,
            "conflict",
            "%(key)s %(_words)s; both stay as they are until somebody decides: `mdvp-sync resolve "
            "NAME --take disk|redis`",
            "other names are in conflict, too: `mdvp-sync conflicts` lists them",
        )

    def begin(self) -> None:
        """Take up what was in conflict the last time."""
        self.clear()
        self._new.clear()
        self._settled.clear()
        for name, conflict in self._notes.conflicts().items():
            self[name] = str(conflict)

    def note(self, name: bytes, disk: str, redis: str) -> None:
        """Take note that both sides have changed a name, and of what each has."""
        conflict = Conflict(time.time(), disk, redis)
        words = str(conflict)
        if self.get(name) == words:
            return
        if name not in self:
            self._lines.write(key=shown(name), _words=words, disk=disk, redis=redis)
        self[name] = words
        self._new[name] = conflict

    def settle(self, name: bytes) -> None:
        """Take note that a name is in conflict no more."""
        if self.pop(name, None) is not None:
            self._new.pop(name, None)
            self._settled.add(name)

    def write(self) -> None:
        """Have Redis hold what there is by now."""
        if self._new:
            self._notes.note_conflicts(self._new)
            self._new.clear()
        if self._settled:
            self._notes.clear_conflicts(self._settled - self.keys())
            self._settled.clear()
