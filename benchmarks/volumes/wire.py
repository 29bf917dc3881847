"""HTTP/1.1 on a Unix socket with as little of our own time as possible.

Requests are built beforehand, so that a timed exchange is one send, the receives it takes, and a
look at the head of the answer. What is not needed here is left out: redirects, trailers.

Failure model. An answer of another status than 2xx is a `WireError` that shows it: a benchmark of
refusals would be no benchmark. A peer that closes or stays silent for a minute is one, too.
"""

import json
import os
import select
import socket
import struct
from pathlib import Path
from time import perf_counter

from benchmarks import BenchmarkError

_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_UCRED = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid
_TIMEOUT = 120.0  # seconds; the engine gives a plugin as long


class WireError(BenchmarkError):
    """The peer did not do what it was asked to; the message has its answer."""


def request(method: str, path: str, message: object = None) -> bytes:
    """Return a whole request, as the engine's client would write it."""
    body = b"" if message is None else json.dumps(message).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """A connection that is kept open from one exchange to the next."""

    def __init__(self, path: Path) -> None:
        """Connect to the socket at `path`, which may be longer than an address can be."""
        self._path = path
        self._socket = self._connected()

    def _connected(self) -> socket.socket:
        # An address has 107 bytes at most, and a plugin's socket is deep below /proc/PID/root.
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(_TIMEOUT)
        try:
            connected.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        except OSError:
            connected.close()
            raise
        finally:
            os.close(directory)
        return connected

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ensure(self) -> None:
        """Connect anew if the peer has closed the connection: a server ends one that is idle."""
        # No answer is under way, so there is nothing to read but the end.
        closed, _, _ = select.select([self._socket], [], [], 0)
        if closed:
            self._socket.close()
            self._socket = self._connected()

    @property
    def peer(self) -> int:
        """The pid, as we number it, of the process that listens."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, _, _ = _UCRED.unpack(credentials)
        return int(pid)

    def exchange(self, message: bytes) -> bytes:
        """Send a request, return the body of the answer."""
        head, body = _exchange(self._socket, message)
        _check(message, head, body)
        return body

    def time(self, message: bytes) -> float:
        """Return how many seconds an exchange takes."""
        start = perf_counter()
        head, body = _exchange(self._socket, message)
        end = perf_counter()
        _check(message, head, body)
        return end - start

    def time_with_connect(self, message: bytes) -> float:
        """Return how many seconds an exchange takes on a new connection, connect(2) included."""
        start = perf_counter()
        with self._connected() as connected:
            head, body = _exchange(connected, message)
            end = perf_counter()
        _check(message, head, body)
        return end - start


def _exchange(connected: socket.socket, message: bytes) -> tuple[bytes, bytes]:
    try:
        connected.sendall(message)
    except OSError as error:
        raise WireError(f"cannot send {_shown(message)}: {error}") from error
    received = b""
    while _HEAD_END not in received:
        received += _received(connected, message)
    head, _, body = received.partition(_HEAD_END)
    fields = head.lower()
    if message.startswith(b"HEAD ") or fields[9:12] in (b"204", b"304"):
        return head, b""
    _, _, length = fields.partition(b"\r\ncontent-length:")
    if length:
        return head, _counted(connected, message, body, int(length.split(b"\r\n", 1)[0]))
    return head, _chunked(connected, message, body)


def _counted(connected: socket.socket, message: bytes, body: bytes, length: int) -> bytes:
    parts, missing = [body], length - len(body)
    while missing > 0:
        parts.append(_received(connected, message))
        missing -= len(parts[-1])
    return b"".join(parts)


def _chunked(connected: socket.socket, message: bytes, body: bytes) -> bytes:
    # JSON has no bare CR LF in it, so this end is no other's.
    parts, tail = [body], body
    while not tail.endswith(_LAST_CHUNK):
        parts.append(_received(connected, message))
        tail = tail[-len(_LAST_CHUNK) :] + parts[-1]
    chunks, rest = [], b"".join(parts)
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(rest[:length])
        rest = rest[length + 2 :]
    return b"".join(chunks)


def _received(connected: socket.socket, message: bytes) -> bytes:
    try:
        received = connected.recv(1 << 18)
    except OSError as error:
        raise WireError(f"no answer to {_shown(message)}: {error}") from error
    if not received:
        raise WireError(f"the connection was closed before the answer to {_shown(message)}")
    return received


def _check(message: bytes, head: bytes, body: bytes) -> None:
    if head[9:10] != b"2":
        status = head.split(b"\r\n", 1)[0].decode()
        raise WireError(f"{_shown(message)}: {status}: {body.decode(errors='replace').strip()}")


def _shown(message: bytes) -> str:
    line, _, rest = message.partition(b" HTTP/1.1")
    return f"{line.decode()} {rest.partition(_HEAD_END)[2][:200].decode(errors='replace')}".strip()
