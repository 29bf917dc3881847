"""What is not mirrored, name by name, and why: for the status, and once for the log."""

import logging
import time
from collections.abc import Iterable, Sequence

from sync.core.changes import shown
from sync.report.log import LINES_MAX

_NAMES_MAX = 10_000  # names remembered; the others are not mirrored either, but not listed


class Skipped(dict[bytes, str]):
    """Names that are not mirrored, each with words that complete a sentence about it."""

    def __init__(self, log: logging.Logger) -> None:
        """Say in `log` what is new."""
        super().__init__()
        self._log = log
        self._lines, self._second_ends = 0, 0.0  # written in this second, and when it ends

    def note(self, name: bytes, why: str) -> None:
        """Take note that a name is not mirrored."""
        if self.get(name) == why or len(self) >= _NAMES_MAX:
            return
        self[name] = why
        self._complain(f"{shown(name)} {why}")

    def clear_of(self, names: Iterable[bytes]) -> None:
        """Take note that there is nothing wrong with these."""
        if self:
            for name in names:
                self.pop(name, None)

    def take_below(self, places: Sequence[bytes]) -> list[bytes]:
        """Forget places that are gone, and what is below; return the names that are below."""
        if not self:
            return []
        gone = tuple(places)
        below = [name for name in self if name.startswith(gone)]
        for name in below:
            del self[name]
        return [name for name in below if not name.endswith(b"/")]

    def _complain(self, words: str) -> None:
        """Log an error, but not more than LINES_MAX a second."""
        if time.monotonic() >= self._second_ends:
            self._second_ends, self._lines = time.monotonic() + 1, 0
        self._lines += 1
        if self._lines <= LINES_MAX:
            self._log.error("%s", words)
        elif self._lines == LINES_MAX + 1:
            self._log.error(
                "other names are not mirrored either: `mdvp-sync status` says which and why"
            )
