"""Redis equals the directory after all that can happen to either: one case each.

The model test and the fault test mix them; here one sees which promise is broken.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import eventually

from sync.core.manifest import Entries
from sync.redis.keys import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import RedisServer, Service, Start

MIB = 1 << 20


def is_sure(redis: RedisServer, name: str) -> bool:
    """Say whether a restart need not read the file again."""
    held = Entries(trimmed=False).decode(redis.client.hget(MANIFEST, name))  # type: ignore[arg-type]
    return held is not None and held.is_sure


def status(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(service.environ["SYNC_STATUS"]).read_text())
    return found


def traffic(redis: RedisServer) -> int:
    """Return how many bytes the server has received."""
    return int(redis.client.info("stats")["total_net_input_bytes"])


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the file's exclusive lock for the time of the block; yield its descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


class TestHardLinks:
    def test_a_write_through_one_name_changes_all(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        (service.root / "b").hardlink_to(service.root / "a")
        eventually(lambda: service.get("b"), b"one")
        (service.root / "b").write_text("two")
        eventually(lambda: (service.get("a"), service.get("b")), (b"two", b"two"))

    def test_so_does_one_through_a_name_that_is_gone_by_then(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        (service.root / "b").hardlink_to(service.root / "a")
        eventually(lambda: service.get("b"), b"one")
        with service.paused():
            (service.root / "a").write_text("two")
            (service.root / "a").unlink()
        eventually(service.redis.keys, {b"b": b"two"})

    def test_so_does_one_after_a_restart(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        (root / "a").write_text("one")
        (root / "b").hardlink_to(root / "a")
        start(in_step=True).stop(signal.SIGTERM)
        start(in_step=True)
        (root / "a").write_text("two")
        eventually(redis_server.keys, {b"a": b"two", b"b": b"two"})


class TestLocks:
    @pytest.mark.parametrize("size", [10, 3 * MIB], ids=["small", "large"])
    def test_a_file_is_not_read_half_way(self, service: Service, size: int) -> None:
        old, new = b"o" * size, b"n" * size
        path = service.root / "a"
        path.write_bytes(old)
        eventually(lambda: service.get("a"), old)
        with locked(path) as fd:
            os.pwrite(fd, new[: size // 2], 0)
            # When this one is there, which stays open as well, the other was looked at before.
            with (service.root / "later").open("wb", buffering=0) as later:
                later.write(b"later")
                eventually(lambda: service.get("later"), b"later")
            assert service.get("a") == old
            os.pwrite(fd, new[size // 2 :], size // 2)
        eventually(lambda: service.get("a"), new)

    def test_readers_do_not_keep_a_file_from_being_mirrored(self, service: Service) -> None:
        path = service.root / "a"
        path.write_bytes(b"one")
        with path.open("rb") as reader:
            fcntl.flock(reader, fcntl.LOCK_SH)
            path.write_bytes(b"two")
            eventually(lambda: service.get("a"), b"two")


class TestRestart:
    def test_transfers_what_changed_and_no_more(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        for name in ("same", "changed", "deleted"):
            (root / name).write_text("old")
        service = start(in_step=True)
        eventually(lambda: all(is_sure(redis_server, n) for n in ("same", "changed")), True)
        service.stop(signal.SIGTERM)
        (root / "changed").write_text("new")
        (root / "deleted").unlink()
        commands = redis_server.commands(lambda: start(in_step=True))
        assert [each for each in commands if "SET" in each.split()[0] and "old" in each] == []
        assert redis_server.keys() == {b"same": b"old", b"changed": b"new"}

    def test_a_rename_is_no_change_of_content(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        (root / "a").write_text("content")
        service = start(in_step=True)
        (root / "a").rename(root / "b")
        eventually(lambda: is_sure(redis_server, "b"), True)
        service.stop(signal.SIGTERM)
        commands = redis_server.commands(lambda: start(in_step=True))
        assert not any("content" in each for each in commands)

    def test_what_a_dead_service_sent_to_a_redis_that_hung_is_void(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        (root / "a").write_text("zero")
        first = start(in_step=True)
        with redis_server.paused():
            (root / "a").write_text("one")
            eventually(lambda: hangs(first), True)
            first.process.kill()
            first.process.wait()
            (root / "a").write_text("two")
            start(REDIS_URL=redis_server.url)  # it cannot be asked for a user now
        eventually(redis_server.keys, {b"a": b"two"})


def hangs(service: Service) -> bool:
    """Say whether the service has given no sign of life for a while: it waits for an answer."""
    return time.monotonic() - float(status(service)["at"]) > 3.5


class TestRedis:
    def test_a_flush_is_noticed_within_5_seconds_when_idle(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        service.catches_up()
        service.redis.client.flushall()
        eventually(service.redis.keys, {b"a": b"one"}, 5)
        eventually(lambda: service.says("equals", "Redis was changed"), True)

    def test_out_of_memory_is_said_and_heals_when_files_are_removed(self, service: Service) -> None:
        client = service.redis.client
        for number in range(20):
            (service.root / f"small-{number}").write_bytes(b"s" * 100_000)
        service.catches_up()
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - MIB)
        for number in range(40):
            (service.root / f"more-{number}").write_bytes(b"m" * 100_000)
        eventually(lambda: service.says("ERROR", "waiting for Redis", "maxmemory"), True)
        assert service.health()[0] == 1
        for number in range(40):
            (service.root / f"more-{number}").unlink()
        for number in range(15):
            (service.root / f"small-{number}").unlink()
        eventually(lambda: service.redis.keys() == service.files(), True)
        eventually(lambda: service.health()[0], 0)

    def test_a_read_only_redis_is_said_and_followed_up_when_it_is_none(
        self, service: Service
    ) -> None:
        client = service.redis.client
        client.config_set("replica-serve-stale-data", "yes")
        client.replicaof("127.0.0.1", "1")
        (service.root / "a").write_text("one")
        eventually(lambda: service.says("ERROR", "waiting for Redis", "it is a replica"), True)
        client.replicaof("NO", "ONE")
        eventually(service.redis.keys, {b"a": b"one"})
        eventually(lambda: service.says("equals", "Redis was read-only"), True)


class TestRescan:
    def test_finds_what_no_event_told_of(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        (root / "mapped").write_bytes(b"a" * mmap.PAGESIZE)
        (root / "deleted").write_bytes(b"value")
        start(in_step=True, SYNC_RESCAN="0.2")
        with (root / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[0] = ord("b")
            mapped.flush()
        redis_server.client.delete("deleted")
        content = b"b" + b"a" * (mmap.PAGESIZE - 1)
        eventually(redis_server.keys, {b"mapped": content, b"deleted": b"value"})


class TestExclusion:
    @pytest.mark.parametrize("name", [".a.swp", ".a.swx", "a~", "4913", ".#a", "#a#"])
    def test_what_editors_drop_is_left_out(self, service: Service, name: str) -> None:
        (service.root / name).write_text("draft")
        (service.root / name).rename(service.root / "a")
        eventually(lambda: service.get("a"), b"draft")
        (service.root / "a").rename(service.root / name)
        (service.root / "b").write_text("two")
        eventually(service.redis.keys, {b"b": b"two"})

    @pytest.mark.usefixtures("redis_server")
    def test_the_list_is_the_users(self, root: Path, start: Start) -> None:
        (root / "a~").write_text("one")
        (root / "a.tmp").write_text("two")
        (root / "a b").write_text("three")
        (root / "b.tmp").write_text("four")
        everything = start(in_step=True, SYNC_EXCLUDE="")
        assert everything.redis.keys() == everything.files()
        everything.stop(signal.SIGTERM)
        some = start(in_step=True, SYNC_EXCLUDE="*.tmp /a?b !b.tmp")
        assert some.redis.keys() == {b"a~": b"one", b"b.tmp": b"four"}


class TestFollowing:
    def test_what_comes_while_something_is_followed_does_not_wait_for_the_next_event(
        self, service: Service
    ) -> None:
        (service.root / "0").write_text("one")
        eventually(lambda: service.get("0"), b"one")
        began = time.monotonic()
        # Many, since it takes luck to rename just then.
        for number in range(1000):
            (service.root / f"{number}").rename(service.root / f"{number + 1}")
            while service.get(f"{number + 1}") is None:
                assert time.monotonic() - began < 10
        assert service.redis.keys() == {b"1000": b"one"}


class TestLargeFiles:
    def test_the_value_changes_at_once(self, service: Service) -> None:
        path = service.root / "a"
        lengths = {0}
        for letter in b"xyz":
            content = bytes([letter]) * (8 * MIB + letter)
            path.write_bytes(content)

            def is_there(content: bytes = content) -> bool:
                lengths.add(service.redis.client.strlen("a"))
                return service.get("a") == content

            eventually(is_there, True)
        assert lengths <= {0, *(8 * MIB + letter for letter in b"xyz")}

    def test_a_rename_moves_no_bytes(self, service: Service) -> None:
        (service.root / "a").write_bytes(b"x" * 8 * MIB)
        service.catches_up()
        before = traffic(service.redis)
        (service.root / "a").rename(service.root / "b")
        eventually(lambda: service.redis.client.strlen("b"), 8 * MIB)
        assert traffic(service.redis) - before < 10_000

    def test_a_newline_at_the_end_is_dropped_when_that_is_wanted(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        (root / "a").write_bytes(b"x" * 2 * MIB + b"\n")
        (root / "b").write_bytes(b"x" * MIB + b"\n")
        start(in_step=True, SYNC_TRIM_NEWLINE="1")
        assert redis_server.keys() == {b"a": b"x" * 2 * MIB, b"b": b"x" * MIB}

    def test_one_that_redis_cannot_take_is_no_key_and_listed_as_skipped(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        service = start(in_step=True, REDIS_URL=redis_server.url)  # which may ask for that
        service.redis.client.config_set("proto-max-bulk-len", 2 * MIB)
        (service.root / "a").write_bytes(b"x")
        service.catches_up()
        # What the server takes is asked when the service connects.
        service.redis.client.client_kill_filter(_type="normal", skipme=True)
        eventually(lambda: len(service.lines(" equals ")), 2)
        (service.root / "a").write_bytes(b"x" * (2 * MIB + 1))
        eventually(service.redis.keys, {})
        eventually(lambda: "is larger" in status(service)["skipped"].get("a", ""), True)
        assert len(service.lines("ERROR", "a is larger than")) == 1
