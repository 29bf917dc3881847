"""What somebody has decided by `mdvp-sync resolve`."""

from sync.core.decision import Side
from sync.redis.notes import Notes


class Requests:
    """The names that somebody has decided about, as the service takes them up."""

    def __init__(self, notes: Notes, decided: dict[bytes, Side]) -> None:
        """Take up what is noted into `decided`."""
        self._notes = notes
        self._decided = decided

    def take(self) -> dict[bytes, object]:
        """Take up what there is; return the names that are to be looked at for it."""
        found = self._notes.requests()
        self._decided.update(found)
        return dict.fromkeys(found)
