"""A thread that looks out for containers which were granted a volume and have yet to start."""

import logging
from collections.abc import Callable
from threading import Event, Thread

log = logging.getLogger(__name__)

# Seconds between looks. A container takes some tenths to start.
_FIRST = 0.05
_LAST = 1.0


class Witness:
    """Calls `look` soon after each `wake`, then ever more seldom for as long as it says so."""

    def __init__(self, look: Callable[[], bool]) -> None:
        """Start the thread, awake; `look` returns whether there is more to be seen."""
        self._look = look
        self._woken = Event()
        self._closing = False
        self._thread = Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()
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
        delay: float | None = None
        while True:
            woken = self._woken.wait(delay)
            if self._closing:
                return
            if woken or delay is None:
                self._woken.clear()
                delay = _FIRST
            else:
                delay = min(2 * delay, _LAST) if self._more() else None

    def _more(self) -> bool:
        try:
            return self._look()
        except Exception:  # without this thread, each volume of a dead container waits for GRACE
            log.exception("cannot look for containers that start; trying again")
            return True
