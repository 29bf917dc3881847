"""The service: one session after the other, for ever.

Failure model. There is one way to be right again after anything: open the directory, connect, make
Redis equal to the whole directory (reconcile), follow. Whatever is lost, of the two, leads back to
its start; nothing is remembered from before but what Redis itself remembers. The service never ends
for it: it waits for what is away. While another service works with the same keys it has no session,
and waits until that has ended.
"""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import NoReturn

from sync.core.causes import ReconcileCause
from sync.core.errors import (
    DirectoryGoneError,
    RedisAwayError,
    StandsByError,
    SyncError,
)
from sync.core.schedule import Rescan
from sync.disk.files import Directory
from sync.disk.linked import LinkedDirectory
from sync.disk.own import Own
from sync.disk.watch import Watch
from sync.report.board import Board
from sync.report.lines import Report
from sync.report.status import STANDBY, WAITING
from sync.service.groups import Groups
from sync.service.news import News
from sync.service.parts import Parts
from sync.service.session import Session
from sync.service.together import Together

log = logging.getLogger(__name__)

_BEAT = 1.0  # seconds between two signs of life
_PAUSE_MIN, _PAUSE_MAX = 0.05, 0.5  # seconds between two tries
_POLL = 0.2  # seconds between two looks whether the one that works has ended
_PAUSE_LONGEST = 60.0  # seconds, after a try that took as long


class Service:
    """Mirrors the directory at one path to one Redis server until it is stopped."""

    def __init__(  # each is a part that it puts to use
        self,
        open_directory: Callable[[], Directory],
        parts: Parts,
        report: Report,
        board: Board,
        rescan: Rescan,
    ) -> None:
        """Keep a server equal to the directory that `open_directory` opens, by way of `parts`."""
        self._open_directory = open_directory
        self._parts = parts
        self._report = report
        self._board = board
        self._rescan = rescan
        self._cause = ReconcileCause.START
        self._pause = 0.0
        self._said = self._since = ""  # what it waits for, and since when
        self._works = ""  # who else does, in words
        self._out_of_memory = False

    def run(self) -> NoReturn:
        """Mirror for ever."""
        try:
            while True:
                # After it, so that what an exception refers to is closed while the service waits.
                seconds, what = self._mirror_until_loss()
                if self._works:
                    self._stand_by()
                else:
                    self._wait(seconds, what)
        finally:
            self._parts.target.give_back()

    def _mirror_until_loss(self) -> tuple[float, str]:
        """Run a session; return how long to wait before the next, and for what."""
        began = time.process_time()  # to wait for a server that hangs is no work
        session: Session | None = None
        self._works = ""
        try:
            with closing(self._open_directory()) as directory, ExitStack() as stack:
                own = self._parts.own(directory)
                watch = stack.enter_context(closing(Watch(directory.handle, directory.ground, own)))
                session = self._make_session(directory, watch, own)
                session.run(self._cause, stale_first=self._out_of_memory)
        except StandsByError as error:
            self._works = error.holder
            return 0.0, ""
        except (DirectoryGoneError, RedisAwayError) as error:
            self._out_of_memory = error.cause is ReconcileCause.REDIS_OUT_OF_MEMORY
            took = time.process_time() - began
            if self._cause is ReconcileCause.TAKEOVER:  # which is said once
                self._cause = error.cause
            if session and session.in_step:
                self._cause, self._pause, self._said = error.cause, 0.0, ""
                took = 0.0
            what = f"{self._place(error)}: {error}"
            self._say(what)
            self._pause = max(min(self._pause * 2, _PAUSE_MAX), _PAUSE_MIN)
            # A reconcile that fails again and again must not be all that the machine does.
            again = self._pause > _PAUSE_MIN
            return max(self._pause, min(took, _PAUSE_LONGEST) if again else 0.0), what

    def _wait(self, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._board.write(WAITING, f"{what} (since {self._since})")
            self._report.tick()
            time.sleep(min(left, _BEAT))

    def _stand_by(self) -> None:
        """Wait until there is nobody else any more who works, or until Redis is away."""
        what = f"another mdvp-sync works with the same keys: {self._works}"
        if what != self._said:
            self._said = what
            log.warning(
                "standing by: %(_what)s; if it is for another directory, give each a SYNC_PREFIX",
                {"event": "standing_by", "_what": what, "holder": self._works},
            )
        self._cause, self._pause = ReconcileCause.TAKEOVER, 0.0
        beat = 0.0
        with suppress(RedisAwayError):  # the next session finds out, and says so
            while not self._parts.target.may_take():
                if time.monotonic() >= beat:
                    beat = time.monotonic() + _BEAT
                    self._board.write(STANDBY, self._works)
                    self._report.tick()
                time.sleep(_POLL)

    def _make_session(self, directory: Directory, watch: Watch, own: Own | None) -> Session:
        groups = None
        if isinstance(directory, LinkedDirectory):
            directory.watch_by(watch.pass_through)
            groups = Groups(directory)
        news = News(watch, groups)
        parts, target = self._parts, self._parts.target
        mirror = parts.mirror(directory, news, watch.wake, own, sparing=self._out_of_memory)
        together = Together(groups, target, mirror) if groups else None
        hearing = parts.hearing(directory, mirror, news)
        standing = parts.standing(directory)
        waiters = parts.waiters(directory, watch, news, mirror)
        made = (directory, watch, news, target, mirror, self._report, self._board)
        optional = (hearing, together, parts.feeding(directory), parts.hook)
        return Session(*made, self._rescan, standing, waiters, *optional)

    def _place(self, error: SyncError) -> str:
        redis_away = isinstance(error, RedisAwayError)
        return f"Redis at {self._board.where}" if redis_away else "the directory"

    def _say(self, what: str) -> None:
        """Log what the service waits for, once."""
        if what != self._said:
            self._said, self._since = what, time.strftime("%Y-%m-%d %H:%M:%S")
            # At the start Redis may be starting too; later something is wrong.
            level = logging.WARNING if self._cause is ReconcileCause.START else logging.ERROR
            log.log(level, "waiting for %(reason)s", {"event": "waiting", "reason": what})
