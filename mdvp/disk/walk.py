"""Going through all that is in a directory while others may work in it, without being led astray.

Failure model. Users may have the directory meanwhile, and swap, link, rename and fill. Each thing
is opened by its name in an open directory, as itself, before anything is said of it (O_PATH:
nothing that is opened so can block, and no device is woken): no link is followed, and no mount
point entered, where a file system of a user's own need not answer. The way back up is `..`, which
must be where we came from; else we look for that from the top again, and what is no longer there
has been moved, and is passed over with what was still to be seen in it.

What is moved meanwhile may be seen twice, or not at all. A user who makes files as fast as they are
passed can make it last: so whoever asks can stop at any time.

However deep it is, four descriptors are open at most. In memory is what is known of the directories
on the way, and the names of those yet to be entered; so there is a depth below which nothing is
seen, which no path can name.
"""

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from mdvp.disk.entry import listed, open_directory
from mdvp.disk.linux import open_beneath

# How many levels are seen. A path has 2,000 at most, but who goes step by step can make any number.
DEPTH_MAX = 50_000
_BETWEEN = b"/"  # what no name has


class What(Enum):
    """What a visit is to."""

    FOUND = auto()  # what is no directory: `fd` tells which it is (O_PATH)
    ENTERED = auto()  # a directory, open for reading; what is in it comes next
    LEFT = auto()  # a directory of which all has been seen; its `status` is as it was when entered
    MISSED = auto()  # what cannot be looked at: `error` says why


@dataclass(frozen=True, slots=True)
class Visit:
    """A step on the way.

    Attributes:
        what: what was come to.
        name: what it is called in the directory that it is in.
        fd: its descriptor, until the next step; -1 for what was left or missed.
        status: what fstat(2) says of it; None for what was missed.
        error: why it was missed: EXDEV for a mount point, ESTALE for what has been moved.

    """

    what: What
    name: str
    fd: int = -1
    status: os.stat_result | None = None
    error: OSError | None = None


def walk(top: int) -> Generator[Visit, None, None]:
    """Visit all that is in the open directory `top`, and below; that itself is not visited.

    What is no directory comes first in each directory. Each directory that is entered is left. To
    stop before the end, close the generator.
    """
    way = _Way(top)
    try:
        yield from way.visits()
    finally:
        way.close()


class _Names:
    """Names, of which the last is taken first: there may be millions, so they are packed."""

    def __init__(self) -> None:
        self._packed = bytearray()

    def add(self, name: str) -> None:
        self._packed += _BETWEEN + os.fsencode(name)

    def take(self) -> str | None:
        """Return one, which is then no longer there; None if there is none."""
        if not self._packed:
            return None
        at = self._packed.rindex(_BETWEEN)
        name = os.fsdecode(bytes(self._packed[at + 1 :]))
        del self._packed[at:]
        return name

    def __bool__(self) -> bool:
        return bool(self._packed)


@dataclass(slots=True)
class _Level:
    """A directory on the way down from the top."""

    name: str
    status: os.stat_result
    below: _Names = field(default_factory=_Names)  # the directories in it that are yet to be seen
    listed: bool = False


class _Way:
    """Where the walk is, and the way that it has come."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._here = os.dup(top)
        self._levels = [_Level("", os.fstat(top))]

    def close(self) -> None:
        os.close(self._here)

    def visits(self) -> Iterator[Visit]:
        while True:
            level = self._levels[-1]
            if not level.listed:
                level.listed = True
                yield from self._list(level)
            if (name := level.below.take()) is not None:
                yield from self._enter(name)
            elif len(self._levels) == 1:
                return
            else:
                self._levels.pop()
                yield Visit(What.LEFT, level.name, status=level.status)
                yield from self._go_up()

    def _list(self, level: _Level) -> Iterator[Visit]:
        """Visit what is no directory, and take note of the directories."""
        try:
            with listed(self._here) as entries:
                for entry in entries:
                    yield from self._look(entry.name, level)
        except OSError as error:
            yield Visit(What.MISSED, level.name, error=error)

    def _look(self, name: str, level: _Level) -> Iterator[Visit]:
        try:
            # What the listing says it is, it may no longer be, and to ask by name can block.
            fd = open_beneath(name, self._here, os.O_PATH | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        except OSError as error:
            yield Visit(What.MISSED, name, error=error)
            return
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                level.below.add(name)
            else:
                yield Visit(What.FOUND, name, fd, status)
        finally:
            os.close(fd)

    def _enter(self, name: str) -> Iterator[Visit]:
        try:
            if len(self._levels) > DEPTH_MAX:
                raise OSError(errno.ENAMETOOLONG, "is too deep", name)
            fd = open_directory(name, self._here)
        except FileNotFoundError:
            return
        except OSError as error:
            yield Visit(What.MISSED, name, error=error)
            return
        self._move(fd)
        status = os.fstat(fd)
        self._levels.append(_Level(name, status))
        yield Visit(What.ENTERED, name, fd, status)

    def _move(self, fd: int) -> None:
        os.close(self._here)
        self._here = fd

    def _go_up(self) -> Iterator[Visit]:
        with suppress(OSError):
            fd = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._here)
            self._move(fd)
            if _is(fd, self._levels[-1]):
                return
        yield from self._come_again()

    def _come_again(self) -> Iterator[Visit]:
        """Go from the top to where we should be, as far as that is where it was."""
        self._move(os.dup(self._top))
        for depth, level in enumerate(self._levels[1:], start=1):
            if (error := self._go_down(level)) is not None:
                yield from self._give_up(depth, error)
                return

    def _go_down(self, level: _Level) -> OSError | None:
        """Go on to a directory; return why not if it is not there."""
        try:
            fd = open_directory(level.name, self._here)
        except OSError as error:
            return error
        if _is(fd, level):
            self._move(fd)
            return None
        os.close(fd)
        return OSError(errno.ESTALE, "was moved meanwhile", level.name)

    def _give_up(self, depth: int, error: OSError) -> Iterator[Visit]:
        """Leave the directories from `depth` on, which have been moved."""
        gone = self._levels[depth:]
        del self._levels[depth:]
        for level in reversed(gone):
            yield Visit(What.LEFT, level.name, status=level.status)
        if any(level.below for level in gone):
            yield Visit(What.MISSED, gone[0].name, error=error)


def _is(fd: int, level: _Level) -> bool:
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino) == (level.status.st_dev, level.status.st_ino)
