"""What Redis holds of the directory: carries commands out, and knows which keys are ours.

Failure model. Beside the values Redis keeps a manifest, the hash `MANIFEST`: for each mirrored name
the signature of the file whose content its key holds. A value and its entry change in one MULTI, so
they agree however the connection or the service ends. The same names are in a second hash, `NAMES`,
so that they are still known when one of the two is deleted or evicted. A key that is in neither was
put there by somebody else, and is left alone.

Only `connect` opens a connection: a server that was away may have come back empty. Each connection
begins an epoch, a number in Redis that every transaction WATCHes. What an earlier connection has
sent and a server that hung carries out late is thereby void, and so is what another mirror sends.

A transaction that the server refuses is not carried out, and the connection goes on.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any, NamedTuple, cast

import redis

from sync.core.changes import Arrive, Command, Confirm, Delete, Rename, Set, Signature
from sync.core.errors import RedisChangedError
from sync.core.manifest import Entries
from sync.redis.connection import Connection, Request, number, refused
from sync.redis.upload import Upload

# No file name has a slash in it.
MANIFEST = b"/mdvp-sync/manifest"
NAMES = b"/mdvp-sync/names"
EPOCH = b"/mdvp-sync/epoch"
_PROBE = b"/mdvp-sync/probe"

# What a Redis server takes as one value unless it is configured otherwise.
_VALUE_MAX = 512 << 20


class _Begun(NamedTuple):
    """A transaction that was sent: its commands, their names, and the requests in it."""

    commands: Sequence[Command]
    names: Sequence[bytes]
    requests: Sequence[Request]


class Target:
    """The Redis server that mirrors the directory.

    Attributes:
        bytes: how large the files are together that it holds content of, as far as that is known.
        format: how it keeps the signatures of files.
        value_max: how many bytes it takes as one value.

    """

    def __init__(self, dial: Callable[[], Any], entries: Entries) -> None:
        """Talk to the server to which `dial` makes connections of redis-py's; to none yet."""
        self._dial = dial
        self._connection = Connection(dial)
        self._large: Connection | None = None
        self._sent = 0  # over connections that have ended
        self.format = entries
        self._begun: _Begun | None = None
        self._answers: list[object] = []  # to what was begun, as far as they are there
        self._watched: tuple[bytes, ...] = (EPOCH,)
        self._epoch = 0
        # How many names each of the two has.
        self._counts = {MANIFEST: 0, NAMES: 0}
        self.bytes = 0
        self.value_max = _VALUE_MAX

    @property
    def count(self) -> int:
        """How many names it holds content of."""
        return self._counts[MANIFEST]

    @property
    def commands(self) -> int:
        """How many commands it was sent."""
        return self._sent + self._connection.sent + (self._large.sent if self._large else 0)

    @property
    def has_both_records(self) -> bool:
        """Say whether both records have as many names."""
        return self._counts[MANIFEST] == self._counts[NAMES]

    def connect(self) -> None:
        """Connect anew and begin an epoch; learn what the server holds and takes.

        Raises RedisAwayError.
        """
        self._open()
        begun, watched, *rest = self._converse((b"INCR", EPOCH), (b"WATCH", EPOCH), *_LEARN)
        self._connection.accepted([watched])
        # A server without memory lets no number grow, but what it holds can still be removed.
        self._learn(rest[0] if isinstance(begun, redis.OutOfMemoryError) else begun, *rest)

    def join(self) -> None:
        """Connect anew beside a service that mirrors to the server, and do not disturb its epoch.

        A transaction is void then when the service changes anything between two of them.
        """
        self._watched = (EPOCH, MANIFEST)
        self._open()
        _, *rest = self._converse((b"WATCH", *self._watched), *_LEARN)
        self._learn(rest[0], *rest)

    def _open(self) -> None:
        self._begun, self._answers = None, []
        self._forget_large()
        self._connection.open()
        self.learn_value_max()

    def learn_value_max(self) -> None:
        """Learn what the server takes as a value, which can be changed while it runs."""
        (answer,) = self._converse((b"CONFIG", b"GET", b"proto-max-bulk-len"))
        self.value_max = _VALUE_MAX
        match answer:  # not everyone may ask
            case [_, bytes(value)] | {b"proto-max-bulk-len": bytes(value)}:
                self.value_max = int(value)

    def _learn(self, begun: object, latest: object, held: object, known: object) -> None:
        self._connection.accepted([begun, latest, held, known])
        self._epoch, self.bytes = number(begun), 0
        self._counts = {MANIFEST: number(held), NAMES: number(known)}
        self._check_epoch(latest)

    def check(self) -> None:
        """Make sure that the server is there and holds what it was given, as far as counts tell.

        Raises RedisAwayError, or RedisChangedError.
        """
        epoch, *counts = self._ask(*_LEARN)
        self._check_epoch(epoch)
        if self._begun:
            return  # what it does to the counts is not taken note of yet
        for count, known in zip(counts, self._counts.values(), strict=True):
            if count != known:
                raise RedisChangedError(
                    f"it holds {count} mirrored keys, not {known}: somebody has changed, or "
                    "mended, what mdvp-sync keeps there"
                )

    def _check_epoch(self, epoch: object) -> None:
        if epoch is None and self._epoch:
            raise RedisChangedError("its keys were removed (FLUSHALL or the like)")
        if number(epoch) != self._epoch:
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

    def are_ours(self, names: Sequence[bytes]) -> list[bool]:
        """Say of each name whether its key is the mirror's."""
        if not names:
            return []
        records = self._ask(*((b"HMGET", key, *names) for key in (MANIFEST, NAMES)))
        return [one is not None or other is not None for one, other in zip(*records, strict=True)]

    def held(self, names: Sequence[bytes]) -> dict[bytes, Signature | None]:
        """Return the signature of the file whose content each name holds, None if none."""
        return dict(zip(names, map(self.format.decode, self.entries(names)), strict=True))

    def manifest(self, page_size: int = 1000) -> Iterator[dict[bytes, bytes]]:
        """Yield the names that Redis holds content of and their entries, in pages of about a size.

        A name may come more than once.
        """
        return self._pages(MANIFEST, page_size)

    def names(self, page_size: int = 1000) -> Iterator[list[bytes]]:
        """Yield the names in the second record, in pages of about a size."""
        return map(list, self._pages(NAMES, page_size))

    def _pages(self, key: bytes, size: int) -> Iterator[dict[bytes, bytes]]:
        cursor = b"0"
        while True:
            (answer,) = self._ask((b"HSCAN", key, cursor, b"COUNT", size))
            cursor, page = cast("tuple[bytes, list[bytes]]", answer)
            yield dict(zip(page[::2], page[1::2], strict=True))
            if int(cursor) == 0:
                return

    def add_names(self, names: Sequence[bytes]) -> None:
        """See to it that these names, which are in the manifest, are in the second record."""
        if names:
            (added,) = self._ask(_marks(names))
            self._counts[NAMES] += cast("int", added)

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

    def has_room(self, size: int) -> bool:
        """Say whether the server has memory for a value of `size` bytes, as far as it tells us.

        While it comes that takes twice as much: the server makes ready for another like it.
        """
        (answer,) = self._converse((b"INFO", b"memory"))
        text = answer.decode() if isinstance(answer, bytes) else ""  # not everyone may ask
        told = dict(line.split(":", 1) for line in text.split() if ":" in line)
        most = int(told.get("maxmemory", 0))
        # Where it may evict any key, it makes room.
        makes_room = told.get("maxmemory_policy", "").startswith("allkeys")
        used = 0 if makes_room else int(told.get("used_memory", 0))
        return not most or used + 2 * size <= most

    def probe(self) -> None:
        """Make sure that the server takes what the service sends, if it is not for a name.

        Raises RedisAwayError.
        """
        self._ask(
            (b"MULTI",),
            (b"HMGET", MANIFEST, _PROBE),
            (b"MSET", _PROBE, b""),
            (b"DEL", _PROBE),
            (b"HSET", _PROBE, b"", b""),
            (b"HDEL", _PROBE, b""),
            (b"EXEC",),
            (b"WATCH", *self._watched),
        )

    def is_full(self) -> bool:
        """Say whether the server refuses for want of memory whatever it is sent."""
        (answer,) = self._converse((b"SET", _PROBE, b"", b"PX", b"1"))
        return isinstance(answer, redis.OutOfMemoryError)

    def apply(self, commands: Sequence[Command]) -> None:
        """Carry out commands in their order, in one transaction.

        Raises RedisAwayError, RedisChangedError when the server held something else, or
        RedisRefusedError when nothing of it was done.
        """
        self.begin(commands)
        self.finish()

    def remove(self, names: Sequence[bytes]) -> dict[bytes, Exception]:
        """Delete keys where the server has no memory: then it takes no transaction, but takes this.

        Return those that it refuses to delete, with the reasons. The second record goes last: if
        this ends half-way, what is left to be done is known by it. Raises RedisAwayError.
        """
        held, *answers = self._converse(
            (b"HDEL", MANIFEST, *names), *((b"DEL", name) for name in names)
        )
        self._connection.accepted([held])
        self._counts[MANIFEST] -= number(held)
        refused_names = {
            name: answer
            for name, answer in zip(names, answers, strict=True)
            if isinstance(answer, Exception)
        }
        if removed := [name for name in names if name not in refused_names]:
            (known,) = self._ask((b"HDEL", NAMES, *removed))
            self._counts[NAMES] -= known
        return refused_names

    def begin(self, commands: Sequence[Command]) -> None:
        """Send commands as one transaction; what was begun before has to be finished.

        So the server works while its next transaction is being prepared. Raises RedisAwayError.
        """
        assert self._begun is None  # noqa: S101  # the caller's defect
        runs = [(kind, list(run)) for kind, run in groupby(commands, type)]
        names = _names(commands, [kind for kind, _ in runs])
        requests: list[Request] = [(b"HMGET", MANIFEST, *names)]
        for kind, run in runs:
            requests += self._requests(kind, run)
        self._connection.send(
            [(b"MULTI",), *requests, (b"EXEC",), (b"WATCH", *self._watched)],
        )
        self._begun = _Begun(commands, names, requests)
        if len(self._watched) > 1:
            # What is read next must be read when the server watches again: others change it too.
            self._collect()

    def finish(self) -> None:
        """Wait until what was begun is done. Raises as `apply` does."""
        if not self._begun:
            return
        self._collect()
        begun, self._begun = self._begun, None
        answers, self._answers = self._answers, []
        if error := refused(answers):
            raise error
        self._account(begun, answers[-2])

    def _collect(self) -> None:
        if self._begun and not self._answers:
            self._answers = self._connection.receive(len(self._begun.requests) + 3)

    def _account(self, begun: _Begun, done: object) -> None:
        """Take note of what a transaction has done. Raises RedisChangedError."""
        if done is None:
            self.check()
            raise RedisChangedError("something changed its keys meanwhile")
        entries, *answers = cast("list[Any]", done)
        for request, answer in zip(begun.requests[1:], answers, strict=True):
            if isinstance(answer, Exception):
                # What a rename could not do, its entry in the manifest says nothing sure of.
                raise RedisChangedError(f"it no longer holds what it was given: {answer}")
            if request[0] == b"HSET":
                self._counts[request[1]] += answer
            elif request[0] == b"HDEL":
                self._counts[request[1]] -= answer
        before = {
            name: self.format.decode(entry)
            for name, entry in zip(begun.names, entries, strict=True)
            if entry
        }
        self.bytes += _growth(begun.commands, before)

    def _requests(self, kind: type, commands: list[Any]) -> Iterator[Request]:
        """Yield what commands of one kind are to Redis, the least that does it."""
        if kind is Rename:
            for each in commands:
                # Should the server not have the value, this must not say that it has.
                entry = self.format.encode(each.signature.unsure())
                yield b"RENAME", each.old, each.new
                yield b"HSET", MANIFEST, each.new, entry
                yield b"HDEL", MANIFEST, each.old
                yield b"HSET", NAMES, each.new, b""
                yield b"HDEL", NAMES, each.old
            return
        names = [each.name for each in commands]
        if kind is Delete:
            yield b"DEL", *names
            yield b"HDEL", MANIFEST, *names
            yield b"HDEL", NAMES, *names
            return
        if kind is Set:
            yield b"MSET", *chain.from_iterable([each[:2] for each in commands])
        yield from self._entries(commands)

    def _entries(self, commands: Sequence[Set | Arrive | Confirm]) -> Iterator[Request]:
        names = [each.name for each in commands]
        entries = self.format.encode_all([each.signature for each in commands])
        yield b"HSET", MANIFEST, *chain.from_iterable(zip(names, entries, strict=True))
        yield _marks(names)

    def upload(self, name: bytes) -> Upload:
        """Return what brings a value that is large; only one at a time."""
        if self._large is None or not self._large.is_open:
            self._forget_large()
            self._large = Connection(self._dial)
        first = (
            (b"WATCH", *self._watched),
            (b"GET", EPOCH),
            (b"MULTI",),
            (b"HMGET", MANIFEST, name),
        )
        return Upload(self._large, first, self._epoch, name)

    def arrive(self, upload: Upload, signature: Signature) -> Arrive:
        """Give a key the value that was brought, the content of the file of this signature.

        Raises as `apply` does.
        """
        self._collect()  # so that what was begun before is done before
        command = Arrive(upload.name, signature)
        requests = list(self._entries([command]))
        done = upload.commit(requests)
        all_of_it = [(b"HMGET",), (b"SET",), *requests]
        self._account(_Begun([command], [upload.name], all_of_it), done)
        return command

    def _forget_large(self) -> None:
        """Let a connection be, whose thread may still be at work: it closes it."""
        if self._large:
            self._sent += self._large.sent
            self._large = None

    def _ask(self, *requests: Request) -> list[Any]:
        """Return the answers to requests; raise RedisAwayError if one was refused."""
        return list(self._connection.accepted(self._converse(*requests)))

    def _converse(self, *requests: Request) -> list[object]:
        """Return the answers to requests, refusals too; raise RedisAwayError if there is none."""
        self._connection.send(requests)
        self._collect()
        return self._connection.receive(len(requests))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


