"""What Redis holds of the directory: carries commands out, and knows which keys are ours.

Failure model. Beside the values Redis keeps a manifest, the hash `MANIFEST`: for each mirrored name
the signature of the file whose content its key holds. A value and its entry change in one MULTI, so
they agree however the connection or the service ends. The same names are in a second hash, `NAMES`,
so that they are still known when one of the two is deleted or evicted. A key that is in neither was
put there by somebody else, and is left alone.

Each directory of a tree has two such records of its own, `MANIFEST/a/b/` and `NAMES/a/b/`, and in
those of the directory that it is in there is a mark, a name with a slash in the end: so all records
can be found from the root's on, by either kind. A mark is there before what it leads to.

A connection that was lost is not opened again but by `connect`, for the service, or by `join`, for
a command beside it: a server that was away may have come back empty. With `connect` the service
takes the lease (see `lease`), without which it stands by, and begins an epoch, a number in Redis
that every transaction WATCHes. What an earlier connection has sent and a server that hung carries
out late is thereby void, and so is what a service sends that has lost the lease.

A transaction that the server refuses is not carried out, and the connection goes on. What is done
is told to a stream in the same transaction, where there is one (see `feed`).

A large value is under a key of the service's first (see `upload`), and takes effect by a RENAME in
a transaction like any other. That also watches this key, which may have expired, or be evicted or
deleted: then nothing is done, and the session goes on. What a session has left there the next one
deletes.
"""

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain, groupby
from threading import Thread
from typing import Any, NamedTuple, Protocol, cast

import redis

from sync.core.causes import ReconcileCause
from sync.core.changes import (
    NONE,
    Arrive,
    Command,
    Confirm,
    Delete,
    Keep,
    Record,
    Rename,
    Set,
    Signature,
    place_of,
)
from sync.core.errors import (
    MeanwhileError,
    OverlapError,
    RedisAwayError,
    RedisChangedError,
    RedisRefusedError,
    StandsByError,
)
from sync.core.manifest import Entries
from sync.core.plan import SPARE
from sync.redis.connection import Connection, Request, number, refused
from sync.redis.download import Download
from sync.redis.feed import Feed, untold
from sync.redis.keys import (
    EPOCH,
    LOST,
    LOST_VALUE,
    MANIFEST,
    NAMES,
    OWN,
    PROBE,
    UPLOAD,
    UPLOADS,
)
from sync.redis.lease import Lease
from sync.redis.overlap import Overlap
from sync.redis.upload import LIFE, Upload

# What a Redis server takes as one value unless it is configured otherwise.
_VALUE_MAX = 512 << 20
LARGE = 1 << 20  # bytes; what has more is not held in memory
_FETCHED_MAX = 8 << 20  # bytes of values that are held in memory together
_GLOB = b"\\*?[]"
_MEANWHILE = "something changed its keys meanwhile"
_STEP_MAX = 1 << 31  # see `_take`; epochs last for as many sessions
_TRIES = 10  # to take the lease, while others change it
_GIVEN_BACK = 0.5  # seconds that it may take to give it back
_MARKED_MAX = 50_000  # places remembered, some 8 MB
_FOREIGN_MAX = 100_000  # names remembered, some 10 MB


class _Begun(NamedTuple):
    """A transaction that was sent: its commands, their names by place, the requests in it.

    The first requests are for the entries of the names, and the last may be marks of `places`, and
    so many that have the stream `told`.
    """

    commands: Sequence[Command]
    names: Mapping[bytes, Sequence[bytes]]
    requests: Sequence[Request]
    places: Collection[bytes] = ()
    told: int = 0


class Key(NamedTuple):
    """What Redis holds under a name.

    entry   the manifest's, None if there is none
    length  how many bytes the key holds: 0 for no key, -1 for what is no string
    value   what it holds; None for no key, for what is no string, or for more than LARGE bytes
    """

    entry: bytes | None
    length: int
    value: bytes | None


class Records(NamedTuple):
    """What is in the records of directories.

    entries   the manifest's entry of each name or mark that was asked for, None if there is none
    lengths   how many names and marks each place has, in the manifest and in the second record
    """

    entries: Sequence[bytes | None]
    lengths: Sequence[tuple[int, int]]


class Place(Protocol):
    """Where the server is, as far as that changes."""

    @property
    def is_cluster(self) -> bool:
        """Whether all keys are in one slot of a cluster, and others' may be elsewhere."""

    def locate(self) -> None:
        """Find where it is by now, for all that is dialled from now on."""

    def check(self) -> None:
        """Raise RedisAwayError when it is known to be elsewhere by now; wait for nobody."""


