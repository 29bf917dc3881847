"""What is not mirrored, name by name, and why: for the status, and once for the log."""

import logging
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping, Sequence

from sync.core.changes import shown
from sync.report.log import Lines

_NAMES_MAX = 10_000  # names remembered; the others are not mirrored either, but not listed


class Skipped(dict[bytes, str]):
    """Names that are not mirrored, each with words that complete a sentence about it.

    A name that ends with a slash is a directory's.

    Attributes:
        of_keys: the same for keys that can be no files, whatever there is on disk.
        of_stream: the same for the name of the stream of changes.

    """

    def __init__(self, log: logging.Logger) -> None:
        """Say in `log` what is new."""
        super().__init__()
        self.of_keys: dict[bytes, str] = {}
        self.of_stream: dict[bytes, str] = {}
        self._lines = Lines(
            log,
            logging.ERROR,
            "skipped",
            "%(key)s %(reason)s",
            "other names are not mirrored either: `mdvp-sync status` says which and why",
        )

    def note(self, name: bytes, why: str) -> None:
        """Take note that a name is not mirrored."""
        self._note(self, name, why)

    def note_key(self, name: bytes, why: str) -> None:
        """Take note of a key that can be no file."""
        self._note(self.of_keys, name, why)

    def note_stream(self, name: bytes, why: str) -> None:
        """Take note of what is wrong with the name of the stream of changes; "" for nothing."""
        if why:
            self._note(self.of_stream, name, why)
        else:
            self.of_stream.pop(name, None)

    def _note(self, noted: dict[bytes, str], name: bytes, why: str) -> None:
        if noted.get(name) == why or len(noted) >= _NAMES_MAX:
            return
        noted[name] = why
        self._lines.write(key=shown(name), reason=why)

    def clear_of_keys(self, names: Iterable[bytes]) -> None:
        """Take note that there are no such keys, or that they can be files."""
        if self.of_keys:
            for name in names:
                self.of_keys.pop(name, None)

    @property
    def all(self) -> Mapping[bytes, str]:
        """All that is not mirrored, by its name."""
        return ChainMap(self, self.of_keys, self.of_stream)

    def clear_of(self, names: Iterable[bytes]) -> None:
        """Take note that there is nothing wrong with these."""
        if self:
            for name in names:
                self.pop(name, None)

    def below(self, names: Collection[bytes]) -> list[bytes]:
        """Return the names that are below some others, and could be no files if those were."""
        if not self or not names:
            return []
        found, lengths = set(names), set(map(len, names))
        return [
            name
            for name in self
            if any(name[at : at + 1] == b"/" and name[:at] in found for at in lengths)
            and not name.endswith(b"/")
        ]

    def take_below(self, places: Sequence[bytes]) -> list[bytes]:
        """Forget places that are gone, and what is below; return the names that are below.

        With them come those of the places themselves, which could be no files' until now.
        """
        if not self:
            return []
        gone = tuple(places)
        names = {place[:-1] for place in gone}
        below = [name for name in self if name.startswith(gone) or name in names]
        for name in below:
            del self[name]
        return [name for name in below if not name.endswith(b"/")]
