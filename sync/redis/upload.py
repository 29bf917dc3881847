"""A value that is too large for one command in memory: one SET whose bytes come little by little.

It has a connection of its own, so that nothing waits for it, and a key of its own, which the
service then gives the name, on its other connection, together with its entry in the manifest. So
the value changes at once, and it is the other connection that changes it.

Failure model. If this connection ends before all has come, for whatever reason and after whatever
time, the server forgets it, and the memory that it took. What has come expires by itself unless it
is given its name, or is renewed. The SET is a transaction that watches the epoch: what an earlier
session has sent, and comes late, is not put in the place of what this one has.
"""

import time
from collections.abc import Sequence
from contextlib import suppress

from hiredis import pack_command

from sync.core.errors import RedisAwayError, RedisChangedError
from sync.redis.connection import Connection, Request, number, refused

LIFE = 60_000  # ms that a value has, from when all of it has come, until it expires
_RENEWED = 15.0  # seconds after which it is given all of that again


class Upload:
    """One value on its way, as the service's thread for large files sends it.

    Attributes:
        name: whose value it is to be.
        key: where it is until then, once it has come.

    """

    def __init__(
        self, connection: Connection, epoch_key: bytes, epoch: int, name: bytes, key: bytes
    ) -> None:
        """Send it over `connection`, which is used for nothing else, and put it under `key`.

        What `epoch_key` holds has to be `epoch`, from the beginning to the end.
        """
        self._connection = connection
        self._first: Sequence[Request] = (
            (b"WATCH", epoch_key),
            (b"GET", epoch_key),
            (b"MULTI",),
        )
        self._epoch = epoch
        self.name = name
        self.key = key
        self._has_come = False
        self._renewed = 0.0

    def begin(self, size: int) -> None:
        """Begin with a value of `size` bytes. Raises RedisAwayError, as all that follows."""
        if not self._connection.is_open:
            self._connection.open()
        self._connection.send(self._first)
        key = self.key
        self._connection.sent += 1
        self._connection.send_raw(
            b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(key), key, size)
        )

    def send(self, piece: bytes | memoryview) -> None:
        """Send the next piece of the value."""
        self._connection.send_raw(piece)

    def end(self) -> None:
        """Say that all of it was sent, and wait until the server has it under its key.

        Raises RedisRefusedError when the server does not take it, and RedisChangedError when
        another service mirrors to it by now.
        """
        life = b"%d" % LIFE
        self._connection.sent += 1
        self._connection.send_raw(
            b"\r\n$2\r\nPX\r\n$%d\r\n%b\r\n%b" % (len(life), life, pack_command((b"EXEC",)))
        )
        answers = self._connection.receive(len(self._first) + 2)
        done = answers[-1]
        if error := refused([*answers, *(done if isinstance(done, list) else [])]):
            self.void()
            raise error
        if number(answers[1]) != self._epoch or done is None:
            self.void()
            raise RedisChangedError("its keys were removed, or another mdvp-sync began")
        self._has_come, self._renewed = True, time.monotonic()

    def renew(self) -> None:
        """See to it that what has come does not expire while more is to be found out about it."""
        if time.monotonic() - self._renewed >= _RENEWED:
            self._renewed = time.monotonic()
            self._connection.send([(b"PEXPIRE", self.key, LIFE)])
            self._connection.receive(1)  # if it has gone, who wants to use it sees that

    def void(self) -> None:
        """Have the server forget what has come."""
        if not self._has_come:
            self._connection.close()
            return
        self._has_come = False
        with suppress(RedisAwayError):  # then it expires
            self._connection.send([(b"DEL", self.key)])
            self._connection.receive(1)