class Target:
    """The Redis server that mirrors the directory.

    Attributes:
        feed: the stream that is told what is done; None if there is none.
        below: how many names it holds below the root, less the marks there, as far as is known.
        bytes: how large the files are together that it holds content of, as far as that is known.
        overlap: the other services whose keys are in the way.
        format: how it keeps the signatures of files.
        prefix: what all its keys begin with.
        value_max: how many bytes it takes as one value.

    """

    def __init__(  # noqa: PLR0913  # each is a part that it puts to use
        self,
        dial: Callable[[], Any],
        entries: Entries,
        prefix: bytes = b"",
        *,
        place: Place | None = None,
        lease: Lease | None = None,
        feed: Feed | None = None,
    ) -> None:
        """Talk to the server to which `dial` makes connections of redis-py's; to none yet.

        All keys begin with `prefix`, and who connects has the `lease` for them. The server may be
        at another `place` each time. What is done is told to `feed`.
        """
        self._dial = dial
        self._place = place
        self._connection = Connection(dial)
        self._large: Connection | None = None
        self._sent = 0  # over connections that have ended
        self.format = entries
        self.prefix = prefix
        self.feed = feed
        self._untold = untold(prefix)
        self._is_beside = False
        self._manifest, self._names = prefix + MANIFEST, prefix + NAMES
        self._epoch_key, self._probe = prefix + EPOCH, prefix + PROBE
        self._upload_key = prefix + UPLOAD
        self._learning: tuple[Request, ...] = (
            (b"GET", self._epoch_key),
            (b"HLEN", self._manifest),
            (b"HLEN", self._names),
        )
        self._lease = lease or Lease(prefix)
        self.overlap = Overlap(
            prefix, self._lease, in_one_slot=place is not None and place.is_cluster
        )
        self._begun: _Begun | None = None
        self._answers: list[object] = []  # to what was begun, as far as they are there
        self._watches_keys = False
        self._watched: tuple[bytes, ...] = (self._epoch_key,)
        self._epoch = 0
        # How many names and marks each of the root's two has.
        self._counts = {self._manifest: 0, self._names: 0}
        self._foreign: set[bytes] = set()  # names that are not in the manifest
        self._marked: set[bytes] = set()  # places of which both marks are there
        self.below = 0
        self.bytes = 0
        self.value_max = _VALUE_MAX

    @property
    def count(self) -> int:
        """How many names it holds content of."""
        return self._counts[self._manifest] + self.below

    @property
    def commands(self) -> int:
        """How many commands it was sent."""
        return self._sent + self._connection.sent + (self._large.sent if self._large else 0)

    @property
    def is_empty(self) -> bool:
        """Say whether it holds nothing, as far as the root's records tell."""
        return not any(self._counts.values())

    def connect(self) -> None:
        """Connect anew, take the lease and begin an epoch; learn what the server holds and takes.

        Raises RedisAwayError: also when another has the lease, or has keys that are in the way.
        """
        self._open()
        self.overlap.check(self)
        begun = self._take()
        _, _, *rest = self.ask(
            (b"WATCH", self._epoch_key),
            (b"DEL", self._upload_key),  # of an earlier session, of which no more can come now
            *self._learning,
        )
        self._learn(rest[0] if begun is None else begun, *rest)

    def _take(self) -> object:
        """Take the lease and begin an epoch; return that, None if the server has no memory for it.

        The epoch grows by any number: so one that was lost, in a server that was flushed or in one
        that has taken the place of another, does not come again as another's.
        """
        lease = self._lease
        lease.is_taken = False
        for _ in range(_TRIES):
            _, *found = self.converse((b"WATCH", lease.key, self._epoch_key), *lease.questions)
            if holder := lease.other(found):
                lease.is_held = False
                self.ask((b"UNWATCH",))
                raise StandsByError(holder)
            lease.is_held &= lease.is_own(found[0])
            answers = self.converse(
                (b"MULTI",),
                (b"INCRBY", self._epoch_key, 1 + secrets.randbelow(_STEP_MAX)),
                lease.taking(),
                (b"EXEC",),
            )
            if any(isinstance(each, redis.OutOfMemoryError) for each in answers):
                # No number grows, and no lease is put there, but what is there can be removed.
                lease.is_taken = True
                return None
            done = self._connection.accepted(answers)[-1]
            if isinstance(done, list):
                begun, _ = self._connection.accepted(done)
                lease.is_held = lease.is_taken = True
                return begun
        raise RedisChangedError(_MEANWHILE)

    def may_take(self) -> bool:
        """Say whether the lease is free by now that `connect` found to be another's.

        Raises RedisAwayError.
        """
        if not self._connection.is_open:
            self._open()
        if self._place:
            self._place.check()
        return self._lease.is_free(self.converse(*self._lease.questions))

    def give_back(self) -> None:
        """Let another service take the lease at once, if that does not take long."""
        self._connection.close()
        if self._lease.is_held:
            self._lease.is_held = False
            thread = Thread(target=self._give_back, daemon=True)
            thread.start()
            thread.join(_GIVEN_BACK)

    def _give_back(self) -> None:
        lease, connection = self._lease, Connection(self._dial)
        with suppress(RedisAwayError), closing(connection):
            connection.open()
            connection.send([(b"WATCH", lease.key), (b"GET", lease.key)])
            if lease.is_own(connection.receive(2)[1]):
                connection.send([(b"MULTI",), lease.giving_back(), (b"EXEC",)])
                if refused(connection.receive(3)):  # without memory, say
                    connection.send([(b"DEL", lease.key)])
                    connection.receive(1)

    def join(self) -> None:
        """Connect anew beside a service that mirrors to the server, and do not disturb its epoch.

        A transaction is void then when the service changes anything between two of them, at the
        root or where it was last told to `watch`.
        """
        self._is_beside = True
        self._watched = (self._epoch_key, self._manifest)
        self._upload_key = self.prefix + UPLOADS + secrets.token_hex(8).encode()
        self._open()
        _, *rest = self.converse((b"WATCH", *self._watched), *self._learning)
        self._learn(rest[0], *rest)

    def watch(self, names: Sequence[bytes]) -> None:
        """Have the next transaction be void when the service changes what is beside these names."""
        records = [self._manifest + _record(place) for place in _by_place(names)]
        self._watched = (self._epoch_key, *dict.fromkeys((self._manifest, *records)))
        self.ask((b"UNWATCH",), (b"WATCH", *self._watched))

    def _open(self) -> None:
        self._begun, self._answers = None, []
        self._watches_keys = False
        self._marked.clear()
        self._foreign.clear()
        self._forget_large()
        if self._place:
            self._place.locate()
        self._connection.open()
        self.learn_value_max()

    def learn_value_max(self) -> None:
        """Learn what the server takes as a value, which can be changed while it runs."""
        (answer,) = self.converse((b"CONFIG", b"GET", b"proto-max-bulk-len"))
        self.value_max = _VALUE_MAX
        match answer:  # not everyone may ask
            case [_, bytes(value)] | {b"proto-max-bulk-len": bytes(value)}:
                self.value_max = int(value)

    def _learn(self, begun: object, latest: object, held: object, known: object) -> None:
        self._connection.accepted([begun, latest, held, known])
        self._epoch, self.bytes, self.below = number(begun), 0, 0
        self._counts = {self._manifest: number(held), self._names: number(known)}
        self._check_epoch(latest)

    def check(self) -> None:
        """Make sure that the server is there and holds what it was given, as far as counts tell.

        Raises RedisAwayError, or RedisChangedError.
        """
        if self._place:
            self._place.check()
        _, *counts = self._ask_with_lease()
        if self._lease.is_taken:
            self._check_overlap()
        if self._begun:
            return  # what it does to the counts is not taken note of yet
        for count, known in zip(counts, self._counts.values(), strict=True):
            if count != known:
                raise RedisChangedError(
                    f"it holds {count} mirrored keys, not {known}: somebody has changed, or "
                    "mended, what mdvp-sync keeps there"
                )

    def _ask_with_lease(self) -> Sequence[object]:
        """Renew the lease; return what the server holds. Raises StandsByError, as `check` does."""
        lease = self._lease
        # First, so that when it is another's the epoch that comes with it is that one's, too.
        asked = (*lease.questions, lease.renewal()) if lease.is_taken else ()
        answers = self.converse(*asked, *self._learning)
        found, learned = answers[: len(asked)], answers[len(asked) :]
        epoch, *_ = self._connection.accepted(learned)
        holder = lease.other(found[:2]) if found else None
        if holder and (number(epoch) != self._epoch or not lease.is_held):
            lease.is_held = lease.is_taken = False
            self._connection.close()  # nothing more is to be sent over it
            raise StandsByError(holder)
        self._check_epoch(epoch)
        if found and not lease.is_own(found[0]):
            self._put_lease()
        return learned

    def _check_overlap(self) -> None:
        try:
            self.overlap.check(self)
        except OverlapError:
            self._let_go()
            raise

    def keep_out(self, prefix: bytes) -> None:
        """Let go of the lease while there are keys of a service's own with a prefix below."""
        self.overlap.keep_out(prefix)
        self._let_go()

    def _let_go(self) -> None:
        """Have nobody wait for the lease of a service that waits itself."""
        if self._lease.is_held:
            self._give_back()  # if it is still this one's
        self._lease.is_held = self._lease.is_taken = False

    def _put_lease(self) -> None:
        """Put a lease there again that was evicted, or that somebody has removed.

        If there was no memory for it when the epoch began, others may have the same: end it.
        """
        lease = self._lease
        (answer,) = self.converse(lease.taking(free_only=not lease.is_held))
        if answer == b"OK" and not lease.is_held:
            error = RedisAwayError("it has memory again")
            error.cause = ReconcileCause.REDIS_OUT_OF_MEMORY
            raise error

    def _check_epoch(self, epoch: object) -> None:
        if epoch is None and self._epoch:
            raise RedisChangedError("its keys were removed (FLUSHALL or the like)")
        if number(epoch) != self._epoch:
            raise RedisChangedError("another mdvp-sync began to work with the same keys")

    def entries(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the manifest's entry of each name or mark, None if there is none."""
        return self.records(names).entries

    def records(self, names: Sequence[bytes], places: Sequence[bytes] = ()) -> Records:
        """Return the manifest's entries of names and marks, and how many each place has."""
        groups = _by_place(names)
        asked = list(self._entries_of(groups))
        for place in places:
            record = _record(place)
            asked += [(b"HLEN", self._manifest + record), (b"HLEN", self._names + record)]
        if not asked:
            return Records((), ())
        answers = self.ask(*asked)
        lengths = answers[len(groups) :]
        return Records(
            _in_order(names, groups, answers),
            list(zip(lengths[::2], lengths[1::2], strict=True)),
        )

    def _entries_of(self, groups: Mapping[bytes, Sequence[bytes]]) -> Iterator[Request]:
        for place, names in groups.items():
            yield b"HMGET", self._manifest + _record(place), *names

    def are_ours(self, names: Sequence[bytes]) -> list[bool]:
        """Say of each name whether its key is the mirror's."""
        if not names:
            return []
        groups = _by_place(names)
        answers = self.ask(
            *(
                (b"HMGET", kind + _record(place), *some)
                for kind in (self._manifest, self._names)
                for place, some in groups.items()
            )
        )
        held = _in_order(names, groups, answers)
        known = _in_order(names, groups, answers[len(groups) :])
        return [a is not None or b is not None for a, b in zip(held, known, strict=True)]

    def unknown(self, names: Iterable[bytes]) -> set[bytes]:
        """Return those of some names of which it is not known that they are not in the manifest.

        Others' keys on a busy server are changed again and again; to ask each time takes long.
        """
        return set(names) - self._foreign

    def ours(self, names: Sequence[bytes]) -> list[bytes]:
        """Return those of some names that are in the manifest by now."""
        ours = []
        for name, entry in zip(names, self.entries(names), strict=True):
            if entry is None:
                self._foreign.add(name)
            elif not name.endswith(b"/"):  # that is the mark of a directory
                ours.append(name)
        if len(self._foreign) > _FOREIGN_MAX:
            self._foreign.clear()
        return ours

    def held(self, names: Sequence[bytes]) -> dict[bytes, Signature | None]:
        """Return the signature of the file whose content each name holds, None if none."""
        return dict(zip(names, map(self.format.decode, self.entries(names)), strict=True))

    def manifest(self, place: bytes = b"", page_size: int = 1000) -> Iterator[dict[bytes, bytes]]:
        """Yield the names and marks at a place, and their entries, in pages of about a size.

        A name may come more than once.
        """
        return self._pages(self._manifest, place, page_size)

    def names(self, place: bytes = b"", page_size: int = 1000) -> Iterator[list[bytes]]:
        """Yield the names and marks in a place's second record, in pages of about a size."""
        return map(list, self._pages(self._names, place, page_size))

    def _pages(self, kind: bytes, place: bytes, size: int) -> Iterator[dict[bytes, bytes]]:
        cursor, key = b"0", kind + _record(place)
        while True:
            (answer,) = self.ask((b"HSCAN", key, cursor, b"COUNT", size))
            cursor, page = cast("tuple[bytes, list[bytes]]", answer)
            yield {place + name: entry for name, entry in _valid(page[::2], page[1::2])}
            if int(cursor) == 0:
                return

    def add_names(self, names: Sequence[bytes]) -> None:
        """See to it that names, and marks, that are in the manifest are in the second record."""
        requests = [self._named(place, some) for place, some in _by_place(names).items()]
        for request, added in zip(requests, self.ask(*requests), strict=True):
            self._count(request, added)

    def know(self, places: Iterable[bytes]) -> None:
        """Take note that both marks of places are there."""
        if len(self._marked) < _MARKED_MAX:
            self._marked.update(places)

    def mark(self, places: Sequence[bytes]) -> None:
        """See to it that places have their marks in the records of the directory above."""
        requests = list(self._marks(places))
        for request, added in zip(requests, self.converse(*requests), strict=True):
            # A server without memory refuses; the next look at all will find them missing again.
            self._count(request, added if isinstance(added, int) else 0)

    def unmark(self, places: Sequence[bytes]) -> list[bytes]:
        """Remove the marks of places at which there are no names and no marks; return those."""
        lengths = self.records((), places).lengths
        empty = [place for place, both in zip(places, lengths, strict=True) if not any(both)]
        requests = [
            (b"HDEL", kind + _record(place), *names)
            for place, names in _by_place(empty).items()
            for kind in (self._manifest, self._names)
        ]
        if requests:
            self._marked.difference_update(empty)
            answers = self.converse((b"MULTI",), *requests, (b"EXEC",), (b"WATCH", *self._watched))
            done = answers[-2]
            if any(isinstance(answer, redis.OutOfMemoryError) for answer in answers):
                done = self.ask(*requests)  # then it takes no transaction
            else:
                self._connection.accepted(answers)
            if done is None:
                self.check()
                raise MeanwhileError(_MEANWHILE)
            for request, answer in zip(requests, cast("list[int]", done), strict=True):
                self._count(request, answer)
        return empty

    def lengths(self, names: Sequence[bytes]) -> list[int]:
        """Return how many bytes each key holds: 0 for no key, -1 for what is no string."""
        answers = self.converse(*((b"STRLEN", key) for key in self._keys(names)))
        return [answer if isinstance(answer, int) else -1 for answer in answers]

    def are_there(self, names: Sequence[bytes]) -> list[bool]:
        """Say of each key whether there is one."""
        answers = self.converse(*((b"EXISTS", key) for key in self._keys(names)))
        return [answer == 1 for answer in answers]

    def values(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return what each key holds, None for no key and for what is no string."""
        if not names:
            return ()
        (values,) = self.ask((b"MGET", *self._keys(names)))
        return cast("Sequence[bytes | None]", values)

    def look(self, names: Sequence[bytes], *, watch: bool = True) -> list[Key]:
        """Return what there is under names, for the first of them; of one at least.

        If told to `watch`, what is begun next is void when one of the keys has changed since.
        """
        if not names:
            return []
        groups, keys = _by_place(names), self._keys(names)
        asked: list[Request] = [(b"WATCH", *keys)] if watch else []
        asked += self._entries_of(groups)
        asked += [(b"STRLEN", key) for key in keys]
        self._watches_keys |= watch
        answers = self.converse(*asked)
        if watch and isinstance(answers[0], redis.exceptions.NoPermissionError):
            return self._look_where_allowed(names, answers[-len(keys) :])
        self._connection.accepted(answers[: -len(keys)])
        entries = _in_order(names, groups, answers[watch:])
        lengths = [
            -1 if isinstance(each, Exception) else number(each) for each in answers[-len(keys) :]
        ]
        some = _fetched(lengths)
        values = self._fetch(keys[:some], lengths)
        return [Key(*each) for each in zip(entries, lengths, values, strict=False)]

    def _look_where_allowed(self, names: Sequence[bytes], lengths: Sequence[object]) -> list[Key]:
        """Look under names, of which some are refused to the user: these are no strings to it."""
        refusal = redis.exceptions.NoPermissionError
        pairs = zip(names, lengths, strict=True)
        allowed = [name for name, length in pairs if not isinstance(length, refusal)]
        found = dict(zip(allowed, self.look(allowed), strict=False))
        keys = []
        for name, length in zip(names, lengths, strict=True):
            if name not in found and not isinstance(length, refusal):
                break  # there was no room for it
            keys.append(found.get(name, Key(None, -1, None)))
        return keys

    def _fetch(self, keys: Sequence[bytes], lengths: Sequence[int]) -> list[bytes | None]:
        """Return the values of keys, of lengths that are known, None for what is not fetched."""
        asked = [key for key, length in zip(keys, lengths, strict=False) if 0 <= length <= LARGE]
        values = iter(self.ask((b"MGET", *asked))[0] if asked else ())
        return [
            next(values) if 0 <= length <= LARGE else None
            for _, length in zip(keys, lengths, strict=False)
        ]

    def unwatch(self) -> None:
        """Have what is begun next depend on no key that was watched."""
        if self._watches_keys:
            _, _, epoch = self.ask(
                (b"UNWATCH",), (b"WATCH", *self._watched), (b"GET", self._epoch_key)
            )
            self._watches_keys = False
            self._check_epoch(epoch)

    def last_for_ever(self, names: Sequence[bytes]) -> list[bool]:
        """Say of each key that is there whether it has no end."""
        return [answer == -1 for answer in self.ask(*((b"PTTL", key) for key in self._keys(names)))]

    def ttl(self, name: bytes) -> int:
        """Return in how many ms a key expires; less than 0 if never, or if there is none."""
        (answer,) = self.ask((b"PTTL", self.prefix + name))
        return number(answer)

    def scan(self, page_size: int = 1000) -> Iterator[list[bytes]]:
        """Yield the names of all keys that are not the service's own, in pages of about a size.

        A name may come more than once. One that comes, or goes, meanwhile may be missing.
        """
        cursor, prefix = b"0", self.prefix
        pattern = _literally(prefix) + b"*"
        while True:
            (answer,) = self.ask((b"SCAN", cursor, b"MATCH", pattern, b"COUNT", page_size))
            cursor, page = cast("tuple[bytes, list[bytes]]", answer)
            own, stream = prefix + OWN, self.feed and self.feed.key
            yield [key[len(prefix) :] for key in page if not (key.startswith(own) or key == stream)]
            if int(cursor) == 0:
                return

    def piece(self, name: bytes, at: int, size: int) -> bytes:
        """Return `size` bytes of what a key holds, from `at` on; fewer at its end."""
        (answer,) = self.converse((b"GETRANGE", self.prefix + name, at, at + size - 1))
        return answer if isinstance(answer, bytes) else b""

    def has_room(self, size: int) -> bool:
        """Say whether the server has memory for a value of `size` bytes, as far as it tells us.

        While it comes that takes twice as much: the server makes ready for another like it.
        """
        (answer,) = self.converse((b"INFO", b"memory"))
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
        self.ask(
            (b"MULTI",),
            (b"HMGET", self._manifest, b""),
            (b"SET" if self.format.digests else b"MSET", self._probe, b""),
            (b"DEL", self._probe),
            (b"HSET", self._probe, b"", b""),
            (b"HDEL", self._probe, b""),
            (b"EXEC",),
            (b"WATCH", *self._watched),
        )

    def is_full(self) -> bool:
        """Say whether the server refuses for want of memory whatever it is sent."""
        (answer,) = self.converse((b"SET", self._probe, b"", b"PX", b"1"))
        return isinstance(answer, redis.OutOfMemoryError)

    def apply(self, commands: Sequence[Command]) -> None:
        """Carry out commands in their order, in one transaction.

        Raises RedisAwayError, RedisChangedError when the server held something else, or
        RedisRefusedError when nothing of it was done.
        """
        self.begin(commands)
        self.finish()

    @property
    def is_begun(self) -> bool:
        """Say whether something was begun, and is not finished."""
        return self._begun is not None

    def transact(self, requests: Sequence[Request]) -> list[Any]:
        """Have requests done in one transaction; return the answers, of which some are refusals.

        Nothing may be begun. Raises RedisAwayError, also when another service has begun to mirror
        to the server, or RedisRefusedError when nothing was done.
        """
        self.unwatch()
        answers = self.converse((b"MULTI",), *requests, (b"EXEC",), (b"WATCH", *self._watched))
        if error := refused(answers):
            raise error
        if answers[-2] is None:
            self.check()
            raise MeanwhileError(_MEANWHILE)
        return cast("list[Any]", answers[-2])

    def is_stream(self, name: bytes) -> bool:
        """Say whether a name is that of the stream of changes."""
        return self.feed is not None and self.feed.name == name

    def forget_feed(self) -> None:
        """Have the stream of changes begin anew, by whatever service there is with one next.

        What somebody has put in the place of the hash tells of no stream.
        """
        (answer,) = self.converse(self._untold)
        if "WRONGTYPE" not in str(answer):
            self._connection.accepted([answer])

    def remove(self, names: Sequence[bytes]) -> dict[bytes, Exception]:
        """Delete keys where the server has no memory: then it takes no transaction, but takes this.

        Return those that it refuses to delete, with the reasons. The second record goes last: if
        this ends half-way, what is left to be done is known by it. Raises RedisAwayError.
        """
        self.forget_feed()  # it is not told
        held = self._remove_from(self._manifest, names)
        self._connection.accepted(held)
        answers = self.converse(*((b"DEL", key) for key in self._keys(names)))
        refused_names = {
            name: answer
            for name, answer in zip(names, answers, strict=True)
            if isinstance(answer, Exception)
        }
        if removed := [name for name in names if name not in refused_names]:
            self._connection.accepted(self._remove_from(self._names, removed))
        return refused_names

    def _remove_from(self, kind: bytes, names: Sequence[bytes]) -> list[object]:
        requests = [
            (b"HDEL", kind + _record(place), *some) for place, some in _by_place(names).items()
        ]
        answers = self.converse(*requests)
        for request, answer in zip(requests, answers, strict=True):
            self._count(request, number(answer))
        return answers

    def begin(self, commands: Sequence[Command]) -> None:
        """Send commands as one transaction; what was begun before has to be finished.

        So the server works while its next transaction is being prepared. Raises RedisAwayError.
        """
        assert self._begun is None  # noqa: S101  # the caller's defect
        runs = [(kind, list(run)) for kind, run in groupby(commands, type)]
        all_names = _names(commands, [kind for kind, _ in runs])
        # Before it is sent: from then on whoever changes the key changes one that is ours.
        self._foreign.difference_update(all_names)
        names = _by_place(all_names)
        requests = list(self._entries_of(names))
        for kind, run in runs:
            requests += self._requests(kind, run)
        places = self._unmarked(names)
        requests += self._marks(places)
        told: list[Request] = []
        if self._is_beside:
            requests.append(self._untold)  # only the service adds to the stream
        elif self.feed:
            told = self.feed.told(commands, self.count)
        requests += told
        self._connection.send(
            [(b"MULTI",), *requests, (b"EXEC",), (b"WATCH", *self._watched)],
        )
        self._watches_keys = False
        self._begun = _Begun(commands, names, requests, places, len(told))
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
            if refusal := _refused_of(begun, answers):
                assert self.feed is not None  # noqa: S101  # it was told
                self.feed.stop(refusal)
                raise MeanwhileError(f"the stream of changes is refused: {refusal}")
            raise error
        self._account(begun, answers[-2])

    def _collect(self) -> None:
        if self._begun and not self._answers:
            self._answers = self._connection.receive(len(self._begun.requests) + 3)

    def _account(self, begun: _Begun, done: object) -> None:
        """Take note of what a transaction has done. Raises RedisChangedError."""
        if done is None:
            self.check()
            raise MeanwhileError(_MEANWHILE)
        said = cast("list[Any]", done)
        first, last = len(begun.names), len(said) - begun.told
        entries, answers = said[:first], said[first:last]
        if self.feed and begun.told:
            self.feed.take(said[last:])
        for request, answer in zip(begun.requests[first:last], answers, strict=True):
            if isinstance(answer, Exception):
                # What a rename could not do, its entry in the manifest says nothing sure of.
                raise RedisChangedError(f"it no longer holds what it was given: {answer}")
            self._count(request, answer)
        before = {
            place + name: self.format.decode(entry)
            for (place, names), found in zip(begun.names.items(), entries, strict=True)
            if found.count(None) < len(found)
            for name, entry in zip(names, found, strict=True)
            if entry
        }
        self.bytes += _growth(begun.commands, before)
        self.know(begun.places)

    def _count(self, request: Request, changed: int) -> None:
        """Take note of how many names and marks a request has added or removed."""
        command, key = request[:2]
        if command == b"HDEL":
            changed = -changed
        elif command != b"HSET":
            return
        if key in self._counts:
            self._counts[key] += changed
            if key == self._manifest and request[2].endswith(b"/"):
                self.below -= changed  # a mark is no name
        elif key.startswith(self._manifest) and not request[2].endswith(b"/"):
            self.below += changed

    def _requests(self, kind: type, commands: list[Any]) -> Iterator[Request]:
        """Yield what commands of one kind are to Redis, the least that does it."""
        makers: dict[type, Callable[[list[Any]], Iterator[Request]]] = {
            Set: self._sets,
            Arrive: self._arrivals,
            Delete: self._deletes,
            Rename: self._renames,
            Confirm: self._confirmed,
            Record: self._record_all,
            Keep: self._kept,
        }
        return makers[kind](commands)

    def _sets(self, commands: Sequence[Set]) -> Iterator[Request]:
        if self.format.digests:  # there the time that a key has is Redis' own affair
            for each in commands:
                yield b"SET", self.prefix + each.name, each.content, b"KEEPTTL"
        elif self.prefix:
            keys = self._keys([each.name for each in commands])
            values = [each.content for each in commands]
            yield b"MSET", *chain.from_iterable(zip(keys, values, strict=True))
        else:
            yield b"MSET", *chain.from_iterable([each[:2] for each in commands])
        yield from self._entries(commands)

    def _arrivals(self, commands: Sequence[Arrive]) -> Iterator[Request]:
        for each in commands:
            key = self.prefix + each.name
            yield b"RENAME", self._upload_key, key
            yield (b"PEXPIRE", key, each.ttl) if each.ttl > 0 else (b"PERSIST", key)
        yield from self._entries(commands)

    def _deletes(self, commands: Sequence[Delete]) -> Iterator[Request]:
        names = [each.name for each in commands]
        yield b"DEL", *self._keys(names)
        yield from self._removals(names)

    def _confirmed(self, commands: Sequence[Confirm]) -> Iterator[Request]:
        # The names are there, and as large as they were.
        entries = self.format.encode_all([each.signature for each in commands])
        yield from self._put_entries([each.name for each in commands], entries)

    def _kept(self, commands: Sequence[Keep]) -> Iterator[Request]:
        for each in commands:
            yield from keeping(self.prefix, each)

    def _record_all(self, commands: Sequence[Record]) -> Iterator[Request]:
        encode, there = self.format.encode_with, [each for each in commands if each.signature]
        yield from self._put(
            [each.name for each in there],
            [encode(each.signature or NONE, each.digest, each.pending) for each in there],
        )
        yield from self._removals([each.name for each in commands if not each.signature])

    def _renames(self, commands: Sequence[Rename]) -> Iterator[Request]:
        """Yield renames one by one, and what the records have in the end of all."""
        last: dict[bytes, Rename | None] = {}
        prefix = self.prefix
        for each in commands:
            yield b"RENAME", prefix + each.old, prefix + each.new
            # Should the server not have the value, this must not say that it has.
            last[each.old] = None
            last[each.new] = each._replace(signature=each.signature.unsure())
        last.pop(SPARE, None)
        there = {name: rename for name, rename in last.items() if rename}
        yield from self._put(list(there), self._encoded(list(there.values())))
        yield from self._removals([name for name, rename in last.items() if not rename])

    def _entries(self, commands: Sequence[Set | Arrive]) -> Iterator[Request]:
        yield from self._put([each.name for each in commands], self._encoded(commands))

    def _encoded(self, commands: Sequence[Any]) -> list[bytes]:
        if self.format.digests:
            return [self.format.encode_with(each.signature, each.digest) for each in commands]
        return self.format.encode_all([each.signature for each in commands])

    def _put(self, names: Sequence[bytes], entries: Sequence[bytes]) -> Iterator[Request]:
        """Yield what puts names and their entries in the records of their directories."""
        yield from self._put_entries(names, entries)
        for place, some in _by_place(names).items():
            yield self._named(place, some)

    def _put_entries(self, names: Sequence[bytes], entries: Sequence[bytes]) -> Iterator[Request]:
        groups = _by_place(names)
        if len(groups) == 1:
            ((place, some),) = groups.items()
            fields = chain.from_iterable(zip(some, entries, strict=True))
            yield b"HSET", self._manifest + _record(place), *fields
            return
        found = dict(zip(names, entries, strict=True))
        for place, some in groups.items():
            fields = chain.from_iterable((name, found[place + name]) for name in some)
            yield b"HSET", self._manifest + _record(place), *fields

    def _named(self, place: bytes, names: Sequence[bytes]) -> Request:
        fields = chain.from_iterable((name, b"") for name in names)
        return b"HSET", self._names + _record(place), *fields

    def _removals(self, names: Sequence[bytes]) -> Iterator[Request]:
        for place, some in _by_place(names).items():
            record = _record(place)
            yield b"HDEL", self._manifest + record, *some
            yield b"HDEL", self._names + record, *some

    def _unmarked(self, places: Iterable[bytes]) -> dict[bytes, None]:
        """Return places, and those above, of which it is not known that their marks are there."""
        unmarked: dict[bytes, None] = {}
        for place in places:
            while place and place not in self._marked and place not in unmarked:
                unmarked[place] = None
                place = place_of(place)  # noqa: PLW2901  # up to the root
        return unmarked

    def _marks(self, places: Iterable[bytes]) -> Iterator[Request]:
        for place, names in _by_place(list(places)).items():
            record = _record(place)
            fields = tuple(chain.from_iterable((name, b"") for name in names))
            yield b"HSET", self._manifest + record, *fields
            yield b"HSET", self._names + record, *fields

    def _keys(self, names: Sequence[bytes]) -> Sequence[bytes]:
        prefix = self.prefix
        return [prefix + name for name in names] if prefix else names

    def upload(self, name: bytes) -> Upload:
        """Return what brings a value that is large; only one at a time."""
        if self._large is None or not self._large.is_open:
            self._forget_large()
            self._large = Connection(self._dial)
        key = self._upload_key
        return Upload(self._large, self._epoch_key, self._epoch, name, key)

    def download(self, name: bytes) -> Download:
        """Return what reads a value that is large."""
        return Download(Connection(self._dial), self.prefix + name)

    def arrive(
        self,
        upload: Upload,
        signature: Signature,
        *,
        digest: bytes = b"",
        ttl: int = 0,
        first: Sequence[Command] = (),
    ) -> Arrive | None:
        """Give a key the value that was brought, the content of the file of this signature.

        The key expires in `ttl` ms if that is more than 0. In the same transaction, other commands
        are carried out `first`.
        Return None, and do nothing, if the value is there no more. Raises as `apply` does.
        """
        command = Arrive(upload.name, signature, digest, ttl)
        if not self._claim(upload):
            return None
        try:
            self.apply([*first, command])
        except RedisRefusedError:
            upload.void()
            raise
        except MeanwhileError:
            if self.ask((b"EXISTS", upload.key)) != [0]:
                raise
            return None
        return command

    def _claim(self, upload: Upload) -> bool:
        """See to it that the next transaction finds what was brought, or is void.

        Say whether it is there now; then it is there for long enough.
        """
        key = upload.key
        _, _, there = self.ask((b"PEXPIRE", key, LIFE), (b"WATCH", key), (b"EXISTS", key))
        if there:
            return True
        # The next upload would change a key that is watched.
        self.ask((b"UNWATCH",), (b"WATCH", *self._watched))
        self.check()
        return False

    def _forget_large(self) -> None:
        """Let a connection be, whose thread may still be at work: it closes it."""
        if self._large:
            self._sent += self._large.sent
            self._large = None

    def ask(self, *requests: Request) -> list[Any]:
        """Return the answers to requests; raise RedisAwayError if one was refused."""
        return list(self._connection.accepted(self.converse(*requests)))

    def converse(self, *requests: Request) -> list[object]:
        """Return the answers to requests, refusals too; raise RedisAwayError if there is none."""
        # What takes long asks for much: so the lease lasts however long that is.
        renewal = self._lease.renewal_due()
        self._connection.send((*renewal, *requests))
        self._collect()
        return self._connection.receive(len(renewal) + len(requests))[len(renewal) :]

    def close(self) -> None:
        """Close the connection; the lease expires by itself, unless it was given back."""
        self._connection.close()


def _refused_of(begun: _Begun, answers: Sequence[object]) -> str:
    """Return why a transaction was refused if that was for the stream alone, else ""."""
    last = 1 + len(begun.requests)
    refusals = [each for each in answers[last - begun.told : last] if isinstance(each, Exception)]
    others = [each for each in answers[: last - begun.told] if isinstance(each, Exception)]
    if others or not refusals or isinstance(refusals[0], redis.OutOfMemoryError):
        return ""
    return str(refusals[0])


def _record(place: bytes) -> bytes:
    """Return what the key of a directory's record has behind that of the root's."""
    return b"/" + place if place else b""


def _valid(names: Sequence[bytes], entries: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    """Return the names and marks that can be in a record, with their entries.

    What else is there somebody has put there. A name that is empty would be one of a directory that
    is in itself.
    """
    found = zip(names, entries, strict=True)
    if b"" not in names and b"/" not in b"".join(names):
        return found
    return [each for each in found if each[0].strip(b"/") and b"/" not in each[0][:-1]]


def _by_place(names: Sequence[bytes]) -> dict[bytes, Sequence[bytes]]:
    """Return names, or places, by the place that they are at, without it."""
    if not names:
        return {}
    if b"/" not in b"".join(names):
        return {b"": names}
    groups: dict[bytes, list[bytes]] = {}
    for name in names:
        place = name[: name.rfind(b"/", 0, -1) + 1]  # `place_of`, spelled out
        groups.setdefault(place, []).append(name[len(place) :])
    return cast("dict[bytes, Sequence[bytes]]", groups)


def _in_order(
    names: Sequence[bytes], groups: Mapping[bytes, Sequence[bytes]], answers: Sequence[Any]
) -> Sequence[bytes | None]:
    """Return what was answered for groups of names, one answer for each, in the names' order."""
    if len(groups) == 1:
        return cast("Sequence[bytes | None]", answers[0])
    found = {
        place + name: entry
        for (place, some), entries in zip(groups.items(), answers, strict=False)
        for name, entry in zip(some, entries, strict=True)
    }
    return [found[name] for name in names]


def keeping(prefix: bytes, keep: Keep) -> list[Request]:
    """Return what puts the value of a key that is there aside, under a prefix."""
    name, which, size, at = keep
    aside = prefix + LOST_VALUE + b"%d" % which
    return [
        (b"RENAME", prefix + name, aside),
        (b"PERSIST", aside),  # it lost, whenever it was to expire
        (b"HSET", prefix + LOST, b"%d" % which, b"%d %d %b" % (at, size, name)),
    ]


def _fetched(lengths: Sequence[int]) -> int:
    """Return of how many keys the values may be held in memory together; of one at least."""
    total = 0
    for count, length in enumerate(lengths):
        total += length if 0 < length <= LARGE else 0
        if total > _FETCHED_MAX and count:
            return count
    return len(lengths)


def _literally(prefix: bytes) -> bytes:
    """Return a pattern that nothing but this prefix matches."""
    each = (prefix[at : at + 1] for at in range(len(prefix)))
    return b"".join(b"\\" + byte if byte in _GLOB else byte for byte in each)


# Of the commands there are very many, and nearly all are Sets: what is done with each is little.
def _names(commands: Sequence[Command], kinds: Collection[type]) -> list[bytes]:
    """Return each name once whose entry some commands of these kinds may change in size."""
    if set(kinds) == {Confirm}:
        return []
    if Rename not in kinds:
        return list(dict.fromkeys([command[0] for command in commands]))
    names = (c[:2] if isinstance(c, Rename) else c[:1] for c in commands)
    return [name for name in dict.fromkeys(chain.from_iterable(names)) if name != SPARE]


def _growth(commands: Sequence[Command], held: Mapping[bytes, Signature | None]) -> int:
    """Return by how many bytes the files that Redis holds the content of become more."""
    before = {name: signature.size for name, signature in held.items() if signature}
    after = before.copy()
    for command in commands:
        if isinstance(command, Set):
            after[command.name] = command.signature.size
        elif isinstance(command, Delete):
            after[command.name] = 0
        elif isinstance(command, Record):
            after[command.name] = command.signature.size if command.signature else 0
        elif isinstance(command, Rename):
            after[command.new] = after.pop(command.old, 0)
        elif isinstance(command, Arrive):
            after[command.name] = command.signature.size
    return sum(after.values()) - sum(before.values())
