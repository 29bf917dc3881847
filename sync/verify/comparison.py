"""Compares single names: what is on disk with what Redis holds, content and all.

Which of the two is as it should be depends on the mode, and so does what may differ: a key that is
no string, say, stays as it is in all modes but one.

Failure model. A service may be at work beside it, and a file may change while it is read; so what
is found under a name is what was so for a moment, and whoever asked looks again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from sync.core.changes import places_above
from sync.core.decision import Mode
from sync.disk.files import Busy, Directory, Emptied, File, LargeFile, Locked, Unfit, Unreadable
from sync.redis.target import Target
from sync.report.figures import counted

_BYTES_MAX = 8 << 20  # compared together


@dataclass(frozen=True, slots=True)
class Look:
    """What was found under a name that is not equal; `why` completes a sentence about it."""

    why: str


class Differs(Look):
    """Redis does not hold what is on disk, or the other way round."""


class Missing(Differs):
    """Redis holds nothing, where there is a file."""


class NoString(Differs):
    """Redis holds something that is no string, where there is a file."""


class Unsure(Look):
    """The file cannot be compared now; perhaps it can be when one looks again."""


class Skipped(Look):
    """What is on disk is not to be in Redis."""


_LOCKED = Unsure("is locked by its writer")
BUSY = Unsure("is written to all the time")


class Comparison:
    """Compares files, by name, with what Redis holds."""

    def __init__(
        self,
        directory: Directory,
        target: Target,
        mode: Mode = Mode.ONE_WAY_REPLICA,
        *,
        trim_newline: bool = False,
    ) -> None:
        """Compare names in `directory` with keys of `target`, which are to be as `mode` has them.

        With `trim_newline`, Redis is to have a file without its final newline.
        """
        self._mode = mode
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
        entries = dict(zip(names, self._target.entries(names), strict=True))
        absent = []
        for name, entry in entries.items():
            found = self._directory.read(name, self._target.value_max, overdue=True)
            look: Look | None = None
            if isinstance(found, File):
                contents[name] = found.content.removesuffix(self._newline)
                waiting += len(found.content)
            elif isinstance(found, LargeFile):
                with closing(found):
                    look = self._compare_large(name, found, tick)
            elif found is None and self._mode.writes_files:
                absent.append(name)
            else:
                look = self._look_at_none(found, is_held=entry is not None)
            if look:
                looks[name] = look
            if waiting >= _BYTES_MAX:
                looks.update(self._compare(contents))
                tick(waiting)
                contents, waiting = {}, 0
        looks.update(self._compare(contents))
        looks.update(self._without_file(absent))
        tick(waiting)
        return {name: self._in_this_mode(look, entries[name]) for name, look in looks.items()}

    def _in_this_mode(self, look: Look, entry: bytes | None) -> Look:
        """Return what a look is where some differences are meant to stay."""
        if isinstance(look, NoString) and self._mode is not Mode.ONE_WAY_REPLICA:
            return Skipped(look.why)
        if isinstance(look, Missing) and self._mode is Mode.REDIS_TO_DISK and entry is None:
            return Skipped("is missing in Redis, which has never had it: it stays")
        return look

    def _without_file(self, names: Sequence[bytes]) -> Iterator[tuple[bytes, Look]]:
        """Yield those of the names without files under which Redis holds something."""
        if not names:
            return
        there = self._target.are_there(names)
        lengths = self._target.lengths(names)
        for name, is_there, length in zip(names, there, lengths, strict=True):
            if not is_there:
                continue
            if length < 0:
                yield name, Skipped("is no string in Redis")
            elif self._is_below_a_file(name):
                yield name, Skipped("cannot be a file: there is one where its directory would be")
            elif self._directory.has_place(name + b"/"):
                yield name, Skipped("is a directory on disk")
            else:
                yield name, Differs("is missing on disk")

    def _is_below_a_file(self, name: bytes) -> bool:
        return any(self._directory.signature(place[:-1]) for place in places_above(name) if place)

    def _look_at_none(
        self, found: Locked | Busy | Emptied | Unreadable | Unfit | None, *, is_held: bool
    ) -> Look | None:
        """Say what to make of what is not a file with a content, where Redis holds one or not."""
        match found:
            case Locked():
                return _LOCKED
            case Busy() | Emptied():
                return BUSY
            case Unreadable(why):
                return Unsure(why)
            case Unfit(why) if is_held and not self._mode.writes_files:
                return Differs(f"is stale in Redis: it {why}")
            case Unfit(why):
                return Skipped(why)
            case None:
                return Differs("is stale in Redis: there is no such file") if is_held else None

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
                yield name, Missing("is missing in Redis")
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
            return Missing("is missing in Redis") if missing else _other_length(size, length)
        compared = 0
        for whole in file.pieces():
            piece = whole[: size - compared]
            value = self._target.piece(name, compared, len(piece)) if piece else b""
            if value != piece:
                return _other_content(piece, value, compared)
            compared += len(piece)
            tick(len(piece))
        return None if compared == size and file.is_unchanged() else BUSY


def _other_length(on_disk: int, in_redis: int) -> Differs:
    if in_redis < 0:
        return NoString("is no string in Redis")
    return Differs(f"has {counted(on_disk, 'byte', 'bytes')} on disk, {in_redis:,} in Redis")


def _other_content(on_disk: bytes, in_redis: bytes, at: int = 0) -> Differs:
    same = (one == other for one, other in zip(on_disk, in_redis, strict=False))
    first = next((number for number, equal in enumerate(same, 1) if not equal), None)
    if first is None:
        return _other_length(at + len(on_disk), at + len(in_redis))
    return Differs(f"differs from byte {at + first:,} on")
