"""How a Redis server is, in its own words, for people: asked once a second, waited for by nobody.

Failure model. A server that is away, hangs, or tells this user nothing of itself is told of in
words. A connection that was lost is opened again with the next question. The question is asked in a
thread of its own, which may wait for as long as a connection does.
"""

import time
from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import NamedTuple

from sync.core.errors import SyncError
from sync.redis.address import Address
from sync.redis.connection import Connection
from sync.redis.info import lines_of

_SECTIONS = (b"server", b"replication", b"clients", b"memory", b"stats")
_DIGITS_MAX = 18  # of a number that can be calculated with
_PATIENCE = 1.5  # seconds after which it is said that there is no answer


class Vitals(NamedTuple):
    """How a server is.

    name        of the program: Redis, or another that speaks as it does
    version     its version
    role        master, or slave
    used        bytes of memory that it uses
    limit       how many it may use; 0 for no limit
    policy      what it does when there are no more: a value of maxmemory-policy
    clients     how many are connected, with those who ask
    operations  how many commands it carries out in a second
    evicted     how many keys it has evicted
    """

    name: str
    version: str
    role: str
    used: int
    limit: int
    policy: str
    clients: int
    operations: int
    evicted: int


def vitals(told: Mapping[bytes, bytes]) -> Vitals:
    """Return what a server has told of itself; what it leaves out is "" or 0."""

    def word(name: bytes) -> str:
        return told.get(name, b"").decode(errors="backslashreplace")

    def count(name: bytes) -> int:
        given = told.get(name, b"")
        return int(given) if given.isdigit() and len(given) <= _DIGITS_MAX else 0

    name = word(b"server_name") or "redis"  # Redis does not say so
    return Vitals(
        name=name.capitalize(),
        version=word(name.encode() + b"_version") or word(b"redis_version"),
        role=word(b"role"),
        used=count(b"used_memory"),
        limit=count(b"maxmemory"),
        policy=word(b"maxmemory_policy"),
        clients=count(b"connected_clients"),
        operations=count(b"instantaneous_ops_per_sec"),
        evicted=count(b"evicted_keys"),
    )


class Server:
    """A server that is asked how it is."""

    def __init__(self, address: Address) -> None:
        """Ask the one at the address; connect nowhere yet."""
        self._address = address
        self._connection = Connection(address.dial)

    def ask(self) -> Vitals:
        """Ask it. Raises SyncError."""
        if not self._connection.is_open:
            self._address.locate()
            self._connection.open()
        self._connection.send([(b"INFO", section) for section in _SECTIONS])
        answers = self._connection.receive(len(_SECTIONS))
        return vitals(lines_of(self._connection.accepted(answers)))


class Pulse:
    """Asks again and again, in a thread, and knows the last answer."""

    def __init__(self, ask: Callable[[], Vitals], period: float) -> None:
        """Begin to `ask`, and go on every `period` seconds."""
        self._ask = ask
        self._period = period
        self._last: Vitals | str | None = None
        self._since = time.monotonic()  # when the question was asked that is not answered yet
        self._waits = True
        self._ends = Event()
        # A daemon: nobody waits for a server that hangs in the end.
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def last(self) -> Vitals | str | None:
        """How the server is; words if it does not say so, None if it was not asked yet."""
        waits_for = time.monotonic() - self._since
        if self._waits and waits_for > _PATIENCE:
            return f"does not answer (for {waits_for:.0f} s)"
        return self._last

    @property
    def is_asking(self) -> bool:
        """Say whether it goes on, or waits for a last answer."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ask no more."""
        self._ends.set()

    def _run(self) -> None:
        while True:
            self._since, self._waits = time.monotonic(), True
            try:
                self._last = self._ask()
            except (SyncError, ValueError) as error:  # of a name that no host can have, say
                self._last = str(error)
            # What answers may be no Redis at all, at which redis-py fails in any way; and the next
            # one who answers may be one.
            except Exception as error:  # noqa: BLE001
                self._last = f"cannot be understood: {error!r}"
            self._waits = False
            if self._ends.wait(self._period):
                return
