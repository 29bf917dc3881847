"""The stream of changes: what each transaction has done to names, for whoever follows that.

An entry is added in the transaction that does what it tells of, so one is there if and only if the
other is. Names are paths, as in the manifest: what is told is what that has, and sizes are those of
the files. Each entry has a number, `seq`, one more than that of the entry before.

Failure model. The stream is in the server beside what it tells of, and is lost, or put back, with
that. Whether it goes on where a consumer has read it is known by the hash FEED, which says of which
run of which server it is, and by its last entry. Whatever cannot add to the stream, but changes the
manifest (the server has no memory, a command works beside the service), removes that run from FEED
first. Where it is not known, the stream begins anew: `reset`, then all that the manifest has. There
the number leaps to the time, so that a consumer which has missed that takes nothing for what it has
read before, in a stream that is gone.

What the server refuses of the stream alone (its key holds something else, say) has the stream stand
still, and not the mirror: nothing is told until it can begin anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from sync.core.changes import Arrive, Command, Delete, Record, Rename, Set
from sync.core.manifest import NOTHING, Entries
from sync.core.plan import SPARE
from sync.redis.connection import Request
from sync.redis.keys import FEED

_RUN, _STREAM, _PARTIAL = b"run", b"stream", b"partial"  # fields of FEED
_NO_KEY = "no such key"
_DIGITS_MAX = 18  # of a number
Fields: TypeAlias = tuple[Any, ...]  # of an entry: bytes and int, but for its number


class Found(NamedTuple):
    """What is known of the stream.

    is_whole  whether all that the manifest has was told of a run of a server, and all since
    last      the ID of its last entry, and the number of that; None if there is none of ours
    refusal   why nothing can be known, in the server's words; "" if it can
    added     how many entries were ever added to it; None where the server does not tell (6.2)
    """

    is_whole: bool = False
    last: tuple[bytes, int] | None = None
    refusal: str = ""
    added: int | None = 0


class Feed:
    """One stream, as far as it has come; it asks for nothing by itself.

    Attributes:
        name: what it is called, after the prefix.
        key: its key.
        refusal: why the server takes no entry, in its words; "" if it does.
        may_trim: whether it is known how many names there are.

    """

    def __init__(self, name: bytes, most: int, prefix: bytes = b"") -> None:
        """Add to the stream `name`, after `prefix`; have it keep about `most` entries, 0 for all.

        It keeps twice as many as there are names, if that is more: when it begins anew, that is
        what a consumer has to find there.
        """
        self.name = name
        self.key = prefix + name
        self.refusal = ""
        self.may_trim = False
        self._most = most
        self._notes = prefix + FEED
        self._is_live = False
        self._last: bytes | None = None
        self._number = 0
        self._more: int | None = None  # entries than numbers, while all that are added are ours

    @classmethod
    def of(cls, name: bytes | None, most: int, prefix: bytes = b"") -> "Feed | None":
        """Return the stream of that name; None if there is to be none."""
        return cls(name, most, prefix) if name is not None else None

    # Whether it goes on.

    @property
    def questions(self) -> tuple[Request, Request]:
        """What to ask for `found`."""
        return (
            (b"HMGET", self._notes, _RUN, _STREAM, _PARTIAL),
            (b"XINFO", b"STREAM", self.key),
        )

    def found(self, answers: Sequence[object], run: bytes, *, is_partial: bool = False) -> Found:
        """Return what the answers tell; it is to be of a `run`, and may be but a part if so told.

        Without the second answer nothing is known of the stream itself.
        """
        noted, *rest = answers
        stream = rest[0] if rest else None
        for each in (noted, stream):
            if isinstance(each, Exception) and _NO_KEY not in str(each):
                return Found(refusal=str(each))
        said, name, partial = noted if isinstance(noted, list) else (None, None, None)
        is_whole = said == run and name == self.name
        is_whole &= is_partial or partial is None
        return Found(is_whole, _last_of(stream), added=_added_to(stream))

    def is_at(self, found: Found) -> bool:
        """Say whether what was added last is the last entry, and nobody else has added any.

        When the stream was deleted meanwhile, fewer were added.
        """
        if found.last is None or found.last[0] != self._last:
            return False
        is_ours = found.added is None or found.added - self._number == self._more
        return is_ours or self._more is None

    def stop(self, refusal: str = "") -> None:
        """Tell nothing from now on; if the server has refused something, for that reason."""
        self._is_live = False
        self.refusal = refusal

    def go_on(self, number: int, added: int | None = None) -> None:
        """Tell what is done from now on; the last entry has this number, and so many were added."""
        self._is_live, self._number, self.refusal = True, number, ""
        self._more = None if added is None else added - number

    # What is added. One transaction at a time: its numbers count when it is known to be done.

    def begun(self, cause: str) -> list[Request]:
        """Return what tells that a session has begun."""
        return self._added(self._begun(cause))

    @staticmethod
    def _begun(cause: str) -> list[Fields]:
        return [(b"begin", b"cause", cause.encode())]

    def begun_anew(self, run: bytes, cause: str | None = None) -> list[Request]:
        """Return what has the stream begin anew, of a run of the server.

        With a cause it also tells that a session has begun.
        """
        fields = (_RUN, run, _STREAM, self.name, _PARTIAL, b"1")
        begun = self._begun(cause) if cause is not None else []
        return [*self._added([(b"reset",), *begun]), (b"HSET", self._notes, *fields)]

    def held(self, page: Mapping[bytes, bytes], entries: Entries) -> list[Request]:
        """Return what tells of some of what the manifest has."""
        told: list[Fields] = []
        for name, entry in page.items():
            is_value = not name.endswith(b"/") and entries.digest(entry) != NOTHING
            if is_value and (signature := entries.decode(entry)):
                told.append((b"set", b"name", name, b"size", signature.size))
        return self._added(told)

    def is_all(self) -> list[Request]:
        """Return what tells that a consumer has been told of all that there is."""
        return [*self._added([(b"ready",)]), (b"HDEL", self._notes, _PARTIAL)]

    def told(self, commands: Sequence[Command], names: int) -> list[Request]:
        """Return what tells of commands; there are so many `names`."""
        if not self._is_live:
            return []
        requests = self._added(list(_told(commands)))
        if requests and self._most and self.may_trim:  # once for all of them is enough
            most = max(self._most, 2 * names + len(requests))
            requests[-1] = (b"XADD", self.key, b"MAXLEN", b"~", most, *requests[-1][2:])
        return requests

    def take(self, answers: Sequence[object]) -> None:
        """Take note of what became of what was added."""
        for answer in answers:
            if isinstance(answer, Exception):
                self.stop(str(answer))
                return
        last = answers[-1]
        if isinstance(last, bytes):
            self._number += len(answers)
            self._last = last

    def _added(self, told: Sequence[Fields]) -> list[Request]:
        """Return what adds entries of these fields; that of the first has the name `op`."""
        key, number = self.key, self._number
        return [
            (b"XADD", key, b"*", b"op", *fields, b"seq", number + at)
            for at, fields in enumerate(told, 1)
        ]


def untold(prefix: bytes) -> Request:
    """Return what has the stream begin anew, since something is done that it cannot tell of."""
    return b"HDEL", prefix + FEED, _RUN


def _told(commands: Sequence[Command]) -> Iterator[Fields]:
    """Yield what commands do to names: the manifest has that when they are done."""
    is_ring = False  # values that trade places, by way of the spare key
    for each in commands:
        match each:
            case Set() | Arrive() | Record(signature=_, pending=b"", is_news=True):
                if each.signature is None:
                    yield b"del", b"name", each.name
                else:
                    yield b"set", b"name", each.name, b"size", each.signature.size
            case Delete(name):
                yield b"del", b"name", name
            case Rename(old, new, signature):
                is_ring |= new == SPARE
                if not is_ring:
                    yield b"rename", b"name", new, b"old", old, b"size", signature.size
                elif new != SPARE:
                    yield b"set", b"name", new, b"size", signature.size
                is_ring &= old != SPARE


def _fields_of(stream: object) -> Mapping[bytes, Any]:
    if isinstance(stream, list):
        return dict(zip(stream[::2], stream[1::2], strict=True))
    return stream if isinstance(stream, dict) else {}


def _added_to(stream: object) -> int | None:
    """Return how many entries were added to a stream; None if the server does not tell."""
    fields = _fields_of(stream)
    return fields.get(b"entries-added") if fields else 0


def _last_of(stream: object) -> tuple[bytes, int] | None:
    """Return the ID and the number of the last entry, if nothing came after it, or was ours."""
    found = _fields_of(stream)
    match found.get(b"last-entry"):
        case [bytes(last), list(fields)] if last == found.get(b"last-generated-id"):
            number = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"seq", b"")
            is_number = number.isdigit() and len(number) <= _DIGITS_MAX
            return (last, int(number)) if is_number else None
    return None
