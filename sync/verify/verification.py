"""Compares the directory with what Redis holds, content and all, and mends what differs.

Failure model. A service may be at work beside it and follow changes meanwhile, so what is not equal
at first is a suspect, which is looked at again until it is equal or its time is up. What is mended
is written in transactions that are void when the service has changed anything meanwhile, and tried
again then. Memory does not grow with the files: large ones are compared in pieces, and when there
are very many suspects they are dealt with before others are looked for.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sync.core.changes import Signature, shown
from sync.core.errors import RedisChangedError
from sync.disk.files import Directory
from sync.disk.linux import reason
from sync.disk.writer import why_no_file
from sync.redis.target import Target
from sync.report.figures import counted, size
from sync.report.screen import Screen
from sync.service.mirror import Mirror
from sync.verify.comparison import BUSY, Comparison, Differs, Look, Skipped, Unsure

_PATIENCE = 2.0  # seconds that a suspect has; a service that follows takes less than one
_PAUSE = 0.1  # seconds between two looks at suspects
_SUSPECTS_MAX = 50_000  # some 30 MB of them, if their names are as long as can be
_NAMES_MAX = 1000  # looked at together
_LINES_MAX = 1000  # of each kind
_FILE = 16 << 10  # bytes that are compared in about the time that it takes to open a file


def mend(names: Sequence[bytes], mirror: Mirror) -> None:
    """Make Redis equal to the directory under some names, or try to: look again afterwards.

    Raises RedisAwayError.
    """
    parts = [names] if names else []
    deadline = time.monotonic() + _PATIENCE
    while parts and time.monotonic() < deadline:
        part = parts.pop()
        try:
            mirror.watch(part)
            for _ in mirror.examine(part):
                pass
            while mirror.streams.count:
                for _ in mirror.arrive():
                    pass
            deadline = time.monotonic() + _PATIENCE
        except RedisChangedError:
            # The service was faster; with fewer names at once it is less likely to be.
            middle = len(part) // 2
            parts += [half for half in (part[middle:], part[:middle]) if half]


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A name that was not equal: since when (s), and what was on disk and in Redis then."""

    since: float
    signature: Signature | None
    entry: bytes | None


@dataclass(slots=True)
class Tally:
    """What a verification has found."""

    files: int = 0
    bytes: int = 0
    differences: int = 0
    mended: int = 0
    skipped: int = 0
    unsure: int = 0  # that could not be compared

    def __str__(self) -> str:
        """Write it in one line."""
        words = [f"{counted(self.files, 'file', 'files')} ({size(self.bytes)})"]
        words += [f"{self.mended:,} mended"] if self.mended else []
        words += [f"{self.skipped:,} skipped"] if self.skipped else []
        words += [f"{self.unsure:,} not compared"] if self.unsure else []
        return ", ".join(words)


