"""What is not mirrored, name by name, and why: for the status, and once for the log."""

import logging
from collections.abc import Iterable, Sequence

from sync.core.changes import shown
from sync.report.log import Lines

_NAMES_MAX = 10_000  # names remembered; the others are not mirrored either, but not listed


class Skipped(dict[bytes, str]):
    """Names that are not mirrored, each with words that complete a sentence about it."""

    def __init__(self, log: logging.Logger) -> None:
        """Say in `log` what is new."""
        super().__init__()
        self._lines = Lines(
            log,
            logging.ERROR,
            "other names are not mirrored either: `mdvp-sync status` says which and why",
        )

    def note(self, name: bytes, why: str) -> None:
        """Take note that a name is not mirrored."""
        if self.get(name) == why or len(self) >= _NAMES_MAX:
            return
        self[name] = why
        self._lines.write(f"{shown(name)} {why}")

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
