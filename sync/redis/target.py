"""Redis' edge: carries commands out, and knows which keys are ours.

Failure model. Beside the values Redis keeps a manifest, the hash `MANIFEST`: for each mirrored name
the signature of the file whose content its key holds. A value and its entry change in one MULTI, so
they agree however the connection or the service ends, and a key that is not in it was put there by
somebody else and is left alone.

Only `connect` opens a connection: a server that was away may have come back empty. Each connection
begins an epoch, a number in Redis that every transaction WATCHes. What an earlier connection has
sent and a server that hung carries out late is thereby void, and so is what another mirror sends.

A value that is too large for one command arrives in pieces under a key of its own, which ends by
itself when the pieces stop coming, and is renamed when it is complete.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, groupby
from secrets import token_hex
from typing import Any, NamedTuple, TypeAlias, cast

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.retry import Retry

from sync.core.changes import Arrive, Command, Delete, Rename, Set, Signature
from sync.core.errors import OUT_OF_MEMORY, RedisAwayError, RedisChangedError, SettingsError
from sync.core.manifest import Entries

# No file name has a slash in it.
MANIFEST = b"/mdvp-sync/manifest"
EPOCH = b"/mdvp-sync/epoch"
_INCOMING = b"/mdvp-sync/incoming/"
_INCOMING_LIFE = b"60000"  # ms without another piece

# What a Redis server takes as one value unless it is configured otherwise.
_VALUE_MAX = 512 << 20
_TIMEOUT = 10.0  # seconds; no command is so large that it takes one

# What a reconcile after a refusal is for, and the way out of it.
_CAUSES: dict[type[Exception], str] = {
    redis.OutOfMemoryError: OUT_OF_MEMORY,
    redis.ReadOnlyError: "Redis was read-only",
}
_WAYS_OUT: dict[type[Exception], str] = {
    redis.AuthenticationError: " REDIS_PASSWORD must be the server's",
    redis.OutOfMemoryError: " Raise its maxmemory, or remove files",
    redis.ReadOnlyError: " It is a replica: name its master in REDIS_URL",
}
# What a request says of a key of ours that somebody has put something else under.
_FOREIGN = ("WRONGTYPE", "value is not an integer")

_Request: TypeAlias = tuple[Any, ...]  # of bytes and int


class _Begun(NamedTuple):
    """A transaction that was sent and not answered yet.

    `signs` has for each of its requests 1 if the answer is how many names were added to the
    manifest, -1 if how many were removed, else 0.
    """

    commands: Sequence[Command]
    names: Sequence[bytes]
    signs: Sequence[int]
    requests: int


class Target:
    """The Redis server that mirrors the directory.

    Attributes:
        files: how many names it holds content of.
        bytes: how large their files are together, as far as that is known.
        commands: how many commands it was sent.
        format: how it keeps the signatures of files.
        value_max: how many bytes it takes as one value.

    """

    def __init__(self, url: str, password: str | None, entries: Entries) -> None:
        """Talk to the server at `url`, with `password` if the URL has none; connects when told to.

        Raises SettingsError.
        """
        try:
            self._pool = redis.ConnectionPool.from_url(
                url,
                password=password,
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
            # Its methods have no types. It connects nowhere yet.
            self._connection: Any = self._pool.make_connection()
        except (ValueError, TypeError) as error:
            raise SettingsError(f"REDIS_URL cannot be used: {error}") from error
        if self._pool.connection_kwargs.get("decode_responses"):
            raise SettingsError("REDIS_URL cannot be used: take decode_responses out of it")
        self.format = entries
        self._connected = False
        self._begun: _Begun | None = None
        self._watched: tuple[bytes, ...] = (EPOCH,)
        self._epoch = 0
        self._incoming = _INCOMING
        self.files = self.bytes = self.commands = 0
        self.value_max = _VALUE_MAX

    def __str__(self) -> str:
        """Say where the server is, without a password."""
        at = self._pool.connection_kwargs
        return str(at.get("path") or f"{at.get('host', 'localhost')}:{at.get('port', 6379)}")

    def connect(self) -> None:
        """Connect anew and begin an epoch; learn what the server holds and takes.

        Raises RedisAwayError.
        """
        self._open()
        begun, _, latest, files = self._converse(
            (b"INCR", EPOCH), (b"WATCH", EPOCH), (b"GET", EPOCH), (b"HLEN", MANIFEST)
        )
        # A server without memory lets no number grow, but what it holds can still be removed.
        self._learn(latest if isinstance(begun, redis.OutOfMemoryError) else begun, latest, files)
        self._incoming = _INCOMING + token_hex(8).encode()

    def join(self) -> None:
        """Connect anew beside a service that mirrors to the server, and do not disturb its epoch.

        A transaction is void then when the service changes anything between two of them.
        """
        self._watched = (EPOCH, MANIFEST)
        self._open()
        _, latest, files = self._converse(
            (b"WATCH", *self._watched), (b"GET", EPOCH), (b"HLEN", MANIFEST)
        )
        self._learn(latest, latest, files)
        self._incoming = _INCOMING + token_hex(8).encode()  # not the service's

    def _open(self) -> None:
        self._disconnect()
        with self._away():
            self._connection.connect()
            self._connected = True
        self.learn_value_max()

    def learn_value_max(self) -> None:
        """Learn what the server takes as a value, which can be changed while it runs."""
        (answer,) = self._converse((b"CONFIG", b"GET", b"proto-max-bulk-len"))
        self.value_max = _VALUE_MAX
        match answer:  # not everyone may ask
            case [_, bytes(value)] | {b"proto-max-bulk-len": bytes(value)}:
                self.value_max = int(value)

    def _learn(self, begun: object, latest: object, files: object) -> None:
        for answer in (begun, latest, files):
            if isinstance(answer, Exception):
                raise self._refused(answer)
        self._epoch, self.files, self.bytes = _number(begun), _number(files), 0
        self._check_epoch(latest)

    def check(self) -> None:
        """Make sure that the server is there and holds what it was given, as far as counts tell.

        Raises RedisAwayError, or RedisChangedError.
        """
        epoch, files = self._ask((b"GET", EPOCH), (b"HLEN", MANIFEST))
        self._check_epoch(epoch)
        if files != self.files:
            raise RedisChangedError(
                f"it holds {files} mirrored keys, not {self.files}: somebody has changed, or "
                "mended, what mdvp-sync keeps there"
            )

    def _check_epoch(self, epoch: object) -> None:
        if epoch is None and self._epoch:
            raise RedisChangedError("its keys were removed (FLUSHALL or the like)")
        if _number(epoch) != self._epoch:
            raise RedisChangedError(
                "another mdvp-sync began to mirror to it; give each a database of its own in "
                "REDIS_URL"
            )

    def entries(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the manifest's entry of each name, None if there is none."""
        if not names:
            return ()
        (entries,) = self._ask((b"HMGET", MANIFEST, *names))
        return cast("Sequence[bytes | None]", entries)

    def held(self, names: Sequence[bytes]) -> dict[bytes, Signature | None]:
        """Return the signature of the file whose content each name holds, None if none."""
        return dict(zip(names, map(self.format.decode, self.entries(names)), strict=True))

    def manifest(self, page_size: int = 1000) -> Iterator[dict[bytes, bytes]]:
        """Yield the names that Redis holds content of and their entries, in pages of about a size.

        A name may come more than once.
        """
        cursor = b"0"
        while True:
            (answer,) = self._ask((b"HSCAN", MANIFEST, cursor, b"COUNT", page_size))
            cursor, page = cast("tuple[bytes, list[bytes]]", answer)
            yield dict(zip(page[::2], page[1::2], strict=True))
            if int(cursor) == 0:
                return

    def lengths(self, names: Sequence[bytes]) -> list[int]:
        """Return how many bytes each key holds: 0 for no key, -1 for what is no string."""
        answers = self._converse(*((b"STRLEN", name) for name in names))
        return [answer if isinstance(answer, int) else -1 for answer in answers]

    def are_there(self, names: Sequence[bytes]) -> list[bool]:
        """Say of each key whether there is one."""
        return [answer == 1 for answer in self._converse(*((b"EXISTS", name) for name in names))]

    def values(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return what each key holds, None for no key and for what is no string."""
        if not names:
            return ()
        (values,) = self._ask((b"MGET", *names))
        return cast("Sequence[bytes | None]", values)

    def piece(self, name: bytes, at: int, size: int) -> bytes:
        """Return `size` bytes of what a key holds, from `at` on; fewer at its end."""
        (answer,) = self._converse((b"GETRANGE", name, at, at + size - 1))
        return answer if isinstance(answer, bytes) else b""

    def reserve(self, size: int) -> None:
        """Begin a value of `size` bytes that comes in pieces; void one that was begun before."""
        key = self._incoming
        # The last byte comes first: the server need not move what it has to make room for more.
        self._ask((b"DEL", key), (b"SETRANGE", key, size - 1, b"\0"), _expire(key))

    def bring(self, at: int, piece: bytes) -> None:
        """Bring a piece of the value that comes in pieces, the one that begins at byte `at`.

        Raises RedisAwayError, or RedisChangedError when the pieces before are there no longer.
        """
        key = self._incoming
        there, _ = self._ask(_expire(key), (b"SETRANGE", key, at, piece))
        if not there:
            # Expired, or evicted. What is there now has zeros for all that came before.
            self._ask((b"DEL", key))
            raise RedisChangedError("it lost a value that came in pieces")

    def apply(self, commands: Sequence[Command]) -> None:
        """Carry out commands in their order, in one transaction.

        Raises RedisAwayError, or RedisChangedError when the server held something else.
        """
        self.begin(commands)
        self.finish()

    def begin(self, commands: Sequence[Command]) -> None:
        """Send commands as one transaction; what was begun before is finished first.

        So the server works while its next transaction is being prepared. Raises as `apply` does.
        """
        names = list(dict.fromkeys(_names(commands)))
        requests: list[_Request] = [(b"MULTI",), (b"HMGET", MANIFEST, *names)]
        signs: list[int] = []
        for kind, run in groupby(commands, type):
            for sign, request in self._requests(kind, list(run)):
                requests.append(request)
                signs.append(sign)
        requests += (b"EXEC",), (b"WATCH", *self._watched)
        self.finish()
        self._send(requests)
        self._begun = _Begun(commands, names, signs, len(requests))

    def finish(self) -> None:
        """Wait until what was begun is done. Raises as `apply` does."""
        if not self._begun:
            return
        begun, self._begun = self._begun, None
        *_, done, _ = self._accepted(self._receive(begun.requests))
        if done is None:
            self.check()
            raise RedisChangedError("something changed its keys meanwhile")
        entries, *answers = cast("list[Any]", done)
        for answer in answers:
            if isinstance(answer, Exception):
                # What a rename could not do, its entry in the manifest says nothing sure of.
                raise RedisChangedError(f"it no longer holds what it was given: {answer}")
        self.files += sum(sign * answers[at] for at, sign in enumerate(begun.signs) if sign)
        before = {
            name: self.format.decode(entry)
            for name, entry in zip(begun.names, entries, strict=True)
            if entry
        }
        self.bytes += _growth(begun.commands, before)

    def _requests(self, kind: type, commands: list[Any]) -> Iterator[tuple[int, _Request]]:
        """Yield what commands of one kind are to Redis, the least that does it.

        Each has its sign before it, as in `_Begun`.
        """
        if kind is Rename:
            for each in commands:
                # Should the server not have the value, this must not say that it has.
                entry = self.format.encode(each.signature.unsure())
                yield 0, (b"RENAME", each.old, each.new)
                yield 1, (b"HSET", MANIFEST, each.new, entry)
                yield -1, (b"HDEL", MANIFEST, each.old)
            return
        if kind is Delete:
            names = [each.name for each in commands]
            yield 0, (b"DEL", *names)
            yield -1, (b"HDEL", MANIFEST, *names)
            return
        if kind is Set:
            pairs = ((each.name, each.content) for each in commands)
            yield 0, (b"MSET", *chain.from_iterable(pairs))
        elif kind is Arrive:
            for each in commands:
                yield 0, (b"RENAME", self._incoming, each.name)
                yield 0, (b"PERSIST", each.name)
        entries = ((each.name, self.format.encode(each.signature)) for each in commands)
        yield 1, (b"HSET", MANIFEST, *chain.from_iterable(entries))

    def _ask(self, *requests: _Request) -> list[object]:
        """Return the answers to requests; raise RedisAwayError if one was refused."""
        return self._accepted(self._converse(*requests))

    def _accepted(self, answers: list[object]) -> list[object]:
        for answer in answers:
            if isinstance(answer, Exception):
                raise self._refused(answer)
        return answers

    def _refused(self, answer: Exception) -> RedisAwayError:
        self._disconnect()  # in the middle of a transaction, maybe
        error = _away_error(answer)
        error.cause = _CAUSES.get(type(answer), error.cause)
        return error

    def _converse(self, *requests: _Request) -> list[object]:
        """Return the answers to requests, refusals too; raise RedisAwayError if there is none."""
        self.finish()
        self._send(requests)
        return self._receive(len(requests))

    def _send(self, requests: Sequence[_Request]) -> None:
        # By itself the connection would connect again, to a server that may be empty.
        if not self._connected:
            raise RedisAwayError("the connection was lost")
        self.commands += len(requests)
        with self._away():
            packed = b"".join([pack_command(request) for request in requests])
            self._connection.send_packed_command([packed], check_health=False)

    def _receive(self, count: int) -> list[object]:
        with self._away():
            return [self._answer() for _ in range(count)]

    def _answer(self) -> object:
        try:
            return self._connection.read_response()
        except redis.ResponseError as error:
            return error

    @contextmanager
    def _away(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            self._disconnect()
            raise _away_error(error) from error

    def _disconnect(self) -> None:
        self._connected = False
        self._begun = None
        self._connection.disconnect()

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()


def _away_error(error: Exception) -> RedisAwayError:
    words = str(error) or type(error).__name__
    if any(each in words for each in _FOREIGN):
        words += "; delete the keys /mdvp-sync/epoch and /mdvp-sync/manifest"
    return RedisAwayError(words + _WAYS_OUT.get(type(error), ""))


def _expire(key: bytes) -> _Request:
    return (b"PEXPIRE", key, _INCOMING_LIFE)


def _number(answer: object) -> int:
    """Return the number that the server has given; 0 for none, -1 for what is none."""
    try:
        return int(answer) if isinstance(answer, bytes | int) else 0
    except ValueError:
        return -1


def _names(commands: Sequence[Command]) -> Iterator[bytes]:
    for command in commands:
        if isinstance(command, Rename):
            yield command.old
            yield command.new
        else:
            yield command.name


def _growth(commands: Sequence[Command], held: Mapping[bytes, Signature | None]) -> int:
    """Return by how many bytes the files that Redis holds the content of become more."""
    before = {name: signature.size for name, signature in held.items() if signature}
    after = before.copy()
    for command in commands:
        if isinstance(command, Delete):
            after[command.name] = 0
        elif isinstance(command, Rename):
            after[command.new] = after.pop(command.old, 0)
        else:
            after[command.name] = command.signature.size
    return sum(after.values()) - sum(before.values())
