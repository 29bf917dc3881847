"""Redis' edge and a real Redis: what a connection leaves behind, what is lost on its way."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sync.core.changes import Arrive, Set, Signature
from sync.core.errors import RedisChangedError
from sync.core.manifest import Entries
from sync.redis.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import RedisServer

SIGNATURE = Signature(1, 6, 2, 3)


@pytest.fixture
def target(redis_server: RedisServer) -> Iterator[Target]:
    with closing(Target(redis_server.url, None, Entries(trimmed=False))) as target:
        target.connect()
        yield target


def test_a_new_connection_does_not_wait_for_what_was_begun_on_the_old_one(target: Target) -> None:
    target.begin([Set(b"a", b"one", SIGNATURE)])
    began = time.monotonic()
    target.connect()
    assert time.monotonic() - began < 1
    target.apply([Set(b"a", b"two", SIGNATURE)])
    assert target.values([b"a"]) == [b"two"]


def incoming(redis_server: RedisServer) -> list[bytes]:
    return [key for key in redis_server.client.scan_iter() if b"incoming" in key]


def test_a_value_that_was_lost_while_it_came_in_pieces_is_not_taken_for_the_file(
    target: Target, redis_server: RedisServer
) -> None:
    target.reserve(6)
    target.bring(0, b"one")
    (key,) = incoming(redis_server)
    redis_server.client.delete(key)  # as the server does when it expires, or for want of memory
    with pytest.raises(RedisChangedError, match="lost a value that came in pieces"):
        target.bring(3, b"two")
    assert incoming(redis_server) == []


def test_a_repair_does_not_write_into_the_values_that_come_from_the_service(
    target: Target, redis_server: RedisServer
) -> None:
    with closing(Target(redis_server.url, None, Entries(trimmed=False))) as repair:
        repair.join()
        for each, piece in ((target, b"service"), (repair, b"repair")):
            each.reserve(len(piece))
            each.bring(0, piece)
        repair.apply([Arrive(b"theirs", SIGNATURE)])
        target.apply([Arrive(b"ours", SIGNATURE)])
    assert target.values([b"ours", b"theirs"]) == [b"service", b"repair"]
