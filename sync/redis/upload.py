"""A value that is too large for one command in memory: one SET whose bytes come little by little.

It has a connection of its own, so that nothing waits for it, and comes inside a transaction that is
carried out only when the service says so. So the value changes at once, together with its entry in
the manifest; and if the connection ends before, for whatever reason and after whatever time, the
server forgets what has come, and the memory that it took.
"""

from collections.abc import Sequence

from sync.core.errors import RedisChangedError
from sync.redis.connection import Connection, Request, number, refused


class Upload:
    """One value on its way, as the service's thread for large files sends it."""

    def __init__(  # each is a part of the transaction
        self,
        connection: Connection,
        first: Sequence[Request],
        epoch: int,
        name: bytes,
        key: bytes,
    ) -> None:
        """Send it over `connection`, which is used for nothing else.

        `first` are the requests that begin the transaction: the second of them asks for the epoch,
        which has to be `epoch`.
        """
        self._connection = connection
        self._first = first
        self._epoch = epoch
        self.name = name
        self._key = key

    def begin(self, size: int) -> None:
        """Begin with a value of `size` bytes. Raises RedisAwayError, as all that follows."""
        if not self._connection.is_open:
            self._connection.open()
        self._connection.send(self._first)
        key = self._key
        self._connection.sent += 1
        self._connection.send_raw(
            b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(key), key, size)
        )

    def send(self, piece: bytes | memoryview) -> None:
        """Send the next piece of the value."""
        self._connection.send_raw(piece)

    def end(self) -> None:
        """Say that all of it was sent, and wait until the server has it.

        Raises RedisRefusedError when the server does not take it, and RedisChangedError when
        another service mirrors to it by now.
        """
        self._connection.send_raw(b"\r\n")
        answers = self._connection.receive(len(self._first) + 1)
        if error := refused(answers):
            self.void()
            raise error
        if number(answers[1]) != self._epoch:
            self.void()
            raise RedisChangedError("its keys were removed, or another mdvp-sync began")

    def commit(self, requests: Sequence[Request]) -> object:
        """Carry out what has come, and these requests with it, in one transaction.

        Returns the answer to EXEC: what each request was answered, None when the transaction is
        void. Raises RedisAwayError, or RedisRefusedError.
        """
        self._connection.send([*requests, (b"EXEC",)])
        answers = self._connection.receive(len(requests) + 1)
        if error := refused(answers):
            self.void()
            raise error
        return answers[-1]

    def void(self) -> None:
        """Have the server forget what has come."""
        self._connection.close()
