"""A Redis in memory, with as much of its semantics as the service depends on.

Transactions and what voids them, expiry, what an ACL or `maxmemory` refuses: all that is answered
as redis-py has it from a server, refusals as its exceptions. What a client has not sent to its end
is not done.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import hiredis
import redis
from unit.memory_turns import Turns

OWN = b"/mdvp-sync/"  # what the service's own keys begin with
MANIFEST = OWN + b"manifest"
NAMES = OWN + b"names"
EPOCH = OWN + b"epoch"
LEASE = OWN + b"lease"
UPLOAD = OWN + b"upload"  # where a large value is until it takes effect

VALUE_MAX = 5  # bytes; what has more is too large for Redis
PAGE = 2  # names in one transaction, or in one look at the directory or at the manifest
HALF = b"!"  # what a file is full of while its writer has locked it

_GROWING = {b"SET", b"MSET", b"HSET", b"INCRBY", b"RPUSH"}  # refused without memory
_WITHOUT_KEYS = {b"CONFIG", b"INFO", b"PING", b"CLIENT", b"UNWATCH"}
_OF_MANY_KEYS = {b"DEL", b"EXISTS", b"MGET", b"WATCH"}


@dataclass
class Server:
    """What a Redis does with the commands that the service sends.

    Attributes:
        given: the keys and values that were transferred since this was emptied last.
        now: tells the time in seconds, by which keys expire.
        refused: keys that the service's user may not use.
        memory_max: in bytes of values; None for no limit. The server itself evicts nothing.
        on_give: is told each key and value that is transferred, or moved, when it can be read.
        on_delete: is told each key that the service deletes, before it is gone.
        versions: how often each key was changed, by whomever.

    """

    keys: dict[bytes, Any] = field(default_factory=dict)
    given: list[tuple[bytes, bytes]] = field(default_factory=list)
    now: Callable[[], float] = lambda: 0.0
    refused: set[bytes] = field(default_factory=set)
    memory_max: int | None = None
    on_give: Callable[[bytes, bytes], None] = lambda _key, _value: None
    on_delete: Callable[[bytes], None] = lambda _key: None
    on_push: Callable[[bytes], None] = lambda _key: None
    versions: Counter[bytes] = field(default_factory=Counter)
    _ends: dict[bytes, float] = field(default_factory=dict)

    def manifest(self) -> dict[bytes, bytes]:
        """Return the entries of all paths that are mirrored."""
        return {path: entry for path, entry in self._record(MANIFEST) if not path.endswith(b"/")}

    def names(self) -> set[bytes]:
        """Return the second record of what is mirrored."""
        return {path for path, _ in self._record(NAMES) if not path.endswith(b"/")}

    def marks(self) -> tuple[set[bytes], set[bytes]]:
        """Return the places below that either record leads to."""
        manifest, names = (
            {path for path, _ in self._record(kind) if path.endswith(b"/")}
            for kind in (MANIFEST, NAMES)
        )
        return manifest, names

    def _record(self, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield what is in a record of all directories: paths, and marks, and their entries."""
        for key, fields in self.keys.items():
            if key == kind or key.startswith(kind + b"/"):
                place = key[len(kind) + 1 :]
                yield from ((place + name, entry) for name, entry in fields.items())

    def values(self) -> dict[bytes, bytes]:
        """Return all keys but the service's own."""
        return {key: value for key, value in self.keys.items() if not key.startswith(b"/")}

    @property
    def used(self) -> int:
        """How many bytes of memory there is taken: that of the values alone."""
        return sum(map(len, [*self.values().values(), self.keys.get(UPLOAD, b"")]))

    # What others do.

    def flush(self) -> None:
        """FLUSHALL."""
        self.remove(*self.keys)

    def remove(self, *keys: bytes) -> int:
        """DEL, by somebody else, or an eviction."""
        return sum(self._change(key, None) for key in keys)

    def append(self, key: bytes, more: bytes) -> None:
        """APPEND, by somebody else, to a string that is there."""
        if isinstance(value := self.keys.get(key), bytes):
            self._change(key, value + more)

    # What the service asks for.

    def do(self, command: bytes, *arguments: bytes) -> object:
        self.expire()
        method: Callable[..., object] = getattr(self, f"_{command.decode().lower()}")
        return method(*arguments)

    def expire(self) -> None:
        """Remove the keys whose time is over."""
        for key in [key for key, end in self._ends.items() if end <= self.now()]:
            self._change(key, None)

    def refusal(
        self, request: list[bytes], queued: Iterable[list[bytes]] = ()
    ) -> redis.ResponseError | None:
        """Return what the server says to a request that it does not even try, None to any other.

        What waits for it to be done takes memory too: its own values, and those that are `queued`.
        """
        command, *arguments = request
        if self.refused.intersection(_keys(command, arguments)):
            return redis.exceptions.NoPermissionError(
                "this user has no permissions to access one of the keys used as arguments"
            )
        if command in _GROWING and self.memory_max is not None:
            waits = sum(_size(each) for each in (request, *queued))
            if self.used + waits > self.memory_max:
                return redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        return None

    def _change(self, key: bytes, value: object) -> bool:
        """Have a key hold a value, without an end; None is no key. Say whether there was one."""
        was_there = key in self.keys
        if value is not None:
            self.keys[key] = value
        elif was_there:
            del self.keys[key]
        self._ends.pop(key, None)
        if was_there or value is not None:
            self.versions[key] += 1
        return was_there

    def _give(self, key: bytes, value: bytes) -> None:
        assert len(value) <= VALUE_MAX, "Redis takes no value as large as this"
        self._change(key, value)
        if not key.startswith(b"/"):
            self._note_given(key, value)

    def _note_given(self, key: bytes, value: bytes) -> None:
        assert HALF not in value, "a locked file was read half-way"
        self.given.append((key, value))
        self.on_give(key, value)

    # Commands on the server.

    def _config(self, _get: bytes, *names: bytes) -> list[bytes]:
        known = {
            b"proto-max-bulk-len": b"%d" % VALUE_MAX,
            b"maxmemory": b"%d" % (self.memory_max or 0),
            b"maxmemory-policy": b"noeviction",
        }
        return [part for name in names if name in known for part in (name, known[name])]

    def _info(self, *_sections: bytes) -> bytes:
        return b"# Memory\r\nused_memory:%d\r\nmaxmemory:%d\r\nmaxmemory_policy:noeviction\r\n" % (
            self.used,
            self.memory_max or 0,
        )

    @staticmethod
    def _ping() -> bytes:
        return b"PONG"

    @staticmethod
    def _client(*_arguments: bytes) -> bytes:
        return b"OK"

    # Commands on keys of any type, and on strings.

    def _exists(self, *keys: bytes) -> int:
        return sum(key in self.keys for key in keys)

    def _del(self, *keys: bytes) -> int:
        for key in keys:
            if key in self.keys:
                self.on_delete(key)
        return self.remove(*keys)

    def _rename(self, old: bytes, new: bytes) -> bytes:
        if old not in self.keys:
            raise redis.ResponseError("no such key")
        value, end = self.keys[old], self._ends.get(old)
        self._change(old, None)
        self._change(new, value)
        if old == UPLOAD:
            self._note_given(new, value)
        elif not new.startswith(b"/"):
            self.on_give(new, value)
        if end is not None:
            self._ends[new] = end
        return b"OK"

    def _pexpire(self, key: bytes, life: bytes) -> int:
        if key not in self.keys:
            return 0
        self._change(key, self.keys[key])
        self._ends[key] = self.now() + int(life) / 1000
        return 1

    def _pttl(self, key: bytes) -> int:
        if key not in self._ends:
            return -1 if key in self.keys else -2
        return int((self._ends[key] - self.now()) * 1000)

    def _persist(self, key: bytes) -> int:
        if key not in self._ends:
            return 0
        self._change(key, self.keys[key])
        return 1

    def _get(self, key: bytes) -> object:
        return self.keys.get(key)

    def _mget(self, *keys: bytes) -> list[object]:
        values = map(self.keys.get, keys)
        return [value if isinstance(value, bytes) else None for value in values]

    def _strlen(self, key: bytes) -> int:
        return len(self.keys.get(key, b""))

    def _getrange(self, key: bytes, first: bytes, last: bytes) -> bytes:
        value: bytes = self.keys.get(key, b"")
        return value[int(first) : int(last) + 1]

    def _set(self, key: bytes, value: bytes, *options: bytes) -> bytes | None:
        match options:
            case ():
                self._give(key, value)
            case (b"PX", _, b"NX") if key in self.keys:
                return None
            case (b"PX", life, *_) if key == LEASE:
                self._change(key, value)
                self._ends[key] = self.now() + int(life) / 1000
            case (b"PX", life):
                self._give(key, value)
                self._ends[key] = self.now() + int(life) / 1000
            case _:
                raise redis.ResponseError("syntax error")
        return b"OK"

    def _rpush(self, key: bytes, *values: bytes) -> int:
        said = [*self.keys.get(key, []), *values]
        self._change(key, said)
        self.on_push(key)
        return len(said)

    def _mset(self, *pairs: bytes) -> bytes:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self._give(key, value)
        return b"OK"

    def _incrby(self, key: bytes, step: bytes) -> int:
        number = int(self.keys.get(key, 0)) + int(step)
        self._change(key, b"%d" % number)
        return number

    # Commands on hashes.

    def _hlen(self, key: bytes) -> int:
        return len(self.keys.get(key, ()))

    def _hmget(self, key: bytes, *names: bytes) -> list[object]:
        return [self.keys.get(key, {}).get(name) for name in names]

    def _hset(self, key: bytes, *pairs: bytes) -> int:
        before: dict[bytes, bytes] = self.keys.get(key, {})
        entries = before | dict(zip(pairs[::2], pairs[1::2], strict=True))
        self._change(key, entries)
        return len(entries) - len(before)

    def _hdel(self, key: bytes, *names: bytes) -> int:
        before: dict[bytes, bytes] = self.keys.get(key, {})
        entries = {name: entry for name, entry in before.items() if name not in names}
        if len(entries) < len(before):
            self._change(key, entries or None)
        return len(before) - len(entries)

    def _hscan(self, key: bytes, cursor: bytes, *_count: bytes) -> list[object]:
        entries: dict[bytes, bytes] = self.keys.get(key, {})
        after, page = _page(entries, cursor)
        return [after, [part for name in page for part in (name, entries[name])]]


