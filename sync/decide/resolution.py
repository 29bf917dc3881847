"""Carries out what somebody has decided about a name, or about all of them.

Failure model. A request is in Redis, and a service that runs hears of it; one that does not run
finds it when it starts. What would delete much is taken back when nobody has done it in time: by
the time that a service runs it may be wrong.
"""

import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from sync.core.changes import shown
from sync.core.decision import Mode, Side
from sync.decide.errors import CannotDecideError
from sync.decide.listing import NEVER, moment, why_never
from sync.decide.losers import bring_back, chosen
from sync.decide.names import meant
from sync.redis.keys import ACCEPT
from sync.redis.notes import Notes
from sync.redis.target import Target

_PAUSE = 0.05  # seconds between two looks

DONE, NOT_DONE, NOT_YET = 0, 1, 2  # exit statuses


class Answer(NamedTuple):
    """What became of a decision, in words and as an exit status."""

    words: str
    status: int


class Resolution:
    """Where decisions go: the notes of the service, and the values that it keeps."""

    def __init__(
        self,
        target: Target,
        notes: Notes,
        mode: Mode,
        patience: float,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Tell a service of this mode, and wait `patience` seconds for it to do it.

        `pause` waits for seconds between two looks.
        """
        self._target = target
        self._notes = notes
        self._mode = mode
        self._patience = patience
        self._pause = pause

    def resolve(
        self, written: str, paths: Collection[bytes], side: Side, number: int | None
    ) -> Answer:
        """End the conflict of the name that is one of `paths`, or is `written` so.

        If there is none, bring back a value that lost under that name: that of a number, or the
        last one. Raises CannotDecideError and RedisAwayError.
        """
        conflicts = {} if self._mode in NEVER else self._notes.conflicts()
        name = meant(written, paths, conflicts)
        if name is None:
            return self._bring_back(written, paths, side, number)
        if number is not None:
            raise CannotDecideError(
                f"{shown(name)} is in conflict: leave out --number, which is for values that lost"
            )
        return self._end(name, side)

    def _end(self, name: bytes, side: Side) -> Answer:
        self._notes.request(name, side)
        if not self._is_done(name):
            return Answer(
                f"{shown(name)} waits for the service, which has not done it in "
                f"{self._patience:.0f} s: it will when it runs (see `mdvp-sync status`)",
                NOT_YET,
            )
        conflict = self._notes.conflicts().get(name)
        if conflict:
            return Answer(f"{shown(name)} is still in conflict: it {conflict}", NOT_DONE)
        has = "the disk has" if side is Side.DISK else "Redis has"
        return Answer(f"{shown(name)} is in conflict no more: what {has} counts", DONE)

    def _bring_back(
        self, written: str, paths: Collection[bytes], side: Side, number: int | None
    ) -> Answer:
        lost = self._notes.lost()
        name = meant(written, paths, {each.name for each in lost})
        if name is None:
            raise CannotDecideError(
                f"{written} is not in conflict{why_never(self._mode)}; `mdvp-sync conflicts --all` "
                "lists what there is to decide"
            )
        if side is Side.DISK:
            raise CannotDecideError(
                f"{shown(name)} is not in conflict: what the disk has counts already"
            )
        if not self._mode.writes_files:
            raise CannotDecideError(
                f"with SYNC_MODE={self._mode.value} nothing that changes in Redis becomes a file, "
                "so nothing is brought back"
            )
        value = chosen(lost, name, number)
        if value is None:
            raise CannotDecideError(
                f"no value {number} of {shown(name)} is kept; `mdvp-sync conflicts --all` lists "
                "those that are"
            )
        bring_back(self._target, self._notes, value)
        return Answer(
            f"{shown(name)} has the value again that lost at {moment(value.at)}: it is in Redis, "
            "and the service brings it to the disk",
            DONE,
        )

    def accept(self, side: Side) -> Answer:
        """End a hold of the service; raise RedisAwayError."""
        self._notes.accept(side)
        if not self._is_done(ACCEPT) and self._notes.forget_accept():
            return Answer(
                f"no service has taken it in {self._patience:.0f} s, so it is taken back: try it "
                "again while `mdvp-sync status` says that the service holds",
                NOT_YET,
            )
        has = "the directory has" if side is Side.DISK else "Redis has"
        return Answer(f"the service goes on, and what {has} counts", DONE)

    def _is_done(self, name: bytes) -> bool:
        """Wait until a request is done; say whether it is, within the time there is."""
        deadline = time.monotonic() + self._patience
        while self._notes.is_waiting(name):
            if time.monotonic() >= deadline:
                return False
            self._pause(_PAUSE)
        return True
