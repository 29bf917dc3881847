"""A thread that has what has been in the trash for its time deleted.

Failure model. What is due is decided by the odometer, never by how long the thread has waited: it
may wake late (the machine was suspended) or too soon, and then nothing is due. What cannot be moved
out of the trash is tried again each minute, and said once.
"""

import logging
from collections.abc import Callable
from threading import Event, Lock

from mdvp import threads
from mdvp.core.volume import Identity
from mdvp.disk.trash import Entry, Trash

log = logging.getLogger(__name__)

_PERIOD = 60.0  # seconds; what a crash may take from the time that is on disk, too


class Expiry:
    """Looks for what is due in the trash: at the start, after each `wake`, and when it will be."""

    def __init__(
        self, trash: Trash, lock: Lock, doomed: Callable[[], object], end: Callable[[], object]
    ) -> None:
        """Start the thread; `lock` is the driver's, and `doomed` is called when some are due.

        Should the thread itself fail, it calls `end`.
        """
        self._trash = trash
        self._lock = lock
        self._doomed = doomed
        self._failed: set[Identity] = set()
        self._woken = Event()
        self._closing = False
        self._thread = threads.start("expiry", self._run, end)

    def wake(self) -> None:
        """Have it look: something has come into the trash."""
        self._woken.set()

    def close(self) -> None:
        """End the thread, after what is under way; the time that has passed is then on disk."""
        self._closing = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            try:
                wait = self._sweep()
            except OSError as error:
                log.warning(
                    "cannot look for what is due in the trash: %(error)s; trying again in a minute",
                    {"event": "trash_not_looked_at", "error": error},
                )
                wait = _PERIOD
            self._woken.wait(wait)
            self._woken.clear()
        with self._lock:
            is_used = self._trash.restorable() > 0
        if is_used:
            self._trash.keep_time()

    def _sweep(self) -> float | None:
        """Have deleted what is due; return in how many seconds to look again, None for never."""
        with self._lock:
            due = self._trash.due()
        # One at a time, for others to have their turns.
        expired = [self._is_expired(entry) for entry in due]
        if any(expired):
            self._doomed()
        with self._lock:
            wait = self._trash.due_in()
        if wait is None:
            return None
        self._trash.keep_time()
        return _PERIOD if not all(expired) else min(wait, _PERIOD)

    def _is_expired(self, entry: Entry) -> bool:
        try:
            with self._lock:
                self._trash.expire(entry)
        except OSError as error:
            if entry.volume.identity not in self._failed:
                self._failed.add(entry.volume.identity)
                log.error(
                    "removed volume %(volume)s is due to be deleted and cannot be: %(error)s",
                    {"event": "not_expired", "volume": entry.name, "error": error},
                )
            return False
        return True
