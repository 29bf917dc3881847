"""Who looks at one side, and sleeps until it is told that there is something to see.

The time that it takes to be woken is in what is seen with it, for all contenders alike. MONITOR is
better where it can tell; of files it does not, and on a busy server it would be a load itself.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyinotify
import redis

from benchmarks import BenchmarkError
from benchmarks.mirror.server import DEADLINE, Server

_MASK = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO | pyinotify.IN_DELETE
_EVENTS = 1 << 16  # bytes of them in one read


class Files:
    """Looks at the files of a directory."""

    def __init__(self, directory: Path) -> None:
        """Watch a directory, from now on until it is closed."""
        self._directory = directory
        self._manager = pyinotify.WatchManager()
        self._manager.add_watch(str(directory), _MASK, quiet=False)

    def until(self, name: str, content: bytes) -> float:
        """Return when a file was seen to have this content, in time()'s clock."""
        path, woken = f"{self._directory}/{name}", time.time()
        end = woken + DEADLINE
        while _content(path) != content:
            left = end - time.time()
            if left <= 0 or not select.select([self._manager.get_fd()], [], [], left)[0]:
                raise BenchmarkError(f"{name} did not become a file")
            woken = time.time()
            os.read(self._manager.get_fd(), _EVENTS)
        return woken

    def close(self) -> None:
        """Watch no more."""
        self._manager.close()


class Keys:
    """Looks at keys of a server, which tells of a change of what was asked for."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401  # redis-py's have no types
        """Ask over a connection that tracks."""
        self._connection = connection

    def get(self, key: bytes) -> object:
        """Return what a key holds; the next change of it will be told."""
        self._connection.send_command("GET", key)
        return self._connection.read_response()

    def until(self, key: bytes, content: bytes) -> float:
        """Return when a key that was asked for was heard to have this content, as time() does."""
        heard = time.time()
        try:
            while self.get(key) != content:
                self._connection.read_response(push_request=True)
                heard = time.time()
        except redis.TimeoutError as error:
            raise BenchmarkError(f"{key!r} did not get its content") from error
        return heard


@contextmanager
def looking(server: Server) -> Iterator[Keys]:
    """Look at keys of a server, over a connection of its own."""
    # Only with RESP3 the answers and what is told come over one connection.
    pool = redis.ConnectionPool(
        connection_class=redis.UnixDomainSocketConnection,
        path=str(server.socket),
        protocol=3,
        socket_timeout=DEADLINE,
    )
    connection: Any = pool.make_connection()
    connection.connect()
    try:
        connection.send_command("CLIENT", "TRACKING", "ON")
        connection.read_response()
        yield Keys(connection)
    finally:
        connection.disconnect()


def _content(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, _EVENTS)
    finally:
        os.close(descriptor)
