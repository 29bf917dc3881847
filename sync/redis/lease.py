"""Which one of several services with the same keys works: the others stand by.

The lease is a key that expires by Redis' own clock unless whoever holds it renews it. It tells who
is to work, and nothing depends on it: what a service sends is void as soon as another has begun an
epoch (see `target`), and to take the lease is to begin one, in the same transaction.

Failure model. A process that has ended gives the lease back; one that was killed, or hangs, lets it
expire. It may be evicted or deleted at any time: then whoever holds it puts it there again, and who
stands by waits until it would have expired. A server without memory takes no lease: what was there
before can still be renewed, and where there is none, each works, and can do nothing but delete.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sync.core.changes import shown
from sync.redis.connection import Request
from sync.redis.keys import LEASE

LIFE = 4_000  # ms that a lease lasts without being renewed
_RENEWED = 0.5  # seconds after which it is renewed with whatever is sent
_FREE = b"given back"  # what the key holds for a moment then
_FREE_LIFE = 1_000  # ms
_VALUE_MAX = 2_000  # bytes; no service puts more there
_SINCE_MAX = 1e11  # s since 1970; what no clock shows
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PIDS = Path("/proc/self/ns/pid")


def _machine() -> str:
    """Return what is the same for two processes only if they know each other's numbers."""
    try:
        return f"{_BOOT.read_text().strip()}/{_PIDS.stat().st_ino}"
    except OSError:
        return secrets.token_hex(8)  # nobody knows them


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and since when.

    host     its name
    pid      the number of the process
    machine  the same for all processes that know each other by these numbers
    run      tells this process from all others
    since    when it took the lease (s since 1970)
    """

    host: str
    pid: int
    machine: str
    run: str
    since: float = 0.0

    @classmethod
    def this(cls) -> "Holder":
        """Return this process, as one that holds no lease yet."""
        return cls(socket.gethostname(), os.getpid(), _machine(), secrets.token_hex(8))

    def __str__(self) -> str:
        """Write it for people."""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        host = shown(self.host.encode("utf-8", "surrogatepass"))
        return f"the one on {host}, process {self.pid}, since {since}"

    def is_gone(self, me: "Holder") -> bool:
        """Say whether it is known that this process has ended."""
        if self.machine != me.machine:
            return False
        if self.pid == me.pid:  # an earlier one that had the same number
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass  # it is another user's, say
        return False


class Lease:
    """The lease of one process on the keys under a prefix.

    Attributes:
        key: where it is.
        is_held: whether this process has it, as far as it knows.
        is_taken: whether it works; without a lease, if the server had no memory for one.

    """

    def __init__(self, prefix: bytes, me: Holder | None = None) -> None:
        """Prepare to take the lease for the keys that begin with `prefix`."""
        self.key = prefix + LEASE
        self.is_held = self.is_taken = False
        self._me = me or Holder.this()
        self._value = b""
        self._renewed = 0.0
        self._until = 0.0  # until when another's lease lasts that was seen last

    @property
    def questions(self) -> tuple[Request, ...]:
        """What tells whose the lease is; the answers are for `other`."""
        return self.questions_at(self.key)

    @staticmethod
    def questions_at(key: bytes) -> tuple[Request, ...]:
        """Return what tells whose any lease is; the answers are for `holder`."""
        return (b"GET", key), (b"PTTL", key)

    def holder(self, answers: Sequence[object]) -> Holder | None:
        """Return which other process holds a lease; None if none does."""
        value, ttl = answers
        if not (isinstance(ttl, int) and 0 <= ttl <= LIFE):
            return None  # it was not put there by a service
        found = _holder(value)
        is_none = found is None or found.run == self._me.run or found.is_gone(self._me)
        return None if is_none else found

    def other(self, answers: Sequence[object]) -> Holder | None:
        """Return who else holds the lease; None if it is free, or this process' own."""
        holder, (value, ttl) = self.holder(answers), answers
        if holder and isinstance(ttl, int):
            self._until = time.monotonic() + ttl / 1e3
        elif value == _FREE or self._is_gone(value):
            self._until = 0.0
        return holder

    def _is_gone(self, value: object) -> bool:
        """Say whether it is known that whoever has put this there has ended."""
        found = _holder(value)
        return found is not None and (found.run == self._me.run or found.is_gone(self._me))

    def is_free(self, answers: Sequence[object]) -> bool:
        """Say whether it is time to take what another had.

        A lease that is gone before its time, and was not given back, may be put there again.
        """
        return not self.other(answers) and time.monotonic() >= self._until

    def is_own(self, value: object) -> bool:
        """Say whether this is what the key holds while this process has the lease."""
        return bool(self._value) and value == self._value

    def taking(self, *, free_only: bool = False) -> Request:
        """Return what takes the lease, or puts it there again."""
        if not self.is_held:
            self._value = json.dumps(asdict(replace(self._me, since=time.time()))).encode()
        self._renewed = time.monotonic()
        option = (b"NX",) if free_only else ()
        return b"SET", self.key, self._value, b"PX", LIFE, *option

    def renewal(self) -> Request:
        """Return what has the lease last; it does no harm where it is another's by now."""
        self._renewed = time.monotonic()
        return b"PEXPIRE", self.key, LIFE

    def renewal_due(self) -> tuple[Request, ...]:
        """Return the same if it is time to, nothing if not."""
        if not self.is_held or time.monotonic() - self._renewed < _RENEWED:
            return ()
        return (self.renewal(),)

    def giving_back(self) -> Request:
        """Return what lets others take it at once."""
        return b"SET", self.key, _FREE, b"PX", _FREE_LIFE


def _holder(value: object) -> Holder | None:
    """Return who has put a value there; None if it is none of a service's."""
    with suppress(ValueError, TypeError, RecursionError):
        if not isinstance(value, bytes) or len(value) > _VALUE_MAX:
            return None
        found = Holder(**json.loads(value))
        types = {"host": str, "pid": int, "machine": str, "run": str, "since": float}
        is_valid = all(type(getattr(found, name)) is kind for name, kind in types.items())
        return found if is_valid and 0 <= found.since < _SINCE_MAX else None
    return None
