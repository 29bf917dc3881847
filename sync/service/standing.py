"""Whether the directory and the server are those of the last time, and what is done if not.

Failure model. What the last session knew is in Redis. If that is lost there is nothing that could
be removed for it either. While the service holds it changes nothing on either side.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator

from sync.core.decision import Mode, Side
from sync.core.hold import Cause, hold
from sync.disk.files import Directory
from sync.redis.notes import Notes, State
from sync.redis.target import Target
from sync.report.board import Board
from sync.report.status import HELD
from sync.service.absence import Absence, known_by

log = logging.getLogger(__name__)

_TAKING = 300.0  # seconds that names which cannot be read have, once all others are in step
_PAUSE = 0.2  # seconds between two looks whether somebody has decided
_BEAT = 1.0  # seconds between two signs of life
_AGAIN = 30.0  # seconds until it is looked at once more whether much would go


class Standing:
    """What is known of a pair of a directory and a server."""

    def __init__(  # noqa: PLR0913, PLR0917  # each is a part that it puts to use
        self,
        directory: Directory,
        target: Target,
        notes: Notes,
        absence: Absence | None,
        mode: Mode,
        delete_max: float,
    ) -> None:
        """Take up what `notes` have of `directory` and `target`.

        More than a share of `delete_max` is removed at once only when somebody has accepted that.
        """
        self._directory = directory
        self._target = target
        self._notes = notes
        self._absence = absence
        self._mode = mode
        self._delete_max = delete_max
        self._identity = directory.lasting_identity()
        self._next = State(self._identity, b"-", 0, 0)  # what is known when all is
        self._is_taking = False
        self._taking_ends = math.inf

    def begin(self, board: Board, alive: Callable[[], None]) -> Side | None:
        """Hold, if much would go; return the side that is to be followed if somebody says so.

        While it holds, `alive` is called, and raises when there is nothing to hold any more.
        """
        state = self._notes.state()
        if self._absence:
            figures = self._absence.begin(state)
            if figures is None and self._mode.writes_files:
                log.warning(
                    "Redis does not tell this user what it has evicted: no key that is missing "
                    "removes a file; allow it +info",
                    {"event": "evictions_untold"},
                )
            elif figures:
                self._next = known_by(figures)._replace(directory=self._identity)
        # What was begun is gone on with: by now less is missing, and nobody would ask again.
        side = self._notes.taken(self._identity)
        if side is None and (why := self._why(state)):
            side = self._hold(why, state, board, alive)
            if side:
                self._notes.take(side, self._identity)
        self._notes.forget_accept()
        self._is_taking = side is not None
        return side

    def _why(self, state: State | None) -> str | None:
        """Say why it has to hold, if it has to."""
        if self._delete_max >= 1 or self._target.is_empty:
            return None
        # Where the directory is the copy, no key goes, and another one is filled anew.
        follows_disk = self._mode is not Mode.REDIS_TO_DISK
        is_another = follows_disk and state is not None and state.directory != self._identity
        may_lack = self._mode.writes_files and not (self._absence and self._absence.is_doubtful)
        if not (is_another or may_lack):
            return None
        known = keys = files = 0
        for names in self._held():
            known += len(names)
            has = [self._directory.signature(name) is not None for name in names]
            keys += has.count(False)
            if may_lack:
                there = self._target.are_there(names)
                files += sum(a and not b for a, b in zip(has, there, strict=True))
        why = hold(Cause.REDIS_LACKS_KEYS, files, known, self._delete_max) if may_lack else None
        if is_another:
            is_replica = self._mode is Mode.ONE_WAY_REPLICA
            limits = (keys, known, self._delete_max)
            why = hold(Cause.ANOTHER_DIRECTORY, *limits, is_replica=is_replica) or why
        return why

    def _held(self) -> Iterator[list[bytes]]:
        """Yield the names that Redis holds something under, in pages."""
        places = [b""]
        while places:
            for page in self._target.manifest(places.pop()):
                places += [mark for mark in page if mark.endswith(b"/")]
                yield [name for name in page if not name.endswith(b"/")]

    def _hold(
        self, why: str, state: State | None, board: Board, alive: Callable[[], None]
    ) -> Side | None:
        log.error("holding, and changing nothing: %(reason)s", {"event": "holding", "reason": why})
        self._notes.forget_accept()  # that was for something else
        again, beat = time.monotonic() + _AGAIN, 0.0
        while True:
            now = time.monotonic()
            if now >= beat:
                beat = now + _BEAT
                alive()
                board.write(HELD, why)
            side = self._notes.accepted()
            if side is Side.REDIS and self._mode is Mode.ONE_WAY_REPLICA:
                log.error(
                    "in mode %(mode)s no files are made of keys: to have that once, start with "
                    "SYNC_MODE=redis-to-disk; still holding",
                    {"event": "accept_refused", "mode": self._mode.value, "side": side.value},
                )
                self._notes.forget_accept()
            elif side:
                log.warning(
                    "somebody has accepted the side of the %(side)s: going on",
                    {"event": "accepted", "side": side.value},
                )
                return side
            if now >= again:
                if not self._why(state):
                    log.warning(
                        "what was missing is there again: going on", {"event": "hold_ended"}
                    )
                    return None
                again = time.monotonic() + _AGAIN
            time.sleep(_PAUSE)

    def is_in_step(self, *, is_taking: bool = False) -> None:
        """Take note that all that had happened when this began is known."""
        self._notes.remember(self._next)
        if self._absence:
            self._absence.is_known(self._next)
        self._taking_ends = time.monotonic() + _TAKING
        self.end_take(is_taking=is_taking)

    def end_take(self, *, is_taking: bool) -> None:
        """Take note that what was accepted is done, if nobody `is_taking` a side any more.

        What cannot be read for long must not have it hold for what is done much later.
        """
        if self._is_taking and not (is_taking and time.monotonic() < self._taking_ends):
            self._notes.end_take()
            self._is_taking = False

    def beat(self, answered: int, *, is_quiet: bool) -> None:
        """Take note of what the server has done by itself, once all of it is known.

        `answered` is how often it was made sure that all was heard; `is_quiet` says whether all
        that was heard has been looked at.
        """
        if self._absence and (state := self._absence.beat(answered, is_quiet=is_quiet)):
            self._notes.remember(state._replace(directory=self._identity))
