"""What the service notes in Redis beside the manifest: conflicts, requests, what lost, its state.

Failure model. Conflicts that are lost are found again, and a request that is lost is made again.
Only the values that lost have no other copy: each of them comes by `keep`, in the transaction that
overwrites it, and goes by `trim` alone. A note that is not of the form that it should have was
written by somebody else, and is passed over. One that is may say anything: its words are made fit
to be shown, and its numbers are of a size that all can reckon with.

A request is written by a command (`mdvp-sync resolve`, `mdvp-sync accept`), and removed by the
service when it is done.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, NamedTuple, cast

from sync.core.changes import Keep, shown
from sync.core.decision import Side
from sync.redis.connection import Request
from sync.redis.info import lines_of, run_of
from sync.redis.keys import ACCEPT, CONFLICTS, LOST, LOST_VALUE, MADE, OWN, REQUESTS, STATE
from sync.redis.target import Target, keeping

LOST_MAX = 1000  # values
LOST_SIZE_MAX = 64_000_000  # bytes of values

_NEXT = b"next"  # the field of LOST that is the number of the last value kept
_NUMBER_MAX = 1 << 53
_PAGE = 1000  # fields that are read, or written, at once
_DIGITS_MAX = 18  # of a number in a note
_SAID_MAX = 2000  # bytes of a note about a conflict
_WORDS_MAX = 100  # characters
_TAKE, _TAKEN_FOR = b"take", b"taken for"  # fields of STATE, too
_STATE = (b"directory", b"server", b"evicted", b"expired", b"commands")


@dataclass(frozen=True, slots=True)
class Conflict:
    """A name that both sides have changed: since when (Unix, s), and what each has, in words.

    The words are such as `3 bytes` or `no key`: what there is on disk, and in Redis.
    """

    since: float
    disk: str
    redis: str

    def __str__(self) -> str:
        """Complete a sentence about the name."""
        return f"differs: {self.disk} on disk, {self.redis} in Redis"


class Lost(NamedTuple):
    """A value that lost and is kept: its number, when that was (Unix, s), its bytes, its name."""

    number: int
    at: int
    size: int
    name: bytes


class State(NamedTuple):
    """What was there when all was known the last time: the directory, the server, its counters.

    The commands that it has had are of no interest but for this: if they are fewer the next
    time, somebody has had it count anew (CONFIG RESETSTAT).
    """

    directory: bytes
    server: bytes
    evicted: int
    expired: int
    commands: int = 0


class ServerFigures(NamedTuple):
    """What a server tells of itself: which run of it this is, how many keys went by themselves.

    A server that was a replica meanwhile is another run: it counts only what it removed itself.
    """

    run: bytes
    evicted: int
    expired: int
    policy: str  # maxmemory_policy
    commands: int = 0

    @property
    def may_evict(self) -> bool:
        """Say whether it removes keys when it is short of memory."""
        return self.policy != "noeviction"


class Notes:
    """The notes of the service that mirrors to one target, under its prefix.

    Whatever asks Redis raises RedisAwayError.
    """

    def __init__(self, target: Target) -> None:
        """Ask over the connection of `target`."""
        self._target = target
        prefix = target.prefix
        self._conflicts, self._requests = prefix + CONFLICTS, prefix + REQUESTS
        self._lost, self._lost_value = prefix + LOST, prefix + LOST_VALUE
        self._state, self._made = prefix + STATE, prefix + MADE

    # Conflicts.

    def conflicts(self) -> dict[bytes, Conflict]:
        """Return the names in conflict."""
        found = {name: _conflict(said) for name, said in self._fields(self._conflicts)}
        return {name: conflict for name, conflict in found.items() if conflict}

    def note_conflicts(self, conflicts: Mapping[bytes, Conflict]) -> None:
        """Take note of names in conflict."""
        self._put(self._conflicts, {name: _said(each) for name, each in conflicts.items()})

    def clear_conflicts(self, names: Iterable[bytes]) -> None:
        """Take note that these are in conflict no more."""
        self._remove(self._conflicts, names)

    # Requests.

    def request(self, name: bytes, side: Side) -> None:
        """Ask the service to take this side's value of a name."""
        self._put(self._requests, {name: side.value.encode()})

    def requests(self) -> dict[bytes, Side]:
        """Return the names about which somebody has decided, and for which side."""
        found = {name: _side(side) for name, side in self._fields(self._requests)}
        return {name: side for name, side in found.items() if side and name != ACCEPT}

    def done(self, names: Iterable[bytes]) -> None:
        """Take note that what was asked for these names is done."""
        self._remove(self._requests, names)

    def accept(self, side: Side) -> None:
        """Ask the service to end a hold, and to follow this side."""
        self.request(ACCEPT, side)

    def accepted(self) -> Side | None:
        """Return the side that is to be followed though much goes; None if nobody has said so."""
        (side,) = self._target.ask((b"HGET", self._requests, ACCEPT))
        return _side(side)

    def forget_accept(self) -> bool:
        """Take note that this is done, or not wanted any more; say whether it was there."""
        (removed,) = self._target.ask((b"HDEL", self._requests, ACCEPT))
        return bool(removed)

    def take(self, side: Side, directory: bytes) -> None:
        """Take note that this side is followed for a directory, until `end_take`."""
        fields = (_TAKE, side.value.encode(), _TAKEN_FOR, directory)
        self._target.ask((b"HSET", self._state, *fields))
        self.forget_accept()

    def taken(self, directory: bytes) -> Side | None:
        """Return the side that is still to be followed for a directory; None if there is none."""
        (found,) = self._target.ask((b"HMGET", self._state, _TAKE, _TAKEN_FOR))
        side, taken_for = cast("list[bytes | None]", found)
        return _side(side) if taken_for == directory else None

    def end_take(self) -> None:
        """Take note that a side was followed in all that there was."""
        self._target.ask((b"HDEL", self._state, _TAKE, _TAKEN_FOR))

    def is_waiting(self, name: bytes) -> bool:
        """Say whether a request for a name, or ACCEPT, is not done yet."""
        (found,) = self._target.ask((b"HEXISTS", self._requests, name))
        return bool(found)

    # What the last session knew.

    def state(self) -> State | None:
        """Return what was there when all was known the last time; None if that was never."""
        (found,) = self._target.ask((b"HMGET", self._state, *_STATE))
        directory, server, *counters = cast("list[bytes | None]", found)
        if directory is None or server is None:
            return None
        return State(directory, server, *map(_number, counters))

    def remember(self, state: State) -> None:
        """Take note that all is known, and what is there now."""
        self._put(self._state, dict(zip(_STATE, state, strict=True)))

    def server(self) -> ServerFigures | None:
        """Return what the server tells of itself; None if it tells this user nothing."""
        sections = (b"server", b"replication", b"stats", b"memory")
        told = lines_of(self._target.converse(*((b"INFO", section) for section in sections)))
        run = run_of(told)
        if not run:
            return None
        return ServerFigures(
            run,
            _number(told.get(b"evicted_keys")),
            _number(told.get(b"expired_keys")),
            told.get(b"maxmemory_policy", b"").decode(),
            _number(told.get(b"total_commands_processed")),
        )

    # Values that lost.

    def lost(self) -> list[Lost]:
        """Return the values that lost and are kept, the oldest first."""
        found = (_lost(number, said) for number, said in self._fields(self._lost))
        return sorted({each for each in found if each})

    def lost_value(self, number: int) -> bytes | None:
        """Return a value that lost; None if it is not kept."""
        (value,) = self._target.ask((b"GET", self._value_key(number)))
        return cast("bytes | None", value)

    def new_numbers(self, count: int = 1) -> range:
        """Return so many numbers that nobody else gets, for `keep`."""
        (last,) = self._target.converse((b"HINCRBY", self._lost, _NEXT, count))
        if not isinstance(last, int) or not count <= last < _NUMBER_MAX:  # somebody has written it
            last = max((each.number for each in self.lost()), default=0) + count
            self._target.ask((b"HSET", self._lost, _NEXT, last))
        return range(last - count + 1, last + 1)

    def keep(self, name: bytes, number: int, size: int, at: float) -> list[Request]:
        """Return what moves the value of a name, which is there, to those that lost.

        They are to be in the transaction that gives the name another value, before that.
        """
        return keeping(self._target.prefix, Keep(name, number, size, int(at)))

    def bring_back(self, number: int, name: bytes) -> list[Request]:
        """Return what gives a name a value that lost, and is there, for a transaction."""
        return [
            (b"RENAME", self._value_key(number), self._target.prefix + name),
            (b"HDEL", self._lost, number),
        ]

    def value_keys(self, lost: Lost) -> tuple[bytes, bytes]:
        """Return the key of a value that lost, and the one that it was the value of."""
        return self._value_key(lost.number), self._target.prefix + lost.name

    def trim(self) -> None:
        """Remove the oldest of the values that lost when they are too many, or too large together.

        The last one stays, however large. It reads what all of them are: call it once for a batch.
        """
        lost = self.lost()[::-1]
        sizes = accumulate(each.size for each in lost)
        kept = sum(size <= LOST_SIZE_MAX for size in sizes)
        surplus = [each.number for each in lost[max(1, min(kept, LOST_MAX)) :]]
        # The index goes last: if this ends half-way, what is left to be done is known by it.
        for some in _parts(surplus):
            self._target.ask((b"DEL", *map(self._value_key, some)), (b"HDEL", self._lost, *some))

    def _value_key(self, number: int) -> bytes:
        return b"%b%d" % (self._lost_value, number)

    # Directories.

    def made(self) -> dict[bytes, bytes]:
        """Return the directories that the service has made: what tells each from others."""
        made = self._fields(self._made)
        return {place: which for place, which in made if place.endswith(b"/")}

    def add_made(self, made: Mapping[bytes, bytes]) -> None:
        """Take note that the service has made directories at these places, which they are."""
        self._put(self._made, made)

    def forget_made(self, places: Iterable[bytes]) -> None:
        """Take note that these are gone, or somebody else's."""
        self._remove(self._made, places)

    # Hashes.

    def _fields(self, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield what is in a hash, in pages: a field may come twice."""
        cursor = b"0"
        while True:
            (answer,) = self._target.ask((b"HSCAN", key, cursor, b"COUNT", _PAGE))
            cursor, page = cast("tuple[bytes, list[bytes]]", answer)
            yield from zip(page[::2], page[1::2], strict=True)
            if int(cursor) == 0:
                return

    def _put(self, key: bytes, fields: Mapping[bytes, Any]) -> None:
        for some in _parts(list(fields.items())):
            self._target.ask((b"HSET", key, *chain.from_iterable(some)))

    def _remove(self, key: bytes, fields: Iterable[bytes]) -> None:
        for some in _parts(list(fields)):
            self._target.ask((b"HDEL", key, *some))


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[at : at + _PAGE] for at in range(0, len(items), _PAGE))


def _conflict(said: bytes) -> Conflict | None:
    if len(said) > _SAID_MAX:
        return None
    try:
        found = json.loads(said)
        since = float(found["since"])
        words = _words(found["disk"]), _words(found["redis"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return Conflict(since, *words) if math.isfinite(since) else None


def _words(said: object) -> str:
    return shown(str(said)[:_WORDS_MAX].encode("utf-8", "surrogatepass"))


def _said(conflict: Conflict) -> bytes:
    said = {"since": conflict.since, "disk": conflict.disk, "redis": conflict.redis}
    return json.dumps(said).encode()


def _side(said: bytes | None) -> Side | None:
    return next((side for side in Side if side.value.encode() == said), None)


def _lost(number: bytes, said: bytes) -> Lost | None:
    try:
        at, size, name = said.split(b" ", 2)
    except ValueError:
        return None
    # A number that is written in another way would not be found again by what it is.
    is_valid = all(b"%d" % _number(each) == each for each in (number, at, size))
    if not is_valid or name.startswith(OWN):
        return None
    return Lost(_number(number), _number(at), _number(size), name)


def _number(said: bytes | None) -> int:
    return int(said) if said and said.isdigit() and len(said) <= _DIGITS_MAX else 0
