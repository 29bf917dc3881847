"""The service: one session after the other, for ever.

Failure model. There is one way to be right again after anything: open the directory, connect, make
Redis equal to the whole directory (reconcile), follow. Whatever is lost, of the two, leads back to
its start; nothing is remembered from before but what Redis itself remembers. The service never ends
for it: it waits for what is away.
"""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from typing import NoReturn

from sync.core.errors import OUT_OF_MEMORY, DirectoryGoneError, RedisAwayError, SyncError
from sync.core.schedule import Rescan
from sync.disk.files import Directory
from sync.disk.linked import LinkedDirectory
from sync.disk.watch import Watch
from sync.redis.target import Target
from sync.report.board import Board
from sync.report.lines import Report
from sync.report.status import WAITING
from sync.service.groups import Groups
from sync.service.mirror import Mirror
from sync.service.news import News
from sync.service.session import Session
from sync.service.together import Together

log = logging.getLogger(__name__)

_BEAT = 1.0  # seconds between two signs of life
_PAUSE_MIN, _PAUSE_MAX = 0.05, 1.0  # seconds between two tries
_PAUSE_LONGEST = 60.0  # seconds, after a try that took as long


class Service:
    """Mirrors the directory at one path to one Redis server until it is stopped."""

    def __init__(  # noqa: PLR0913, PLR0917  # each is a part that it puts to use
        self,
        open_directory: Callable[[], Directory],
        target: Target,
        make_mirror: Callable[[Directory, News, Callable[[], None], bool], Mirror],
        report: Report,
        board: Board,
        rescan: Rescan,
    ) -> None:
        """Keep `target` equal to the directory that `open_directory` opens.

        `make_mirror` is told what to call to wake the session, and whether the server is short of
        memory.
        """
        self._open_directory = open_directory
        self._target = target
        self._make_mirror = make_mirror
        self._report = report
        self._board = board
        self._rescan = rescan
        self._cause = "start"
        self._pause = 0.0
        self._said = ""
        self._out_of_memory = False

    def run(self) -> NoReturn:
        """Mirror for ever."""
        while True:
            # After it, so that what an exception refers to is closed while the service waits.
            seconds, what = self._mirror_until_loss()
            self._wait(seconds, what)

    def _mirror_until_loss(self) -> tuple[float, str]:
        """Run a session; return how long to wait before the next, and for what."""
        began = time.monotonic()
        session: Session | None = None
        try:
            with (
                closing(self._open_directory()) as directory,
                closing(Watch(directory.handle, directory.ground)) as watch,
            ):
                session = self._make_session(directory, watch)
                session.run(self._cause, stale_first=self._out_of_memory)
        except (DirectoryGoneError, RedisAwayError) as error:
            self._out_of_memory = error.cause == OUT_OF_MEMORY
            took = time.monotonic() - began
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
            self._board.write(WAITING, what)
            self._report.tick()
            time.sleep(min(left, _BEAT))

    def _make_session(self, directory: Directory, watch: Watch) -> Session:
        groups = None
        if isinstance(directory, LinkedDirectory):
            directory.watch_by(watch.pass_through)
            groups = Groups(directory)
        news = News(watch, groups)
        mirror = self._make_mirror(directory, news, watch.wake, self._out_of_memory)
        together = Together(groups, self._target, mirror) if groups else None
        parts = (directory, watch, news, self._target, mirror, self._report, self._board)
        return Session(*parts, self._rescan, together)

    def _place(self, error: SyncError) -> str:
        redis_away = isinstance(error, RedisAwayError)
        return f"Redis at {self._board.where}" if redis_away else "the directory"

    def _say(self, what: str) -> None:
        """Log what the service waits for, once."""
        if what != self._said:
            self._said = what
            # At the start Redis may be starting too; later something is wrong.
            level = logging.WARNING if self._cause == "start" else logging.ERROR
            log.log(level, "waiting for %s", what)
