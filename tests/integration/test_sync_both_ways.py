"""What changes in Redis becomes a file: the modes of SYNC_MODE that write files."""

from __future__ import annotations

import os
import shutil
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.files import make, write
from integration.ways import (
    BOTH,
    FROM_REDIS,
    MODES,
    RESOLVED,
    SAFE,
    Both,
    contents,
    is_there,
    settled,
    skipped,
)
from support import eventually

from sync.redis.keys import CONFLICTS, LOST, MADE, STATE

if TYPE_CHECKING:
    from integration.conftest import RedisServer, Start
    from integration.ways import Redis

pytestmark = pytest.mark.waits

LARGE = os.urandom((2 << 20) + 3)


@pytest.fixture
def client(redis_server: RedisServer) -> Redis:
    return redis_server.client


@pytest.fixture
def both(redis_server: RedisServer, start: Start) -> Both:  # noqa: ARG001
    return Both(start)


class TestFiles:
    @pytest.mark.servers
    @pytest.mark.parametrize("mode", MODES)
    def test_follow_what_others_do_to_keys(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        both(mode)
        client.mset({"a": "one", "b": b"\0\xff", "empty": ""})
        is_there(root, {"a": b"one", "b": b"\0\xff", "empty": b""})
        client.append("a", " more")
        client.setrange("b", 1, "x")
        is_there(root, {"a": b"one more", "b": b"\0x", "empty": b""})
        client.delete("b")
        client.rename("a", "c")
        is_there(root, {"c": b"one more", "empty": b""})

    @pytest.mark.parametrize("mode", MODES)
    def test_are_right_from_the_start(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        client.mset({f"key-{number}": f"{number}" for number in range(2500)})
        both(mode)
        assert contents(root) == {f"key-{number}": b"%d" % number for number in range(2500)}

    @pytest.mark.parametrize("mode", MODES)
    def test_follow_what_was_done_while_the_service_was_down(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        service = both(mode)
        client.mset({"a": "one", "b": "one", "c": "one"})
        is_there(root, dict.fromkeys("abc", b"one"))
        settled(service)
        service.process.kill()
        service.process.wait()
        client.set("a", "two")  # as long as before
        client.delete("b")
        client.rename("c", "d")
        both(mode)
        is_there(root, {"a": b"two", "d": b"one"})

    def test_can_be_large(self, client: Redis, root: Path, both: Both) -> None:
        both()
        client.set("large", LARGE)
        is_there(root, {"large": LARGE})
        client.append("large", "more")
        is_there(root, {"large": LARGE + b"more"})
        client.rename("large", "other")
        is_there(root, {"other": LARGE + b"more"})
        client.delete("other")
        is_there(root, {})

    @pytest.mark.servers
    def test_that_were_renamed_in_redis_are_the_same_files(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both()
        write(root / "a")
        (root / "a").chmod(0o640)
        settled(service)
        before = (root / "a").stat()
        client.rename("a", "b")
        is_there(root, {"b": b"one"})
        after = (root / "b").stat()
        assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (
            before.st_ino,
            before.st_mtime_ns,
            before.st_mode,
        )

    def test_keep_mode_and_owner(self, client: Redis, root: Path, both: Both) -> None:
        write(root / "a")
        (root / "a").chmod(0o600)
        os.chown(root / "a", 1234, 2345)
        both(SYNC_FILE_MODE="0640", SYNC_FILE_OWNER="77:88")
        client.mset({"a": "two", "b": "new"})
        is_there(root, {"a": b"two", "b": b"new"})
        found = {name: (root / name).stat() for name in "ab"}
        assert {
            name: (stat.S_IMODE(has.st_mode), has.st_uid, has.st_gid) for name, has in found.items()
        } == {"a": (0o600, 1234, 2345), "b": (0o640, 77, 88)}

    def test_end_with_the_newline_that_values_lack(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both(SYNC_TRIM_NEWLINE="1")
        (root / "a").write_bytes(b"one\n")
        eventually(lambda: service.get("a"), b"one")
        client.set("a", "two")
        client.set("b", "three")
        is_there(root, {"a": b"two\n", "b": b"three\n"})
        settled(service)
        assert [service.get(name) for name in "ab"] == [b"two", b"three"]

    def test_are_durable_if_asked_for(self, client: Redis, root: Path, both: Both) -> None:
        both(SYNC_FSYNC="1")
        client.set("a", "one")
        is_there(root, {"a": b"one"})


class TestKeys:
    @pytest.mark.parametrize("mode", BOTH)
    def test_follow_files_as_ever(self, root: Path, both: Both, mode: str) -> None:
        service = both(mode)
        make(root, "a", "b")
        (root / "large").write_bytes(LARGE)
        eventually(
            service.redis.keys,
            {b"a": b"content of a", b"b": b"content of b", b"large": LARGE},
        )
        (root / "b").rename(root / "c")
        (root / "a").unlink()
        eventually(service.redis.keys, {b"c": b"content of b", b"large": LARGE})

    def test_are_renamed_with_their_time_to_live(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both()
        client.set("a", "one", ex=1000)
        is_there(root, {"a": b"one"})
        settled(service)
        (root / "a").rename(root / "b")
        eventually(lambda: service.get("b"), b"one")
        assert client.ttl("b") > 900
        (root / "b").write_bytes(b"two")
        eventually(lambda: service.get("b"), b"two")
        assert client.ttl("b") > 900

    def test_a_file_that_is_renamed_when_its_key_has_changed_loses_neither(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both()
        write(root / "a")
        settled(service)
        with service.paused():
            client.set("a", "theirs")
            (root / "a").rename(root / "b")
        eventually(lambda: service.get("b"), b"one")
        eventually(lambda: client.hkeys(CONFLICTS), [b"a"])
        assert service.get("a") == b"theirs"

    def test_redis_to_disk_undoes_what_is_done_to_files(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        both(FROM_REDIS)
        client.mset({"a": "one", "b": "one", "c": "one"})
        is_there(root, dict.fromkeys("abc", b"one"))
        write(root / "a", "changed")
        (root / "b").unlink()
        (root / "c").rename(root / "d")
        is_there(root, {**dict.fromkeys("abc", b"one"), "d": b"one"})
        assert client.mget("a", "b", "c") == [b"one"] * 3
        assert client.exists("d") == 0


class TestConflicts:
    @pytest.mark.parametrize("what", ["changed", "removed on disk", "removed in Redis"])
    def test_stay_as_they_are_until_somebody_decides(
        self, client: Redis, root: Path, both: Both, what: str
    ) -> None:
        service = both()
        write(root / "a")
        settled(service)
        with service.paused():
            client.set("a", "theirs")
            if what == "removed on disk":
                (root / "a").unlink()
            else:
                write(root / "a", "ours")
            if what == "removed in Redis":
                client.delete("a")
        eventually(lambda: client.hkeys(CONFLICTS), [b"a"])
        settled(service)
        on_disk = {} if what == "removed on disk" else {"a": b"ours"}
        in_redis = None if what == "removed in Redis" else b"theirs"
        assert (contents(root), service.get("a")) == (on_disk, in_redis)

    def test_end_when_both_sides_become_equal(self, client: Redis, root: Path, both: Both) -> None:
        service = both()
        with service.paused():
            client.set("a", "theirs")
            write(root / "a", "ours")
        eventually(lambda: client.hkeys(CONFLICTS), [b"a"])
        write(root / "a", "theirs")
        eventually(lambda: client.hkeys(CONFLICTS), [])
        client.set("a", "new")
        is_there(root, {"a": b"new"})

    def test_are_still_known_to_the_next_service(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both()
        with service.paused():
            client.set("a", "theirs")
            write(root / "a", "ours")
        eventually(lambda: client.hkeys(CONFLICTS), [b"a"])
        service.process.kill()
        service.process.wait()
        service = both()
        settled(service)
        assert client.hkeys(CONFLICTS) == [b"a"]
        assert (contents(root), service.get("a")) == ({"a": b"ours"}, b"theirs")

    @pytest.mark.parametrize("theirs", [b"theirs", LARGE], ids=["small", "large"])
    def test_where_the_disk_wins_the_loser_is_kept(
        self, client: Redis, root: Path, both: Both, theirs: bytes
    ) -> None:
        service = both(RESOLVED)
        write(root / "a")
        settled(service)
        with service.paused():
            client.set("a", theirs)
            write(root / "a", "ours")
        eventually(lambda: service.get("a"), b"ours")
        eventually(lambda: client.get(LOST + b"/1"), theirs)
        assert contents(root) == {"a": b"ours"}

    def test_one_way_safe_overwrites_nothing(self, client: Redis, root: Path, both: Both) -> None:
        make(root, "a", "b", "c")
        service = both("one-way-safe")
        client.set("a", "theirs")
        client.delete("b")
        eventually(lambda: service.get("b"), b"content of b")  # nothing was there to overwrite
        eventually(lambda: client.hkeys(CONFLICTS), [b"a"])
        write(root / "a", "ours")
        client.set("foreign", "x")
        write(root / "c", "ours")
        eventually(lambda: service.get("c"), b"ours")
        assert client.mget("a", "foreign") == [b"theirs", b"x"]
        assert contents(root) == {"a": b"ours", "b": b"content of b", "c": b"ours"}

    def test_one_way_safe_brings_a_file_when_what_was_in_its_place_is_gone(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        client.hset("left", "a", "b")
        client.set("conflict", "theirs")
        service = both("one-way-safe")
        make(root, "left", "conflict")
        eventually(lambda: client.hkeys(CONFLICTS), [b"conflict"])
        eventually(lambda: set(skipped(service)), {"left"})
        client.delete("left", "conflict")
        eventually(
            service.redis.keys,
            {b"left": b"content of left", b"conflict": b"content of conflict"},
        )
        eventually(lambda: (client.hkeys(CONFLICTS), skipped(service)), ([], {}))

    def test_one_way_safe_has_no_conflict_about_what_is_gone(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        client.set("a", "theirs")
        service = both("one-way-safe")
        write(root / "a", "ours")
        eventually(lambda: client.hkeys(CONFLICTS), [b"a"])
        with service.paused():
            (root / "a").unlink()
        make(root, "b")
        eventually(lambda: service.get("b"), b"content of b")
        client.delete("a")
        eventually(lambda: client.hkeys(CONFLICTS), [])


class TestWhatIsNobodysWish:
    @pytest.mark.servers
    def test_a_key_that_expires_takes_its_file_along(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        both()
        client.set("a", "one", px=300)
        client.set("b", "one")
        is_there(root, {"a": b"one", "b": b"one"})
        is_there(root, {"b": b"one"})

    def test_or_not(self, client: Redis, root: Path, both: Both) -> None:
        service = both(SYNC_EXPIRE="keep")
        client.set("a", "one", px=300)
        is_there(root, {"a": b"one"})
        eventually(lambda: client.pttl("a"), -1)  # it was brought again
        assert service.get("a") == b"one"
        # And what somebody deletes goes, once it is known that nothing else has expired.
        client.set("b", "one")
        is_there(root, dict.fromkeys("ab", b"one"))

        def gone() -> bool:
            client.delete("b")
            return not (root / "b").exists()

        eventually(gone, True, 15)

    @pytest.mark.servers
    @pytest.mark.parametrize("mode", MODES)
    def test_an_eviction_removes_no_file(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        service = both(mode)
        names = [f"key-{number}" for number in range(300)]
        client.mset(dict.fromkeys(names, b"x" * 1000))
        eventually(lambda: len(contents(root)), 300)
        settled(service)
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", used - 50_000)
        eventually(lambda: client.info("stats")["evicted_keys"] > 0, True)
        client.config_set("maxmemory", 0)
        marker = "x" * 7
        client.set("marker", marker)
        eventually((root / "marker").exists, True, 15)
        assert contents(root).keys() >= set(names)
        if mode != FROM_REDIS:
            eventually(lambda: client.exists(*names), 300, 15)

    @pytest.mark.parametrize("mode", MODES)
    def test_nor_does_a_flush(self, client: Redis, root: Path, both: Both, mode: str) -> None:
        service = both(mode)
        client.mset({"a": "one", "b": "two"})
        is_there(root, {"a": b"one", "b": b"two"})
        client.flushall()
        eventually(lambda: len(service.lines(" equals ")), 2)
        assert contents(root) == {"a": b"one", "b": b"two"}
        if mode != FROM_REDIS:
            assert client.mget("a", "b") == [b"one", b"two"]

    @pytest.mark.servers
    def test_nor_a_server_that_comes_back_empty(
        self, client: Redis, root: Path, both: Both, redis_server: RedisServer
    ) -> None:
        service = both()
        client.mset({"a": "one", "b": "two"})
        is_there(root, {"a": b"one", "b": b"two"})
        redis_server.kill()
        redis_server.start()
        eventually(service.redis.keys, {b"a": b"one", b"b": b"two"})
        assert contents(root) == {"a": b"one", "b": b"two"}

    def test_an_older_server_takes_over_what_the_disk_has(
        self, client: Redis, root: Path, both: Both, redis_server: RedisServer
    ) -> None:
        service = both()
        client.mset({"a": "one", "b": "one", "c": "one"})
        is_there(root, dict.fromkeys("abc", b"one"))
        settled(service)
        client.save()
        client.set("a", "two")
        client.delete("b")
        client.set("d", "two")
        is_there(root, {"a": b"two", "c": b"one", "d": b"two"})
        settled(service)
        redis_server.kill()
        redis_server.start()
        eventually(lambda: len(service.lines(" equals ")), 2)
        assert contents(root) == {"a": b"two", "c": b"one", "d": b"two"}
        assert service.redis.keys() == {b"a": b"two", b"c": b"one", b"d": b"two"}


class TestNames:
    @pytest.mark.parametrize("mode", [f"{mode}, {tree}" for mode in MODES for tree in "01"])
    def test_that_cannot_be_files_are_left_alone(
        self, client: Redis, root: Path, outside: Path, both: Both, mode: str
    ) -> None:
        service = both(mode[:-3], SYNC_TREE=mode[-1])
        make(outside, "secret")
        odd = [
            *(b"", b".", b"..", b"a\0b", b"x" * 256, b"/etc", b"../outside/new", b"a/", b"a//b"),
            *(b"../outside/secret", b"a/../b", b".mdvp-sync-0123456789abcdef~", b"a/./b"),
            *(b"../" * 50 + b"tmp/x", b"d/" * 3000 + b"x"),
        ]
        client.mset(dict.fromkeys(odd, b"theirs"))
        client.set("good", "one")
        settled(service)
        is_there(root, {"good": b"one"})
        assert contents(outside) == {"secret": b"content of secret"}
        assert client.mget(odd) == [b"theirs"] * len(odd)
        eventually(lambda: service.health()[0], 0)

    def test_of_another_type_are_left_alone(self, client: Redis, root: Path, both: Both) -> None:
        service = both()
        write(root / "a")
        client.hset("hash", "field", "value")
        client.lpush("list", "x")
        settled(service)
        client.delete("a")
        is_there(root, {})
        client.lpush("a", "x")
        write(root / "a", "ours")
        settled(service)
        assert contents(root) == {"a": b"ours"}
        assert [client.type(name) for name in ("hash", "list", "a")] == [b"hash", b"list", b"list"]
        assert len(service.lines("hash is no string")) == 1

    def test_that_are_left_out_stay_so(self, client: Redis, root: Path, both: Both) -> None:
        service = both(SYNC_EXCLUDE="*.tmp")
        client.mset({"a.tmp": "x", "b": "y"})
        settled(service)
        assert contents(root) == {"b": b"y"}

    def test_with_a_prefix_all_others_are_nobodys(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both(SYNC_PREFIX="app[1]:")
        client.mset({"app[1]:a": "one", "app1:b": "two", "c": "three"})
        is_there(root, {"a": b"one"})
        write(root / "d")
        eventually(lambda: service.get("app[1]:d"), b"one")
        client.delete("app[1]:a")
        is_there(root, {"d": b"one"})
        assert client.mget("app1:b", "c") == [b"two", b"three"]

    def test_that_another_service_works_on_too_are_refused(
        self, client: Redis, root: Path, outside: Path, both: Both, start: Start
    ) -> None:
        # The other may not look whether there is a lease for keys that are not its own.
        client.acl_setuser(
            "app", enabled=True, nopass=True, keys=["app:*"], categories=["+@all"], channels=["*"]
        )
        service = both()
        url = service.redis.url.replace("unix://", "unix://app:none@")
        start(
            in_step=True,
            SYNC_PREFIX="app:",
            SYNC_MODE=SAFE,
            SYNC_ROOT=str(outside),
            REDIS_URL=url,
        )
        words = "another mdvp-sync has keys that begin with app:"
        eventually(lambda: service.says(words), True)
        assert client.exists("app:a") == 0
        assert contents(root) == {}


class TestATree:
    def test_directories_come_and_go_with_their_keys(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both(SYNC_TREE="1")
        make(root, "ours/a")
        settled(service)
        client.mset({"d/e/f": "one", "d/g": "two", "ours/b": "three"})
        is_there(
            root,
            {"d/e/f": b"one", "d/g": b"two", "ours/a": b"content of ours/a", "ours/b": b"three"},
        )
        client.delete("d/e/f", "d/g", "ours/a", "ours/b")
        eventually(lambda: sorted(path.name for path in root.iterdir()), ["ours"])
        eventually(lambda: client.hkeys(MADE), [])

    def test_and_after_the_service_was_started_anew(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both(SYNC_TREE="1")
        client.set("d/e", "one")
        is_there(root, {"d/e": b"one"})
        settled(service)
        service.process.kill()
        service.process.wait()
        client.delete("d/e")
        both(SYNC_TREE="1")
        eventually(lambda: list(root.iterdir()), [])

    @pytest.mark.parametrize("is_restarted", [False, True])
    def test_loses_no_directory_that_somebody_has_made_where_the_service_had_one(
        self, client: Redis, root: Path, both: Both, *, is_restarted: bool
    ) -> None:
        service = both(SYNC_TREE="1")
        client.set("d/e", "one")
        is_there(root, {"d/e": b"one"})
        settled(service)
        if is_restarted:
            service.process.kill()
            service.process.wait()
        shutil.rmtree(root / "d")
        (root / "d").mkdir()
        if is_restarted:
            service = both(SYNC_TREE="1")
        eventually(lambda: service.get("d/e"), None)
        client.set("d/f", "one")
        is_there(root, {"d/f": b"one"})
        client.delete("d/f")
        is_there(root, {})
        eventually(lambda: client.hkeys(MADE), [])
        assert (root / "d").is_dir()

    def test_forgets_a_directory_that_is_gone(self, client: Redis, root: Path, both: Both) -> None:
        both(SYNC_TREE="1")
        client.set("d/e", "one")
        is_there(root, {"d/e": b"one"})
        eventually(lambda: client.hkeys(MADE), [b"d/"])
        shutil.rmtree(root / "d")
        eventually(lambda: client.hkeys(MADE), [])

    def test_keeps_a_directory_that_somebody_empties_until_redis_does(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both(SYNC_TREE="1")
        client.set("d/e", "one")
        is_there(root, {"d/e": b"one"})
        settled(service)
        (root / "d/e").unlink()
        eventually(lambda: service.get("d/e"), None)
        settled(service)
        write(root / "d/e", "two")
        eventually(lambda: service.get("d/e"), b"two")
        client.delete("d/e")
        eventually(lambda: list(root.iterdir()), [])

    def test_a_name_is_a_file_or_a_directory(self, client: Redis, root: Path, both: Both) -> None:
        service = both(SYNC_TREE="1")
        client.set("a", "file")
        is_there(root, {"a": b"file"})
        client.set("a/b", "below")
        settled(service)
        assert contents(root) == {"a": b"file"}
        assert client.mget("a", "a/b") == [b"file", b"below"]
        client.set("d/e", "below")
        is_there(root, {"a": b"file", "d/e": b"below"})
        client.set("d", "file")
        settled(service)
        assert contents(root) == {"a": b"file", "d/e": b"below"}
        assert client.get("d") == b"file"

    @pytest.mark.servers
    def test_a_directory_that_moves_takes_its_keys_along(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both(SYNC_TREE="1")
        client.mset({f"d/{number}": f"{number}" for number in range(50)})
        eventually(lambda: len(contents(root)), 50)
        settled(service)
        (root / "d").rename(root / "e")
        eventually(service.redis.keys, {b"e/%d" % n: b"%d" % n for n in range(50)})

    def test_no_link_is_followed(
        self, client: Redis, root: Path, outside: Path, both: Both
    ) -> None:
        make(outside, "a")
        (root / "d").symlink_to(outside)
        (root / "l").symlink_to(outside / "a")
        service = both(SYNC_TREE="1")
        client.mset({"d/a": "theirs", "d/b": "theirs", "l": "theirs"})
        settled(service)
        assert contents(outside) == {"a": b"content of a"}
        assert (root / "l").is_symlink()


class TestANameThatWasInTheWay:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("how", ["in Redis", "renamed in Redis", "on disk", "renamed on disk"])
    def test_gives_way_when_it_was_a_file(
        self, client: Redis, root: Path, both: Both, mode: str, how: str
    ) -> None:
        service = both(mode, SYNC_TREE="1")
        client.set("a", "file")
        is_there(root, {"a": b"file"})
        client.mset({"a/b": "below", "a/c/d": "deep"})
        eventually(lambda: service.says("a/b ", "stays without a file"), True)
        settled(service)
        left = {"a/b": b"below", "a/c/d": b"deep"}
        if how == "in Redis":
            client.delete("a")
        elif how == "renamed in Redis":
            client.rename("a", "z")
            left["z"] = b"file"
        elif mode == FROM_REDIS:
            return  # there the file is written again
        elif how == "on disk":
            (root / "a").unlink()
        else:
            (root / "a").rename(root / "z")
            left["z"] = b"file"
        is_there(root, left)
        eventually(lambda: skipped(service), {})

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("how", ["in Redis", "on disk", "renamed on disk"])
    def test_gives_way_when_it_was_a_directory(
        self, client: Redis, root: Path, both: Both, mode: str, how: str
    ) -> None:
        service = both(mode, SYNC_TREE="1")
        client.set("c/d", "below")
        is_there(root, {"c/d": b"below"})
        client.set("c", "file")
        eventually(lambda: service.says("c is a directory"), True)
        settled(service)
        left = {"c": b"file"}
        if how == "in Redis":
            client.delete("c/d")
        elif mode == FROM_REDIS:
            return
        elif how == "on disk":
            shutil.rmtree(root / "c")
        else:
            (root / "c").rename(root / "z")
            left["z/d"] = b"below"
        is_there(root, left)
        eventually(lambda: skipped(service), {})

    @pytest.mark.parametrize("is_tree", ["0", "1"])
    def test_is_listed_no_longer_than_it_is_there(
        self, client: Redis, both: Both, is_tree: str
    ) -> None:
        service = both(SYNC_TREE=is_tree)
        names = {"", ".", "..", "d/.", "d/..", "./d", "n\0l"}
        client.mset(dict.fromkeys(names, "x"))
        eventually(lambda: len(skipped(service)), len(names))
        client.delete(*names)
        eventually(lambda: skipped(service), {})


class TestAtRest:
    @pytest.mark.parametrize("mode", MODES)
    def test_nothing_goes_to_and_fro(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        service = both(mode)
        client.mset({f"key-{number}": "one" for number in range(20)})
        eventually(lambda: len(contents(root)), 20)
        settled(service)

        def work() -> None:
            client.set("a", "one")
            eventually((root / "a").exists, True)
            settled(service)

        seen = service.redis.commands(work)
        assert not any(" key-" in each for each in seen)
        assert sum(each.startswith("MGET a") for each in seen) <= 3
        assert sum("SET a " in each for each in seen) == 1

    @pytest.mark.parametrize("mode", BOTH)
    def test_a_key_that_never_rests_makes_no_conflict(
        self, client: Redis, root: Path, both: Both, mode: str
    ) -> None:
        service = both(mode)
        for _ in range(3000):
            client.incr("counter")
        is_there(root, {"counter": b"3000"})
        settled(service)
        assert client.hkeys(CONFLICTS) == []
        assert client.exists(LOST) == 0

    def test_the_files_are_not_read_again_after_a_restart(
        self, client: Redis, root: Path, both: Both
    ) -> None:
        service = both()
        client.set("a", "one")
        is_there(root, {"a": b"one"})
        entry = partial(client.hget, "/mdvp-sync/manifest", "a")
        eventually(lambda: entry()[24:32] != b"\0" * 7 + b"\x80", True)
        settled(service)


class TestTheState:
    def test_is_remembered(self, client: Redis, both: Both) -> None:
        both()
        assert {b"directory", b"server", b"evicted", b"expired"} < set(client.hkeys(STATE))
