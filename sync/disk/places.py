"""Opens the directories of a tree, each from the one that it is in, and follows no link.

So whatever is put in the place of a directory, and whenever, nothing outside of the root is opened.
"""

import errno
import os
import resource
from collections.abc import Callable
from typing import NamedTuple, Protocol

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_MAX = 64  # directories that are open at a time
_SHARE = 8  # of all descriptors that the process may have they are one in so many at most
_PATH_MAX = 4096  # bytes, limits(5): no program could open a path that is longer
_NONE_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
NO_NAMES = (b"", b".", b"..")  # of what is in a directory
_GOLDEN = 0x9E3779B97F4A7C15  # spreads small numbers over 64 bits


class Opened(NamedTuple):
    """A directory that is open.

    fd        its descriptor
    salt      what tells the inodes in it from those of the root's file system
    identity  the numbers of its device and of its inode
    """

    fd: int
    salt: int
    identity: tuple[int, int]


class Ground(Protocol):
    """The directories of a tree as whoever watches them needs them."""

    def open_at(self, place: bytes) -> Opened:
        """Return the directory at a place; raises as `Places.at` does."""

    def forget(self) -> None:
        """Look all of them up anew from now on."""

    def leave_out(self, place: bytes, *, really: bool = True) -> None:
        """Have nothing looked up at a place, or have it looked up again."""

    def wants(self, place: bytes) -> bool:
        """Say whether a directory is to be watched as soon as there is one."""


class Places:
    """The directories below a root, opened when they are asked for and kept for a moment.

    Attributes:
        left_out: the places at which nothing is looked up, though there are directories.

    """

    def __init__(self, excluded: Callable[[bytes], object]) -> None:
        """Have nothing open; know of no directory that is `excluded`."""
        self._excluded = excluded
        self._root: Opened | None = None
        self._open: dict[bytes, Opened] = {}
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._open_max = _OPEN_MAX if limit < 0 else min(limit // _SHARE, _OPEN_MAX)
        self.left_out: set[bytes] = set()

    def begin(self, root: int, identity: tuple[int, int]) -> None:
        """Look up from the directory on that is open as `root`."""
        self._root = Opened(root, 0, identity)

    def at(self, place: bytes) -> Opened:
        """Return the directory at a place, open until `forget` is called or another is asked for.

        Raises FileNotFoundError when there is none, and OSError when nobody knows.
        """
        if too_long(place):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return self._open.get(place) or self._walk(place)

    def forget(self) -> None:
        """Close all: by now others may be at their places."""
        for opened in self._open.values():
            os.close(opened.fd)
        self._open.clear()

    def _walk(self, place: bytes) -> Opened:
        if place and not place.endswith(b"/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        found, at = self._nearest(place)
        while at < len(place):
            end = place.index(b"/", at) + 1
            here = place[:end]
            if here in self.left_out or self._excluded(here):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            found = self._keep(here, self._enter(place[at : end - 1], found))
            at = end
        return found

    def _nearest(self, place: bytes) -> tuple[Opened, int]:
        """Return the directory nearest to a place that is open, and how long its place is."""
        end = len(place) - 1
        while (end := place.rfind(b"/", 0, end)) >= 0:
            if found := self._open.get(place[: end + 1]):
                return found, end + 1
        assert self._root is not None  # noqa: S101  # the caller's defect
        return self._root, 0

    def _enter(self, name: bytes, parent: Opened) -> Opened:
        if name in NO_NAMES or b"\0" in name:  # what Redis holds can be called anything
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        try:
            fd = os.open(name, _FLAGS, dir_fd=parent.fd)
        except OSError as error:
            if error.errno in _NONE_THERE:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            raise
        try:
            status = os.fstat(fd)
        except OSError:
            os.close(fd)
            raise
        device = status.st_dev
        is_home = self._root is not None and device == self._root.identity[0]
        salt = 0 if is_home else (device * _GOLDEN) % (1 << 64)
        return Opened(fd, salt, (device, status.st_ino))

    def _keep(self, place: bytes, opened: Opened) -> Opened:
        if len(self._open) >= self._open_max:
            self.forget()
        self._open[place] = opened
        return opened


def too_long(path: bytes) -> bool:
    """Say whether no program could open a path."""
    return len(path) >= _PATH_MAX
