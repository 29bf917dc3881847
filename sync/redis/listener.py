"""Hears which keys others change, so that nobody need look at all of them to find out.

A connection of its own listens. The server sends it the name of each key that is changed by anybody
but the connection that the service writes over (CLIENT TRACKING with BCAST, NOLOOP and REDIRECT:
redis.io, "Client-side caching in Redis"), or else keyspace notifications, where they are on.

Failure model. A name says where to look, and nothing more. That names are heard is not believed but
tried out at the start: some servers know the command and tell nothing. What a connection has not
told when it is lost nobody will: the session ends, and the next one looks at all. A connection that
hangs is lost when it does not answer for _PATIENCE.
"""

import select
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from sync.core.errors import RedisAwayError
from sync.redis.connection import Connection, Request, away
from sync.redis.keys import OWN, PROBE, REQUESTS

BY_TRACKING = "tracking"
BY_NOTIFICATIONS = "keyspace notifications"
BY_RESCANS = "rescans"

_CHANNEL = b"__redis__:invalidate"
_NEEDED = set("g$xe")  # flags of notify-keyspace-events: generic, strings, expired, evicted
_GLOB = b"\\*?[]"
_PATIENCE = 10.0  # seconds
_TRIED = 1.0  # seconds that a message may take
_MESSAGES_MAX = 1000  # in one read
_NAMES_MAX = 20_000  # and about so many names: a message may have many


class Heard(NamedTuple):
    """What was heard since the last time.

    names        of keys that may have changed, without the prefix; none of the service's own
    has_requests whether somebody asks for something, in the service's own key for that
    is_all       whether that may be any key: a database was flushed
    """

    names: Sequence[bytes] = ()
    has_requests: bool = False
    is_all: bool = False


class Server(Protocol):
    """The server over the connection that the service writes over."""

    def converse(self, *requests: Request) -> list[object]:
        """Return the answers to requests, refusals too."""


