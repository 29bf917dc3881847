"""Compares the directory with what Redis holds, content and all, and mends what differs.

Failure model. A service may be at work beside it and follow changes meanwhile, so what is not equal
at first is a suspect, which is looked at again until it is equal or its time is up. What is mended
is written in transactions that are void when the service has changed anything meanwhile, and tried
again then. Memory does not grow with the files: large ones are compared in pieces, and when there
are very many suspects they are dealt with before others are looked for.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from sync.core.changes import Signature, shown
from sync.core.errors import RedisChangedError
from sync.disk.files import Directory, File, LargeFile, Locked, Unfit
from sync.redis.target import Target
from sync.report.figures import counted, size
from sync.report.screen import Screen
from sync.service.mirror import Mirror

_PATIENCE = 2.0  # seconds that a suspect has; a service that follows takes less than one
_PAUSE = 0.1  # seconds between two looks at suspects
_SUSPECTS_MAX = 50_000  # some 30 MB of them, if their names are as long as can be
_NAMES_MAX = 1000  # looked at together
_BYTES_MAX = 8 << 20  # compared together
_LINES_MAX = 1000  # of each kind
_FILE = 16 << 10  # bytes that are compared in about the time that it takes to open a file


@dataclass(frozen=True, slots=True)
class Look:
    """What was found under a name that is not equal; `why` completes a sentence about it."""

    why: str


class Differs(Look):
    """Redis does not hold what is on disk."""


class Unsure(Look):
    """The file cannot be compared now; perhaps it can be when one looks again."""


class Skipped(Look):
    """What is on disk is not to be in Redis."""


_LOCKED = Unsure("is locked by its writer")
_BUSY = Unsure("is written to all the time")


class Comparison:
    """Compares files, by name, with what Redis holds."""

    def __init__(self, directory: Directory, target: Target, *, trim_newline: bool = False) -> None:
        """Compare names in `directory` with keys of `target`.

        With `trim_newline`, Redis is to have a file without its final newline.
        """
        self._directory = directory
        self._target = target
        self._newline = b"\n" if trim_newline else b""

    def look(
        self, names: Sequence[bytes], tick: Callable[[int], object] = lambda _: None
    ) -> dict[bytes, Look]:
        """Return what was found under those of some names that are not equal.

        Calls `tick` with how many bytes were compared since the last time.
        """
        looks: dict[bytes, Look] = {}
        contents: dict[bytes, bytes] = {}
        waiting = 0
        for name, entry in zip(names, self._target.entries(names), strict=True):
            match self._directory.read(name, self._target.value_max):
                case File(content=content):
                    contents[name] = content.removesuffix(self._newline)
                    waiting += len(content)
                case LargeFile() as file:
                    with closing(file):
                        if look := self._compare_large(name, file, tick):
                            looks[name] = look
                case Locked():
                    looks[name] = _LOCKED
                case Unfit(why) if entry is None:
                    looks[name] = Skipped(why)
                case Unfit(why):
                    looks[name] = Differs(f"is stale in Redis: it {why}")
                case None if entry is not None:
                    looks[name] = Differs("is stale in Redis: there is no such file")
            if waiting >= _BYTES_MAX:
                looks.update(self._compare(contents))
                tick(waiting)
                contents, waiting = {}, 0
        looks.update(self._compare(contents))
        tick(waiting)
        return looks

    def _compare(self, contents: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, Look]]:
        """Yield the names under which Redis does not hold these contents."""
        if not contents:
            return
        lengths = dict(zip(contents, self._target.lengths(tuple(contents)), strict=True))
        # Of a value that somebody else put there only the length is known to be bearable.
        asked = [name for name, content in contents.items() if lengths[name] in {0, len(content)}]
        values = dict(zip(asked, self._target.values(asked), strict=True))
        for name, content in contents.items():
            if name not in values:
                yield name, _other_length(len(content), lengths[name])
            elif (value := values[name]) is None:
                yield name, Differs("is missing in Redis")
            elif value != content:
                yield name, _other_content(content, value)

    def _compare_large(
        self, name: bytes, file: LargeFile, tick: Callable[[int], object]
    ) -> Look | None:
        size = file.signature.size
        if self._newline and file.ends_with(self._newline):
            size -= 1
        (length,) = self._target.lengths([name])
        if length != size:
            missing = length == 0 and self._target.values([name])[0] is None
            return Differs("is missing in Redis") if missing else _other_length(size, length)
        compared = 0
        for at, whole in file.pieces():
            piece = whole[: size - at]
            value = self._target.piece(name, at, len(piece)) if piece else b""
            if value != piece:
                return _other_content(piece, value, at)
            compared += len(piece)
            tick(len(piece))
        return None if compared == size and file.is_unchanged() else _BUSY


def _other_length(on_disk: int, in_redis: int) -> Differs:
    if in_redis < 0:
        return Differs("is no string in Redis")
    return Differs(f"has {counted(on_disk, 'byte', 'bytes')} on disk, {in_redis:,} in Redis")


def _other_content(on_disk: bytes, in_redis: bytes, at: int = 0) -> Differs:
    same = (one == other for one, other in zip(on_disk, in_redis, strict=False))
    first = next((number for number, equal in enumerate(same, 1) if not equal), None)
    if first is None:
        return _other_length(at + len(on_disk), at + len(in_redis))
    return Differs(f"differs from byte {at + first:,} on")


def mend(names: Sequence[bytes], mirror: Mirror) -> None:
    """Make Redis equal to the directory under some names, or try to: look again afterwards.

    Raises RedisAwayError.
    """
    parts = [names] if names else []
    deadline = time.monotonic() + _PATIENCE
    while parts and time.monotonic() < deadline:
        part = parts.pop()
        try:
            for _ in mirror.examine(part):
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
    """One look at the whole directory and at all that Redis holds of it."""

    def __init__(
        self,
        directory: Directory,
        target: Target,
        comparison: Comparison,
        screen: Screen,
        mirror: Mirror | None = None,
    ) -> None:
        """Compare `directory` with `target`, which was joined; mend by way of `mirror`.

        Each thing that is found is told on `screen`.
        """
        self._directory = directory
        self._target = target
        self._comparison = comparison
        self._screen = screen
        self._mirror = mirror
        self._suspects: dict[bytes, _Suspect] = {}  # in the order in which they were found
        self._told: Counter[str] = Counter()  # lines, by their first word
        self._done = self._all = 0  # bytes; each file counts as _FILE more
        self.tally = Tally()

    def run(self) -> Tally:
        """Verify; return what was found. Raises RedisAwayError and DirectoryGoneError."""
        if self._screen.has_bar:
            self._all = sum(_FILE + has.size for _, has, _ in self._directory.files() if has)
        for names in _batches(self._names()):
            self._examine(names)
        for page in self._target.manifest():
            self._examine([name for name in page if self._directory.signature(name) is None])
        self._settle(0)
        self._directory.rest()
        self._directory.wake()  # raises when it is another one now
        for word, number in self._told.items():
            if number > _LINES_MAX:
                self._screen.tell(f"{word}{number - _LINES_MAX:,} more")
        return self.tally

    def _names(self) -> Iterator[bytes]:
        for name, signature, _ in self._directory.files():
            self.tally.files += signature is not None
            self.tally.bytes += signature.size if signature else 0
            yield name

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
                return _BUSY  # it is followed, but has not stopped changing
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
