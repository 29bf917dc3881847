"""What a reader of keys was promised, where it is hard to keep: one broken promise a test.

Nothing here knows how the service works. What it may be seen by is what docs/keys.md tells: files,
keys, `mdvp-sync status`, `mdvp-sync verify`, and that its own keys begin with /mdvp-sync/. Times
are printed, and the bounds on them leave room for a machine that has other work.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import stat
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
import redis
from integration.beholder import Value, beheld
from integration.conftest import POWERLESS, SYNC
from integration.slow_line import slow_line
from support import eventually, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from integration.conftest import RedisServer, Service, Start

MB = 10**6
MIB = 1 << 20
OWN = "/mdvp-sync/"


def status(service: Service) -> dict[str, Any]:
    """Return what `mdvp-sync status --json` says."""
    done = subprocess.run(
        (*SYNC, "status", "--json"), env=service.environ, capture_output=True, check=False
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def verify(service: Service) -> int:
    """Return the exit status of `mdvp-sync verify`."""
    done = subprocess.run((*SYNC, "verify"), env=service.environ, capture_output=True, check=False)
    return done.returncode


def is_live(service: Service) -> bool:
    return bool(status(service)["state"] == "live")


def lists(service: Service, *names: str) -> bool:
    """Say whether the status has a reason why each of these is not mirrored."""
    skipped = status(service)["skipped"] or {}
    return all(skipped.get(name) for name in names)


def touch(path: Path) -> None:
    """Open the file to write and close it, as who wants it looked at again."""
    with path.open("ab"):
        pass


def seconds_of_a_core(pid: int) -> float:
    """Return how long a process has worked: utime and stime of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stay(seconds: float) -> None:
    """Let time pass that is part of the case: somebody takes it."""
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= end, True, seconds + 5)


@contextmanager
def meanwhile(work: Callable[[], object], pause: float) -> Iterator[None]:
    """Do `work` again and again for the time of the block, `pause` seconds apart."""
    over = Event()

    def repeat() -> None:
        while not over.wait(pause):
            work()

    thread = Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def seconds_until(
    client: redis.Redis, name: str, expected: bytes, since: float, deadline: float
) -> float:
    """Return how long after `since` the key had that value; the deadline if it was longer."""
    while client.get(name) != expected and time.monotonic() < since + deadline:
        time.sleep(0.0005)
    return min(deadline, time.monotonic() - since)


def lags(
    service: Service, names: Sequence[str], *, pause: float, too_long: float, deadline: float
) -> list[float]:
    """Change each of these small files, `pause` seconds apart; return how long each takes (s).

    The third that takes too long is the last: there is no need to see more.
    """
    found: list[float] = []
    for number, name in enumerate(names):
        content = b"change %d" % number
        (service.root / name).write_bytes(content)
        now = time.monotonic()
        found.append(seconds_until(service.redis.client, name, content, now, deadline))
        if sum(each >= too_long for each in found) == 3:
            break
        stay(pause)
    median, most = statistics.median(found), max(found)
    print(f"{len(found)} changes: median {median * 1e3:.1f} ms, at most {most * 1e3:.1f} ms")
    return found


def end_transactions(client: redis.Redis) -> int:
    """End the connections over which a transaction has begun; return how many that were."""
    begun = [each["id"] for each in client.client_list() if each["multi"] != "-1"]
    return sum(client.client_kill_filter(_id=each) for each in begun)


def is_quiet(client: redis.Redis) -> bool:
    """Say whether the server gets little, such as questions."""

    def received() -> int:
        return int(client.info("stats")["total_net_input_bytes"])

    before = received()
    stay(0.03)
    return received() - before < 50_000


