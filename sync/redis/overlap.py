"""Other services whose keys are among this one's, or this one's among theirs, by their prefixes.

Two prefixes of which one begins with the other have keys in common: the names of files then are
those of the other's records, or of its files. The one with the longer prefix waits, since it can
look: whoever works has a lease, and of those with shorter prefixes it is known where that is. If it
may not look, the other one hears that a lease is renewed among its own keys, and waits instead.

Failure model. That there is no lease, or that it cannot be looked for, says nothing: the next look
may find one.
"""

import time
from collections.abc import Sequence
from typing import Protocol

from redis.exceptions import NoPermissionError

from sync.core.changes import shown
from sync.core.errors import OverlapError
from sync.redis.cluster import tag
from sync.redis.connection import Request
from sync.redis.keys import EPOCH, LEASE
from sync.redis.lease import Lease

_YIELDS = 3.0  # seconds in which one with a longer prefix waits if it can look
_HEARD_MAX = 100
_WAY_OUT = (
    "give each a SYNC_PREFIX such that neither begins with the other, or a database of its own"
)


class Server(Protocol):
    """The server over the connection that the service writes over."""

    def converse(self, *requests: Request) -> list[object]:
        """Return the answers to requests, refusals too."""


class Overlap:
    """The services whose keys this one's are in the way of."""

    def __init__(self, prefix: bytes, lease: Lease, *, in_one_slot: bool = False) -> None:
        """Look for those that share keys with the service that has `lease`, and this prefix.

        If all keys are `in_one_slot` of a cluster, others' in other slots cannot be among them.
        """
        self._prefix = prefix
        self._lease = lease
        shorter = (prefix[:length] for length in range(len(prefix)))
        own = tag(prefix)
        self._shorter = [each for each in shorter if not in_one_slot or tag(each) == own]
        self._heard: dict[bytes, float] = {}  # prefixes of those below, and when they were heard
        self._longer: set[bytes] = set()  # of those below that do not wait
        self._kept: set[bytes] = set()  # of those below whose keys are in the way, at work or not

    def hear(self, names: Sequence[bytes]) -> None:
        """Take note of names of keys, among the service's own, that another one has changed."""
        if LEASE not in b"\n".join(names):
            return
        for name in names:
            if name.endswith(LEASE) and len(self._heard) < _HEARD_MAX:
                self._heard.setdefault(name.removesuffix(LEASE), time.monotonic())

    def keep_out(self, prefix: bytes) -> None:
        """Wait from now on while there is one below with such a prefix, whether it works or not."""
        self._kept.add(prefix)

    def check(self, server: Server) -> None:
        """Raise OverlapError if there is one that this one has to wait for."""
        late = time.monotonic() - _YIELDS
        self._longer |= {each for each, since in self._heard.items() if since <= late}
        for prefix in self._longer:
            self._heard.pop(prefix, None)
        theirs = [*self._shorter, *(self._prefix + each for each in self._longer)]
        keys = [prefix + LEASE for prefix in theirs]
        keys += [self._prefix + each + EPOCH for each in self._kept]
        if not keys:
            return
        (there,) = server.converse((b"EXISTS", *keys))
        if isinstance(there, NoPermissionError) and self._shorter:
            self._shorter = []  # it may not look at others' keys, but at those among its own
            self.check(server)
        elif there == 0:
            self._longer.clear()
            self._kept.clear()
        elif isinstance(there, int):  # else it may not look
            self._look(server, theirs)

    def _look(self, server: Server, theirs: Sequence[bytes]) -> None:
        asked = [question for each in theirs for question in self._lease.questions_at(each + LEASE)]
        epochs = [(b"EXISTS", self._prefix + each + EPOCH) for each in self._kept]
        answers = server.converse(*asked, *epochs)
        for at, prefix in enumerate(theirs):
            if holder := self._lease.holder(answers[2 * at : 2 * at + 2]):
                raise OverlapError(self._refusal(prefix, f"another mdvp-sync works ({holder})"))
            self._longer.discard(prefix.removeprefix(self._prefix))
        for prefix, there in zip(tuple(self._kept), answers[len(asked) :], strict=True):
            if there:
                words = self._refusal(self._prefix + prefix, "another mdvp-sync has keys")
                raise OverlapError(f"{words}; if it is gone, delete these keys of its own")
            self._kept.discard(prefix)

    def _refusal(self, prefix: bytes, who: str) -> str:
        theirs, own = (repr(shown(each)) for each in (prefix, self._prefix))
        return f"{who} with SYNC_PREFIX={theirs}, and this one has {own}: {_WAY_OUT}"
