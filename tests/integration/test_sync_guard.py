"""In one-way-replica, what somebody else does to a file's key is undone at once: SYNC_GUARD."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from integration.files import make
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.conftest import RedisServer, Service, Start

LARGE = os.urandom((1 << 20) + 5)
NEVER = {"SYNC_RESCAN": "0"}  # nothing but what is heard tells

CHANGES: dict[str, Callable[[Any], object]] = {
    "SET of the same length": lambda client: client.set("a", "CONTENT OF A"),
    "SET in a transaction": lambda client: client.pipeline().set("a", "x").set("b", "y").execute(),
    "SETRANGE": lambda client: client.setrange("a", 3, "XX"),
    "APPEND": lambda client: client.append("a", "more"),
    "DEL": lambda client: client.delete("a"),
    "another type": lambda client: client.pipeline().delete("a").lpush("a", "x").execute(),
    "EXPIRE": lambda client: client.expire("a", 100),
    "PEXPIRE that is over": lambda client: client.pexpire("a", 1),
    "RENAME to nobody's key": lambda client: client.rename("a", "theirs"),
    "RENAME to another file's key": lambda client: client.rename("a", "b"),
    "COPY": lambda client: client.copy("b", "a", replace=True),
    "RESTORE": lambda client: client.restore("a", 0, client.dump("b"), replace=True),
    "EVAL": lambda client: client.eval("return redis.call('SET', 'a', 'x')", 0),
    "MOVE": lambda client: client.move("a", 1),
}


def state(server: RedisServer) -> dict[bytes, tuple[object, int]]:
    """Return what the keys of files hold, and until when."""
    names = (b"a", b"b", b"large")
    kinds = {name: server.client.type(name) for name in names}
    return {
        name: (server.client.get(name) if kinds[name] == b"string" else kinds[name], ttl)
        for name in names
        if kinds[name] != b"none" and (ttl := server.client.pttl(name)) != -2
    }


@pytest.fixture
def guarded(redis_server: RedisServer, root: Path, start: Start) -> Service:  # noqa: ARG001
    make(root, "a", "b")
    (root / "large").write_bytes(LARGE)
    service = start(in_step=True, **NEVER)
    service.catches_up()
    return service


RIGHT = {b"a": (b"content of a", -1), b"b": (b"content of b", -1), b"large": (LARGE, -1)}


@pytest.mark.servers
@pytest.mark.parametrize("change", CHANGES)
def test_what_others_do_to_a_files_key_is_undone(
    redis_server: RedisServer, guarded: Service, change: str
) -> None:
    assert state(redis_server) == RIGHT
    CHANGES[change](redis_server.client)
    eventually(lambda: state(redis_server), RIGHT)
    assert guarded.process.poll() is None


@pytest.mark.parametrize("what", ["same length", "APPEND", "DEL", "EXPIRE"])
def test_a_large_value_too_and_once(redis_server: RedisServer, guarded: Service, what: str) -> None:
    client: Any = redis_server.client
    {
        "same length": lambda: client.setrange("large", 7, b"\0\0\0\0\0\0\0\0"),
        "APPEND": lambda: client.append("large", "more"),
        "DEL": lambda: client.delete("large"),
        "EXPIRE": lambda: client.expire("large", 100),
    }[what]()
    eventually(lambda: state(redis_server), RIGHT)
    # Its own writes must not be news to it, or it would go on for ever.
    assert len(guarded.lines("SET large")) == 1
    guarded.catches_up()
    assert len(guarded.lines("SET large")) == 1
    eventually(lambda: undone(guarded), 1)


def test_the_status_counts_what_was_undone(redis_server: RedisServer, guarded: Service) -> None:
    redis_server.client.set("a", "another's")
    redis_server.client.delete("b")
    eventually(lambda: state(redis_server), RIGHT)
    eventually(lambda: undone(guarded), 2)


def undone(service: Service) -> object:
    return json.loads(Path(service.environ["SYNC_STATUS"]).read_text())["undone"]


def test_what_the_service_writes_is_not_news_to_it(
    redis_server: RedisServer, guarded: Service, root: Path
) -> None:
    def work() -> None:
        (root / "a").write_bytes(b"new")
        guarded.catches_up()

    seen = redis_server.commands(work)
    assert sum("MSET a new" in each for each in seen) == 1
    assert not any("PTTL" in each for each in seen)  # nothing was compared
    assert undone(guarded) == 0


def test_a_key_that_is_nobodys_is_left_alone(redis_server: RedisServer, guarded: Service) -> None:
    redis_server.client.set("theirs", "1")
    redis_server.client.expire("theirs", 1000)
    guarded.catches_up({b"theirs": b"1"})
    assert redis_server.client.ttl("theirs") > 0


def test_without_it_a_change_stays(redis_server: RedisServer, root: Path, start: Start) -> None:
    make(root, "a")
    service = start(in_step=True, SYNC_GUARD="0", **NEVER)
    redis_server.client.set("a", "another's!!!")
    # Nobody listens, so nothing comes later.
    assert [each["name"] for each in redis_server.client.client_list() if each["sub"] != "0"] == []
    (root / "b").write_bytes(b"x")
    eventually(lambda: service.get("b"), b"x")
    assert service.get("a") == b"another's!!!"


def test_what_was_changed_while_nobody_listened_is_undone(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    make(root, "a", "b")
    service = start(in_step=True)
    service.catches_up()
    service.process.kill()
    service.process.wait()
    redis_server.client.set("a", "CONTENT OF A")  # of the same length: its entry seems to be right
    redis_server.client.persist("b")
    start(in_step=True, SYNC_RESCAN_CPU="100")
    eventually(lambda: service.get("a"), b"content of a", 10)


def test_nobody_compares_when_redis_was_empty(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    make(root, *(f"f{number}" for number in range(50)))

    def work() -> None:
        service = start(in_step=True, SYNC_RESCAN_CPU="100", SYNC_RESCAN="3600")
        service.catches_up()

    assert not any("PTTL f" in each for each in redis_server.commands(work))


@pytest.mark.servers
def test_the_service_hears_again_after_its_ear_was_cut_off(
    redis_server: RedisServer, guarded: Service
) -> None:
    (ear,) = [each for each in redis_server.client.client_list() if each["sub"] != "0"]
    with guarded.paused():
        redis_server.client.client_kill_filter(_id=ear["id"])
        redis_server.client.set("a", "CONTENT OF A")
    eventually(lambda: len(guarded.lines(" equals ")), 2)
    redis_server.client.set("b", "CONTENT OF B")
    eventually(lambda: redis_server.client.get("b"), b"content of b")


@pytest.mark.servers
def test_a_flush_is_noticed_at_once(redis_server: RedisServer, guarded: Service) -> None:
    with guarded.paused():
        redis_server.client.flushall()
    eventually(lambda: state(redis_server), RIGHT, 1.5)  # the next sign of life would be later


def test_the_count_of_what_was_undone_outlives_a_session(
    redis_server: RedisServer, guarded: Service
) -> None:
    redis_server.client.set("a", "another's")
    eventually(lambda: undone(guarded), 1)
    redis_server.client.flushall()
    eventually(lambda: len(guarded.lines(" equals ")), 2)
    guarded.catches_up()
    redis_server.client.set("b", "another's")
    eventually(lambda: undone(guarded), 2)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_others_put_under_a_key_just_before_its_file_is_renamed_is_undone_too(
    redis_server: RedisServer, root: Path, start: Start, what: str
) -> None:
    make(root, "d/a", "d/b")
    service = start(in_step=True, SYNC_TREE="1", **NEVER)
    service.catches_up()
    client: Any = redis_server.client
    for number in range(20):
        old, new = ("d", "e") if number % 2 == 0 else ("e", "d")
        with service.paused():
            client.set(f"{old}/a", "another's")
            if what == "directory":
                (root / old).rename(root / new)
            else:
                (root / new).mkdir(exist_ok=True)
                (root / old / "a").rename(root / new / "a")
        eventually(lambda name=new: client.get(f"{name}/a"), b"content of d/a")  # type: ignore[misc]
    service.catches_up()