class TestLargeValue:
    """Rows 1 and 2: the service can be frozen, and lose its connection, while a value comes in."""

    SIZE = 6 * MIB
    RATE = 10 * MB  # bytes a second

    @pytest.fixture
    def slow(self, redis_server: RedisServer, root: Path, start: Start) -> Iterator[Service]:
        """Return a service that has mirrored the file `a`, and is at the end of a slow line."""
        (root / "a").write_bytes(b"a" * 1000)
        with slow_line(redis_server.socket, self.RATE) as line:
            yield start(in_step=True, REDIS_URL=line.url)

    @contextmanager
    def looked_at(self, server: RedisServer, *contents: bytes) -> Iterator[None]:
        """Look at the key all the time; it is to have one of these values, each of one letter."""
        at = [*range(0, self.SIZE, self.SIZE // 16), -1]
        seen: set[tuple[int, bytes]] = set()

        def look() -> None:
            pipeline = server.client.pipeline()  # all of one instant
            pipeline.strlen("a")
            for each in at:
                pipeline.getrange("a", each, each)
            length, *parts = pipeline.execute()
            seen.add((length, b"".join(sorted(set(parts) - {b""}))))

        with meanwhile(look, 0.004):
            yield
        assert seen <= {(len(content), content[:1]) for content in contents}

    def arrives(self, service: Service, content: bytes) -> None:
        eventually(lambda: service.redis.client.strlen("a"), len(content), 5)
        value = service.get("a")
        assert isinstance(value, bytes)
        assert (value.count(content[:1]), len(value)) == (len(content), len(content))

    def test_is_right_after_a_freeze_in_which_what_came_in_was_lost(self, slow: Service) -> None:
        old, ended = b"a" * 1000, 0
        for number, letter in enumerate(b"bcdefg"):
            new = bytes([letter]) * (self.SIZE + letter)
            with self.looked_at(slow.redis, old, new):
                (slow.root / "a").write_bytes(new)
                stay(0.1 + 0.07 * number)
                with slow.paused():
                    eventually(lambda: is_quiet(slow.redis.client), True)
                    ended += end_transactions(slow.redis.client)
                self.arrives(slow, new)
            old = new
        assert ended
        eventually(lambda: is_live(slow), True)


class TestLargeLog:
    """One that grows appears as it was a while ago, however it is written to."""

    SIZE = 2 * MIB
    APPEND = """
import sys, time
end = time.monotonic() + 30
while time.monotonic() < end:
    with open(sys.argv[1], "ab", 0) as log:
        log.write(b"x" * 100)
        while sys.argv[2] == "keep":
            time.sleep(0.003)
            log.write(b"x" * 100)
    time.sleep(0.003)
"""

    def appending(self, log: Path, how: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """Append to a log every 3 ms for the time of the block, and close it each time or never."""
        log.write_bytes(b"x" * self.SIZE)
        return running((sys.executable, "-c", self.APPEND, str(log), how), os.environ)

    def test_that_is_closed_after_each_append(self, service: Service) -> None:
        seen: set[int] = set()

        def lengths() -> int:
            seen.add(int(service.redis.client.strlen("log")))
            return len(seen)

        with self.appending(service.root / "log", "close"):
            eventually(lambda: lengths() > 10, True)
        service.catches_up()

    def test_of_whose_writer_nobody_here_is_told(self, place: Path, service: Service) -> None:
        with self.appending(place / "log", "keep"):
            (service.root / "log").hardlink_to(place / "log")
            eventually(lambda: service.redis.client.strlen("log") >= self.SIZE, True, 5)


class TestRefusedFile:
    """Row 3: what Redis refuses of one file is that file's matter alone."""

    @pytest.fixture
    def short(self, idle_redis: RedisServer, start: Start) -> Service:
        """Return a service whose Redis has no room for a file that is there by then."""
        idle_redis.start("--maxmemory", "60mb")
        service = start(in_step=True)
        (service.root / "big").write_bytes(b"b" * 80 * MB)
        (service.root / "small").write_bytes(b"small")
        return service

    def test_the_others_do_not_wait_for_one_that_is_too_large(self, short: Service) -> None:
        names = [f"small-{number}" for number in range(30)]
        assert max(lags(short, names, pause=0.0, too_long=0.5, deadline=1.0)) < 0.5
        eventually(lambda: (lists(short, "big"), is_live(short)), (True, True))
        eventually(short.redis.keys, {n: c for n, c in short.files().items() if n != b"big"})

    def test_other_clients_are_not_refused(self, short: Service) -> None:
        eventually(lambda: short.get("small"), b"small", 3)
        eventually(lambda: (lists(short, "big"), is_live(short)), (True, True), 6)
        refused: list[float] = []
        began = time.monotonic()
        while (now := time.monotonic() - began) < 3.0:
            try:
                short.redis.client.set("theirs", "value")
            except redis.OutOfMemoryError:
                refused.append(now)
            stay(0.01)
        print(f"{len(refused)} refused of a client that sets a key every 10 ms for 3 s")
        assert refused == []

    def test_many_of_them_keep_nothing_waiting(
        self, idle_redis: RedisServer, root: Path, start: Start
    ) -> None:
        idle_redis.start("--maxmemory", "60mb")
        names = [f"big-{number}" for number in range(30)]
        for name in names:
            (root / name).touch()
            os.truncate(root / name, 40 * MB)
        # Where a directory lists what is new first, the others have to wait for it.
        (root / "fits").write_bytes(bytes(20 * MB))
        service = start()
        eventually(lambda: (lists(service, *names), is_live(service)), (True, True), 8)
        assert service.redis.client.strlen("fits") == 20 * MB

    @pytest.mark.parametrize("way_out", ["the file gets small", "the server gets more memory"])
    def test_it_arrives_when_there_is_room(self, short: Service, way_out: str) -> None:
        eventually(lambda: (lists(short, "big"), is_live(short)), (True, True), 6)
        big = short.root / "big"
        if way_out == "the file gets small":
            os.truncate(big, 1000)
            touch(big)
        else:
            short.redis.client.config_set("maxmemory", "300mb")
        eventually(lambda: short.redis.keys() == short.files(), True, 5)
        eventually(lambda: (lists(short, "big"), is_live(short)), (False, True))

    @pytest.fixture
    def restricted(self, redis_server: RedisServer) -> str:
        """Return the URL for a user of Redis who may not touch keys like `secret*`."""
        redis_server.client.acl_setuser(
            "app",
            enabled=True,
            passwords=["+pw"],
            keys=["a*", "b*", "f*", ".marker", f"{OWN}*"],
            categories=["+@" + each for each in ("string", "keyspace", "transaction", "hash")]
            + ["+@set", "+@connection", "-@dangerous"],
        )
        return f"unix://app:pw@{redis_server.socket}"

    def allowed_again(self, service: Service, name: str) -> None:
        service.redis.client.acl_setuser("app", enabled=True, keys=["*"])
        touch(service.root / name)
        eventually(lambda: service.get(name), (service.root / name).read_bytes())

    def test_the_others_do_not_wait_for_one_that_is_forbidden(
        self, restricted: str, start: Start
    ) -> None:
        service = start(in_step=True, SYNC_RESCAN="0", REDIS_URL=restricted)
        (service.root / "secret1").write_bytes(b"secret")
        names = [f"a{number}" for number in range(10)]
        assert max(lags(service, names, pause=0.0, too_long=0.5, deadline=1.0)) < 0.5
        eventually(lambda: (lists(service, "secret1"), is_live(service)), (True, True))
        self.allowed_again(service, "secret1")
        service.catches_up()

    def test_nor_do_they_in_the_first_reconcile(
        self, restricted: str, root: Path, start: Start
    ) -> None:
        for number in range(2000):
            (root / f"file-{number}").write_bytes(b"content %d" % number)
        secret = [f"secret{number}" for number in range(20)]
        for name in secret:
            (root / name).write_bytes(b"secret")
        service = start(SYNC_RESCAN="0", REDIS_URL=restricted)
        allowed = {n: c for n, c in service.files().items() if not n.startswith(b"secret")}
        eventually(lambda: len(service.redis.keys()), 2000, 5)
        assert service.redis.keys() == allowed
        eventually(lambda: (lists(service, *secret), is_live(service)), (True, True))
        self.allowed_again(service, "secret1")


class TestWriters:
    """Row 4: a reader sees a value that was there when a writer closed the file, and no other."""

    PAIRS = 100

    def written(self, path: Path, content: bytes, values: set[Value]) -> None:
        values.add(Value.of(content))
        path.write_bytes(content)

    def written_slowly(self, path: Path, content: bytes, values: set[Value]) -> None:
        """Write in two parts, some milliseconds apart, as programs do that have more to do."""
        values.add(Value.of(content))
        with path.open("wb", buffering=0) as file:
            stay(0.002)
            file.write(content[: len(content) // 2])
            stay(0.002)
            file.write(content[len(content) // 2 :])

    @pytest.mark.parametrize("sizes", [(4096, 4096), (100, 60_000), (MIB, 100)])
    def test_two_follow_each_other(self, service: Service, sizes: tuple[int, int]) -> None:
        path, values = service.root / "a", set[Value]()
        self.written(path, b"at first", values)
        eventually(lambda: service.get("a"), b"at first")
        with beheld(service.redis.socket, "a") as seen:
            for number in range(self.PAIRS):
                one, other = (
                    (b"%c%07d" % (letter, number)) * (size // 8)
                    for letter, size in zip(b"ab", sizes, strict=True)
                )
                self.written(path, one, values)
                self.written_slowly(path, other, values)
                now = time.monotonic()
                assert seconds_until(service.redis.client, "a", other, now, 2.0) < 2.0
        assert not seen.other_than(values)

    def test_many_follow_each_other_without_a_pause(self, service: Service) -> None:
        path, values = service.root / "a", set[Value]()
        self.written(path, b"at first", values)
        eventually(lambda: service.get("a"), b"at first")
        with beheld(service.redis.socket, "a") as seen:
            over, number = time.monotonic() + 2.0, 0
            while time.monotonic() < over:
                number += 1
                content = (b"%08d" % number) * 512
                self.written(path, content, values)
            now = time.monotonic()
            lag = seconds_until(service.redis.client, "a", content, now, 5.0)
        between = len(set(seen.values) & values)
        print(f"{number} values, {between} were seen; the last after {lag * 1e3:.1f} ms")
        assert not seen.other_than(values)
        assert between >= 4
        assert lag < 1.0

    def test_one_closes_and_another_takes_its_time(self, service: Service) -> None:
        names = [f"a{number}" for number in range(20)]
        values: set[Value] = set()
        for name in names:
            self.written(service.root / name, b"at first", values)
        service.catches_up()
        with beheld(service.redis.socket, *names) as seen:
            for turn in range(4):
                writers = []
                for name in names:
                    self.written(service.root / name, b"%s %d" % (name.encode(), turn), values)
                    writers.append((service.root / name).open("wb", buffering=0))
                stay(0.3)
                for writer in writers:
                    content = b"%d, slowly" % turn
                    values.add(Value.of(content))
                    writer.write(content)
                    writer.close()
                eventually(lambda: service.get(names[-1]), content)
        assert not seen.other_than(values)

    def test_many_append(self, service: Service) -> None:
        path, values = service.root / "log", {Value.of(None)}
        written = b""
        with beheld(service.redis.socket, "log") as seen:
            for _ in range(4):
                over = time.monotonic() + 0.4
                while time.monotonic() < over:
                    written += b"one, "
                    with path.open("ab", buffering=0) as log:
                        log.write(b"one, ")
                        log.write(b"two\n")
                    written += b"two\n"
                    values.add(Value.of(written))
                now = time.monotonic()
                lag = seconds_until(service.redis.client, "log", written, now, 2.0)
                print(f"{len(values)} values, the last after {lag * 1e3:.1f} ms")
                assert lag < 1.0
        print(f"{len(set(seen.values) & values)} were seen")
        assert not seen.other_than(values)

    def test_one_was_at_work_before_the_watch_began(self, service: Service) -> None:
        path, values = service.root / "a", set[Value]()
        self.written(path, b"at first", values)
        service.catches_up()
        values.add(Value.of(b"one half, the other half"))
        with beheld(service.redis.socket, "a") as seen:
            with path.open("wb", buffering=0) as writer:
                writer.write(b"one half, ")
                stay(0.05)
                # What follows has heard nothing of the writer.
                service.redis.client.client_kill_filter(_type="normal", skipme=True)
                (service.root / "b").touch()
                eventually(lambda: len(service.lines(" equals ")), 2)
                writer.write(b"the other half")
            eventually(lambda: service.get("a"), b"one half, the other half")
        assert not seen.other_than(values)


class TestSmallBesideLarge:
    """Row 5: what is small does not wait for what is large."""

    NAMES = ("small",) * 20

    def is_followed_fast(self, service: Service) -> None:
        found = lags(service, self.NAMES, pause=0.05, too_long=0.25, deadline=2.0)
        assert (statistics.median(found) < 0.05, max(found) < 0.25) == (True, True)

    def many(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        for number in range(300):
            (directory / f"large-{number}").touch()
            os.truncate(directory / f"large-{number}", 3 * MB)

    def test_while_many_are_moved_in(self, service: Service, place: Path) -> None:
        self.many(place / "away")
        for path in (place / "away").iterdir():
            path.rename(service.root / path.name)
        self.is_followed_fast(service)
        eventually(lambda: len(list(service.redis.client.scan_iter(match="large-*"))), 300, 30)

    def test_behind_many_of_just_under_a_mebibyte(self, service: Service, place: Path) -> None:
        """They are no large files, and all came before."""
        (place / "away").mkdir()
        for number in range(600):
            (place / "away" / f"{number}").write_bytes(bytes(MIB))
        found: list[float] = []
        for number in range(600):
            (place / "away" / f"{number}").rename(service.root / f"{number}")
            if number % 200 == 199:
                content = b"change %d" % number
                (service.root / "small").write_bytes(content)
                now = time.monotonic()
                found.append(seconds_until(service.redis.client, "small", content, now, 2.0))
        print(*(f"{each * 1e3:.1f} ms" for each in found))
        assert max(found) < 0.25
        eventually(lambda: service.redis.client.dbsize() > 600, True)

    @pytest.mark.usefixtures("redis_server")
    def test_while_many_are_found_at_the_start(self, root: Path, start: Start) -> None:
        self.many(root)
        service = start()
        eventually(lambda: service.redis.client.dbsize() > 3, True)
        self.is_followed_fast(service)
        eventually(lambda: len(list(service.redis.client.scan_iter(match="large-*"))), 300, 30)

    def test_while_one_takes_long(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        with slow_line(redis_server.socket, 5 * MB) as line:
            service = start(in_step=True, REDIS_URL=line.url)
            (root / "large").write_bytes(b"l" * 60 * MB)
            stay(0.2)
            self.is_followed_fast(service)
            assert service.get("large") is None  # it was on its way all the time

    @pytest.mark.parametrize("overflows", [False, True])
    def test_waiting_for_one_takes_no_time_of_the_machine(
        self, redis_server: RedisServer, root: Path, start: Start, *, overflows: bool
    ) -> None:
        (root / "large").write_bytes(b"l" * 60 * MB)
        with slow_line(redis_server.socket, 5 * MB) as line:
            service = start(REDIS_URL=line.url)
            # From the first sign of life on there are entries to make sure, later.
            eventually(lambda: status(service)["state"], "reconciling")
            if overflows:
                with service.paused():
                    for number in range(9000):  # three events each; there is room for 16,384
                        (root / f"{number}").touch()
                eventually(lambda: service.redis.client.dbsize() > 9000, True)
            stay(1.0)
            before = seconds_of_a_core(service.process.pid)
            stay(2.0)
            share = (seconds_of_a_core(service.process.pid) - before) / 2.0
            assert service.get("large") is None  # it was on its way all the time
            print(f"{share:.1%} of a core")
            assert share < 0.25


class TestUnreadableFile:
    """Row 6: a file that cannot be read has not gone, and its key stays."""

    NAMES = ("a0", "a1", "a2", "a3", "a4")
    READ = "read,pread64,readv,preadv,preadv2"
    LOOK = "stat,lstat,newfstatat,statx"

    @contextmanager
    def failing(self, service: Service, calls: str) -> Iterator[None]:
        """Have these calls of the service and of its children fail for the files, with EIO."""
        pids = [service.process.pid, *children(service.process.pid)]
        names = [each for name in self.NAMES for each in ("-P", name, "-P", service.root / name)]
        command = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", *names)
        inject = ("-e", f"inject={calls}:error=EIO", *(f"--attach={pid}" for pid in pids))
        with running((*map(str, command), *inject), os.environ) as strace:
            eventually(lambda: all(is_traced(pid) for pid in pids), True)
            yield
            strace.terminate()  # it lets go of the service, which being killed it would not
            eventually(lambda: any(is_traced(pid) for pid in pids), False)

    @pytest.mark.usefixtures("redis_server")
    @pytest.mark.parametrize("calls", [READ, LOOK], ids=["read", "look"])
    def test_keeps_its_key_and_is_right_when_it_reads_again(
        self, root: Path, start: Start, calls: str
    ) -> None:
        for name in self.NAMES:
            (root / name).write_bytes(b"one")
        service = start(in_step=True, SYNC_RESCAN="0")
        with self.failing(service, calls):
            for name in self.NAMES:
                (root / name).write_bytes(b"two")
            (root / "b").write_bytes(b"later")
            eventually(lambda: service.get("b"), b"later")
            kept = {name.encode(): b"one" for name in self.NAMES}
            assert service.redis.keys() == kept | {b"b": b"later"}
            eventually(lambda: (lists(service, *self.NAMES), is_live(service)), (True, True))
            (root / "a0").unlink()
            assert service.redis.keys().keys() >= set(kept) - {b"a0"}
        for name in self.NAMES:
            touch(root / name)  # in case that it is not tried again at once by itself
        eventually(lambda: service.redis.keys() == service.files(), True)
        eventually(lambda: (status(service)["skipped_count"], is_live(service)), (0, True))

    @pytest.mark.usefixtures("redis_server")
    def test_so_does_one_that_may_not_be_read(self, root: Path, start: Start) -> None:
        service = start(in_step=True, prefix=POWERLESS, SYNC_RESCAN="0")
        (root / "a").write_bytes(b"one")
        eventually(lambda: service.get("a"), b"one")
        with (root / "a").open("wb") as file:
            file.write(b"two")
            (root / "a").chmod(0)
        (root / "b").write_bytes(b"later")
        eventually(lambda: service.get("b"), b"later")
        assert service.get("a") == b"one"
        eventually(lambda: (lists(service, "a"), is_live(service)), (True, True))
        (root / "a").chmod(0o644)
        touch(root / "a")
        eventually(lambda: service.get("a"), b"two")
        eventually(lambda: status(service)["skipped_count"], 0)

    @pytest.mark.usefixtures("redis_server")
    def test_is_right_under_all_its_names_when_something_happens_to_one(
        self, root: Path, start: Start
    ) -> None:
        service = start(in_step=True, prefix=POWERLESS, SYNC_RESCAN="0")
        (root / "a").write_bytes(b"one")
        (root / "b").hardlink_to(root / "a")
        eventually(lambda: service.get("b"), b"one")
        (root / "a").chmod(0)
        (root / "a").write_bytes(b"two")  # root may, and the service may not
        eventually(lambda: (lists(service, "a", "b"), is_live(service)), (True, True))
        (root / "a").chmod(0o644)
        touch(root / "a")
        eventually(service.redis.keys, {b"a": b"two", b"b": b"two"})

    @pytest.mark.usefixtures("redis_server")
    def test_so_does_one_that_may_not_be_read_at_the_start(self, root: Path, start: Start) -> None:
        (root / "a").write_bytes(b"one")
        service = start(in_step=True)
        service.stop(signal.SIGTERM)
        (root / "a").write_bytes(b"two")
        (root / "a").chmod(0)
        service = start(in_step=True, prefix=POWERLESS, SYNC_RESCAN="0.5")
        assert service.get("a") == b"one"
        eventually(lambda: (lists(service, "a"), is_live(service)), (True, True))
        (root / "a").chmod(0o644)  # of which no event tells: the next rescan finds it
        eventually(lambda: service.get("a"), b"two")


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(each) for task in tasks for each in (task / "children").read_text().split()]


def field(pid: int, name: str) -> int:
    """Return a number that the kernel tells of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1])


def is_traced(pid: int) -> bool:
    return field(pid, "TracerPid") != 0


def make_many(directory: Path, number: int, prefix: str = "") -> None:
    """Make so many empty files, as fast as that goes."""
    for each in range(number):
        os.mknod(f"{directory}/{prefix}{each:06}", 0o644 | stat.S_IFREG)


class TestNames:
    """Rows 7, 8 and 13: files with other names, and names that change."""

    @pytest.mark.usefixtures("redis_server")
    def test_second_names_elsewhere_cost_a_change_no_time(
        self, place: Path, root: Path, start: Start
    ) -> None:
        number = 150_000
        make_many(root, number)
        (place / "elsewhere").mkdir()
        for each in range(number):
            os.link(f"{root}/{each:06}", f"{place}/elsewhere/{each:06}")
        service = start()
        eventually(lambda: service.says(" equals "), True, 60)
        eventually(lambda: is_quiet(service.redis.client), True)
        chosen = [f"{each:06}" for each in random.Random(1).sample(range(number), 50)]  # noqa: S311
        found = lags(service, chosen, pause=0.01, too_long=10.0, deadline=2.0)
        assert statistics.median(found) < 0.01

    def test_what_is_replaced_needs_no_rescan_and_a_name_that_came_and_went_gets_one(
        self, service: Service
    ) -> None:
        for number in range(50):
            content = b"content %d" % number
            (service.root / "new").write_bytes(content)
            (service.root / "new").rename(service.root / "a")
            stay(0.1)
            assert service.get("a") == content
        before = is_at(service)
        eventually(lambda: is_at(service) > before, True)
        assert status(service)["reconciles"].get("rescan", 0) == 0
        with service.paused():
            (service.root / "b").hardlink_to(service.root / "a")
            (service.root / "b").write_bytes(b"by another name")
            (service.root / "b").unlink()
        eventually(lambda: service.get("a"), b"by another name")

    @pytest.mark.usefixtures("redis_server")
    def test_very_many_renames_in_one_go_need_little_memory(self, root: Path, start: Start) -> None:
        number = 45_000
        make_many(root, number, LONG)
        with queue_of(2 * number + 1000):
            service = start(in_step=True, SYNC_RESCAN="0")
        with service.paused():
            for each in range(number):
                move(f"{root}/{LONG}{each:06}", f"{root}/{LONG}{each:06}-new")
        eventually(lambda: service.get(f"{LONG}{number - 1:06}-new"), b"", 30)
        eventually(lambda: has_names_of(service), True, 30)
        assert not service.says("overflowed")  # the kernel could tell all of that
        most = field(service.process.pid, "VmHWM") / 1024
        print(f"at most {most:.0f} MB")
        assert most < 100
        with service.paused():
            fill_queue(root, 2 * number + 1000)
            for each in range(1000):  # of which it can tell nothing
                move(f"{root}/{LONG}{each:06}-new", f"{root}/{LONG}{each:06}")
        eventually(lambda: service.says(" equals ", "events were lost"), True, 30)
        eventually(lambda: has_names_of(service), True)
        assert field(service.process.pid, "VmHWM") < 100 * 1024


# The longer the names are, the more memory they take. All of a directory's together.
LONG = "n" * 230


def move(old: str, new: str) -> None:
    os.rename(old, new)  # noqa: PTH104  # a Path takes ten times as long


def fill_queue(root: Path, events: int) -> None:
    """Have at least so many events be told of two files, which are empty."""
    files = [os.open(root / name, os.O_WRONLY | os.O_CREAT) for name in ("one", "other")]
    for each in range(events):
        os.ftruncate(files[each % 2], 0)
    for each in files:
        os.close(each)


def has_names_of(service: Service) -> bool:
    """Say whether there is a key for each file, and no other."""
    keys = set(service.redis.client.scan_iter(count=10_000))
    return {key for key in keys if key[:1] != b"/"} == set(os.listdir(bytes(service.root)))


def is_at(service: Service) -> float:
    """Return when the service wrote its status."""
    return Path(service.environ["SYNC_STATUS"]).stat().st_mtime


@contextmanager
def queue_of(events: int) -> Iterator[None]:
    """Have the kernel keep so many events for who begins to watch in the block."""
    setting = Path("/proc/sys/fs/inotify/max_queued_events")
    before = setting.read_text()
    setting.write_text(str(events))
    try:
        yield
    finally:
        setting.write_text(before)


class TestOthersInRedis:
    """Rows 9 and 12: what somebody else does to the keys, and to what the service remembers."""

    @pytest.mark.usefixtures("redis_server")
    def test_keys_that_were_changed_while_the_service_was_down_are_right_after_the_start(
        self, root: Path, start: Start
    ) -> None:
        for number in range(2000):
            (root / f"file-{number}").write_bytes(b"content %d" % number)
        stay(0.1)  # for the service to be sure of what it reads
        service = start(in_step=True)
        service.stop(signal.SIGTERM)
        client = service.redis.client
        client.delete("file-1", "file-1000", "file-1999")
        client.append("file-2", "more")
        client.set("file-1001", "")
        client.delete("file-3")
        client.rpush("file-3", "a list")
        start(in_step=True, SYNC_RESCAN="0")
        assert client.type("file-3") == b"string"
        assert service.redis.keys() == service.files()

    @pytest.mark.usefixtures("redis_server")
    @pytest.mark.parametrize("records", [("manifest", "names"), ("names", "manifest")])
    @pytest.mark.parametrize("when", ["it runs", "it is down"])
    def test_a_record_that_is_lost_keeps_no_key_of_a_file_that_has_gone(
        self, redis_server: RedisServer, root: Path, start: Start, records: Sequence[str], when: str
    ) -> None:
        for name in ("a", "b", "c", "d"):
            (root / name).write_bytes(name.encode())
        service = start(in_step=True, SYNC_RESCAN="0")
        redis_server.client.set("theirs", "value")
        for record, name in zip(records, "ab", strict=True):
            if when == "it is down":
                service.stop(signal.SIGTERM)
            redis_server.client.delete(f"{OWN}{record}")
            (root / name).unlink()
            if when == "it is down":
                service = start(in_step=True, SYNC_RESCAN="0")
            # The next is lost only when this one is there again: nobody remembers without any.
            eventually(lambda: has_record(redis_server, record, name), (True, False), 5)  # noqa: B023
        eventually(lambda: is_live(service), True)
        assert redis_server.keys() == service.files() | {b"theirs": b"value"}
        assert verify(service) == 0


def has_record(server: RedisServer, record: str, name: str) -> tuple[bool, bool]:
    """Say whether the service's record is there, and whether the key is."""
    return bool(server.client.exists(f"{OWN}{record}")), bool(server.client.exists(name))


class TestPatience:
    """Rows 10 and 11: who writes, and what is not closed."""

    def test_a_writer_gets_its_lock_while_a_large_file_is_on_its_way(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        path = root / "a"
        content = b"a" * 30 * MB
        with slow_line(redis_server.socket, 20 * MB) as line:
            start(in_step=True, REDIS_URL=line.url)
            path.write_bytes(content)
            fd = os.open(path, os.O_RDONLY)  # to lock it alone, not to write
            attempts = failed = 0
            over = time.monotonic() + 15.0
            while redis_server.client.strlen("a") != len(content) and time.monotonic() < over:
                attempts += 1
                failed += not locks(fd)
                if attempts == 20:
                    content += b"b"  # so that it is read once more
                    with path.open("ab") as file:
                        file.write(b"b")
                stay(0.005)
            os.close(fd)
            print(f"{failed} of {attempts} attempts failed while it was on its way")
            assert redis_server.client.get("a") == content
            assert attempts > 50
            assert failed <= attempts / 100

    def test_an_unfinished_file_does_not_wait_for_a_large_one(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        found: list[float] = []
        with (
            slow_line(redis_server.socket, 10 * MB) as line,
            (root / "log").open("wb", buffering=0) as log,
        ):
            log.write(b"l" * 20 * MB)
            start(in_step=True, REDIS_URL=line.url)
            with meanwhile(lambda: log.write(b"more"), 0.05):
                stay(1.0)
                for number in range(4):
                    with (root / f"open-{number}").open("wb", buffering=0) as file:
                        file.write(b"written")
                        now = time.monotonic()
                        name = f"open-{number}"
                        found.append(seconds_until(redis_server.client, name, b"written", now, 2.0))
                        if sum(each > 0.8 for each in found) == 2:
                            break
        print("after " + ", ".join(f"{each:.2f} s" for each in found))
        assert max(found) < 0.8


def locks(fd: int) -> bool:
    """Say whether a file that is open can be locked at once; it is not locked then."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True
