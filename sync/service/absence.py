"""Whether a key that is not there was deleted by somebody, or by the server for want of memory.

A message does not tell, and what the server counts does: while it has evicted no key since a time
at which all was known, none of those that are missing was evicted. With SYNC_EXPIRE=keep a key
whose time is over counts as not deleted either, and the same holds for what has expired.
"""

from sync.redis.notes import Notes, ServerFigures, State

_NEVER = -1  # no count is that


class Absence:
    """What the server has done by itself since all was known."""

    def __init__(self, notes: Notes, *, keeps_expired: bool) -> None:
        """Ask the server by way of `notes`."""
        self._notes = notes
        self._keeps_expired = keeps_expired
        self._known: State | None = None  # when all was known
        self._next: tuple[State, int] | None = None

    def begin(self, state: State | None) -> ServerFigures | None:
        """Take up what was known the last time, if that is of the same life of the server.

        Return what the server tells by now.
        """
        self._next, self._known = None, state
        now = self._notes.server()
        if now and (state is None or state.server != now.run):  # it has begun to count anew
            self._known = State(b"", now.run, _NEVER, _NEVER)
        elif now and state and (now.may_evict or now.commands < state.commands):
            # What it has counted since was, or may have been, set back (CONFIG RESETSTAT).
            self._known = state._replace(evicted=_NEVER, expired=_NEVER)
        return now

    @property
    def is_doubtful(self) -> bool:
        """Say whether a key that is missing need not have been deleted by anybody."""
        now, known = self._notes.server(), self._known
        if now is None or known is None or now.run != known.server:
            return True
        if now.evicted != known.evicted:
            return True
        return self._keeps_expired and now.expired != known.expired

    def is_known(self, state: State) -> None:
        """Take note that all is known that had happened by then."""
        self._known = state

    def beat(self, answered: int, *, is_quiet: bool) -> State | None:
        """Ask the server; return what it had done by the last time, if that is known, and is news.

        `answered` and `is_quiet` are as for `Standing.beat`.
        """
        if self._next and answered == self._next[1]:
            return None
        before, self._next = self._next, None
        if now := self._notes.server():
            self._next = known_by(now), answered
        if not (before and is_quiet) or (self._known and self._known[1:4] == before[0][1:4]):
            return None
        self._known = before[0]
        return self._known


def known_by(figures: ServerFigures) -> State:
    """Return what is known when all is known that figures tell of; of no directory yet."""
    return State(b"", *figures[:3], figures.commands)
