"""All that the service has in Redis can be under a prefix: SYNC_PREFIX."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from integration.files import make, write
from integration.shape import SHAPES, Shape
from support import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from integration.conftest import RedisServer, Start

OWN = b"/mdvp-sync/"


def is_held(server: RedisServer, expected: dict[bytes, bytes]) -> None:
    """Wait until these are the keys of one database, but for those of services."""

    def keys() -> dict[bytes, object]:
        names = [key for key in server.client.scan_iter(count=10_000) if OWN not in key]
        return {name: server.client.get(name) for name in names}

    eventually(keys, expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_keys_begin_with_it(
    redis_server: RedisServer, root: Path, start: Start, shape: Shape
) -> None:
    make(root, "a")
    start(in_step=True, prefix=(), SYNC_PREFIX="app1:", **shape.environ)
    write(root / "b")
    is_held(redis_server, {b"app1:a": b"content of a", b"app1:b": b"one"})
    (root / "b").rename(root / "c")
    (root / "a").unlink()
    is_held(redis_server, {b"app1:c": b"one"})
    keys = list(redis_server.client.scan_iter(count=10_000))
    assert [key for key in keys if not key.startswith(b"app1:")] == []
    assert b"app1:" + OWN + b"manifest" in keys


def test_two_services_share_a_database(
    redis_server: RedisServer, root: Path, outside: Path, start: Start
) -> None:
    make(root, "a", "d/a")
    make(outside, "a", "d/b")
    one = start(in_step=True, SYNC_TREE="1", SYNC_PREFIX="app1:")
    other = start(in_step=True, SYNC_TREE="1", SYNC_PREFIX="app2:", SYNC_ROOT=str(outside))
    shutil.rmtree(root / "d")
    write(outside / "d/b", "two")
    (outside / "a").rename(outside / "d/a")
    left = {b"app1:a": b"content of a", b"app2:d/a": b"content of a", b"app2:d/b": b"two"}
    is_held(redis_server, left)
    one.process.kill()
    one.process.wait()
    (root / "a").unlink()
    one = start(in_step=True, SYNC_TREE="1", SYNC_PREFIX="app1:")
    is_held(redis_server, {b"app2:d/a": b"content of a", b"app2:d/b": b"two"})
    assert [len(each.lines(" equals ")) for each in (one, other)] == [1, 1]


def test_keys_of_others_stay_with_it_or_without(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    names = (b"a", b"d/a", b"d/", b"app1:theirs", b"app1:d/theirs", b"app10:a", b"app1")
    theirs = dict.fromkeys(names, b"theirs")
    redis_server.client.mset(theirs)
    start(in_step=True, SYNC_TREE="1", SYNC_PREFIX="app1:")
    make(root, "a", "d/a")
    is_held(
        redis_server,
        {**theirs, b"app1:a": b"content of a", b"app1:d/a": b"content of d/a"},
    )
    (root / "d").rename(root / "e")
    is_held(
        redis_server,
        {**theirs, b"app1:a": b"content of a", b"app1:e/a": b"content of d/a"},
    )
    shutil.rmtree(root / "e")
    (root / "a").unlink()
    is_held(redis_server, theirs)


def test_a_flush_is_noticed(redis_server: RedisServer, root: Path, start: Start) -> None:
    make(root, "d/a")
    start(in_step=True, SYNC_TREE="1", SYNC_PREFIX="app1:")
    redis_server.client.flushall()
    is_held(redis_server, {b"app1:d/a": b"content of d/a"})
