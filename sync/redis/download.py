"""A value that is too large for the memory of the service: it is read in pieces, as it was at once.

It has a connection of its own, which WATCHes the key: so in the end it is known whether all pieces
are of one value (redis.io, "Transactions"). One that changes faster than it is read never is.
"""

from collections.abc import Iterator

from sync.redis.connection import Connection, number

_PIECE = 1 << 20  # bytes


class Download:
    """One value, as the service's thread for large values reads it."""

    def __init__(self, connection: Connection, key: bytes) -> None:
        """Read the value of `key` over `connection`, which is used for nothing else."""
        self._connection = connection
        self._key = key

    def pieces(self) -> Iterator[bytes]:
        """Yield the value from its start on; nothing if it is none. Raises RedisAwayError."""
        self._connection.open()
        key, at = self._key, 0
        self._connection.send([(b"WATCH", key), (b"STRLEN", key)])
        watched, length = self._connection.receive(2)
        self._connection.accepted([watched])
        size = 0 if isinstance(length, Exception) else number(length)
        while at < size:
            self._connection.send([(b"GETRANGE", key, at, at + _PIECE - 1)])
            (piece,) = self._connection.receive(1)
            if not isinstance(piece, bytes) or not piece:
                return  # it has changed
            yield piece
            at += len(piece)

    def is_still(self) -> bool:
        """Say whether the key has not changed since; after that it is not known any more."""
        self._connection.send([(b"MULTI",), (b"EXEC",)])
        _, done = self._connection.receive(2)
        return isinstance(done, list)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
