"""A session: an open directory and a connection to Redis, until one of the two is lost.

It makes Redis equal to the directory (reconcile) and follows what happens in it. Both at once: what
happens during a reconcile is followed between its steps, so that no change waits for long and the
kernel's queue of events does not fill up.

Failure model. What is lost ends the session with an exception, and nothing of it is kept. Events
that the kernel drops are no loss of that kind: another reconcile finds what they were about.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NoReturn

from sync.core.changes import Command, shown
from sync.core.plan import Pending
from sync.disk.files import Directory, now
from sync.disk.watch import Watch
from sync.redis.target import Target
from sync.report.lines import Report
from sync.report.status import LIVE, RECONCILING, SKIPPED_MAX, Status, StatusFile
from sync.service.mirror import NAMES_MAX, Mirror
from sync.service.reconcile import Reconcile

log = logging.getLogger(__name__)

RESCAN = "rescan"

_BEAT = 2.0  # seconds between two signs of life
_PATIENCE = 0.5  # seconds that a file may stay open before it is mirrored all the same
_RESCAN_SOON = 2.0  # seconds before a rescan for which there is a reason
_STEP = 0.0002  # seconds of work for a step beside the step itself
_RESCANNED = 50  # names that a rescan looks at in a step
_REST = 3.0  # times as long as it took, before what is unfinished is looked at again
_RETRY = 0.1  # seconds before another look at a file that could not be read


@dataclass
class Board:
    """What the service has done since it started, and the status that says so."""

    file: StatusFile
    target: Target
    reconciles: Counter[str] = field(default_factory=Counter)
    skipped: dict[bytes, str] = field(default_factory=dict)
    lag: float | None = None

    def write(self, state: str, detail: str = "") -> None:
        """Write the status: `state`, `detail`, and all the rest."""
        self.file.write(
            Status(
                state=state,
                detail=detail,
                files=self.target.files,
                bytes=max(0, self.target.bytes),
                commands=self.target.commands,
                lag=self.lag,
                reconciles=self.reconciles,
                skipped={
                    shown(name): why for name, why in islice(self.skipped.items(), SKIPPED_MAX)
                },
                skipped_count=len(self.skipped),
            )
        )


@dataclass(frozen=True)
class Rescan:
    """When the whole directory is looked at although nothing was lost.

    inotify does not tell of writes through mmap(2), or of those on another host.
    """

    interval: float  # seconds; 0 is never
    share: float  # of one core, that it may take


class Session:
    """Mirrors one open directory over one connection."""

    def __init__(  # noqa: PLR0913, PLR0917  # each is a part that it puts to use
        self,
        directory: Directory,
        watch: Watch,
        target: Target,
        mirror: Mirror,
        report: Report,
        board: Board,
        rescan: Rescan,
    ) -> None:
        """Mirror `directory`, which is under `watch`, by way of `mirror` to `target`."""
        self._directory = directory
        self._watch = watch
        self._target = target
        self._mirror = mirror
        self._report = report
        self._board = board
        self._rescan = rescan
        self._pending = Pending(_PATIENCE, _RETRY)
        self._is_idle = False  # whether nothing happened in the last wait
        self._arrived: float | None = None  # when the first change came that is not followed yet
        self._drained = 0  # when what had happened until then was known; as of files.now()
        self._unsure = False  # whether there are entries to confirm
        self._next_beat = 0.0
        self._reconcile: Reconcile | None = None
        self._next_step = 0.0
        self._rescan_soon = False
        self._began = 0.0
        self.in_step = False  # whether Redis has been equal to the directory

    def run(self, cause: str, *, stale_first: bool) -> NoReturn:
        """Mirror until something is lost. Raises RedisAwayError or DirectoryGoneError.

        The first reconcile is for `cause`; it removes keys first if told to.
        """
        self._target.connect()
        self._begin(cause, stale_first=stale_first)
        while True:
            self._beat_if_due()
            self._wait()
            self._report.tick()
            self._drain()
            if not self._mirror.is_streaming:
                self._follow()
                self._confirm()
            self._step()

    def _wait(self) -> None:
        """Wait until something happens, or until there is something to do though nothing does."""
        # What came while the last of it was followed is taken up already.
        if self._pending.is_ready or self._unsure or self._watch.lost:
            return
        times = (self._next_beat, self._next_step, self._pending.due, self._report.due)
        seconds = min(each for each in times if each is not None) - time.monotonic()
        if seconds <= 0:
            return
        if self._is_idle:
            self._directory.rest()
        self._is_idle = not self._watch.wait(seconds)
        self._directory.wake()

    def _drain(self) -> None:
        """Take up what has happened; the kernel's queue of events must not fill up."""
        self._drained = now()
        changes = self._watch.read()
        if not changes:
            return
        arrived = time.monotonic()
        self._pending.add(changes, arrived)
        self._arrived = self._arrived or arrived
        if self._reconcile:
            self._reconcile.disturbed = True

    def _follow(self) -> None:
        taken = time.monotonic()
        plan = self._pending.take(taken)
        if not plan:
            return
        arrived, self._arrived = self._arrived or taken, None
        self._mirror.saw_unknown = False
        self._mirror.streamed = 0.0
        for done in self._batches(self._mirror.follow(plan)):
            self._board.lag = time.monotonic() - arrived
            self._report.done(done, self._board.lag)
        # A large file that is written to all the time must not keep all others waiting.
        self._pending.stretch(self._mirror.streamed * _REST)
        self._rescan_soon = self._rescan_soon or self._mirror.saw_unknown
        if not self._reconcile:
            self._plan_rescan(self._next_step)

    def _batches(self, batches: Iterable[Sequence[Command]]) -> Iterator[Sequence[Command]]:
        """Yield what was done, and see to the rest of the service after each."""
        for done in batches:
            yield done
            self._pending.defer(self._mirror.take_deferred(), time.monotonic())
            self._drain()
            self._beat_if_due()

    def _beat_if_due(self) -> None:
        if time.monotonic() < self._next_beat:
            return
        self._directory.rest()
        self._directory.wake()  # tells whether it is still the same
        self._target.check()  # when idle, the only way to notice that Redis was away or flushed
        state, detail = LIVE, ""
        if self._reconcile and self._is_reconciling():
            state, detail = RECONCILING, f"{self._reconcile.seen:,} files so far"
        self._board.write(state, detail)
        self._next_beat = time.monotonic() + _BEAT
        self._unsure = True

    def _confirm(self) -> None:
        """Make entries sure while nothing happens, so that a restart need not read the files."""
        # Events that were lost may have been about these files: a reconcile reads them again.
        lost = self._watch.lost or self._is_reconciling()
        if self._unsure and not lost and not self._watch.wait(0):
            self._unsure = not self._mirror.confirm(self._drained, self._pending)

    def _begin(self, cause: str, *, stale_first: bool = False) -> None:
        self._reconcile = Reconcile(
            cause,
            self._directory,
            self._target,
            self._mirror,
            values=cause == RESCAN,
            at_once=_RESCANNED if cause == RESCAN else NAMES_MAX,
            stale_first=stale_first,
        )
        self._rescan_soon = False
        self._began = time.monotonic()
        self._next_step = self._began
        if cause != RESCAN:
            self._report.begin()
            self._next_beat = self._began  # to say so

    def _step(self) -> None:
        """Do the next step of a reconcile, when it is time for it, or begin one."""
        if self._watch.lost and not self._is_reconciling():
            self._watch.lost = False  # before the directory is looked at: they may be lost again
            log.warning(
                "the kernel's queue of file events overflowed: looking at the whole directory"
            )
            self._begin("events were lost")
        elif time.monotonic() < self._next_step:
            return
        elif self._reconcile:
            self._go_on(self._reconcile)
        else:
            self._begin(RESCAN)

    def _is_reconciling(self) -> bool:
        """Say whether there is a reconcile that is not just a rescan, which may take its time."""
        return self._reconcile is not None and self._reconcile.cause != RESCAN

    def _go_on(self, reconcile: Reconcile) -> None:
        began = time.thread_time()
        done = reconcile.step()
        self._pending.defer(self._mirror.take_deferred(), time.monotonic())
        if done is None:
            self._end(reconcile)
        elif reconcile.cause == RESCAN:
            pause = (time.thread_time() - began + _STEP) / self._rescan.share
            self._next_step = time.monotonic() + (0.0 if self._mirror.is_streaming else pause)
        else:
            self._report.progress(
                reconcile.cause, reconcile.seen, reconcile.sets, reconcile.deletes
            )

    def _end(self, reconcile: Reconcile) -> None:
        self._reconcile = None
        self._board.reconciles[reconcile.cause] += 1
        if reconcile.cause == RESCAN:
            if reconcile.sets or reconcile.deletes:
                sets, deletes = reconcile.sets, reconcile.deletes
                log.info("rescan: %d values brought, %d keys removed", sets, deletes)
        elif not self._watch.lost:  # or the next one begins at once
            self._is_in_step(reconcile)
        self._plan_rescan(time.monotonic() + (self._rescan.interval or math.inf))

    def _plan_rescan(self, at: float) -> None:
        """Have the next rescan begin then, or soon, if there is a reason."""
        if self._rescan_soon and self._rescan.interval:
            at = min(at, time.monotonic() + _RESCAN_SOON)
        self._next_step = at

    def _is_in_step(self, reconcile: Reconcile) -> None:
        self.in_step = True
        self._next_beat = 0.0  # to say so
        self._report.reconciled(
            str(self._target),
            self._directory.path,
            reconcile.cause,
            self._target.files,
            reconcile.sets,
            reconcile.deletes,
            time.monotonic() - self._began,
        )
