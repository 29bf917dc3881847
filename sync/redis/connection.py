"""A connection to a Redis server: requests out, answers in, and what a refusal means in words.

Failure model. A connection that was lost is not opened again by itself: a server that was away may
have come back empty. An answer that is an error is an answer; whoever asked decides. But that it is
not the one to ask now (it is no master any more, its slot has moved, it is busy) is no answer of a
server's: it says nothing about what was asked for, and the connection ends.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import redis
from hiredis import pack_command
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    TryAgainError,
)

from sync.core.causes import ReconcileCause
from sync.core.errors import (
    RedisAwayError,
    RedisForbidsError,
    RedisRefusedError,
    SyncError,
)
from sync.redis import tls

Request: TypeAlias = tuple[Any, ...]  # of bytes and int

# What a reconcile after a refusal is for, and the way out of it.
_CAUSES: dict[type[Exception], ReconcileCause] = {
    redis.OutOfMemoryError: ReconcileCause.REDIS_OUT_OF_MEMORY,
    redis.ReadOnlyError: ReconcileCause.REDIS_READ_ONLY,
}
_WAYS_OUT: dict[type[Exception], str] = {
    redis.AuthenticationError: "; REDIS_PASSWORD must be the server's",
    redis.OutOfMemoryError: "; raise its maxmemory, or remove files",
    redis.ReadOnlyError: "; it is a replica: name its master in REDIS_URL",
    NoPermissionError: "; `mdvp-sync acl` prints what its user has to be allowed",
}
# What says nothing about what was asked for, but about the server.
_STATES = (
    AskError,  # and MovedError
    TryAgainError,
    ClusterDownError,  # and MasterDownError
    redis.ReadOnlyError,
)
_STATES_IN_WORDS = ("NOREPLICAS ", "BUSY ")  # for which redis-py has no types
# Whoever may not ask this at all would take the refusal for what a key is, or is not.
_UNTOLD = re.compile(r"to run the '(exists|get|getrange|hincrby|pttl|strlen|type)'")
# What a request says of a key of ours that somebody has put something else under.
_FOREIGN = ("WRONGTYPE", "value is not an integer", "would overflow")


class Connection:
    """One connection.

    Attributes:
        sent: how many requests were sent over it.

    """

    def __init__(self, dial: Callable[[], Any], *, hears: bool = False) -> None:
        """Talk over what `dial` returns; it is opened when told to, and each time anew.

        If it `hears`, what the server pushes is received as answers are.
        """
        self._dial = dial
        self._connection: Any = None
        self._hears = hears
        self._is_open = False
        self.sent = 0

    @property
    def is_open(self) -> bool:
        """Say whether it was opened, and not lost."""
        return self._is_open

    @property
    def fd(self) -> int:
        """What to wait for."""
        return int(self._connection._sock.fileno())  # redis-py has no other way to it

    @property
    def database(self) -> int:
        """The number of the database that it is for."""
        return int(self._connection.db or 0)

    def can_read(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for something to be received; say whether there is."""
        with self._away():
            return bool(self._connection.can_read(timeout))

    def open(self) -> None:
        """Connect anew. Raises RedisAwayError, as all that follows."""
        self.close()
        self._connection = self._dial()  # the server may be elsewhere by now
        try:
            with self._away():
                self._connection.connect()
        except SyncError:
            self.close()  # it is not the server that was meant
            raise
        self._is_open = True
        if self._hears:
            # By itself redis-py drops these messages, even when it is asked for what is pushed.
            self._connection._parser.set_invalidation_push_handler(lambda message: message)

    def send(self, requests: Sequence[Request]) -> None:
        """Send requests, whose answers are to be received."""
        self.sent += len(requests)
        self.send_raw(b"".join([pack_command(request) for request in requests]))

    def send_raw(self, data: bytes | memoryview) -> None:
        """Send bytes of the protocol."""
        # By itself redis-py would connect again.
        if not self._is_open:
            raise RedisAwayError("the connection was lost")
        with self._away():
            self._connection.send_packed_command([data], check_health=False)

    def receive(self, count: int) -> list[object]:
        """Return so many answers in their order, refusals too."""
        with self._away():
            return [self._answer() for _ in range(count)]

    def accepted(self, answers: Sequence[object]) -> Sequence[object]:
        """Return these answers; end the connection and raise RedisAwayError if one is a refusal."""
        for answer in answers:
            if isinstance(answer, Exception):
                self.close()  # in the middle of a transaction, maybe
                raise away(answer)
        return answers

    def close(self) -> None:
        """End the connection."""
        self._is_open = False
        if self._connection:
            self._connection.disconnect()

    def _answer(self) -> object:
        try:
            # Where something is pushed, whoever waits for it has asked for it.
            return self._connection.read_response(push_request=self._hears)
        except redis.ResponseError as error:
            if isinstance(error, _STATES) or str(error).startswith(_STATES_IN_WORDS):
                raise
            if isinstance(error, NoPermissionError) and _UNTOLD.search(str(error)):
                raise
            return error

    @contextmanager
    def _away(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            self.close()
            raise away(error) from error


def away(error: Exception) -> RedisAwayError:
    """Say what an error of the server, or of the connection, means for all that is to be done."""
    words = _state(error) or tls.words(error) or str(error) or type(error).__name__
    if any(each in words for each in _FOREIGN):
        words += "; delete the keys that begin with /mdvp-sync/ (after SYNC_PREFIX)"
    kind = RedisForbidsError if isinstance(error, NoPermissionError) else RedisAwayError
    found = kind(words.rstrip(".") + _WAYS_OUT.get(type(error), ""))
    found.cause = _CAUSES.get(type(error), found.cause)
    return found


def _state(error: Exception) -> str:
    """Say what is going on in a cluster if that is the error; "" if it is not."""
    if isinstance(error, MovedError):
        return f"the slot of its keys is at {error.host}:{error.port} by now"
    if isinstance(error, AskError | TryAgainError):
        return (
            "the slot of its keys is being moved to another node, and mdvp-sync goes on there when "
            "that is done; if it was broken off, end it by redis-cli --cluster fix HOST:PORT"
        )
    if isinstance(error, ClusterDownError):
        return f"{error.status_code or 'CLUSTERDOWN'} {error}"
    return ""


def refused(answers: Sequence[object]) -> RedisRefusedError | None:
    """Return the first refusal among the answers to a transaction, None if there is none."""
    for answer in answers:
        if isinstance(answer, Exception):
            return RedisRefusedError(
                str(answer).rstrip("."), out_of_memory=isinstance(answer, redis.OutOfMemoryError)
            )
    return None


def number(answer: object) -> int:
    """Return the number that the server has given; 0 for none, -1 for what is none."""
    try:
        return int(answer) if isinstance(answer, bytes | int) else 0
    except ValueError:
        return -1
