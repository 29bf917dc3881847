"""How much is in each volume: a cache that a thread keeps fresh, at a bounded cost.

Failure model. To count what is in a volume takes as long as it has files: seconds for a million of
them, if nothing else is done. So nobody who asks waits for that: they get what was counted last,
with when that was, or nothing yet. The thread is at work for a twentieth of the time at most,
whatever there is to count, and begins anew a minute after it has begun, and if it is through. While
nobody asks it does so once an hour. It holds no lock, follows no link and enters no mount
(`mdvp.disk.walk`). What changes while it counts is counted as it was met; what cannot be looked at
is told as such. Nobody is to be without volumes because of figures: what goes wrong is logged, and
tried again. They are lost with the process.
"""

import logging
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Event, Lock
from typing import TypeAlias

from mdvp import threads
from mdvp.core.clock import Clock, Moment
from mdvp.core.volume import NO_DIRECTORY, Identity, Volume
from mdvp.disk.entry import identity, opened
from mdvp.disk.root import Root
from mdvp.disk.store import Store
from mdvp.disk.walk import Visit, What, walk
from mdvp.host import clock

log = logging.getLogger(__name__)

_PART = 0.05  # of the time that it may be at work
_SLICE = 0.002  # seconds at work, before it rests
_LANES = 4  # volumes that are counted side by side, for a large one not to hold up the small
_PAGE = 50  # volumes that are read from the database at a time
_BLOCK = 512  # bytes, whatever the file system has: st_blocks in stat(3type)

Walk: TypeAlias = Generator[None, None, None]
_END = object()


@dataclass(frozen=True, slots=True)
class Pace:
    """How often all volumes are counted, in seconds.

    Attributes:
        first: after the start.
        asked: from one beginning to the next, while somebody asks.
        unasked: the same, while nobody does.
        attention: for how long somebody who has asked may ask again.

    """

    first: float = 10.0
    asked: float = 60.0
    unasked: float = 3600.0
    attention: float = 600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """How much was in a volume.

    Attributes:
        files: the names of what is no directory.
        bytes: the disk space of all that, and of the directories, as du(1) counts it; what files
            share by reflink counts for each.
        missed: how many things could not be looked at: mount points, and what was moved meanwhile.
        taken: when it was begun to count.
        seconds: how long that took.

    """

    files: int
    bytes: int
    missed: int
    taken: Moment
    seconds: float


@dataclass(slots=True)
class _Tally:
    files: int = 0
    bytes: float = 0.0
    missed: int = 0

    def count(self, visit: Visit) -> None:
        """Count what was visited; each directory when it is entered."""
        if visit.what is What.MISSED:
            self.missed += 1
        elif visit.what is not What.LEFT and visit.status is not None:
            self.files += visit.what is What.FOUND
            self.add(visit.status)

    def add(self, status: os.stat_result) -> None:
        """Add what something takes; of a file with several names, its part for one of them."""
        links = 1 if stat.S_ISDIR(status.st_mode) else max(1, status.st_nlink)
        self.bytes += status.st_blocks * _BLOCK / links


class Sizes:
    """How much is in each volume. Thread-safe."""

    def __init__(  # noqa: PLR0913  # its collaborators
        self,
        root: Root,
        store: Store,
        lock: Lock,
        end: Callable[[], object],
        now: Clock = clock.now,
        *,
        pace: Pace = Pace(),
    ) -> None:
        """Count what is in the volumes of `store`, in `root`; should the thread fail, call `end`.

        `lock` is to be held by who asks `store`.
        """
        self._root = root
        self._store = store
        self._lock = lock
        self._now = now
        self._pace = pace
        self._measured: dict[Identity, Measured] = {}
        self._asked: float | None = None
        self._begun: float | None = None
        self._woken = Event()
        self._closing = Event()
        self._failure = ""
        self._started = time.monotonic()
        self._thread = threads.start("sizes", self._run, end)

    def of(self, volume: Volume) -> Measured | None:
        """Return how much was in a volume, by the last count; None if there is none yet."""
        now = time.monotonic()
        if not self._has_attention(now):
            self._woken.set()
        self._asked = now
        return self._measured.get(volume.identity)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._woken.set()
        self._thread.join()

    # When.

    def _has_attention(self, now: float) -> bool:
        return self._asked is not None and now - self._asked < self._pace.attention

    def _rest(self) -> float:
        """Return in how many seconds to begin."""
        now = time.monotonic()
        asked = self._has_attention(now)
        if self._begun is None:
            return 0.0 if asked else self._started + self._pace.first - now
        return self._begun + (self._pace.asked if asked else self._pace.unasked) - now

    def _run(self) -> None:
        while True:
            while (rest := self._rest()) > 0 and not self._closing.is_set():
                self._woken.wait(rest)
                self._woken.clear()
            if self._closing.is_set():
                return
            self._begun = time.monotonic()
            self._try_to_count()

    def _try_to_count(self) -> None:
        try:
            self._count_all()
        except Exception as error:
            if str(error) != self._failure:  # once is enough
                self._failure = str(error)
                log.exception(
                    "cannot count what is in the volumes; trying again and again",
                    {"event": "sizes_not_counted"},
                )
        else:
            self._failure = ""

    # What.

    def _count_all(self) -> None:
        """Count all volumes, some of them side by side, and rest in between."""
        known: set[Identity] = set()
        volumes = self._volumes()
        lanes: deque[Walk] = deque()
        try:
            while not self._closing.is_set():
                while len(lanes) < _LANES and (volume := next(volumes, None)) is not None:
                    known.add(volume.identity)
                    lanes.append(self._count(volume))
                if not lanes:
                    self._forget_all_but(known)
                    return
                lane = lanes.popleft()
                if self._goes_on(lane):
                    lanes.append(lane)
        finally:
            for lane in lanes:
                lane.close()

    def _volumes(self) -> Iterator[Volume]:
        """Yield all volumes that have a directory, with all that is to be in it."""
        after = ""
        while True:
            with self._lock:
                page = [volume for volume, _ in self._store.page(after, _PAGE)]
            if not page:
                return
            for volume in page:
                if volume.identity != NO_DIRECTORY and not volume.is_being_filled:
                    yield volume
            after = page[-1].name

    def _goes_on(self, lane: Walk) -> bool:
        """Go some way on, then rest; return whether there is more to come."""
        began = time.monotonic()
        more, took = True, 0.0
        while more and took < _SLICE:
            more = next(lane, _END) is not _END
            took = time.monotonic() - began
        # Of the time, not of the processor's: what waits for a disk keeps that from others.
        self._closing.wait(took * (1 / _PART - 1))
        return more

    def _count(self, volume: Volume) -> Walk:
        """Count what is in a volume, a step at a time."""
        taken, began = self._now(), time.monotonic()
        try:
            with opened(volume.name, self._root.descriptor) as fd:
                if identity(fd) != volume.identity:
                    return
                tally = _Tally()
                tally.add(os.fstat(fd))
                with closing(walk(fd)) as visits:
                    for visit in visits:
                        tally.count(visit)
                        yield
        except OSError:  # it is not there, or has been moved: there is nothing to tell of it
            return
        took = time.monotonic() - began
        self._measured[volume.identity] = Measured(
            tally.files, round(tally.bytes), tally.missed, taken, took
        )

    def _forget_all_but(self, known: set[Identity]) -> None:
        for gone in self._measured.keys() - known:
            del self._measured[gone]
