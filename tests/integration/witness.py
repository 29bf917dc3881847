"""Sees whether anybody else has put something at a path while one system call was made."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_IN_MOVED_TO, _IN_CREATE, _IN_ONLYDIR = 0x80, 0x100, 0x01000000
_EVENT = struct.Struct("iIII")  # watch, what, cookie, length of the name: inotify(7)
_AT_ONCE = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Sight:
    """How often something came to be at a path."""

    arrivals: int = 0


class Witness:
    """Watches the directories that it is asked about."""

    def __init__(self) -> None:
        """Watch none yet."""
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")

    def close(self) -> None:
        os.close(self._fd)

    @contextmanager
    def looking_at(self, path: Path) -> Iterator[Sight]:
        """Count what comes to be at `path` in the block. Raises OSError."""
        watch = self._watch(path.parent)
        for _ in self._read():
            pass  # of before
        sight = Sight()
        yield sight
        name = os.fsencode(path.name)
        sight.arrivals = sum(each == (watch, name) for each in self._read())

    def _watch(self, directory: Path) -> int:
        what = _IN_MOVED_TO | _IN_CREATE | _IN_ONLYDIR
        watch: int = _libc.inotify_add_watch(self._fd, os.fsencode(directory), what)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        return watch

    def _read(self) -> Iterator[tuple[int, bytes]]:
        while True:
            try:
                events = os.read(self._fd, _AT_ONCE)
            except BlockingIOError:
                return
            at = 0
            while at < len(events):
                watch, _, _, length = _EVENT.unpack_from(events, at)
                at += _EVENT.size
                yield watch, events[at : at + length].rstrip(b"\0")
                at += length
