"""One volume that gets the content of another: how far that is, in words and in the log.

Nothing is decided here: `mdvp.filler` has the threads that do the work, and begins and ends it.
"""

import logging
import os
import time
from dataclasses import dataclass, field
from threading import Event, Thread

from mdvp.core.errors import MdvpError, StorageError, UnavailableError
from mdvp.core.options import Options
from mdvp.core.volume import Means
from mdvp.disk.copy import Progress, StoppedError
from mdvp.disk.root import Aside

log = logging.getLogger(__name__)

_STEP = 10  # per cent, or seconds, between lines of the log
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@dataclass(eq=False, slots=True)
class Job:
    """A volume that gets the content of another.

    Attributes:
        name: the new volume.
        source: the other.
        options: what the new one is to be.
        fd: the open directory of the source, the job's own.
        aside: where the directory of the new volume is, or is to be.
        recorded: whether the new volume is on record; else it is made by a snapshot.
        progress: how far the copy is; None before it has begun, and for a snapshot.
        waiting: how many wait for it to be made.
        stopped: whether it is to end.
        error: why it has failed.
        kind: what kind of failure that is.
        finished: whether its volume is full, or its thread is through.
        settled: set when there is nothing to be waited for any more.

    """

    name: str
    source: str
    options: Options
    fd: int
    aside: Aside
    recorded: bool
    progress: Progress | None = None
    waiting: int = 0
    stopped: bool = False
    error: str | None = None
    kind: type[StorageError | UnavailableError] = StorageError
    finished: bool = False
    settled: Event = field(default_factory=Event)
    thread: Thread | None = None

    def go_on(self) -> bool:
        """Say whether it is not to end."""
        return not self.stopped

    def stop(self) -> None:
        """Have it end; whoever waits for it does so no longer."""
        self.stopped = True
        self.settled.set()

    def check(self) -> None:
        """Raise StoppedError if it is to end."""
        if self.stopped:
            raise StoppedError

    def __str__(self) -> str:
        """Say how far it is."""
        if self.error is not None:
            return f"failed: {self.error}"
        if self.progress is None:
            return "waiting for other copies" if self.recorded else "a snapshot is being made"
        percent = self.progress.percent
        if percent is None:
            return "counting what there is to copy"
        return f"{percent} % of {in_units(self.progress.size_of)}, {self.progress.files_of:,} files"


class Announcer:
    """Says in the log how far a copy is, now and then, as it is asked whether to go on."""

    def __init__(self, job: Job) -> None:
        """Speak of `job`, from now on."""
        self._job = job
        self._at = time.monotonic()
        self._percent = 0

    def go_on(self) -> bool:
        """Say whether to go on, and in the log how far it is, if it is time for that."""
        progress = self._job.progress
        percent = (progress.percent if progress else None) or 0
        since = time.monotonic() - self._at
        if since >= _STEP or (since >= 1 and percent - self._percent >= _STEP):
            self._at, self._percent = time.monotonic(), percent
            log.info(
                "volume %(volume)s: %(_state)s",
                {
                    "event": "filling_progress",
                    "volume": self._job.name,
                    "source": self._job.source,
                    "percent": percent,
                    "files": progress.files if progress else 0,
                    "bytes": progress.size if progress else 0,
                    "_state": str(self._job),
                },
            )
        return self._job.go_on()


def say_filled(job: Job, means: Means, began: float, progress: Progress) -> None:
    """Log that a volume has all of the content, and what was left out.

    `began` is when it was begun, a reading of time.monotonic().
    """
    words = [f"{count} {kind} left out" for kind, count in sorted(progress.left_out.items())]
    if progress.changed:
        words.append(f"{progress.changed} files changed while they were copied")
    more = f": {', '.join(progress.named)}" if progress.named else ""
    log.log(
        logging.WARNING if words else logging.INFO,
        "volume %(volume)s has the content of %(source)s, by %(means)s, in %(seconds).1f s "
        "(%(files)d files, %(bytes)d bytes%(_rest)s)",
        {
            "event": "filled",
            "volume": job.name,
            "source": job.source,
            "means": means.value,
            "seconds": round(time.monotonic() - began, 3),
            "files": progress.files,
            "bytes": progress.size,
            "left_out": dict(progress.left_out),
            "changed": progress.changed,
            "paths": progress.named,
            "_rest": "".join(f"; {word}" for word in words) + more,
        },
    )


def in_words(error: Exception) -> str:
    """Say why a volume cannot be filled; a path as users name it."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {os.fsdecode(error.filename)!a}"
    if isinstance(error, MdvpError | OSError):
        return str(error)
    return "a defect in mdvp; its log has the details"


def in_units(size: int) -> str:
    """Write so many bytes for people: 12 GB."""
    power = 0
    while size >= 1000 ** (power + 1) and power < len(_UNITS) - 1:
        power += 1
    return f"{size / 1000**power:.3g} {_UNITS[power]}"