_LEARN: tuple[Request, ...] = ((b"GET", EPOCH), (b"HLEN", MANIFEST), (b"HLEN", NAMES))


def _marks(names: Sequence[bytes]) -> Request:
    return (b"HSET", NAMES, *chain.from_iterable((name, b"") for name in names))


# Of the commands there are very many, and nearly all are Sets: what is done with each is little.
def _names(commands: Sequence[Command], kinds: Collection[type]) -> list[bytes]:
    """Return each name once that some commands of these kinds are about."""
    if Rename not in kinds:
        return list(dict.fromkeys([command[0] for command in commands]))
    names = (c[:2] if isinstance(c, Rename) else c[:1] for c in commands)
    return list(dict.fromkeys(chain.from_iterable(names)))


def _growth(commands: Sequence[Command], held: Mapping[bytes, Signature | None]) -> int:
    """Return by how many bytes the files that Redis holds the content of become more."""
    before = {name: signature.size for name, signature in held.items() if signature}
    after = before.copy()
    for command in commands:
        if isinstance(command, Set):
            after[command.name] = command.signature.size
        elif isinstance(command, Delete):
            after[command.name] = 0
        elif isinstance(command, Rename):
            after[command.new] = after.pop(command.old, 0)
        else:
            after[command.name] = command.signature.size
    return sum(after.values()) - sum(before.values())
