"""Whether a key that is not there was deleted by somebody, or by the server for want of memory.

A message does not tell, and what the server counts does: while it has evicted no key since a time
at which all was known, none of those that are missing was evicted. With SYNC_EXPIRE=keep a key
whose time is over counts as not deleted either, and the same holds for what has expired.
"""

from sync.redis.notes import Notes, ServerFigures, State


class Absence:
    """What the server has done by itself since all was known."""

    def __init__(self, notes: Notes, *, keeps_expired: bool) -> None:
        """Ask the server by way of `notes`."""
        self._notes = notes
        self._keeps_expired = keeps_expired
        self._known: ServerFigures | None = None  # when all was known
        self._next: tuple[ServerFigures, int] | None = None

    def begin(self, state: State | None) -> None:
        """Take up what was known the last time, if that is of the same life of the server."""
        self._next = None
        self._known = now = self._notes.server()
        if now is None:
            return
        if state is None or state.server != now.run_id:
            # It has begun to count anew.
            evicted = -1 if now.may_evict else now.evicted
            expired = -1
        else:
            evicted, expired = state.evicted, state.expired
        self._known = now._replace(evicted=evicted, expired=expired)

    @property
    def is_doubtful(self) -> bool:
        """Say whether a key that is missing need not have been deleted by anybody."""
        now, known = self._notes.server(), self._known
        if now is None or known is None or now.run_id != known.run_id:
            return True
        if now.evicted != known.evicted:
            return True
        return self._keeps_expired and now.expired != known.expired

    def beat(self, answered: int, *, is_quiet: bool) -> ServerFigures | None:
        """Take note of what the server says, and return it if all is known by then.

        `answered` is how often it was made sure that all was heard; `is_quiet` says whether all
        that was heard has been looked at.
        """
        done = None
        if self._next and answered > self._next[1] and is_quiet:
            done = self.all_known(self._next[0])
        if self._next is None or done or not is_quiet:
            now = self._notes.server()
            self._next = (now, answered) if now else None
        return done

    def all_known(self, figures: ServerFigures) -> ServerFigures | None:
        """Take note that all that had happened by then is known; return it if that is news."""
        if figures == self._known:
            return None
        self._known = figures
        return figures