class Verification:
    """One look at the directory, or a part of it, and at all that Redis holds of that."""

    def __init__(  # noqa: PLR0913  # each is a part that it puts to use
        self,
        directory: Directory,
        target: Target,
        comparison: Comparison,
        screen: Screen,
        mirror: Mirror | None = None,
        *,
        takes_keys: bool = False,
    ) -> None:
        """Compare `directory` with `target`, which was joined; mend by way of `mirror`.

        Each thing that is found is told on `screen`. With `takes_keys` it looks for keys that have
        no file among all there are, too.
        """
        self._takes_keys = takes_keys
        self._directory = directory
        self._target = target
        self._comparison = comparison
        self._screen = screen
        self._mirror = mirror
        self._suspects: dict[bytes, _Suspect] = {}  # in the order in which they were found
        self._told: Counter[str] = Counter()  # lines, by their first word
        self._done = self._all = 0  # bytes; each file counts as _FILE more
        self.tally = Tally()
        self.is_nothing = False  # whether there is nothing of what was asked for
        self._has_seen = False

    def run(self, path: bytes = b"") -> Tally:
        """Verify all, or the file that has a path, or what is below it; return what was found.

        Raises RedisAwayError and DirectoryGoneError.
        """
        place = path + b"/" if path else b""
        if self._screen.has_bar:
            walked = self._directory.walk(place)
            self._all = sum(_FILE + has.size for _, has, _ in walked if has)
        for names in _batches(self._names(path, place)):
            self._examine(names)
        for page in self._held(place):
            self._examine([name for name in page if self._directory.signature(name) is None])
        for page in self._keys(path, place):
            self._examine(list(self._without_file(page)))
        self._settle(0)
        self.is_nothing = bool(path) and not self._has_seen
        self._directory.rest()
        self._directory.wake()  # raises when it is another one now
        for word, number in self._told.items():
            if number > _LINES_MAX:
                self._screen.tell(f"{word}{number - _LINES_MAX:,} more")
        return self.tally

    def _names(self, path: bytes, place: bytes) -> Iterator[bytes]:
        if path:
            self._has_seen = self._directory.has(path) or self._directory.has_place(place)
            yield from self._count(path, self._directory.signature(path))
        for name, signature, _ in self._directory.walk(place, self._cannot_list):
            if not name.endswith(b"/"):
                yield from self._count(name, signature)

    def _count(self, name: bytes, signature: Signature | None) -> Iterator[bytes]:
        self.tally.files += signature is not None
        self.tally.bytes += signature.size if signature else 0
        yield name

    def _held(self, place: bytes) -> Iterator[list[bytes]]:
        """Yield the names that Redis holds something under, in pages."""
        places = [place]
        while places:
            for page in self._target.manifest(places.pop()):
                self._has_seen |= bool(page)
                places += [mark for mark in page if mark.endswith(b"/")]
                yield [name for name in page if not name.endswith(b"/")]

    def _keys(self, path: bytes, place: bytes) -> Iterator[list[bytes]]:
        """Yield the names of keys that were never mirrored, if they are to be, in pages."""
        for page in self._target.scan() if self._takes_keys else ():
            names = [name for name in page if name == path or name.startswith(place)]
            self._has_seen |= bool(names)
            entries = self._target.entries(names)
            yield [name for name, entry in zip(names, entries, strict=True) if entry is None]

    def _without_file(self, names: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the names that have no file, but could."""
        for name in names:
            # First, since what looks at the disk takes a name for one that can be there.
            if why := why_no_file(name, is_tree=self._directory.is_tree):
                self._found(name, Skipped(why))
            elif not self._directory.excludes(name) and self._directory.signature(name) is None:
                yield name

    def _cannot_list(self, place: bytes, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            self._found(place, Unsure(f"cannot be listed ({reason(error)})"))

    def _examine(self, names: Sequence[bytes]) -> None:
        """Have a first look at names."""
        now = time.monotonic()
        looks = self._comparison.look(names, self._advance)
        doubtful = [name for name, look in looks.items() if not isinstance(look, Skipped)]
        entries = self._target.entries(doubtful)
        for name, entry in zip(doubtful, entries, strict=True):
            suspect = _Suspect(now, self._directory.signature(name), entry)
            self._suspects.setdefault(name, suspect)
        for name, look in looks.items():
            if isinstance(look, Skipped):
                self._found(name, look)
        self._advance(_FILE * len(names))
        self._settle(_SUSPECTS_MAX)

    def _settle(self, most: int) -> None:
        """Look again at suspects until there are at most so many."""
        while len(self._suspects) > most:
            self._advance(0)
            time.sleep(_PAUSE)
            for names in _batches(list(self._suspects)):
                self._look_again(names)

    def _look_again(self, names: Sequence[bytes]) -> None:
        now = time.monotonic()
        looks = self._comparison.look(names)
        for name in names:
            if name not in looks:
                del self._suspects[name]
        late = [name for name in looks if now >= self._suspects[name].since + _PATIENCE]
        self._conclude({name: self._judged(name, looks[name]) for name in late})
        for name in late:
            del self._suspects[name]

    def _judged(self, name: bytes, look: Look) -> Look:
        """Say what to make of a suspect whose time is up."""
        before = self._suspects[name]
        if isinstance(look, Differs) and self._directory.signature(name) != before.signature:
            (entry,) = self._target.entries([name])
            if entry not in {None, before.entry}:
                return BUSY  # it is followed, but has not stopped changing
        return look

    def _conclude(self, looks: Mapping[bytes, Look]) -> None:
        differing = [name for name, look in looks.items() if isinstance(look, Differs)]
        mended: set[bytes] = set()
        if self._mirror:
            mend(differing, self._mirror)
            left = self._comparison.look(differing)
            mended = {
                name for name in differing if not isinstance(left.get(name), Differs | Unsure)
            }
        for name, look in looks.items():
            self._found(name, look, mended=name in mended)

    def _found(self, name: bytes, look: Look, *, mended: bool = False) -> None:
        if mended:
            word = "mended: "
            self.tally.mended += 1
        elif isinstance(look, Differs):
            word = ""
            self.tally.differences += 1
        elif isinstance(look, Unsure):
            word = "not compared: "
            self.tally.unsure += 1
        else:
            word = "skipped: "
            self.tally.skipped += 1
        self._told[word] += 1
        if self._told[word] <= _LINES_MAX:
            self._screen.tell(f"{word}{shown(name)} {look.why}")

    def _advance(self, number: int) -> None:
        self._done += number
        differences = counted(self.tally.differences, "difference", "differences")
        share = self._done / self._all if self._all else 0.0
        self._screen.show(share, f"{self.tally}, {differences}")


def _batches(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    names = iter(names)
    while batch := list(islice(names, _NAMES_MAX)):
        yield batch
