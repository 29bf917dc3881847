"""A thread that looks out for containers which were granted a volume and have yet to start."""

import logging
import time
from collections.abc import Callable
from threading import Event

from mdvp import threads

log = logging.getLogger(__name__)

# Seconds between looks. The mounts of a container that starts can be seen for some hundredths
# before its program runs, which may hide them; what takes longer may be looked at more seldom.
_FIRST = 0.01
_LAST = 0.25
_PART = 0.05  # of the time since it was woken
# With nobody awaited: what comes without being asked for, such as a second holder.
_IDLE = 30.0


class Witness:
    """Calls `look` soon after each `wake`, then more seldom, and seldom when it says so."""

    def __init__(self, look: Callable[[], bool], end: Callable[[], object]) -> None:
        """Start the thread, awake; `look` returns whether there is somebody to be awaited.

        Should the thread itself fail, it calls `end`.
        """
        self._look = look
        self._woken = Event()
        self._closing = False
        self._failing = False
        self._thread = threads.start("witness", self._run, end)
        self.wake()

    def wake(self) -> None:
        """Have it look again soon."""
        self._woken.set()

    def close(self) -> None:
        """End the thread, after the look that is under way."""
        self._closing = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        since, delay = 0.0, _IDLE
        while True:
            woken = self._woken.wait(delay)
            if self._closing:
                return
            if woken:
                self._woken.clear()
                since, delay = time.monotonic(), _FIRST
                continue
            awake = time.monotonic() - since
            delay = max(_FIRST, min(_LAST, awake * _PART)) if self._awaits() else _IDLE

    def _awaits(self) -> bool:
        try:
            awaits = self._look()
        except Exception:  # without this thread, each volume of a dead container waits for GRACE
            if not self._failing:  # once is enough
                log.exception(
                    "cannot look for containers that start; trying again and again",
                    {"event": "look_failed"},
                )
            self._failing = True
            return True
        self._failing = False
        return awaits
