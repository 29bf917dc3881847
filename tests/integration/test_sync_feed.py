"""The stream of changes: what is told of each kind of change, and when it begins anew."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from integration.conftest import SYNC
from integration.files import write
from integration.picture import Picture
from integration.ways import (
    MODES,
    REPLICA,
    SAFE,
    beat,
    settled,
    skipped,
    stop,
)
from support import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start
    from integration.ways import Redis

pytestmark = pytest.mark.waits

LARGE = os.urandom((2 << 20) + 3)
FEED = "/mdvp-sync/feed"
STREAM = "changes"


@pytest.fixture
def client(redis_server: RedisServer) -> Redis:
    return redis_server.client


@pytest.fixture
def picture(client: Redis) -> Picture:
    return Picture(client)


@pytest.fixture
def feed(redis_server: RedisServer, start: Start) -> Feed:  # noqa: ARG001
    return Feed(start)


class Feed:
    """Starts services with a stream, that are not helped by rescans."""

    def __init__(self, start: Start) -> None:
        self._start = start

    def __call__(
        self, mode: str = REPLICA, *, in_step: bool = True, stream: str = STREAM, **environ: str
    ) -> Service:
        settings = {"SYNC_RESCAN": "0", "SYNC_MODE": mode, "SYNC_STREAM": stream, **environ}
        return self._start(in_step=in_step, **settings)


def sizes(root: Path) -> dict[bytes, int]:
    """Return the files below the root, with how many bytes each has."""
    return {
        bytes(path.relative_to(root)): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file()
    }


class TestWhatIsTold:
    def test_is_what_was_done(self, root: Path, feed: Feed, picture: Picture) -> None:
        feed()
        picture.tells("reset", "begin start", "ready")
        write(root / "a")
        picture.tells("set a 3")
        (root / "a").rename(root / "b")
        picture.tells("rename a b 3")
        (root / "b").unlink()
        picture.tells("del b")
        assert picture.gaps == 0

    def test_has_a_cause_where_a_session_begins(
        self, root: Path, feed: Feed, client: Redis, picture: Picture
    ) -> None:
        feed()
        picture.shows({})
        client.client_kill_filter(_type="normal", skipme=True)
        picture.tells("begin Redis was away")
        write(root / "a")
        picture.shows({b"a": 3})
        assert picture.gaps == 0

    def test_is_in_the_transaction_that_did_it(
        self, root: Path, feed: Feed, redis_server: RedisServer
    ) -> None:
        service = feed()

        def work() -> None:
            write(root / "a")
            eventually(lambda: service.get("a"), b"one")

        commands = [each.split()[0] for each in redis_server.commands(work)]
        begins, ends = commands.index("MULTI"), commands.index("EXEC")
        assert {"MSET", "XADD"} <= set(commands[begins:ends])

    def test_makes_sense_when_names_trade_places(
        self, root: Path, feed: Feed, picture: Picture
    ) -> None:
        service = feed()
        write(root / "a")
        (root / "b").write_bytes(b"longer")
        picture.shows({b"a": 3, b"b": 6})
        beat(service)
        beat(service)
        picture.told.clear()
        with service.paused():
            (root / "a").rename(root / "c")
            (root / "b").rename(root / "a")
            (root / "c").rename(root / "b")
        picture.shows({b"a": 6, b"b": 3})
        assert {op for op, _ in picture.told} == {"set"}
        assert picture.gaps == 0

    def test_is_of_large_files_too(self, root: Path, feed: Feed, picture: Picture) -> None:
        feed()
        (root / "large").write_bytes(LARGE)
        picture.shows({b"large": len(LARGE)})

    def test_is_of_a_tree(self, root: Path, feed: Feed, client: Redis) -> None:
        (root / "d").mkdir()
        write(root / "d" / "a")
        feed(SYNC_TREE="1", SYNC_PREFIX="app:", stream="the/changes")
        picture = Picture(client, "app:the/changes")
        picture.shows({b"d/a": 3})
        (root / "d").rename(root / "e")
        picture.shows({b"e/a": 3})
        client.hdel("app:" + FEED, "run")
        picture.begins_anew({b"e/a": 3})

    @pytest.mark.parametrize("mode", MODES)
    def test_is_of_what_comes_from_redis(
        self, client: Redis, root: Path, feed: Feed, picture: Picture, mode: str
    ) -> None:
        service = feed(mode)
        client.mset({"a": "one", "b": "four", "large": LARGE})
        picture.shows({b"a": 3, b"b": 4, b"large": len(LARGE)})
        client.delete("b")
        client.rename("a", "c")
        picture.shows({b"c": 3, b"large": len(LARGE)})
        ((first, _),) = client.xrange(STREAM, count=1)
        client.xdel(STREAM, first)  # it is heard of, and nothing to be looked at
        settled(service)
        beat(service)
        assert picture.read() == sizes(root)
        assert picture.gaps == 0
        assert skipped(service) == {}

    @pytest.mark.parametrize("mode", [REPLICA, SAFE])
    def test_is_told_once(self, root: Path, feed: Feed, picture: Picture, mode: str) -> None:
        service = feed(mode)
        picture.tells("reset", "begin start", "ready")
        write(root / "a")
        picture.shows({b"a": 3})
        picture.told.clear()
        beat(service)
        beat(service)  # by then its entry was made sure
        assert picture.lines() == []


class TestTheStreamBeginsAnew:
    """And what is told then is all that there is, whatever was told before."""

    @pytest.fixture
    def service(self, root: Path, feed: Feed, picture: Picture) -> Service:
        write(root / "a")
        service = feed()
        picture.shows({b"a": 3})
        return service

    def test_after_it_was_flushed(self, service: Service, client: Redis, picture: Picture) -> None:
        client.flushall()
        eventually(lambda: service.get("a"), b"one")
        # What it tells before the first look at the directory is that there is nothing.
        picture = Picture(client)
        picture.shows({b"a": 3})
        words = [op for op, _ in picture.told]
        assert words[:2] == ["reset", "begin"]
        assert picture.told[1][1]["cause"] == b"Redis was changed"

    def test_after_it_was_deleted(self, service: Service, client: Redis, picture: Picture) -> None:
        client.delete(STREAM)
        eventually(lambda: client.exists(STREAM), 1)
        anew = Picture(client)
        anew.shows({b"a": 3})
        assert [op for op, _ in anew.told] == ["reset", "set", "ready"]
        # Who has read on knows as much.
        picture.begins_anew({b"a": 3})
        assert service.process.poll() is None

    @pytest.mark.usefixtures("service")
    def test_when_what_was_added_last_is_not_the_last(
        self, client: Redis, picture: Picture
    ) -> None:
        client.xtrim(STREAM, maxlen=0, approximate=False)
        picture.begins_anew({b"a": 3})

    @pytest.mark.usefixtures("service")
    def test_when_somebody_else_adds_to_it(self, client: Redis, picture: Picture) -> None:
        client.xadd(STREAM, {"op": "set", "name": "theirs", "size": 1, "seq": 1})
        picture.begins_anew({b"a": 3})

    @pytest.mark.usefixtures("service")
    def test_when_somebody_else_has_added_to_it_before_the_service(
        self, root: Path, client: Redis, picture: Picture
    ) -> None:
        with client.pipeline() as at_once:
            at_once.xadd(STREAM, {"op": "del", "name": "a", "seq": 1})
            at_once.execute()
        write(root / "b")
        picture.begins_anew({b"a": 3, b"b": 3})

    def test_after_it_was_deleted_and_added_to_by_the_service(
        self, root: Path, service: Service, client: Redis
    ) -> None:
        client.delete(STREAM)
        write(root / "b")
        eventually(lambda: service.get("b"), b"one")
        Picture(client).begins_anew({b"a": 3, b"b": 3})

    def test_after_an_entry_of_no_number(self, service: Service, client: Redis) -> None:
        client.xadd(STREAM, {"op": "set", "name": "theirs", "size": 1, "seq": "9" * 5000})
        eventually(lambda: client.xrevrange(STREAM, count=1)[0][1][b"op"], b"ready")
        assert service.process.poll() is None

    @pytest.mark.usefixtures("service")
    def test_when_a_consumer_asks_for_it(self, client: Redis, picture: Picture) -> None:
        client.hdel(FEED, "run")
        picture.begins_anew({b"a": 3})
        assert picture.gaps == 0

    @pytest.mark.usefixtures("service")
    def test_after_the_server_was_started_anew(
        self, redis_server: RedisServer, client: Redis
    ) -> None:
        redis_server.kill()
        redis_server.start()
        picture = Picture(client)
        picture.shows({b"a": 3})
        assert [op for op, _ in picture.told][:2] == ["reset", "begin"]

    def test_where_the_server_has_what_it_had_but_is_another_run(
        self, service: Service, root: Path, feed: Feed, redis_server: RedisServer, place: Path
    ) -> None:
        stop(service)
        redis_server.client.config_set("appendonly", "yes")
        persisted = "aof_last_bgrewrite_status"
        eventually(lambda: _info(redis_server, "aof_rewrite_in_progress"), 0)
        assert _info(redis_server, persisted) == "ok"
        redis_server.kill()
        redis_server.start("--appendonly", "yes")
        assert list(place.glob("appendonlydir"))
        picture = Picture(redis_server.client)
        assert picture.read() == {b"a": 3}
        write(root / "b")
        feed()
        picture.begins_anew({b"a": 3, b"b": 3})

    def test_when_there_was_a_service_without_it(
        self, service: Service, root: Path, feed: Feed, start: Start, picture: Picture
    ) -> None:
        stop(service)
        (root / "a").rename(root / "b")
        other = start(in_step=True)
        stop(other)
        feed()
        picture.begins_anew({b"b": 3})

    def test_under_another_name(
        self, service: Service, root: Path, feed: Feed, client: Redis, picture: Picture
    ) -> None:
        stop(service)
        other = feed(stream="others")
        Picture(client, "others").shows({b"a": 3})
        (root / "a").unlink()
        Picture(client, "others").shows({})
        stop(other)
        feed()
        picture.begins_anew({})

    def test_when_the_service_was_killed_while_it_did(
        self, service: Service, client: Redis, feed: Feed, picture: Picture
    ) -> None:
        stop(service)
        client.hset(FEED, "partial", "1")
        feed()
        picture.begins_anew({b"a": 3})
        assert client.hget(FEED, "partial") is None

    def test_after_a_repair(
        self, service: Service, root: Path, client: Redis, picture: Picture
    ) -> None:
        with service.paused():
            client.delete("a")
            done = subprocess.run(
                (*SYNC, "verify", "--repair"),
                env=service.environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        picture.begins_anew({b"a": 3})
        assert sizes(root) == {b"a": 3}

    def test_after_keys_were_removed_without_memory(
        self, service: Service, root: Path, client: Redis, picture: Picture
    ) -> None:
        client.config_set("maxmemory", 1)
        (root / "a").unlink()
        eventually(lambda: service.get("a"), None)
        assert picture.read() == {b"a": 3}
        client.config_set("maxmemory", 0)
        picture.begins_anew({})


class TestTheKey:
    def test_is_left_alone_where_it_is_somebodys(
        self, root: Path, feed: Feed, client: Redis, picture: Picture
    ) -> None:
        client.set(STREAM, "theirs")
        service = feed()
        write(root / "a")
        eventually(lambda: service.get("a"), b"one")
        assert client.get(STREAM) == b"theirs"
        eventually(lambda: "WRONGTYPE" in skipped(service).get(STREAM, ""), True)
        assert len(service.lines("stands still")) == 1
        client.delete(STREAM)
        picture.shows({b"a": 3})
        eventually(lambda: skipped(service), {})

    @pytest.mark.parametrize("stream", [STREAM, ""])
    def test_has_no_notes_where_these_are_somebodys(
        self, root: Path, start: Start, client: Redis, picture: Picture, stream: str
    ) -> None:
        client.set(FEED, "theirs")
        service = start(SYNC_STREAM=stream) if stream else start()
        write(root / "a")
        eventually(lambda: service.get("a"), b"one")
        assert client.get(FEED) == b"theirs"
        if stream:
            eventually(lambda: "WRONGTYPE" in skipped(service).get(STREAM, ""), True)
            client.delete(FEED)
            picture.shows({b"a": 3})

    def test_is_missed_when_somebody_takes_it(
        self, root: Path, feed: Feed, client: Redis, picture: Picture
    ) -> None:
        service = feed()
        write(root / "a")
        picture.shows({b"a": 3})
        client.rename(STREAM, "aside")
        client.set(STREAM, "theirs")
        write(root / "b")
        eventually(lambda: service.get("b"), b"one")
        eventually(lambda: "WRONGTYPE" in skipped(service).get(STREAM, ""), True)
        stop(service)
        client.rename("aside", STREAM)  # as if nothing had happened
        feed()
        picture.begins_anew({b"a": 3, b"b": 3})

    @pytest.mark.parametrize("mode", [REPLICA, SAFE])
    def test_that_the_user_may_not_use_is_named(
        self, root: Path, feed: Feed, redis_server: RedisServer, picture: Picture, mode: str
    ) -> None:
        client: Redis = redis_server.client
        client.acl_setuser(
            "most", enabled=True, nopass=True, keys=["*"], categories=["+@all"], channels=["*"]
        )
        service = feed(mode, REDIS_URL=redis_server.url.replace("unix://", "unix://most:x@"))
        picture.shows({})
        client.execute_command("ACL", "SETUSER", "most", "-xadd")
        write(root / "a")
        eventually(lambda: service.get("a"), b"one")
        eventually(lambda: "xadd" in skipped(service).get(STREAM, ""), True)
        assert len(skipped(service)) == 1
        client.execute_command("ACL", "SETUSER", "most", "+xadd")
        picture.begins_anew({b"a": 3})
        eventually(lambda: skipped(service), {})

    @pytest.mark.parametrize("mode", [REPLICA, SAFE])
    def test_is_no_files(
        self, root: Path, feed: Feed, client: Redis, picture: Picture, mode: str
    ) -> None:
        write(root / STREAM)
        service = feed(mode)
        write(root / "a")
        picture.shows({b"a": 3})
        eventually(lambda: "SYNC_STREAM" in skipped(service).get(STREAM, ""), True)
        write(root / STREAM, "two")
        write(root / "b")
        picture.shows({b"a": 3, b"b": 3})
        (root / STREAM).unlink()
        eventually(lambda: skipped(service), {})
        assert client.type(STREAM) == b"stream"

    def test_that_a_file_had_before_is_given_up(
        self, root: Path, feed: Feed, start: Start, picture: Picture
    ) -> None:
        write(root / STREAM)
        write(root / "a")
        stop(start(in_step=True))
        service = feed()
        picture.shows({b"a": 3})
        eventually(lambda: "SYNC_STREAM" in skipped(service).get(STREAM, ""), True)
        assert sizes(root) == {b"a": 3, STREAM.encode(): 3}

    def test_that_a_file_had_in_both_ways_is_left_to_somebody(
        self, root: Path, feed: Feed, start: Start, client: Redis, picture: Picture
    ) -> None:
        write(root / STREAM)
        stop(start(in_step=True, SYNC_MODE=SAFE))
        client.set(STREAM, "newer")
        service = feed(SAFE)
        eventually(lambda: "WRONGTYPE" in skipped(service).get(STREAM, ""), True)
        assert client.get(STREAM) == b"newer"
        client.delete(STREAM)
        picture.shows({})
        assert sizes(root) == {STREAM.encode(): 3}


def test_keeps_as_many_entries_as_it_is_told(
    root: Path, feed: Feed, client: Redis, picture: Picture
) -> None:
    for number in range(150):
        write(root / f"{number}")
    feed(SYNC_STREAM_MAXLEN="10")
    everything = {b"%d" % number: 3 for number in range(150)}
    picture.shows(everything)
    for size in range(10):
        for number in range(150):
            (root / f"{number}").write_bytes(b"." * size)
        picture.shows(dict.fromkeys(everything, size))
    # A hundred are kept or dropped together; and all that there is has to have room.
    assert 300 <= client.xlen(STREAM) <= 400 + 200
    client.hdel(FEED, "run")
    Picture(client).begins_anew(dict.fromkeys(everything, 9))


def _info(server: RedisServer, name: str) -> object:
    found: dict[str, object] = server.client.info()
    return found[name]
