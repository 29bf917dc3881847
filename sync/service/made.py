"""The directories that the service has made for keys: they go when the last of these does.

What is remembered of each tells it from any other that is there later.
"""

from collections.abc import Collection, Iterator, Sequence

from sync.disk.writer import Writer
from sync.redis.notes import Notes


class Made:
    """The directories that the service has made.

    Attributes:
        vacated: the names of those that it has removed, until somebody takes them.

    """

    def __init__(self, writer: Writer, notes: Notes) -> None:
        """Know of none yet of those that `writer` has made; remember them by `notes`."""
        self._writer = writer
        self._notes = notes
        self._made: dict[bytes, bytes] = {}
        self.vacated: list[bytes] = []

    def begin(self) -> None:
        """Take up what is remembered, as far as it is still there."""
        self._made = self._notes.made()
        self._forget(self._writer.gone(self._made))

    def tend(self, removed: Sequence[bytes]) -> None:
        """Remember those that were made, and remove those that are empty since files went."""
        if made := self._writer.take_made():
            self._notes.add_made(made)
            self._made |= made
        ours = {place for name in removed for place in _above(name) if place in self._made}
        if ours:
            gone = self._writer.remove_empty({place: self._made[place] for place in ours})
            self._forget(gone)
            self.vacated += (place[:-1] for place in gone)

    def are_gone(self, places: Collection[bytes]) -> None:
        """Take note that directories are gone, or were when that was told."""
        made = {place: self._made[place] for place in places if place in self._made}
        self._forget(self._writer.gone(made))

    def _forget(self, places: Collection[bytes]) -> None:
        if places:
            self._notes.forget_made(places)
        for place in places:
            del self._made[place]


def _above(name: bytes) -> Iterator[bytes]:
    at = len(name)
    while (at := name.rfind(b"/", 0, at)) >= 0:
        yield name[: at + 1]
