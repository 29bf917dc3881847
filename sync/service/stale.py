"""Finds what Redis holds and the directory does not have, by the records that Redis keeps."""

from collections.abc import Generator, Iterable, Iterator, Sequence

from sync.core.manifest import Entries
from sync.disk.files import Directory
from sync.redis.target import Target
from sync.service.mirror import Mirror, Outcome


class Stale:
    """The names in Redis that are to be looked at since nothing was seen under them.

    Attributes:
        bytes: how large the files together were whose content Redis held under them.
        below: how many of them were not at the root, less the marks there.

    """

    def __init__(self, directory: Directory, target: Target, mirror: Mirror, at_once: int) -> None:
        """Look at about so many names `at_once`, in a step."""
        self._directory = directory
        self._target = target
        self._format: Entries = target.format
        self._mirror = mirror
        self._at_once = at_once
        self.bytes = self.below = 0

    def everywhere(self) -> Iterator[Outcome]:
        """Look through all that Redis has records of."""
        places = [b""]
        while places:
            some, places = places[: self._at_once], places[self._at_once :]
            lengths = self._target.records((), some).lengths
            for place, (held, known) in zip(some, lengths, strict=True):
                marks = yield from self._examine(place, is_whole=held == known)
                gone = self._without_directory(place, marks)
                yield from self.gone(gone)
                places += marks.keys() - set(gone)

    def at(self, place: bytes, *, is_whole: bool) -> Iterator[Outcome]:
        """Look through the records of one directory; `is_whole` when both have as many names."""
        marks = yield from self._examine(place, is_whole=is_whole)
        yield from self.gone(self._without_directory(place, marks))

    def gone(self, places: Iterable[bytes]) -> Iterator[Outcome]:
        """Look through the records of directories that are not there any more, and below."""
        left, all_of_them = list(places), list[bytes]()
        coming = [name for name in self._mirror.coming() if name.startswith(tuple(left))]
        yield from self._mirror.examine([*self._mirror.skipped.take_below(left), *coming])
        while left:
            some, left = left[: self._at_once], left[self._at_once :]
            all_of_them += some
            lengths = self._target.records((), some).lengths
            for place, (held, known) in zip(some, lengths, strict=True):
                if held or known:
                    left += yield from self._examine(place, is_whole=held == known)
        self._mirror.are_gone(all_of_them)
        # A mark may go when there is none below; what is still there has its mark put back.
        for some in self._deepest_first(all_of_them):
            self._target.unmark(some)
            yield Outcome()

    def _without_directory(self, place: bytes, marks: Iterable[bytes]) -> list[bytes]:
        """Return those marks in a place's records of which there is no directory."""
        gone = [mark for mark in marks if not self._directory.has_place(mark)]
        self.below -= 0 if place else len(gone)
        return gone

    def _deepest_first(self, places: Iterable[bytes]) -> Iterator[list[bytes]]:
        by_depth: dict[int, list[bytes]] = {}
        for place in places:
            by_depth.setdefault(place.count(b"/"), []).append(place)
        for _, some in sorted(by_depth.items(), reverse=True):
            for first in range(0, len(some), self._at_once):
                yield some[first : first + self._at_once]

    def _examine(
        self, place: bytes, *, is_whole: bool
    ) -> Generator[Outcome, None, dict[bytes, None]]:
        """Examine names in the records of a directory; return the marks in them."""
        marks: dict[bytes, None] = {}
        for page in self._target.manifest(place, self._at_once):
            if not is_whole:
                self._target.add_names(tuple(page))
            names = _without(page, marks)
            stale = [name for name in names if self._directory.signature(name) is None]
            self.bytes += sum(self._size(page[name]) for name in stale)
            self.below += len(stale) if place else 0
            yield from self._mirror.examine(stale)
            yield Outcome()
        if is_whole:
            return marks
        for known in self._target.names(place, self._at_once):
            names = _without(known, marks)
            entries = self._target.entries(names)
            lost = [name for name, entry in zip(names, entries, strict=True) if entry is None]
            yield from self._mirror.examine(lost)
            yield Outcome()
        return marks

    def _size(self, entry: bytes) -> int:
        held = self._format.decode(entry)
        return held.size if held else 0


def _without(names: Iterable[bytes], marks: dict[bytes, None]) -> Sequence[bytes]:
    """Return the names that are no marks, and add the marks to the others."""
    files = []
    for name in names:
        if name.endswith(b"/"):
            marks[name] = None
        else:
            files.append(name)
    return files