def _page(names: Iterable[bytes], cursor: bytes) -> tuple[bytes, list[bytes]]:
    """Return the names that come after the one that the cursor stands for, and the next cursor."""
    last = int(cursor).to_bytes(8, "big").lstrip(b"\0")
    left = sorted(name for name in names if name > last)
    page = left[:PAGE]
    return b"%d" % (int.from_bytes(page[-1], "big") if len(left) > PAGE else 0), page


def _keys(command: bytes, arguments: list[bytes]) -> list[bytes]:
    """Return the keys among a command's arguments."""
    if command in _WITHOUT_KEYS:
        return []
    if command in _OF_MANY_KEYS:
        return arguments
    if command == b"MSET":
        return arguments[::2]
    return arguments[:2] if command == b"RENAME" else arguments[:1]


def _size(request: list[bytes]) -> int:
    """Return how many bytes of values a request brings."""
    match request:
        case [b"SET", key, value, *_] if key != LEASE:
            return len(value)
        case [b"MSET", *pairs]:
            return sum(map(len, pairs[1::2]))
    return 0


class Connection:
    """A connection of redis-py's to the server."""

    def __init__(self, server: Server, turns: Turns) -> None:
        self._server = server
        self._turns = turns
        self.lost = False
        self.connect()

    def connect(self) -> None:
        self._requests = hiredis.Reader()
        self._answers: deque[object] = deque()
        self._watched: dict[bytes, int] = {}
        self._queued: list[list[bytes]] | None = None
        self._is_refused = False  # whether EXEC is to be
        self.lost = False

    def disconnect(self, *_arguments: object) -> None:
        """Leave nothing: neither what was queued, nor the half of a command."""
        self.connect()
        self.lost = True

    def lose(self) -> None:
        """Break the connection; the service hears of it when it uses it next."""
        self.disconnect()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401, ARG002  # as redis-py has it
        """Send it in two parts, of which the second may be on its way for long."""
        packed = command if isinstance(command, bytes) else b"".join(command)
        middle = len(packed) // 2
        for part in (packed[:middle], packed[middle:]):
            self._turns.take()
            self._feed(part)
        self._turns.take()

    def _feed(self, part: bytes) -> None:
        if self.lost:
            raise redis.ConnectionError("lost before it was sent")
        self._requests.feed(part)
        while (request := self._requests.gets()) is not False:
            self._answers.append(self._do(request))

    def can_read(self, timeout: float = 0) -> bool:  # noqa: ARG002  # as redis-py has it
        return bool(self._answers) or self.lost

    def read_response(self, **_options: object) -> object:
        if self.lost:
            raise redis.ConnectionError("lost before it was answered")
        answer = self._answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _do(self, request: list[bytes]) -> object:
        self._server.expire()
        if request[0] == b"EXEC":
            return self._exec()
        if request[0] in {b"MULTI", b"DISCARD", b"UNWATCH"}:
            self._queued = [] if request[0] == b"MULTI" else None
            self._is_refused = False
            self._watched = self._watched if request[0] == b"MULTI" else {}
            return b"OK"
        if refusal := self._server.refusal(request, self._queued or ()):
            self._is_refused = self._queued is not None
            return refusal
        if self._queued is not None:
            self._queued.append(request)
            return b"QUEUED"
        return self._answer(request)

    def _exec(self) -> object:
        if self._queued is None:
            return redis.ResponseError("EXEC without MULTI")
        queued, self._queued = self._queued, None
        watched, self._watched = self._watched, {}
        if self._is_refused:
            return redis.exceptions.ExecAbortError(
                "Transaction discarded because of previous errors."
            )
        versions = self._server.versions
        if any(versions[key] != version for key, version in watched.items()):
            return None
        # Memory is looked at once for all of it, before; what the user may do, for each.
        refusals = [self._server.refusal(each, queued[:at]) for at, each in enumerate(queued)]
        for refusal in refusals:
            if isinstance(refusal, redis.OutOfMemoryError):
                words = f"Transaction discarded because of: OOM {refusal}"
                return redis.exceptions.ExecAbortError(words)
        pairs = zip(refusals, queued, strict=True)
        return [refusal or self._answer(each) for refusal, each in pairs]

    def _answer(self, request: list[bytes]) -> object:
        if request[0] == b"WATCH":
            now = self._server.versions
            self._watched = {key: now[key] for key in request[1:]} | self._watched
            return b"OK"
        try:
            return self._server.do(*request)
        except redis.ResponseError as error:
            return error


class Pool(SimpleNamespace):
    """The connections of redis-py's to one server, each with a state of its own there."""

    def __init__(self, server: Server, turns: Turns) -> None:
        super().__init__(connection_kwargs={})
        self._server = server
        self._turns = turns
        self.connections: list[Connection] = []

    def make_connection(self) -> Connection:
        self.connections.append(Connection(self._server, self._turns))
        return self.connections[-1]

    def lose_all(self) -> None:
        for each in self.connections:
            each.lose()
