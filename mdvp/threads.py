"""Threads that do not die in silence.

Each thread of mdvp does something that nothing else would do in its place: without the one that
deletes, the disk fills; without the one that looks out, the volume of a dead container stays in
use. So a thread whose work fails in a way that nobody has foreseen ends the program, which says why
and is started again.
"""

import logging
from collections.abc import Callable
from threading import Thread

log = logging.getLogger(__name__)


def start(name: str, work: Callable[[], object], end: Callable[[], object]) -> Thread:
    """Start a thread, a daemon, that does `work`; should that raise, call `end` and say why."""

    def run() -> None:
        try:
            work()
        except BaseException:
            log.exception(
                "the thread %(thread)s has failed: mdvp ends, to be started again",
                {"event": "thread_failed", "thread": name},
            )
            end()

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
