"""Redis' edge and a real Redis: what a connection leaves behind, what is refused or lost."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis, ResponseError
from support import eventually

from sync.core.access import Access
from sync.core.changes import Arrive, Confirm, Delete, Rename, Set, Signature
from sync.core.errors import RedisAwayError, RedisChangedError, RedisRefusedError
from sync.core.manifest import Entries
from sync.core.plan import SPARE
from sync.redis import upload as upload_module
from sync.redis.address import Address
from sync.redis.keys import EPOCH, LEASE, MANIFEST, NAMES, UPLOAD
from sync.redis.target import Records, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from integration.conftest import RedisServer
    from redis.client import PubSub

    from sync.redis.upload import Upload

pytestmark = pytest.mark.servers

OWN = b"/mdvp-sync/"
SIGNATURE = Signature(1, 6, 2, 3)
ENTRIES = Entries(trimmed=False)


def make_target(redis_server: RedisServer, user: str = "", prefix: bytes = b"") -> Target:
    """Return a target that has not connected yet; as a `user` whom the server lets in."""
    url = redis_server.url.replace("unix://", f"unix://{user}:none@" if user else "unix://")
    return Target(Address(Access(url)).dial, ENTRIES, prefix)


def of_size(size: int, inode: int = 1) -> Signature:
    return Signature(inode, size, 2, 3)


def sets(*names: bytes) -> list[Set]:
    """Return what gives each name a value, as the content of a file of its own."""
    return [
        Set(name, b"value of " + name, of_size(9 + len(name), number))
        for number, name in enumerate(names)
    ]


def exchange_of(one: bytes, other: bytes, its: Signature, others: Signature) -> list[Rename]:
    """Return what has two names change values, whose files have these signatures by now."""
    return [Rename(one, SPARE, others), Rename(other, one, its), Rename(SPARE, other, others)]


def found_in(pages: Callable[[bytes], Iterable[Iterable[bytes]]]) -> set[bytes]:
    """Return all names and marks in the records of one kind, as marks lead to them."""
    found: set[bytes] = set()
    places = [b""]
    while places:
        names = set(chain.from_iterable(pages(places.pop())))
        places += (name for name in names if name.endswith(b"/"))
        found |= names
    return found


def names_of(target: Target) -> set[bytes]:
    """Return the names that Redis holds, which are the same by either kind of records."""
    found = found_in(target.manifest)
    assert found == found_in(target.names)
    return {name for name in found if not name.endswith(b"/")}


def marks_of(target: Target) -> set[bytes]:
    """Return the places that have both their marks."""
    found = found_in(target.manifest) & found_in(target.names)
    return {name for name in found if name.endswith(b"/")}


@pytest.fixture
def target(redis_server: RedisServer) -> Iterator[Target]:
    with closing(make_target(redis_server)) as target:
        target.connect()
        yield target


def brought(target: Target, name: bytes, value: bytes) -> Upload:
    """Return an upload that waits to take effect."""
    upload = target.upload(name)
    upload.begin(len(value))
    upload.send(value)
    upload.end()
    return upload


class Told:
    """What a connection is told of changes of keys, by way of a second one (CLIENT TRACKING)."""

    def __init__(self, listener: PubSub, number: int) -> None:
        """Take a listener whose connection has this number."""
        self._listener = listener
        self._number = number

    def ask(self, connection: Any, *options: bytes) -> None:  # noqa: ANN401  # as redis-py has it
        """Have it told what is changed over which connections."""
        on = (b"ON", b"REDIRECT", self._number, b"BCAST")
        connection.send_command(b"CLIENT", b"TRACKING", *on, *options)
        assert connection.read_response() == b"OK"

    def names(self) -> list[bytes]:
        """Return the names that come, up to the end."""
        names: list[bytes] = []
        while b"the end" not in names:
            message = self._listener.get_message(timeout=10.0)
            assert message, names
            names += message["data"]
        return names


@contextmanager
def told(redis_server: RedisServer) -> Iterator[Told]:
    client = Redis(unix_socket_path=str(redis_server.socket), protocol=2)
    with closing(client), client.pubsub() as listener:  # type: ignore[no-untyped-call]
        listener.subscribe("__redis__:invalidate")
        assert listener.get_message(timeout=10.0)
        yield Told(listener, max(int(each["id"]) for each in client.client_list(_type="pubsub")))


def test_a_new_connection_does_not_wait_for_what_was_begun_on_the_old_one(target: Target) -> None:
    target.begin([Set(b"a", b"one", SIGNATURE)])
    began = time.monotonic()
    target.connect()
    assert time.monotonic() - began < 1
    target.apply([Set(b"a", b"two", SIGNATURE)])
    assert target.values([b"a"]) == [b"two"]


def test_what_was_begun_is_accounted_for_though_something_else_is_asked_meanwhile(
    target: Target,
) -> None:
    target.begin([Set(b"a", b"one", SIGNATURE)])
    target.check()
    assert target.values([b"a"]) == [b"one"]
    target.finish()
    assert (target.count, target.bytes) == (1, 6)
    target.check()


class TestUploads:
    @pytest.mark.parametrize("before", ["a value", "a list", "nothing"])
    def test_take_effect_with_their_entries_when_they_are_told_to(
        self, target: Target, redis_server: RedisServer, before: str
    ) -> None:
        if before != "nothing":
            target.apply([Set(b"a", b"before", SIGNATURE)])
        if before == "a list":
            redis_server.client.delete(b"a")
            redis_server.client.rpush(b"a", b"theirs")
        seen = target.values([b"a"])
        upload = brought(target, b"a", b"after")
        assert target.values([b"a"]) == seen
        signature = SIGNATURE._replace(size=5)
        assert target.arrive(upload, signature) == Arrive(b"a", signature)
        assert target.values([b"a"]) == [b"after"]
        assert target.held([b"a"]) == {b"a": signature}
        assert (target.count, target.bytes) == (1, 5)
        assert redis_server.client.ttl(b"a") == -1  # never
        assert not redis_server.client.exists(UPLOAD)
        target.check()

    def test_leave_nothing_when_they_are_not(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply([Set(b"a", b"before", SIGNATURE)])
        brought(target, b"a", b"after").void()
        begun = target.upload(b"a")
        begun.begin(1000)
        begun.send(b"half of it")
        begun.void()
        eventually(lambda: len(redis_server.client.client_list()), 2)
        assert redis_server.keys() == {b"a": b"before"}
        assert target.held([b"a"]) == {b"a": SIGNATURE}
        assert set(redis_server.client.scan_iter(b"/*")) == {MANIFEST, NAMES, EPOCH, LEASE}

    def test_expire_by_themselves_if_they_are_not_renewed(
        self, target: Target, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload, client = brought(target, b"a", b"value"), redis_server.client
        assert 50 < client.ttl(UPLOAD) <= 60
        client.expire(UPLOAD, 9)
        upload.renew()  # it is young
        assert client.ttl(UPLOAD) <= 9
        monkeypatch.setattr(upload_module, "_RENEWED", 0.0)
        upload.renew()
        assert client.ttl(UPLOAD) > 50

    def test_that_have_expired_change_nothing_and_can_come_again(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply([Set(b"a", b"before", SIGNATURE)])
        upload = brought(target, b"a", b"after")
        redis_server.client.pexpire(UPLOAD, 1)
        eventually(lambda: redis_server.client.exists(UPLOAD), 0)
        assert target.arrive(upload, of_size(5)) is None
        assert target.values([b"a"]) == [b"before"]
        assert target.held([b"a"]) == {b"a": SIGNATURE}
        self.come_again(target)

    @pytest.mark.parametrize("is_deleted", [True, False])
    def test_that_go_at_the_last_moment_change_nothing_and_can_come_again(
        self,
        target: Target,
        redis_server: RedisServer,
        monkeypatch: pytest.MonkeyPatch,
        is_deleted: bool,
    ) -> None:
        target.apply([Set(b"a", b"before", SIGNATURE)])
        upload, client = brought(target, b"a", b"after"), redis_server.client
        apply = target.apply

        def too_late(commands: list[Arrive]) -> None:
            """Have the value go when it was made sure that it is there."""
            if is_deleted:
                client.delete(UPLOAD)
            else:
                client.pexpire(UPLOAD, 2)
                due = time.monotonic() + 0.01
                eventually(lambda: time.monotonic() > due, True)  # nobody looks at it
            apply(commands)

        with monkeypatch.context() as patched:
            patched.setattr(target, "apply", too_late)
            assert target.arrive(upload, of_size(5)) is None
        assert target.values([b"a"]) == [b"before"]
        assert target.held([b"a"]) == {b"a": SIGNATURE}
        self.come_again(target)

    def test_that_somebody_else_has_overwritten_do_not_count(
        self, target: Target, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload, apply = brought(target, b"a", b"ours"), target.apply

        def too_late(commands: list[Arrive]) -> None:
            redis_server.client.set(UPLOAD, b"theirs")
            apply(commands)

        monkeypatch.setattr(target, "apply", too_late)
        with pytest.raises(RedisChangedError):
            target.arrive(upload, of_size(4))
        assert target.values([b"a"]) == [None]
        assert target.held([b"a"]) == {b"a": None}

    def come_again(self, target: Target) -> None:
        """See that the connection watches what it did before, and nothing else."""
        signature = of_size(5)
        again = brought(target, b"a", b"after")
        target.apply([Set(b"b", b"one", SIGNATURE)])
        assert target.arrive(again, signature) == Arrive(b"a", signature)
        assert target.values([b"a", b"b"]) == [b"after", b"one"]
        target.check()

    def test_that_are_refused_in_the_end_leave_nothing(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        upload = brought(target, b"a", b"value")
        redis_server.client.config_set("maxmemory", 1)
        with pytest.raises(RedisRefusedError):
            target.arrive(upload, of_size(5))
        redis_server.client.config_set("maxmemory", 0)
        assert set(redis_server.client.scan_iter()) == {EPOCH, LEASE}
        self.come_again(target)

    def test_are_void_when_another_service_has_begun_meanwhile(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        upload = brought(target, b"a", b"late")
        with closing(make_target(redis_server)) as other:
            other.connect()
            assert not redis_server.client.exists(UPLOAD)
            other.apply([Set(b"a", b"early", SIGNATURE)])
            with pytest.raises(RedisChangedError):
                target.arrive(upload, SIGNATURE)
            assert other.values([b"a"]) == [b"early"]

    def test_are_not_put_in_the_place_of_those_of_another_service_that_has_begun_meanwhile(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        late = target.upload(b"a")
        late.begin(4)
        late.send(b"late")
        with closing(make_target(redis_server)) as other:
            other.connect()
            upload = brought(other, b"b", b"early")
            with pytest.raises(RedisChangedError):
                late.end()
            other.arrive(upload, of_size(5))
            assert other.values([b"a", b"b"]) == [None, b"early"]

    def test_of_a_repair_are_not_those_of_the_service(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        with closing(make_target(redis_server)) as repair:
            repair.join()
            theirs = brought(repair, b"theirs", b"repair")
            ours = brought(target, b"ours", b"service")
            repair.arrive(theirs, SIGNATURE)
            target.arrive(ours, SIGNATURE)
        assert target.values([b"ours", b"theirs"]) == [b"service", b"repair"]

    def test_change_a_key_once_and_over_the_connection_that_changes_the_others(
        self, redis_server: RedisServer
    ) -> None:
        """Who asks to be told of what others change is not told."""
        client = redis_server.client
        dialled: list[Any] = []
        address = Address(Access(redis_server.url))

        def dial() -> object:
            dialled.append(address.dial())
            return dialled[-1]

        with (
            closing(Target(dial, ENTRIES)) as target,
            told(redis_server) as all_of_it,
            told(redis_server) as of_others,
        ):
            target.connect()
            all_of_it.ask(another := address.dial())
            of_others.ask(dialled[0], b"NOLOOP")
            target.apply([Set(b"a", b"before", SIGNATURE)])
            target.arrive(brought(target, b"a", b"after"), of_size(5))
            client.set(b"the end", b"")
            assert all_of_it.names().count(b"a") == 2
            assert set(of_others.names()) == {UPLOAD, b"the end"}
            another.disconnect()


class TestRefusals:
    def test_leave_the_connection_and_the_epoch_as_they_were(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        client = redis_server.client
        client.config_set("maxmemory", 1)
        with pytest.raises(RedisRefusedError) as caught:
            target.apply([Set(b"a", b"one", SIGNATURE)])
        assert caught.value.out_of_memory
        assert target.is_full()
        client.config_set("maxmemory", 0)
        assert not target.is_full()
        target.apply([Set(b"a", b"two", SIGNATURE)])
        assert target.values([b"a"]) == [b"two"]
        target.check()

    def test_of_an_upload_are_told_when_it_has_come(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        redis_server.client.config_set("maxmemory", 1)
        with pytest.raises(RedisRefusedError):
            brought(target, b"a", b"one")
        redis_server.client.config_set("maxmemory", 0)
        assert redis_server.keys() == {}

    def test_for_want_of_room_are_foreseen_where_the_server_tells(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        assert target.has_room(1 << 30)
        redis_server.client.config_set("maxmemory", 100 << 20)
        assert target.has_room(40 << 20)
        assert not target.has_room(60 << 20)  # twice as much while it comes

    def test_for_want_of_memory_do_not_keep_keys_from_being_removed(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply([Set(name, b"one", SIGNATURE) for name in (b"a", b"b")])
        redis_server.client.config_set("maxmemory", 1)
        try:
            target.apply([Delete(b"a")])
        except RedisRefusedError:  # before Redis 7.2 anything in a transaction is
            target.remove([b"a"])
        target.check()
        assert redis_server.keys() == {b"b": b"one"}


class TestStatesOfAServer:
    """They are no answers, and no refusals of one name."""

    def test_too_few_replicas(self, target: Target, redis_server: RedisServer) -> None:
        redis_server.client.config_set("min-replicas-to-write", 1)
        with pytest.raises(RedisAwayError, match="NOREPLICAS"):
            target.apply([Set(b"a", b"one", SIGNATURE)])

    def test_read_only(self, target: Target, redis_server: RedisServer) -> None:
        redis_server.client.replicaof("127.0.0.1", 1)
        with pytest.raises(RedisAwayError, match="it is a replica"):
            target.apply([Set(b"a", b"one", SIGNATURE)])

    def test_without_its_master(self, target: Target, redis_server: RedisServer) -> None:
        target.apply([Set(b"a", b"one", SIGNATURE)])
        redis_server.client.config_set("replica-serve-stale-data", "no")
        redis_server.client.replicaof("127.0.0.1", 1)
        with pytest.raises(RedisAwayError, match="MASTERDOWN"):
            target.are_there([b"a"])

    def test_busy(self, target: Target, redis_server: RedisServer) -> None:
        target.apply([Set(b"a", b"one", SIGNATURE)])
        redis_server.client.config_set("lua-time-limit", 1)
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(redis_server.client.eval, "while true do end", 0)
            try:
                with pytest.raises(RedisAwayError, match="BUSY"):
                    eventually(lambda: target.lengths([b"a"]), [-1])
            finally:
                with closing(Redis(unix_socket_path=str(redis_server.socket))) as other:
                    other.script_kill()
            with pytest.raises(ResponseError, match="killed"):
                busy.result()


class TestRecords:
    def test_one_tells_what_is_ours_when_the_other_is_gone(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        for record in (MANIFEST, NAMES):
            target.apply([Set(b"a", b"one", SIGNATURE)])
            redis_server.client.delete(record)
            assert target.are_ours([b"a", b"b"]) == [True, False]
            with pytest.raises(RedisChangedError, match="it holds 0 mirrored keys, not 1"):
                target.check()
            target.connect()
            ((held, known),) = target.records((), [b""]).lengths
            assert held != known
            target.apply([Delete(b"a")])
            assert target.is_empty
            assert target.records((), [b""]).lengths == [(0, 0)]
            assert redis_server.keys() == {}


class TestATree:
    """Each directory has two records of its own, and a mark in those of the one above."""

    def test_entries_of_names_in_several_directories_come_in_the_order_of_the_names(
        self, target: Target
    ) -> None:
        commands = sets(b"a", b"d/a", b"d/e/a", b"b", b"d/b", b"de/a")
        target.apply(commands)
        there = {each.name: ENTRIES.encode(each.signature) for each in commands}
        names = (b"d/b", b"a", b"none", b"d/e/a", b"d/none", b"de/a", b"b", b"f/a", b"d/a")
        assert list(target.entries(names)) == [there.get(name) for name in names]
        assert list(target.held(names)) == list(names)

    def test_which_names_are_ours_is_told_in_the_order_of_the_names(self, target: Target) -> None:
        target.apply(sets(b"d/a", b"a", b"d/e/b"))
        names = (b"d/b", b"a", b"d/e/b", b"d/e/a", b"b", b"d/a")
        assert target.are_ours(names) == [False, True, True, False, False, True]

    def test_a_name_comes_in_one_transaction_with_the_marks_of_all_directories_above(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        seen = redis_server.commands(lambda: target.apply(sets(b"d/e/f/a")))
        seen = seen[seen.index("MULTI") : seen.index("EXEC")]
        assert "MSET d/e/f/a value of d/e/f/a" in seen
        for record in ("manifest", "names"):
            assert f"HSET /mdvp-sync/{record} d/ " in seen
            assert f"HSET /mdvp-sync/{record}/d/ e/ " in seen
            assert f"HSET /mdvp-sync/{record}/d/e/ f/ " in seen

    def test_a_large_value_comes_in_one_transaction_with_the_marks_too(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        upload = brought(target, b"d/e/a", b"value")
        assert set(redis_server.client.scan_iter()) == {EPOCH, LEASE, UPLOAD}
        target.arrive(upload, of_size(5))
        assert marks_of(target) == {b"d/", b"d/e/"}

    def test_a_mark_is_sent_once(self, target: Target, redis_server: RedisServer) -> None:
        target.apply(sets(b"d/a"))
        seen = redis_server.commands(lambda: target.apply(sets(b"d/b")))
        assert [command for command in seen if " d/ " in command] == []

    def test_a_mark_is_sent_again_over_another_connection(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply(sets(b"d/a"))
        redis_server.client.flushall()
        target.connect()
        target.apply(sets(b"d/a"))
        assert marks_of(target) == {b"d/"}

    def test_what_is_refused_leaves_no_mark_and_the_next_time_there_is_one(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        redis_server.client.config_set("maxmemory", 1)
        with pytest.raises(RedisRefusedError):
            target.apply(sets(b"d/a"))
        redis_server.client.config_set("maxmemory", 0)
        assert marks_of(target) == set()
        target.apply(sets(b"d/a"))
        assert marks_of(target) == {b"d/"}

    def test_records_of_a_place_are_told_with_its_path(self, target: Target) -> None:
        target.apply(sets(b"a", b"d/a", b"d/b", b"d/e/a", b"de/a"))
        assert sorted(chain.from_iterable(target.manifest(b"d/"))) == [b"d/a", b"d/b", b"d/e/"]
        assert sorted(chain.from_iterable(target.names(b"d/"))) == [b"d/a", b"d/b", b"d/e/"]
        assert sorted(chain.from_iterable(target.manifest())) == [b"a", b"d/", b"de/"]
        assert list(chain.from_iterable(target.manifest(b"none/"))) == []

    def test_pages_have_all_names_of_a_large_directory(self, target: Target) -> None:
        names = [b"d/%d" % number for number in range(2000)]
        target.apply(sets(*names))
        pages = list(target.manifest(b"d/", 100))
        assert len(pages) > 10
        assert set(chain.from_iterable(pages)) == set(names)

    def test_lengths_are_those_of_both_records_of_each_place(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply(sets(b"a", b"d/a", b"d/b", b"d/e/a"))
        redis_server.client.hdel(os.fsdecode(NAMES + b"/d/"), "b")
        places = (b"d/e/", b"none/", b"", b"d/")
        assert target.records((), places).lengths == [(1, 1), (0, 0), (2, 2), (3, 2)]

    def test_lengths_and_entries_are_asked_for_together(self, target: Target) -> None:
        first, second = sets(b"d/a", b"b")
        target.apply([first, second])
        entries, lengths = target.records((b"b", b"c", b"d/a", b"d/"), (b"d/", b""))
        assert list(entries) == [
            *(ENTRIES.encode(second.signature), None, ENTRIES.encode(first.signature), b"")
        ]
        assert lengths == [(1, 1), (2, 2)]
        assert target.records((), ()) == Records((), ())

    def test_a_name_that_is_lost_in_one_record_is_added_from_the_other(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply(sets(b"a", b"d/a", b"d/e/a"))
        for place in ("", "/d/"):
            redis_server.client.delete(os.fsdecode(NAMES) + place)
        target.connect()
        target.add_names((b"a", b"d/", b"d/a", b"d/e/"))
        assert target.records((), (b"", b"d/")).lengths == [(2, 2), (2, 2)]
        target.check()

    def test_where_there_is_no_memory_keys_in_directories_can_be_removed(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply(sets(b"a", b"d/a", b"d/e/a", b"d/e/b"))
        redis_server.client.config_set("maxmemory", 1)
        assert target.remove([b"d/a", b"d/e/b", b"a"]) == {}
        assert redis_server.keys().keys() == {b"d/e/a"}
        assert target.are_ours([b"a", b"d/a", b"d/e/a", b"d/e/b"]) == [False, False, True, False]
        assert target.count == 1
        target.check()


class TestMarks:
    def test_of_directories_without_names_and_marks_are_removed_and_no_others(
        self, target: Target
    ) -> None:
        target.apply(sets(b"d/a", b"e/a", b"f/g/a"))
        target.apply([Delete(b"d/a")])
        assert target.unmark([b"f/", b"d/", b"e/"]) == [b"d/"]
        assert marks_of(target) == {b"e/", b"f/", b"f/g/"}
        target.check()

    @pytest.mark.parametrize("record", [MANIFEST, NAMES])
    def test_of_directories_that_have_names_in_one_record_alone_stay(
        self, target: Target, redis_server: RedisServer, record: bytes
    ) -> None:
        target.apply(sets(b"d/a"))
        redis_server.client.delete(record + b"/d/")
        assert target.unmark([b"d/"]) == []
        assert marks_of(target) == {b"d/"}

    def test_below_go_before_those_above(self, target: Target) -> None:
        target.apply(sets(b"d/e/a"))
        target.apply([Delete(b"d/e/a")])
        assert target.unmark([b"d/"]) == []
        assert target.unmark([b"d/e/"]) == [b"d/e/"]
        assert target.unmark([b"d/"]) == [b"d/"]
        assert marks_of(target) == set()
        assert target.is_empty
        target.check()

    def test_that_were_removed_are_put_back_with_the_next_name(self, target: Target) -> None:
        target.apply(sets(b"d/e/a"))
        target.apply([Delete(b"d/e/a")])
        for place in (b"d/e/", b"d/"):
            target.unmark([place])
        target.apply(sets(b"d/e/a"))
        assert marks_of(target) == {b"d/", b"d/e/"}

    def test_can_be_put_where_they_are_missing(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply(sets(b"d/e/a"))
        redis_server.client.hdel(os.fsdecode(MANIFEST), "d/")
        target.connect()
        target.mark([b"d/", b"d/e/"])
        assert marks_of(target) == {b"d/", b"d/e/"}
        assert target.records((), [b""]).lengths == [(1, 1)]
        target.check()

    def test_are_not_removed_when_another_service_has_begun(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply(sets(b"d/a"))
        target.apply([Delete(b"d/a")])
        with closing(make_target(redis_server)) as other:
            other.connect()
            with pytest.raises(RedisChangedError):
                target.unmark([b"d/"])
            assert marks_of(other) == {b"d/"}


class TestCounts:
    """How many names Redis holds, and of how many bytes: right after each transaction."""

    def has(self, target: Target, count: int, below: int, size: int) -> None:
        """Make sure of all three; what is below counts less by the marks at the root."""
        assert (target.count, target.bytes) == (count, size)
        assert target.below == below - sum(place.count(b"/") == 1 for place in marks_of(target))
        names = names_of(target)
        assert (len(names), sum(b"/" in name for name in names)) == (count, below)
        target.check()

    def test_are_of_what_is_set(self, target: Target) -> None:
        target.apply([Set(b"a", b"one", of_size(3)), Set(b"d/e/a", b"four", of_size(4))])
        self.has(target, 2, 1, 7)
        target.apply([Set(b"d/a", b"1", of_size(1)), Set(b"d/e/b", b"", of_size(0))])
        self.has(target, 4, 3, 8)

    def test_are_of_what_is_set_last(self, target: Target) -> None:
        target.apply([Set(b"d/a", b"one", of_size(3)), Set(b"a", b"one", of_size(3))])
        target.apply([Set(b"d/a", b"three", of_size(5)), Set(b"d/a", b"1", of_size(1))])
        self.has(target, 2, 1, 4)

    def test_are_of_what_is_not_deleted(self, target: Target) -> None:
        target.apply([Set(name, b"one", of_size(3)) for name in (b"a", b"d/a", b"d/e/a")])
        target.apply([Delete(b"d/a"), Delete(b"none"), Delete(b"d/none"), Delete(b"none/none")])
        self.has(target, 2, 1, 6)
        target.apply([Delete(b"a"), Delete(b"d/e/a")])
        self.has(target, 0, 0, 0)

    @pytest.mark.parametrize(
        ("old", "new", "below"),
        [(b"a", b"d/a", 2), (b"d/a", b"a", 0), (b"d/a", b"d/e/f/a", 1), (b"d/a", b"e/a", 1)],
    )
    def test_are_of_what_is_renamed_from_one_directory_to_another(
        self, target: Target, old: bytes, new: bytes, below: int
    ) -> None:
        other = b"d/b" if below == 2 else b"b"
        target.apply([Set(old, b"one", of_size(3)), Set(other, b"four", of_size(4))])
        target.apply([Rename(old, new, of_size(3))])
        self.has(target, 2, below, 7)
        assert target.values([old, new]) == [None, b"one"]
        assert target.are_ours([old, new]) == [False, True]

    def test_are_of_what_is_renamed_over_another(self, target: Target) -> None:
        target.apply([Set(b"d/a", b"one", of_size(3)), Set(b"e/a", b"four", of_size(4))])
        target.apply([Rename(b"d/a", b"e/a", of_size(3))])
        self.has(target, 1, 1, 3)

    def test_are_the_same_after_an_exchange(self, target: Target) -> None:
        target.apply([Set(b"d/a", b"one", of_size(3)), Set(b"a", b"four", of_size(4))])
        target.apply(exchange_of(b"d/a", b"a", of_size(3), of_size(4)))
        self.has(target, 2, 1, 7)
        assert target.values([b"d/a", b"a"]) == [b"four", b"one"]

    def test_are_of_all_commands_of_a_transaction(self, target: Target) -> None:
        target.apply([Set(name, b"one", of_size(3)) for name in (b"a", b"d/a", b"e/f/a")])
        target.apply(
            [
                *(Rename(b"d/a", b"g/a", of_size(3)), Rename(b"a", b"d/a", of_size(3))),
                *(Delete(b"e/f/a"), Set(b"g/h/a", b"four", of_size(4))),
                Confirm(b"g/a", of_size(3)),
            ]
        )
        self.has(target, 3, 3, 10)

    def test_are_of_what_has_come_in_pieces(self, target: Target) -> None:
        target.apply([Set(b"d/a", b"one", of_size(3))])
        for name in (b"d/a", b"d/e/a"):
            target.arrive(brought(target, name, b"value"), of_size(5))
        self.has(target, 2, 2, 10)

    def test_are_not_changed_by_marks(self, target: Target) -> None:
        target.apply(sets(b"d/e/a", b"f/a"))
        target.apply([Delete(b"d/e/a"), Delete(b"f/a")])
        for places in ([b"d/e/"], [b"d/", b"f/"]):
            target.unmark(places)
        self.has(target, 0, 0, 0)
        target.apply([Set(b"d/a", b"one", of_size(3))])
        self.has(target, 1, 1, 3)

    def test_are_not_changed_by_what_is_refused(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        target.apply([Set(b"d/a", b"one", of_size(3))])
        redis_server.client.config_set("maxmemory", 1)
        with pytest.raises(RedisRefusedError):
            target.apply([Set(b"e/a", b"one", of_size(3)), Set(b"a", b"one", of_size(3))])
        redis_server.client.config_set("maxmemory", 0)
        self.has(target, 1, 1, 3)


class TestAPrefix:
    PREFIX = b"app:"

    @pytest.fixture
    def user(self, redis_server: RedisServer) -> str:
        """Return a user of the server's, who may use no other keys."""
        user = "mirror"
        rights = ("on", "nopass", "~app:*", "+@all")
        redis_server.client.execute_command("ACL", "SETUSER", user, *rights)  # type: ignore[no-untyped-call]
        return user

    @pytest.fixture
    def prefixed(self, redis_server: RedisServer, user: str) -> Iterator[Target]:
        with closing(make_target(redis_server, user, self.PREFIX)) as target:
            target.connect()
            yield target

    def test_is_that_of_all_keys(self, prefixed: Target, redis_server: RedisServer) -> None:
        prefixed.apply(sets(b"a", b"d/e/a"))
        kinds = (MANIFEST, NAMES)
        records = (kind + place for kind in kinds for place in (b"", b"/d/", b"/d/e/"))
        keys = (b"a", b"d/e/a", EPOCH, LEASE, *records)
        assert set(redis_server.client.scan_iter()) == {b"app:" + key for key in keys}

    def test_is_needed_by_who_may_use_no_other_keys(
        self, redis_server: RedisServer, user: str
    ) -> None:
        target = make_target(redis_server, user)
        with closing(target), pytest.raises(RedisAwayError, match="o permissions"):
            target.connect()

    def test_lets_all_be_written_by_who_may_use_no_other_keys(self, prefixed: Target) -> None:
        prefixed.apply(sets(b"a", b"d/a", b"d/b"))
        prefixed.apply([Rename(b"d/a", b"e/a", of_size(3)), Delete(b"d/b")])
        prefixed.apply(exchange_of(b"a", b"e/a", of_size(10), of_size(3)))
        assert prefixed.values([b"a", b"e/a"]) == [b"value of d/a", b"value of a"]
        prefixed.apply([Confirm(b"a", of_size(3))])
        prefixed.arrive(brought(prefixed, b"d/c", b"large"), of_size(5))
        assert prefixed.values([b"d/c"]) == [b"large"]
        prefixed.mark([b"f/"])
        assert prefixed.unmark([b"f/"]) == [b"f/"]
        prefixed.add_names([b"a"])
        prefixed.probe()
        assert not prefixed.is_full()
        assert prefixed.remove([b"a", b"e/a", b"d/c"]) == {}
        assert prefixed.count == 0

    def test_lets_all_be_asked_for_by_who_may_use_no_other_keys(self, prefixed: Target) -> None:
        first, second = sets(b"a", b"d/a")
        prefixed.apply([first, second])
        prefixed.check()
        assert prefixed.held([b"d/a", b"b"]) == {b"d/a": second.signature, b"b": None}
        assert prefixed.are_ours([b"a", b"app:a"]) == [True, False]
        assert prefixed.lengths([b"a", b"b"]) == [10, 0]
        assert prefixed.are_there([b"a", b"b"]) == [True, False]
        assert prefixed.values([b"d/a", b"b"]) == [b"value of d/a", None]
        assert prefixed.piece(b"a", 9, 5) == b"a"
        assert [*chain.from_iterable(prefixed.manifest(b"d/"))] == [b"d/a"]
        assert [*chain.from_iterable(prefixed.names(b"d/"))] == [b"d/a"]
        assert prefixed.records((), (b"", b"d/")).lengths == [(2, 2), (1, 1)]

    def test_is_that_of_a_repair_too(
        self, prefixed: Target, redis_server: RedisServer, user: str
    ) -> None:
        prefixed.apply(sets(b"a"))
        with closing(make_target(redis_server, user, self.PREFIX)) as repair:
            repair.join()
            repair.watch([b"d/e/a", b"a"])
            repair.apply(sets(b"d/e/a"))
        assert prefixed.values([b"a", b"d/e/a"]) == [b"value of a", b"value of d/e/a"]
        assert names_of(prefixed) == {b"a", b"d/e/a"}

    def test_leaves_keys_of_others_as_they_are(
        self, prefixed: Target, redis_server: RedisServer
    ) -> None:
        others = dict.fromkeys((b"a", b"d/a", b"app", b"app2:a", b"d/", SPARE), b"theirs")
        redis_server.client.mset(others)
        prefixed.apply(sets(b"a", b"d/a", b"b"))
        prefixed.apply(exchange_of(b"a", b"d/a", of_size(10), of_size(12)))
        prefixed.apply([Delete(b"a"), Rename(b"d/a", b"d/b", of_size(3))])
        prefixed.remove([b"b", b"d/b"])
        keys = {key for key in redis_server.client.scan_iter() if OWN not in key}
        assert keys == others.keys() - {SPARE}
        assert set(redis_server.client.mget(others)) == {b"theirs"}

    def test_tells_two_services_of_one_database_apart(
        self, prefixed: Target, target: Target
    ) -> None:
        prefixed.apply(sets(b"a", b"d/a"))
        target.apply(sets(b"a", b"b", b"d/b"))
        for each, count in ((prefixed, 2), (target, 3)):
            each.check()
            assert each.count == count
        assert target.are_ours([b"a", b"d/a", b"app:a"]) == [True, False, False]
