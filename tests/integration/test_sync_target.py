"""Redis' edge and a real Redis: what a connection leaves behind, what is refused or lost."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from support import eventually

from sync.core.changes import Arrive, Delete, Set, Signature
from sync.core.errors import RedisChangedError, RedisRefusedError
from sync.core.manifest import Entries
from sync.redis.connection import Address
from sync.redis.target import MANIFEST, NAMES, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import RedisServer

    from sync.redis.upload import Upload

SIGNATURE = Signature(1, 6, 2, 3)


def make_target(redis_server: RedisServer) -> Target:
    return Target(Address(redis_server.url, None).dial, Entries(trimmed=False))


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
    def test_take_effect_with_their_entries_when_they_are_told_to(self, target: Target) -> None:
        target.apply([Set(b"a", b"before", SIGNATURE)])
        upload = brought(target, b"a", b"after")
        assert target.values([b"a"]) == [b"before"]
        signature = SIGNATURE._replace(size=5)
        assert target.arrive(upload, signature) == Arrive(b"a", signature)
        assert target.values([b"a"]) == [b"after"]
        assert target.held([b"a"]) == {b"a": signature}
        assert (target.count, target.bytes) == (1, 5)
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
        assert set(redis_server.client.scan_iter(b"/*")) == {MANIFEST, NAMES, b"/mdvp-sync/epoch"}

    def test_are_void_when_another_service_has_begun_meanwhile(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        upload = brought(target, b"a", b"late")
        with closing(make_target(redis_server)) as other:
            other.connect()
            other.apply([Set(b"a", b"early", SIGNATURE)])
            with pytest.raises(RedisChangedError):
                target.arrive(upload, SIGNATURE)
            assert other.values([b"a"]) == [b"early"]

    def test_of_a_repair_are_not_those_of_the_service(
        self, target: Target, redis_server: RedisServer
    ) -> None:
        with closing(make_target(redis_server)) as repair:
            repair.join()
            theirs = brought(repair, b"theirs", b"repair")
            repair.arrive(theirs, SIGNATURE)
            ours = brought(target, b"ours", b"service")
            target.arrive(ours, SIGNATURE)
        assert target.values([b"ours", b"theirs"]) == [b"service", b"repair"]


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
        with pytest.raises(RedisRefusedError):  # as anything in a transaction
            target.apply([Delete(b"a")])
        target.remove([b"a"])
        target.check()
        assert redis_server.keys() == {b"b": b"one"}


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
