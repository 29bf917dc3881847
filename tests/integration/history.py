"""What two hands have done to values: who wrote which, and which of them somebody destroyed.

A value is known by its digest, and no two that are written are equal, but for those of less than
`LEAST` bytes, of which nothing is remembered. A hand **destroys** a value when it overwrites or
deletes what was there, on its own side: it could have seen it. What no hand has destroyed must be
somewhere in the end, however many moves there were and whatever happened to the service.
"""

import hashlib
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from sync.core.decision import Side

LEAST = 8  # bytes; what is shorter may be written twice
_BEGINNING = 12  # bytes of a value, in which its serial number is
_RECENT = 10.0  # seconds
_TRACED = 100_000  # events


def digest(content: bytes) -> bytes:
    """Return what a value is known by: what Redis' scripts call sha1hex."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Written:
    """A value that a hand wrote: where, when (`time.monotonic`), its beginning and its size."""

    side: Side
    name: bytes
    at: float
    beginning: bytes
    size: int

    def __str__(self) -> str:
        """Write it for people."""
        return f"{self.beginning!r}, {self.size} B, written as {self.name!r} on {self.side.value}"


@dataclass
class History:
    """Of all values since all was at rest.

    Attributes:
        written: by digest, which there are, or were then.
        destroyed: by side, those that a hand overwrote or deleted there.
        known: all digests that values ever had, to know what nobody wrote.
        is_doubtful: whether something may have been written that nobody knows of.
        saved: digests of what Redis has saved and may have again.
        holes: how many were written to a file that was no more in its place when it was closed.

    """

    written: dict[bytes, Written] = field(default_factory=dict)
    destroyed: dict[Side, set[bytes]] = field(
        default_factory=lambda: {side: set() for side in Side}
    )
    known: set[bytes] = field(default_factory=set)
    holes: Counter[bytes] = field(default_factory=Counter)
    is_doubtful: bool = False
    saved: set[bytes] = field(default_factory=set)
    _trace: deque[tuple[float, str, Side, bytes, bytes]] = field(
        default_factory=lambda: deque(maxlen=_TRACED)
    )
    _put: dict[Side, dict[bytes, list[tuple[float, bytes]]]] = field(
        default_factory=lambda: {side: defaultdict(list) for side in Side}
    )
    _names: dict[Side, dict[bytes, set[bytes]]] = field(
        default_factory=lambda: {side: defaultdict(set) for side in Side}
    )

    def wrote(self, side: Side, name: bytes, content: bytes) -> bytes:
        """Take note that a value is there by somebody's hand, which may have moved it there."""
        key = digest(content)
        now = time.monotonic()
        self._put[side][name].append((now, key))
        self._names[side][key].add(name)
        self._trace.append((now, "put", side, name, key))
        if len(content) >= LEAST and key not in self.known:
            self.written[key] = Written(side, name, now, content[:_BEGINNING], len(content))
        self.known.add(key)
        return key

    def adopt(self, side: Side, name: bytes, key: bytes) -> None:
        """Take note of a value that is there, and may be what nobody knows of."""
        self._names[side][key].add(name)
        self.known.add(key)

    def destroyed_by(self, side: Side, content: bytes | None) -> None:
        """Take note that a hand overwrote or deleted a value, if there was one."""
        if content is not None and len(content) >= LEAST:
            key = digest(content)
            self.destroyed[side].add(key)
            self._trace.append((time.monotonic(), "destroyed", side, b"", key))

    def traces(self, key: bytes) -> list[str]:
        """Tell where a value was put, and when."""
        return [
            f"{at:.4f} s  {what} on {side.value} as {name!r}"
            for at, what, side, name, each in list(self._trace)
            if each == key
        ]

    def give_up(self, digests: Iterable[bytes]) -> None:
        """Take note of values that need not be anywhere."""
        gone = set(digests)
        for side in Side:
            self.destroyed[side] |= gone

    def give_up_recent(self, side: Side, name: bytes) -> None:
        """The same of all that a name has lately got on a side, and of what it had before."""
        since = time.monotonic() - _RECENT
        put = self._put[side][name]
        first = next((n for n, (at, _) in enumerate(put) if at > since), len(put))
        self.give_up(key for _, key in put[max(0, first - 1) :])

    def was_put(self, side: Side, name: bytes, key: bytes) -> bool:
        """Say whether somebody's hand has put a value there, under this name."""
        return name in self.names_of(side, key)

    def names_of(self, side: Side, key: bytes) -> set[bytes]:
        """Return under which names somebody's hand has put a value there."""
        return self._names[side].get(key, set())

    def required(self, side: Side | None = None) -> Iterator[tuple[bytes, Written]]:
        """Yield what must be somewhere; or, of what was written on one side, must still be there.

        Of one side: what no hand has destroyed there, whatever happens on the other.
        """
        gone = self.destroyed[side] if side else set.union(*self.destroyed.values())
        for key, written in self.written.items():
            if key not in gone and side in (None, written.side):
                yield key, written

    def at_rest(self, present: Collection[bytes]) -> None:
        """Forget the values that are not `present`."""
        alive = {*present, *self.saved}
        self.known &= alive
        self.written = {key: each for key, each in self.written.items() if key in alive}
        self.holes.clear()
        self.is_doubtful = False
        for side in Side:
            self.destroyed[side] &= alive
            self._put[side].clear()
            for key in self._names[side].keys() - alive:
                del self._names[side][key]