class Listener:
    """What others change in one server.

    Attributes:
        by: how it hears: BY_TRACKING, BY_NOTIFICATIONS, or BY_RESCANS, that is not at all.
        why: why it does not hear by tracking, in the server's words; "" if it does.
        answered: how often it was made sure that all was heard that had happened by a `beat`.

    """

    def __init__(
        self, dial: Callable[[], Any], prefix: bytes = b"", stream: bytes | None = None
    ) -> None:
        """Listen over what `dial` makes, for keys that begin with `prefix`; not yet.

        The `stream` of changes is one of the service's own keys.
        """
        self._dial = dial
        self._connection = Connection(dial, hears=True)
        self._prefix = prefix
        self._requests = prefix + REQUESTS
        self._own = prefix + OWN
        self._stream = None if stream is None else prefix + stream
        self.by, self.why = BY_RESCANS, ""
        self.answered = 0
        self._poll = select.poll()
        self._asked: float | None = None  # when it was asked whether it is there
        self._names: list[bytes] = []
        self._has_requests = self._is_all = self._has_more = self._has_probe = False

    def open(self, server: Server) -> None:
        """Listen to what is changed from now on by others than `server`.

        Raises RedisAwayError. If it does not hear, that is no error: `by` says so.
        """
        self.close()
        self._connection.open()
        self._asked = None
        self._names, self._has_more = [], False
        self._has_requests = self._is_all = self._has_probe = False
        self.why = self._track(server)
        if not self.why and not self._hears():
            self.why = "it accepts CLIENT TRACKING, but tells nothing"
        if not self.why:
            self.by = BY_TRACKING
        elif self._subscribe(server) and self._hears():
            self.by = BY_NOTIFICATIONS
        else:
            self.close()
            return
        self._poll = select.poll()
        self._poll.register(self._connection.fd, select.POLLIN)

    @property
    def fd(self) -> int | None:
        """What to wait for; None when nothing will come."""
        return self._connection.fd if self._connection.is_open else None

    @property
    def has_more(self) -> bool:
        """Say whether there was more than the last `read` has taken up."""
        return self._has_more

    def _track(self, server: Server) -> str:
        """Have the server tell what others change; return why it does not."""
        (number,) = self._converse((b"CLIENT", b"ID"))
        if isinstance(number, Exception):
            return str(number)
        (joined,) = self._converse((b"SUBSCRIBE", _CHANNEL))
        if isinstance(joined, Exception):
            return str(joined)
        prefix = (b"PREFIX", self._prefix) if self._prefix else ()
        tracking = (b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", number, b"BCAST", *prefix)
        (answer,) = server.converse((*tracking, b"NOLOOP"))
        return str(answer) if isinstance(answer, Exception) else ""

    def _subscribe(self, server: Server) -> bool:
        """Listen to keyspace notifications; say whether they are on."""
        (answer,) = server.converse((b"CONFIG", b"GET", b"notify-keyspace-events"))
        match answer:  # not everyone may ask
            case [_, bytes(value)] | {b"notify-keyspace-events": bytes(value)}:
                flags = set(value.decode())
            case _:
                return False
        if "K" not in flags or not ("A" in flags or flags >= _NEEDED):
            return False
        self._connection.open()
        escaped = b"".join(b"\\" + c if c in _GLOB else c for c in _bytes(self._prefix))
        pattern = b"__keyspace@%d__:%b*" % (self._connection.database, escaped)
        (joined,) = self._converse((b"PSUBSCRIBE", pattern))
        return not isinstance(joined, Exception)

    def _hears(self) -> bool:
        """Try out whether it is told what another connection changes."""
        other = Connection(self._dial)
        try:
            other.open()
            other.send([(b"SET", self._prefix + PROBE, b"", b"PX", b"1")])
            (answer,) = other.receive(1)
        finally:
            other.close()
        if isinstance(answer, Exception):
            return True  # it cannot be tried out: the server has no memory, say
        end = time.monotonic() + _TRIED
        while not self._has_probe and (left := end - time.monotonic()) > 0:
            if self._connection.can_read(left):
                self._take(self._connection.receive(1)[0])
        return self._has_probe

    def read(self) -> Heard:
        """Return what has been heard since the last time; wait for nothing.

        Raises RedisAwayError.
        """
        # All that had come was read the last time, so that nothing waits in the process itself.
        if self.by != BY_RESCANS and (self._has_more or self._poll.poll(0)):
            left = _MESSAGES_MAX
            while left and len(self._names) < _NAMES_MAX and self._connection.can_read(0):
                self._take(self._connection.receive(1)[0])
                left -= 1
            self._has_more = not left or len(self._names) >= _NAMES_MAX
        heard = Heard(self._names, self._has_requests, self._is_all)
        self._names, self._has_requests, self._is_all = [], False, False
        return heard

    def beat(self) -> None:
        """Make sure that the connection is there. Raises RedisAwayError, now or the next time."""
        if self.by == BY_RESCANS:
            return
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            self._connection.send([(b"PING",)])
        elif now - self._asked > _PATIENCE:
            self.close()
            raise RedisAwayError("the connection that hears of changes does not answer")

    def close(self) -> None:
        """Listen no more."""
        self._connection.close()
        self.by = BY_RESCANS

    def _converse(self, request: Request) -> list[object]:
        self._connection.send([request])
        return self._connection.receive(1)

    def _take(self, message: object) -> None:
        """Take up a message, of either version of the protocol."""
        match message:
            case [b"invalidate", keys] | [b"message", _, keys]:
                self._hear(keys)
            case [b"pmessage", _, bytes(channel), _]:
                self._hear([channel.partition(b":")[2]])
            case b"PONG" | [b"pong", _]:
                self._asked = None
                self.answered += 1
            case Exception():  # it may not be asked, say
                self.close()
                raise away(message)

    def _hear(self, keys: object) -> None:
        if not isinstance(keys, list):
            self._is_all = True
            return
        at = len(self._prefix)
        for key in keys:
            if not key.startswith(self._own):
                if key != self._stream:
                    self._names.append(key[at:])
            elif key == self._requests:
                self._has_requests = True
            elif key == self._prefix + PROBE:
                self._has_probe = True


def _bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]
