"""The service's notes in a real Redis."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import redis
from support import eventually

from sync.core.access import Access
from sync.core.decision import Side
from sync.core.errors import RedisAwayError
from sync.core.manifest import Entries
from sync.redis import notes as module
from sync.redis.address import Address
from sync.redis.notes import Conflict, Lost, Notes, State
from sync.redis.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import RedisServer

pytestmark = pytest.mark.servers

ODD = b"a b/\xff \n"
CONFLICT = Conflict(1_795_364_078.5, "a file of 3 bytes", "no key \N{SNOWMAN}")


def connected(server: RedisServer, prefix: bytes = b"", user: str = "") -> Target:
    url = server.url.replace("unix://", f"unix://{user}:none@" if user else "unix://")
    target = Target(Address(Access(url)).dial, Entries(trimmed=False, digests=True), prefix)
    target.connect()
    return target


@pytest.fixture(params=[b"", b"app1:"], ids=["bare", "prefix"])
def prefix(request: pytest.FixtureRequest) -> bytes:
    prefix: bytes = request.param
    return prefix


@pytest.fixture
def target(redis_server: RedisServer, prefix: bytes) -> Iterator[Target]:
    with closing(connected(redis_server, prefix)) as target:
        yield target


@pytest.fixture
def notes(target: Target) -> Notes:
    return Notes(target)


def kept(target: Target, notes: Notes, name: bytes, value: bytes, at: int = 7) -> int:
    """Put a value under a name and have it lose; return its number."""
    (number,) = notes.new_numbers()
    requests = notes.keep(name, number, len(value), at)
    target.ask((b"SET", target.prefix + name, value, b"EX", 100), *requests)
    return number


class TestConflicts:
    def test_are_noted_and_cleared(self, notes: Notes) -> None:
        assert notes.conflicts() == {}
        notes.note_conflicts({ODD: CONFLICT, b"b": CONFLICT})
        assert notes.conflicts() == {ODD: CONFLICT, b"b": CONFLICT}
        notes.clear_conflicts([b"b", b"none"])
        assert notes.conflicts() == {ODD: CONFLICT}
        notes.note_conflicts({})
        notes.clear_conflicts([])
        assert notes.conflicts() == {ODD: CONFLICT}

    def test_may_be_very_many(self, notes: Notes) -> None:
        many = {b"%d" % each: CONFLICT for each in range(2500)}
        notes.note_conflicts(many)
        assert notes.conflicts() == many
        notes.clear_conflicts(many)
        assert notes.conflicts() == {}

    @pytest.mark.parametrize(
        "said", [b"", b"[]", b"{}", b"\xff", b'{"since": "x", "disk": "", "redis": ""}']
    )
    def test_of_another_form_are_passed_over(
        self, notes: Notes, redis_server: RedisServer, prefix: bytes, said: bytes
    ) -> None:
        notes.note_conflicts({b"a": CONFLICT})
        key = (prefix + b"/mdvp-sync/conflicts").decode()
        redis_server.client.hset(key, "b", said)
        assert notes.conflicts() == {b"a": CONFLICT}


class TestRequests:
    def test_wait_until_they_are_done(self, notes: Notes) -> None:
        notes.request(ODD, Side.REDIS)
        notes.request(b"b", Side.DISK)
        assert notes.requests() == {ODD: Side.REDIS, b"b": Side.DISK}
        assert notes.is_waiting(b"b")
        notes.done([b"b"])
        assert not notes.is_waiting(b"b")
        assert notes.requests() == {ODD: Side.REDIS}

    def test_the_one_that_is_about_all_names_is_apart(self, notes: Notes) -> None:
        assert notes.accepted() is None
        notes.accept(Side.REDIS)
        assert (notes.accepted(), notes.requests()) == (Side.REDIS, {})
        assert notes.forget_accept()
        assert notes.accepted() is None
        assert not notes.forget_accept()

    def test_of_another_form_are_passed_over(
        self, notes: Notes, redis_server: RedisServer, prefix: bytes
    ) -> None:
        key = (prefix + b"/mdvp-sync/requests").decode()
        redis_server.client.hset(key, mapping={"a": "both", "/": "none"})
        assert (notes.accepted(), notes.requests()) == (None, {})

    def test_are_not_taken_from_a_key_of_another_type(
        self, notes: Notes, redis_server: RedisServer, prefix: bytes
    ) -> None:
        redis_server.client.set(prefix + b"/mdvp-sync/requests", "theirs")
        with pytest.raises(RedisAwayError, match="delete the keys that begin with /mdvp-sync/"):
            notes.requests()


class TestTheState:
    def test_is_the_one_that_was_remembered_last(self, notes: Notes) -> None:
        assert notes.state() is None
        notes.remember(State(b"1:2", b"run", 0, 0))
        last = State(b"3:4", b"another run", 5, 6)
        notes.remember(last)
        assert notes.state() == last

    def test_of_the_server_has_its_counters(
        self, notes: Notes, redis_server: RedisServer, prefix: bytes
    ) -> None:
        before = notes.server()
        assert before is not None
        assert before.run.startswith(redis_server.client.info("server")["run_id"].encode())
        assert (before.evicted, before.expired, before.policy) == (0, 0, "noeviction")
        assert not before.may_evict
        client = redis_server.client
        client.psetex(prefix + b"a", 1, "short")
        eventually(lambda: client.exists(prefix + b"a"), 0)
        client.config_set("maxmemory-policy", "allkeys-random")
        client.set("b", "one that goes")
        client.config_set("maxmemory", "1")
        with pytest.raises(redis.OutOfMemoryError):
            client.set("b", "no room")
        after = notes.server()
        assert after is not None
        assert (after.run, after.expired, after.policy) == (*(before.run, 1, "allkeys-random"),)
        assert after.evicted > 0
        assert after.may_evict

    def test_is_of_another_run_when_the_server_was_a_replica_meanwhile(
        self, notes: Notes, redis_server: RedisServer
    ) -> None:
        """What its master has evicted then it has not counted."""
        before = notes.server()
        redis_server.client.replicaof("127.0.0.1", "1")
        redis_server.client.replicaof("NO", "ONE")
        after = notes.server()
        assert before is not None
        assert after is not None
        assert before.run != after.run
        assert before._replace(run=b"", commands=0) == after._replace(run=b"", commands=0)

    def test_of_the_server_is_not_told_to_everybody(self, redis_server: RedisServer) -> None:
        rights = ["on", ">none", "~*", "+@all", "-info"]
        redis_server.client.execute_command("ACL", "SETUSER", "app", *rights)  # type: ignore[no-untyped-call]
        with closing(connected(redis_server, user="app")) as target:
            assert Notes(target).server() is None
            target.check()


class TestValuesThatLost:
    def test_are_moved_aside_for_good(self, target: Target, notes: Notes) -> None:
        value = bytes(range(256))
        number = kept(target, notes, ODD, value)
        assert notes.lost() == [Lost(number, 7, 256, ODD)]
        assert notes.lost_value(number) == value
        key, name = notes.value_keys(notes.lost()[0])
        assert name == target.prefix + ODD
        assert target.ask((b"EXISTS", name), (b"TTL", key)) == [0, -1]

    def test_come_back(self, target: Target, notes: Notes) -> None:
        number = kept(target, notes, b"a", b"value")
        target.ask(*notes.bring_back(number, b"a"))
        assert target.values([b"a"]) == [b"value"]
        assert notes.lost() == []
        assert notes.lost_value(number) is None

    def test_have_numbers_of_their_own(self, target: Target, notes: Notes) -> None:
        first = kept(target, notes, b"a", b"one")
        target.ask(*notes.bring_back(first, b"a"))
        assert first not in notes.new_numbers(3)
        assert len({*notes.new_numbers(3), *notes.new_numbers(3)}) == 6

    def test_are_listed_the_oldest_first(self, target: Target, notes: Notes) -> None:
        numbers = [kept(target, notes, b"a", b"%d" % each, 100 - each) for each in range(12)]
        assert [each.number for each in notes.lost()] == numbers

    def test_that_are_too_many_go_the_oldest_first(
        self, target: Target, notes: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LOST_MAX", 3)
        numbers = [kept(target, notes, b"a", b"%d" % each) for each in range(5)]
        notes.trim()
        notes.trim()
        assert [each.number for each in notes.lost()] == numbers[2:]
        assert [notes.lost_value(each) for each in numbers] == [None, None, b"2", b"3", b"4"]

    def test_that_are_too_large_go_the_oldest_first(
        self, target: Target, notes: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LOST_SIZE_MAX", 10)
        sizes = [1, 4, 3, 4, 3]
        numbers = [kept(target, notes, b"a", b"x" * size) for size in sizes]
        notes.trim()
        assert [each.number for each in notes.lost()] == numbers[2:]

    def test_keep_the_last_one_however_large(
        self, target: Target, notes: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LOST_SIZE_MAX", 10)
        numbers = [kept(target, notes, b"a", b"x" * size) for size in (1, 11)]
        notes.trim()
        assert [each.number for each in notes.lost()] == numbers[1:]

    def test_of_another_form_are_passed_over(
        self, target: Target, notes: Notes, redis_server: RedisServer, prefix: bytes
    ) -> None:
        number = kept(target, notes, b"a", b"value")
        key = (prefix + b"/mdvp-sync/lost").decode()
        redis_server.client.hset(key, mapping={"x": "1 2 a", "99": "1 2", "98": "a b c"})
        assert [each.number for each in notes.lost()] == [number]
        notes.trim()
        assert [each.number for each in notes.lost()] == [number]


def test_directories_that_were_made_are_known_until_they_are_forgotten(notes: Notes) -> None:
    assert notes.made() == {}
    notes.add_made({b"a/": b"1", b"a/\xff/": b"2"})
    notes.add_made({b"a/": b"3"})
    assert notes.made() == {b"a/": b"3", b"a/\xff/": b"2"}
    notes.forget_made([b"a/", b"none/"])
    assert notes.made() == {b"a/\xff/": b"2"}


def test_all_notes_are_under_the_prefix(
    target: Target, notes: Notes, redis_server: RedisServer, prefix: bytes
) -> None:
    notes.note_conflicts({b"a": CONFLICT})
    notes.request(b"a", Side.DISK)
    notes.remember(State(b"1", b"2", 3, 4))
    notes.add_made({b"a/": b"1"})
    kept(target, notes, b"a", b"value")
    keys = set(redis_server.client.scan_iter())
    assert {key for key in keys if not key.startswith(prefix + b"/mdvp-sync/")} == set()
    assert len(keys) >= 6
