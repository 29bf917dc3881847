"""What is lost or in the way: a crash, an eviction, a restart, a full disk, who has a file open."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.files import write
from integration.mounts import TMPFS, mounted, only_root
from integration.ways import (
    FROM_REDIS,
    MODES,
    ONE_WAY,
    REPLICA,
    SAFE,
    Both,
    beat,
    contents,
    has,
    is_equal,
    is_there,
    settled,
    shortened,
    skipped,
    status,
    stop,
)
from support import eventually

from sync.redis.keys import ACCEPT, CONFLICTS, REQUESTS, STATE

if TYPE_CHECKING:
    from integration.conftest import RedisServer, Service, Start
    from integration.ways import Redis

MANY = 4000  # so that there is time to be cut off in the middle
LARGE = os.urandom((1 << 20) + 3)
LARGER = os.urandom(30 << 20)  # is on its way for long


@pytest.fixture
def client(redis_server: RedisServer) -> Redis:
    return redis_server.client


@pytest.fixture
def both(redis_server: RedisServer, start: Start) -> Both:  # noqa: ARG001
    return Both(start)


def named(count: int) -> dict[str, bytes]:
    return {f"f{number}": b"%d" % number for number in range(count)}


def put(root: Path, files: dict[str, bytes]) -> None:
    for name, value in files.items():
        (root / name).write_bytes(value)


def ends_in_step(service: Service) -> None:
    """Stop it as soon as it remembers what there is."""
    client: Redis = service.redis.client
    eventually(lambda: client.hexists(STATE, "directory"), True)
    stop(service)


def accepts(service: Service, side: str) -> None:
    eventually(lambda: service.says("holding"), True)
    service.redis.client.hset(REQUESTS, ACCEPT, side)


def is_in_step(service: Service) -> None:
    eventually(lambda: service.says(" equals "), True)


def another_directory(root: Path) -> None:
    root.rename(root.with_name("before"))
    root.mkdir()


class TestWhatIsAccepted:
    """Much is missing on one side, and somebody has said that the other is right."""

    @pytest.mark.parametrize("how", ["crash", "lost connection"])
    def test_is_gone_on_with_if_its_files_were_being_made(
        self, client: Redis, root: Path, both: Both, how: str
    ) -> None:
        files = named(MANY)
        put(root, files)
        ends_in_step(both())
        another_directory(root)
        service = both(in_step=False)
        accepts(service, "redis")
        while len(os.listdir(root)) < MANY // 2:
            pass
        if how == "crash":
            stop(service)
            service = both(in_step=False)
        else:
            client.client_kill_filter(skipme=True)
        is_in_step(service)
        is_equal(service, files)

    def test_is_gone_on_with_if_its_keys_were_being_made(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        files = named(MANY)
        put(root, files)
        ends_in_step(both())
        client.delete(*files)
        service = both(in_step=False)
        accepts(service, "disk")
        while client.dbsize() < MANY // 2:
            pass
        stop(service)
        service = both()
        is_equal(service, files)

    def test_holds_for_large_values_that_come_later(self, root: Path, both: Both) -> None:
        files = named(110) | dict.fromkeys(("large-1", "large-2", "large-3"), LARGE)
        put(root, files)
        service = both()
        is_equal(service, files)
        ends_in_step(service)
        another_directory(root)
        service = both(in_step=False)
        accepts(service, "redis")
        is_equal(service, files)

    @pytest.mark.parametrize("is_restarted", [False, True])
    def test_holds_for_files_that_somebody_has_locked(
        self, client: Redis, root: Path, both: Both, *, is_restarted: bool
    ) -> None:
        files = named(110)
        put(root, files)
        ends_in_step(both())
        client.delete(*files)
        with ExitStack() as locks:
            for name in list(files)[:5]:
                file = locks.enter_context((root / name).open("rb"))
                fcntl.flock(file, fcntl.LOCK_EX)
            service = both(in_step=False)
            accepts(service, "disk")
            is_in_step(service)
            if is_restarted:
                stop(service)
                service = both()
        is_equal(service, files)

    def test_is_for_that_directory_alone(self, root: Path, both: Both) -> None:
        files = named(MANY)
        put(root, files)
        ends_in_step(both())
        another_directory(root)
        service = both(in_step=False)
        accepts(service, "redis")
        while len(os.listdir(root)) < 500:
            pass
        stop(service)
        shutil.rmtree(root)
        root.mkdir()
        service = both(in_step=False)
        eventually(lambda: service.says("holding"), True)
        assert contents(root) == {}


class TestLargeValues:
    def test_come_however_many_there_are(self, client: Redis, root: Path, both: Both) -> None:
        both()
        for number in range(120):
            client.set(f"f{number}", LARGE)
        eventually(lambda: len(contents(root)), 120)

    @pytest.mark.parametrize("mode", [SAFE, FROM_REDIS])
    def test_come_at_once_however_often_they_change(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        service = both(mode)
        began = status(service)["at"]
        for number in range(20):
            value = b"%d" % number + LARGE
            client.set("a", value)
            has(root, "a", value)
        assert status(service)["at"] - began < 20  # it says something every other second

    def test_come_while_a_large_file_is_on_its_way(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both()
        with service.paused():
            (root / "file").write_bytes(LARGER)
            client.set("a", LARGE)
        has(root, "a", LARGE)
        client.set("b", LARGE)
        has(root, "b", LARGE)
        eventually(lambda: client.get("file") == LARGER, True)
        eventually(lambda: status(service)["arriving"], 0)

    @pytest.mark.parametrize("mode", [ONE_WAY, *MODES])
    def test_that_are_equal_from_the_start_end_the_first_look(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        (root / "a").write_bytes(LARGE)
        client.set("a", LARGE)
        client.set("none", "theirs")
        service = both(mode)
        if mode != ONE_WAY:
            client.set("b", LARGE)
            has(root, "b", LARGE)
        write(root / "none", "theirs")
        eventually(lambda: client.hget("/mdvp-sync/manifest", "a") is not None, True)
        eventually(lambda: (status(service)["state"], status(service)["arriving"]), ("live", 0))
        assert client.hkeys(CONFLICTS) == []

    @pytest.mark.parametrize("mode", [SAFE, FROM_REDIS])
    def test_that_were_touched_on_both_sides_are_in_nobodys_way(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        service = both(mode)
        client.set("a", LARGE)
        has(root, "a", LARGE)
        settled(service)
        with service.paused():
            client.set("a", LARGE)
            os.utime(root / "a")
        client.set("b", LARGE)
        has(root, "b", LARGE)
        eventually(lambda: status(service)["arriving"], 0)

    @pytest.mark.parametrize("mode", [SAFE, FROM_REDIS])
    def test_that_were_touched_while_the_service_was_down_are_in_nobodys_way(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        service = both(mode)
        client.set("a", LARGE)
        has(root, "a", LARGE)
        settled(service)
        stop(service)
        os.utime(root / "a")
        both(mode)
        client.set("b", LARGE)
        has(root, "b", LARGE)
        assert contents(root).keys() == {"a", "b"}

    def test_keep_the_expiry_of_their_keys(self, client: Redis, root: Path, both: Both) -> None:
        service = both()
        client.set("small", "1", ex=1000)
        client.set("large", LARGE, ex=1000)
        has(root, "large", LARGE)
        settled(service)
        new = LARGE[::-1]
        (root / "large").write_bytes(new)
        write(root / "small", "2")
        eventually(lambda: (client.get("small"), client.get("large") == new), (b"2", True))
        assert min(client.ttl("small"), client.ttl("large")) > 900

    def test_bring_back_no_directory_that_is_gone(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both(SYNC_TREE="1")
        for name in ("a/large", "b/large"):
            (root / name).parent.mkdir()
            (root / name).write_bytes(LARGE)
        write(root / "b/small")
        eventually(lambda: client.exists("a/large", "b/large", "b/small"), 3)
        settled(service)
        shutil.rmtree(root / "a")
        (root / "b").rename(root / "c")
        eventually(lambda: service.redis.keys().keys(), {b"c/large", b"c/small"})
        settled(service)
        assert os.listdir(root) == ["c"]

    def test_in_conflict_are_so_no_more_when_the_disk_was_taken(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both()
        client.set("a", LARGE)
        has(root, "a", LARGE)
        settled(service)
        with service.paused():
            (root / "a").write_bytes(LARGE + b"ours")
            client.set("a", "theirs")
        eventually(lambda: client.hkeys(CONFLICTS), [b"a"])
        client.hset(REQUESTS, "a", "disk")
        eventually(lambda: client.get("a") == LARGE + b"ours", True)
        eventually(lambda: (client.hkeys(CONFLICTS), client.hkeys(REQUESTS)), ([], []))


class TestAnEvictionThatNobodySaw:
    """The service is down; what it can see later is a server that tells of no eviction."""

    def evicted(self, root: Path, both: Both, client: Redis, mode: str = SAFE) -> dict[str, bytes]:
        """Have some keys evicted, none of which is the service's own; return the files."""
        files = {f"f{number}": os.urandom(50_000) for number in range(60)}
        client.config_set("maxmemory-policy", "volatile-random")
        service = both(mode)
        for name, value in files.items():
            client.set(name, value, ex=10_000)
        is_there(root, files)
        settled(service)
        ends_in_step(service)
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 400_000)
        eventually(lambda: client.exists(*files) < len(files), True)
        client.config_set("maxmemory", 0)
        return files

    @pytest.mark.servers
    def test_is_not_forgotten_with_the_counters(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        files = self.evicted(root, both, client)
        client.config_resetstat()
        is_equal(both(), files)

    @pytest.mark.parametrize("policy", ["noeviction", "volatile-random"])
    def test_is_not_forgotten_with_a_restart(
        self, client: Redis, root: Path, both: Both, redis_server: RedisServer, policy: str
    ) -> None:
        files = self.evicted(root, both, client)
        client.save()
        redis_server.kill()
        redis_server.start("--maxmemory-policy", policy)
        is_equal(both(), files)

    def test_leaves_the_files_where_redis_is_the_original(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        files = self.evicted(root, both, client, FROM_REDIS)
        client.config_resetstat()
        both(FROM_REDIS)
        is_there(root, files)


def user(client: Redis, server: RedisServer, *commands: str) -> str:
    """Have a user who may do all but some things; return the URL for it."""
    may = {"keys": ["*"], "channels": ["*"], "commands": ["+@all", *commands]}
    client.acl_setuser("sync", enabled=True, nopass=True, **may)
    return f"unix://sync:any@{server.socket}"


def brought(client: Redis) -> int:
    """Return how many large values have taken effect."""
    counted = client.info("commandstats").get("cmdstat_rename", {"calls": 0})
    calls: int = counted["calls"]
    return calls


class TestWhereRedisTellsLess:
    """The user of the service may not use CLIENT TRACKING, or INFO."""

    @pytest.fixture
    def url(self, client: Redis, redis_server: RedisServer) -> str:
        return user(client, redis_server, "-client", "+client|id")

    def test_a_large_file_at_rest_is_brought_once(
        self, client: Redis, root: Path, start: Start, url: str
    ) -> None:
        client.config_set("notify-keyspace-events", "KA")
        (root / "large").write_bytes(LARGE)
        service = start(in_step=True, REDIS_URL=url, SYNC_RESCAN="0")
        eventually(lambda: status(service)["heard_by"], "keyspace notifications")
        for _ in range(5):
            service.catches_up()
        assert brought(client) == 1
        (root / "large").write_bytes(LARGE + b"more")
        for _ in range(5):
            service.catches_up()
        assert brought(client) == 2

    @pytest.mark.servers
    def test_what_others_change_is_undone_by_way_of_notifications(
        self, client: Redis, root: Path, start: Start, url: str
    ) -> None:
        client.config_set("notify-keyspace-events", "KA")
        write(root / "a")
        (root / "large").write_bytes(LARGE)
        service = start(in_step=True, REDIS_URL=url, SYNC_RESCAN="0")
        client.set("a", "two")
        eventually(lambda: service.get("a"), b"one")
        client.append("large", "more")
        eventually(lambda: service.get("large") == LARGE, True)
        client.delete("a", "large")
        eventually(service.redis.keys, {b"a": b"one", b"large": LARGE})

    def test_what_others_change_becomes_a_file_by_way_of_notifications(
        self, client: Redis, root: Path, both: Both, url: str
    ) -> None:
        client.config_set("notify-keyspace-events", "KA")
        service = both(REDIS_URL=url)
        (root / "ours").write_bytes(LARGE)
        client.mset({"a": "one", "large": LARGE})
        is_there(root, {"a": b"one", "large": LARGE, "ours": LARGE})
        settled(service)
        client.delete("a")
        is_equal(service, {"large": LARGE, "ours": LARGE})

    @pytest.mark.parametrize("mode", [REPLICA, SAFE])
    def test_rescans_find_it_where_nothing_tells(
        self, client: Redis, root: Path, start: Start, url: str, mode: str
    ) -> None:
        write(root / "a")
        service = start(in_step=True, REDIS_URL=url, SYNC_MODE=mode, SYNC_RESCAN="1")
        said = ("WARNING", "does not tell what others change", "found by rescans only")
        assert len(service.lines(*said)) == 1
        assert status(service)["heard_by"] == "rescans"
        client.set("a", "two")
        if mode == REPLICA:
            eventually(lambda: service.get("a"), b"one")
        else:
            has(root, "a", b"two")

    def test_nobody_is_told_that_a_key_was_deleted_without_the_counters(
        self, client: Redis, root: Path, both: Both, redis_server: RedisServer
    ) -> None:
        service = both(REDIS_URL=user(client, redis_server, "-info"))
        assert len(service.lines("WARNING", "no key that is missing removes a file")) == 1
        write(root / "a")
        eventually(lambda: service.get("a"), b"one")
        client.delete("a")
        eventually(lambda: service.get("a"), b"one")
        is_there(root, {"a": b"one"})


class TestAFileThatSomebodyHasOpen:
    def commands(self, client: Redis) -> int:
        """Return how many commands the server had got from its clients, but for INFO."""
        counted = client.info("commandstats")
        return sum(each["calls"] for name, each in counted.items() if name != "cmdstat_info")

    def test_is_looked_at_seldom_and_written_when_it_is_closed(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both()
        files = {f"f{number}": b"one" for number in range(20)} | {"large": LARGE}
        client.mset(files)
        is_there(root, files)
        settled(service)
        new = {f"f{number}": b"two" for number in range(20)} | {"large": LARGE[::-1]}
        with ExitStack() as open_files:
            for name in files:
                open_files.enter_context((root / name).open("r+b"))
            client.mset(new)
            beat(service)
            beat(service)
            told, sent = self.commands(client), client.info("stats")["total_net_output_bytes"]
            beat(service)
            assert self.commands(client) - told < 400
            assert client.info("stats")["total_net_output_bytes"] - sent < 5 * len(LARGE)
            assert contents(root) == {name: shortened(value) for name, value in files.items()}
        is_there(root, new)


class TestADiskThatTakesNothing:
    @pytest.fixture
    def small(self, root: Path) -> object:
        with mounted(*TMPFS, "-o", "size=3m", root):
            yield

    @only_root
    @pytest.mark.usefixtures("small")
    @pytest.mark.parametrize("mode", [SAFE, FROM_REDIS])
    def test_as_it_is_full(self, client: Redis, root: Path, both: Both, mode: str) -> None:
        service = both(mode)
        client.set("large", LARGE * 5)
        why = "cannot be written (No space left on device): the file stays as it is; tried again"
        eventually(lambda: skipped(service), {"large": why})
        client.set("small", "one")
        is_there(root, {"small": b"one"})
        service.health()
        client.set("large", LARGE)
        is_there(root, {"small": b"one", "large": LARGE})
        eventually(lambda: skipped(service), {})
        assert len(service.lines("ERROR")) == 1

    @only_root
    @pytest.mark.usefixtures("small")
    def test_as_it_may_only_be_read(self, client: Redis, root: Path, both: Both) -> None:
        service = both()
        client.set("a", "one")
        is_there(root, {"a": b"one"})
        values = {"a": b"two", "small": b"new", "large": LARGE}
        remount(root, "ro")
        client.mset(values)
        eventually(lambda: skipped(service).keys(), values.keys())
        beat(service)
        assert contents(root) == {"a": b"one"}
        assert len(service.lines("ERROR")) == 3
        assert service.health()[0] == 0
        remount(root, "rw")
        client.mset(values)
        is_there(root, values)
        eventually(lambda: skipped(service), {})

    @only_root
    def test_keeps_no_others_from_being_followed_however_many_it_does_not_take(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        (root / "ro").mkdir()
        with mounted(*TMPFS, root / "ro"):
            service = both(SYNC_TREE="1")
            remount(root / "ro", "ro")
            client.mset({f"ro/{number}": "x" for number in range(2000)})
            eventually(lambda: status(service)["skipped_count"] > 1500, True)
            client.set("a", "one")
            is_there(root, {"a": b"one"})
            client.delete("a")
            is_there(root, {})
            stop(service)


def remount(path: Path, option: str) -> None:
    subprocess.run(("mount", "-o", f"remount,{option}", path), check=True)


def test_nothing_is_forgotten_of_more_names_than_are_remembered(
    client: Redis, root: Path, both: Both
) -> None:
    service = both()
    with service.paused():
        client.mset({f"left-{number}": "x" for number in range(100)})
        for first in range(0, 260_000, 2000):
            names = {f"k{number}": "" for number in range(first, first + 2000)}
            client.pipeline(transaction=False).mset(names).delete(*names).execute()
    eventually(lambda: service.says("others change more keys than can be followed"), True)
    is_there(root, {f"left-{number}": b"x" for number in range(100)})


def test_little_is_written_in_a_directory_that_has_left(
    client: Redis, root: Path, outside: Path, both: Both
) -> None:
    service = both(FROM_REDIS, SYNC_TREE="1")
    (root / "d").mkdir()
    settled(service)
    files = {f"d/{number}": b"one" for number in range(700)}
    client.mset(files)
    while len(os.listdir(root / "d")) < 100:
        pass
    with service.paused():
        eventually(lambda: is_stopped(service), True)
        (root / "d").rename(outside / "d")
        before = set(os.listdir(outside / "d"))
    is_there(root, files)
    late = set(os.listdir(outside / "d")) - before
    assert len(late) <= 100


def is_stopped(service: Service) -> bool:
    stat = Path(f"/proc/{service.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def test_what_was_written_in_a_directory_that_has_left_is_written_at_its_place(
    client: Redis, root: Path, outside: Path, both: Both
) -> None:
    service = both(FROM_REDIS, SYNC_TREE="1")
    numbers = count()
    for moved in range(10):
        (root / "d/e").mkdir(parents=True, exist_ok=True)
        for _ in range(20):
            client.mset({f"d/{at}": next(numbers) for at in range(50)})
            client.mset({f"d/e/{at}": next(numbers) for at in range(50)})
        (root / "d").rename(outside / f"{moved}")
        client.mset({f"d/{at}": next(numbers) for at in range(50)})
    settled(service)
    is_there(root, {os.fsdecode(name): value for name, value in service.redis.keys().items()})
