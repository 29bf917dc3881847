"""`mdvp-sync verify`: what it finds, what it mends, and what it makes of a service beside it."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import PIPE
from threading import Event, Thread
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from integration.conftest import SYNC
from integration.files import make, write
from integration.shape import FLAT, TREE, Shape
from support import DEADLINE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start

pytestmark = pytest.mark.waits

MIB = 1 << 20
ODD = os.fsdecode(b"b\xff")  # no text
# More than a piece, and not a number of pieces.
LARGE = bytes(range(256)) * 4096 * 2 + b"the end\n"


@dataclass
class Verify:
    """Runs `mdvp-sync verify` on a directory and a Redis."""

    root: Path
    redis: RedisServer

    def start(
        self, *options: str, environ: Mapping[str, str] = MappingProxyType({}), stderr: int = PIPE
    ) -> Running:
        complete = {
            **os.environ,
            "SYNC_ROOT": str(self.root),
            "REDIS_URL": self.redis.url,
            **environ,
        }
        # In the background of a shell the tests ignore the signal, and so would what they start.
        command = ("env", "--default-signal=INT", *SYNC, "verify", *options)
        return subprocess.Popen(command, env=complete, stdout=PIPE, stderr=stderr, text=True)

    def __call__(self, *options: str, **environ: str) -> tuple[int, list[str], str]:
        """Return the exit status, the lines without the last one, sorted, and that."""
        return outcome(self.start(*options, environ=environ))


Running = subprocess.Popen[str]


def outcome(running: Running) -> tuple[int, list[str], str]:
    with running:
        out, error = running.communicate(timeout=3 * DEADLINE)
    assert not error
    *lines, last = out.splitlines()
    return running.returncode, sorted(lines), last


@pytest.fixture
def verify(root: Path, redis_server: RedisServer) -> Verify:
    return Verify(root, redis_server)


@contextmanager
def going_on(work: Callable[[], object]) -> Iterator[None]:
    """Do it a hundred times a second or less, for the time of the block."""
    end = Event()

    def run() -> None:
        while not end.wait(0.01):
            work()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def mirrored(start: Start, **environ: str) -> None:
    """Have a service mirror what there is, and end."""
    start(in_step=True, **environ).stop(signal.SIGTERM)


class TestWhatIsEqual:
    def test_is_said_to_be(self, verify: Verify, start: Start) -> None:
        (verify.root / "small").write_text("value\n")
        (verify.root / "empty").touch()
        (verify.root / "large").write_bytes(LARGE)
        mirrored(start)
        assert verify() == (
            0,
            [],
            f"Redis at {verify.redis.socket} equals {verify.root}: 3 files (2.1 MB)",
        )

    def test_is_equal_without_the_final_newlines_if_that_is_set(
        self, verify: Verify, start: Start
    ) -> None:
        (verify.root / "small").write_text("value\n\n")
        (verify.root / "large").write_bytes(LARGE)
        (verify.root / "pieces").write_bytes(b"x" * 2 * MIB + b"\n")
        (verify.root / "without").write_bytes(b"x" * 2 * MIB)
        mirrored(start, SYNC_TRIM_NEWLINE="1")
        assert verify(SYNC_TRIM_NEWLINE="1")[:2] == (0, [])
        assert verify()[:2] == (
            1,
            [
                f"large has {len(LARGE):,} bytes on disk, {len(LARGE) - 1:,} in Redis",
                "pieces has 2,097,153 bytes on disk, 2,097,152 in Redis",
                "small has 7 bytes on disk, 6 in Redis",
            ],
        )

    def test_may_have_keys_beside_it_that_are_no_files(self, verify: Verify, start: Start) -> None:
        mirrored(start)
        verify.redis.client.set("theirs", "value")
        assert verify("--repair")[0] == 0
        assert verify.redis.keys() == {b"theirs": b"value"}

    def test_is_what_nobody_has_mirrored_either(self, verify: Verify) -> None:
        (verify.root / "a").write_text("one")
        verify.redis.client.set("a", "one")
        assert verify()[0] == 0


@pytest.fixture
def drifted(verify: Verify, start: Start) -> Verify:
    """Return a Redis that differs from the directory in all ways."""
    for name in ("same length", "longer", "list", "missing", "deleted", ODD):
        (verify.root / name).write_text("value")
    for name in ("end", "short", "gone"):
        (verify.root / f"large {name}").write_bytes(LARGE)
    for name in ("empty", "full"):
        (verify.root / name).touch()
    (verify.root / "empty in Redis").write_text("value")
    (verify.root / "now a directory").write_text("value")
    (verify.root / "two\nlines").write_text("value")
    mirrored(start)
    client = verify.redis.client
    client.set("same length", "vaLue")
    client.set("longer", "value and more")
    client.delete("list", "missing", b"b\xff", "large gone", "empty", "two\nlines")
    client.rpush("list", "value")
    client.setrange("large end", len(LARGE) - 1, ".")
    client.set("large short", LARGE[:-1])
    client.set("full", "value")
    client.set("empty in Redis", "")
    (verify.root / "deleted").unlink()
    (verify.root / "now a directory").unlink()
    (verify.root / "now a directory").mkdir()
    return verify


DIFFERENCES = [
    r"b\xff is missing in Redis",
    "deleted is stale in Redis: there is no such file",
    "empty in Redis has 5 bytes on disk, 0 in Redis",
    "empty is missing in Redis",
    "full has 0 bytes on disk, 5 in Redis",
    f"large end differs from byte {len(LARGE):,} on",
    "large gone is missing in Redis",
    f"large short has {len(LARGE):,} bytes on disk, {len(LARGE) - 1:,} in Redis",
    "list is no string in Redis",
    "longer has 5 bytes on disk, 14 in Redis",
    "missing is missing in Redis",
    "now a directory is stale in Redis: it is a directory: not mirrored, only files directly in "
    "{root} become keys; with SYNC_TREE=1 all below it do",
    "same length differs from byte 3 on",
    r"two\nlines is missing in Redis",
]


class TestWhatDiffers:
    def test_is_told_line_by_line(self, drifted: Verify) -> None:
        status, lines, last = drifted()
        assert (status, lines) == (1, [line.format(root=drifted.root) for line in DIFFERENCES])
        assert last == (
            f"Redis at {drifted.redis.socket} differs from {drifted.root}: 14 differences, "
            "12 files (6.3 MB); mend that with `mdvp-sync verify --repair`"
        )

    def test_is_mended_when_asked_to(self, drifted: Verify, start: Start) -> None:
        status, lines, last = drifted("--repair")
        mended = [f"mended: {line.format(root=drifted.root)}" for line in DIFFERENCES]
        assert (status, lines) == (0, mended)
        assert last.endswith("12 files (6.3 MB), 14 mended")
        assert drifted()[0] == 0
        service = start(in_step=True)
        service.catches_up()

    def test_is_mended_as_the_service_would(self, verify: Verify, start: Start) -> None:
        (verify.root / "a").write_text("one\n")
        assert verify("--repair", SYNC_TRIM_NEWLINE="1")[0] == 0
        service = start(in_step=True, SYNC_TRIM_NEWLINE="1")
        assert service.get("a") == b"one"
        assert service.says(" equals ", " 0 transferred"), "it had to be transferred again"

    def test_is_counted_when_it_is_much(self, verify: Verify) -> None:
        for number in range(1250):
            (verify.root / f"file-{number}").touch()
        status, lines, last = verify()
        assert (status, len(lines), "250 more" in lines) == (1, 1001, True)
        assert "1,250 differences" in last
        status, lines, last = verify("--repair")
        assert (status, len(lines), "mended: 250 more" in lines) == (0, 1001, True)
        assert len(verify.redis.keys()) == 1250

    def test_stays_different_when_redis_does_not_take_it(self, verify: Verify) -> None:
        (verify.root / "a").write_text("one")
        verify.redis.client.config_set("maxmemory", 1)
        with verify.start("--repair") as running:
            _, error = running.communicate(timeout=DEADLINE)
        assert (running.returncode, "'maxmemory'" in error) == (2, True)


class TestWhatIsSkipped:
    def test_is_what_is_no_file_or_too_large(self, verify: Verify) -> None:
        (verify.root / "directory").mkdir()
        (verify.root / "link").symlink_to("/etc/hostname")
        os.mkfifo(verify.root / "fifo")
        (verify.root / "large").write_bytes(LARGE)
        verify.redis.client.config_set("proto-max-bulk-len", MIB)
        status, lines, last = verify()
        assert status == 0
        assert [line.partition(":")[0] for line in lines] == ["skipped"] * 4
        assert [line.split()[1] for line in lines] == ["directory", "fifo", "large", "link"]
        assert last.endswith("1 file (2.1 MB), 4 skipped")

    def test_is_a_file_that_its_writer_has_locked(self, verify: Verify) -> None:
        with (verify.root / "a").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert verify()[:2] == (2, ["not compared: a is locked by its writer"])

    def test_is_no_file_whose_writer_gives_the_lock_back_in_time(self, verify: Verify) -> None:
        verify.redis.client.config_resetstat()
        with (verify.root / "a").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            running = verify.start()
            eventually(lambda: looks(verify.redis) > 0, True)
        assert outcome(running)[:2] == (1, ["a is missing in Redis"])

    def test_is_what_is_excluded_without_a_word_unless_redis_has_it(
        self, verify: Verify, start: Start
    ) -> None:
        (verify.root / "a~").write_text("one")
        assert verify()[:2] == (0, [])
        mirrored(start, SYNC_EXCLUDE="")
        assert verify()[:2] == (1, ["a~ is stale in Redis: there is no such file"])
        assert verify("--repair")[0] == 0
        assert verify.redis.keys() == {}


def looks(redis: RedisServer, command: str = "hmget") -> int:
    """Return how often somebody asked for entries of the manifest since CONFIG RESETSTAT."""
    stats = redis.client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


class TestAPath:
    """`verify PATH` compares what has a path, or is below it, and nothing else."""

    @pytest.fixture
    def tree(self, verify: Verify, start: Start) -> Verify:
        """Return a Redis that is equal to a tree of directories."""
        make(verify.root, "a", "d/a", "d/b", "d/e/a", "de/a", "f/a")
        mirrored(start, **TREE.environ)
        return verify

    def of(self, verify: Verify, *options: str, shape: Shape = TREE) -> tuple[int, list[str], str]:
        return verify(*options, **shape.environ)

    def failed(self, verify: Verify, path: str, shape: Shape = TREE) -> tuple[int, str]:
        with verify.start(path, environ=shape.environ) as running:
            out, error = running.communicate(timeout=DEADLINE)
        assert not out
        return running.returncode, error

    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("a", "1 file (12 B)"),
            ("d/a", "1 file (14 B)"),
            ("d", "3 files (44 B)"),
            ("d/e", "1 file"),
        ],
    )
    def test_that_is_equal_is_said_to_be_with_what_is_there(
        self, tree: Verify, path: str, found: str
    ) -> None:
        status, lines, last = self.of(tree, path)
        assert (status, lines) == (0, [])
        assert last.startswith(f"Redis at {tree.redis.socket} equals {tree.root}/{path}: {found}")

    @pytest.mark.parametrize("path", ["d", "d/", "./d", "d/.", "d//", "{root}/d", "{root}//d/./"])
    def test_is_below_the_root_or_one_of_the_file_system(self, tree: Verify, path: str) -> None:
        status, lines, last = self.of(tree, path.format(root=tree.root))
        assert (status, lines) == (0, [])
        assert "3 files" in last

    @pytest.mark.parametrize("path", ["", ".", "{root}", "{root}/"])
    def test_of_the_root_is_that_of_all(self, tree: Verify, path: str) -> None:
        assert "6 files" in self.of(tree, path.format(root=tree.root))[2]

    @pytest.mark.parametrize(
        ("path", "expected"),
        [("d", ["d/a", "d/e/a"]), ("d/a", ["d/a"]), ("d/e", ["d/e/a"]), ("d/b", []), ("f", [])],
    )
    def test_tells_what_differs_there_and_nowhere_else(
        self, tree: Verify, path: str, expected: list[str]
    ) -> None:
        tree.redis.client.delete("a", "d/a", "d/e/a", "de/a")
        status, lines, _ = self.of(tree, path)
        assert lines == [f"{name} is missing in Redis" for name in expected]
        assert status == bool(expected)

    def test_has_mended_what_differs_there_and_nowhere_else(self, tree: Verify) -> None:
        for name in ("a", "d/a", "d/e/a", "de/a"):
            tree.redis.client.set(name, "theirs")
        assert self.of(tree, "--repair", "d")[0] == 0
        theirs = {name for name, value in tree.redis.keys().items() if value == b"theirs"}
        assert theirs == {b"a", b"de/a"}

    def test_of_a_directory_that_only_redis_has_is_that_of_what_it_holds(
        self, tree: Verify
    ) -> None:
        shutil.rmtree(tree.root / "d")
        (tree.root / "a").unlink()
        stale = [
            f"{name} is stale in Redis: there is no such file" for name in ("d/a", "d/b", "d/e/a")
        ]
        assert self.of(tree, "d")[:2] == (1, stale)
        assert self.of(tree, "d", "--repair")[:2] == (0, [f"mended: {line}" for line in stale])
        assert tree.redis.keys().keys() == {b"a", b"de/a", b"f/a"}

    def test_of_a_file_that_only_redis_has_is_that_of_its_key(self, tree: Verify) -> None:
        for name in ("d/a", "d/b"):
            (tree.root / name).unlink()
        lines = ["d/a is stale in Redis: there is no such file"]
        assert self.of(tree, "d/a")[:2] == (1, lines)

    @pytest.mark.parametrize("is_file_now", [False, True])
    def test_of_a_directory_and_a_file_in_turn_is_that_of_both(
        self, tree: Verify, *, is_file_now: bool
    ) -> None:
        name = "d/e" if is_file_now else "f/a"
        if is_file_now:
            shutil.rmtree(tree.root / name)
            (tree.root / name).touch()
        else:
            (tree.root / name).unlink()
            make(tree.root, f"{name}/b")
        new, stale = ("d/e", "d/e/a") if is_file_now else ("f/a/b", "f/a")
        lines = [f"{new} is missing in Redis", f"{stale} is stale in Redis: there is no such file"]
        status, found, _ = self.of(tree, name)
        assert status == 1
        assert [line for line in found if line in lines] == sorted(lines)

    def test_at_which_there_is_nothing_is_an_error(self, tree: Verify) -> None:
        make(tree.root, "d/a~", "d~/a")
        for path in ("none", "d/none", "a/none", "d~", "d~/a"):
            status, error = self.failed(tree, path)
            assert status == 2
            assert error.startswith(f"mdvp-sync: there is nothing to compare: {path} is no file")

    def test_that_is_left_out_is_equal(self, tree: Verify) -> None:
        make(tree.root, "d/a~")
        assert self.of(tree, "d/a~")[:2] == (0, [])

    def test_of_a_link_is_not_that_of_where_it_leads(self, tree: Verify) -> None:
        (tree.root / "link").symlink_to(tree.root / "d")
        tree.redis.client.delete("d/a")
        status, lines, last = self.of(tree, "link")
        assert (status, len(lines)) == (0, 1)
        assert lines[0].startswith("skipped: link is a symbolic link")
        assert "0 files" in last
        assert self.failed(tree, "link/a")[0] == 2

    @pytest.mark.parametrize("path", ["/etc", "{root}2", "{root}/.."])
    def test_outside_of_the_root_is_an_error(self, verify: Verify, path: str) -> None:
        path = path.format(root=verify.root)
        status, error = self.failed(verify, path)
        assert status == 2
        assert error.startswith(f"mdvp-sync: {path} ")
        assert "below" in error

    @pytest.mark.parametrize("path", ["..", "../outside", "d/../a", "d/..", "{root}/d/../a"])
    def test_that_goes_up_is_an_error(self, verify: Verify, path: str) -> None:
        path = path.format(root=verify.root)
        words = f"mdvp-sync: {path} has .. in it: name it by its path below {verify.root}\n"
        assert self.failed(verify, path) == (2, words)

    def test_may_be_no_text(self, tree: Verify) -> None:
        write(tree.root / f"d/{ODD}/{ODD}")
        lines = [r"d/b\xff/b\xff is missing in Redis"]
        assert self.of(tree, f"d/{ODD}")[:2] == (1, lines)

    def test_in_a_flat_directory_is_that_of_a_file(self, verify: Verify, start: Start) -> None:
        make(verify.root, "a", "b")
        mirrored(start)
        verify.redis.client.delete("b")
        assert self.of(verify, "a", shape=FLAT)[:2] == (0, [])
        assert self.of(verify, "b", shape=FLAT)[:2] == (1, ["b is missing in Redis"])

    def test_in_a_flat_directory_has_nothing_below(self, verify: Verify, start: Start) -> None:
        make(verify.root, "a", "d/a")
        mirrored(start)
        status, lines, last = self.of(verify, "d", shape=FLAT)
        assert (status, len(lines)) == (0, 1)
        assert lines[0].startswith("skipped: d is a directory: not mirrored")
        assert "0 files" in last
        assert self.failed(verify, "d/a", FLAT)[0] == 2

    def test_in_a_flat_directory_is_also_that_of_what_a_tree_has_left_in_redis(
        self, tree: Verify
    ) -> None:
        stale = "is stale in Redis: there is no such file"
        lines = [f"{name} {stale}" for name in ("d/a", "d/b", "d/e/a")]
        status, found, _ = self.of(tree, "d", shape=FLAT)
        assert (status, [line for line in found if "skipped" not in line]) == (1, lines)

    def test_costs_what_is_there_and_not_what_is_elsewhere(
        self, verify: Verify, start: Start
    ) -> None:
        names = [f"d-{number}/e/a" for number in range(100)]
        make(verify.root, *names)
        mirrored(start, **TREE.environ)
        costs = {}
        for path in ("d-7", "d-7/e/a", ""):
            verify.redis.client.config_resetstat()
            assert self.of(verify, path)[0] == 0
            costs[path] = {each: looks(verify.redis, each) for each in ("hscan", "hmget", "mget")}
        assert costs["d-7"] == {"hscan": 2, "hmget": 2, "mget": 1}
        assert costs["d-7/e/a"] == {"hscan": 1, "hmget": 1, "mget": 1}
        assert costs[""]["hscan"] == 201


class TestBesideAService:
    def test_what_it_does_not_hold_yet_may_come(self, verify: Verify, service: Service) -> None:
        with service.paused():
            (verify.root / "a").write_text("one")
            verify.redis.client.config_resetstat()
            running = verify.start()
            eventually(lambda: looks(verify.redis) > 5, True)
        assert outcome(running)[:2] == (0, [])

    def test_a_file_that_is_followed_but_never_stands_still_is_no_difference(
        self, verify: Verify, service: Service
    ) -> None:
        with (verify.root / "log").open("wb", buffering=0) as log:
            eventually(lambda: service.get("log"), b"")
            with going_on(lambda: log.write(b"line\n")):
                status, lines, _ = verify()
        assert status in {0, 2}  # 2: it was never the same for long enough
        assert [line for line in lines if not line.startswith("not compared: log ")] == []

    def test_one_that_is_not_followed_is_one(self, verify: Verify, service: Service) -> None:
        with (verify.root / "log").open("wb", buffering=0) as log:
            eventually(lambda: service.get("log"), b"")
            with service.paused(), going_on(lambda: log.write(b"line\n")):
                status, lines, _ = verify()
        assert (status, len(lines)) == (1, 1)
        assert lines[0].startswith("log has ")

    def test_what_others_have_changed_is_mended_while_the_service_is_at_work(
        self, verify: Verify, start: Start
    ) -> None:
        service = start(in_step=True, SYNC_GUARD="0")  # else it is undone at once
        names = [f"file-{number}" for number in range(300)]
        for name in names:
            (verify.root / name).write_text("value")
        (verify.root / "large").write_bytes(LARGE)
        service.catches_up()
        verify.redis.client.mset(dict.fromkeys([*names, "large"], "theirs"))
        busy = verify.root / "busy"
        with going_on(lambda: busy.write_text("value")):
            status, lines, _ = verify("--repair")
        assert (status, len(lines)) == (0, 301)
        service.catches_up()
        assert len(service.lines(" equals ")) == 1, "the service had to begin anew"


class TestWhatCannotBeLookedAt:
    def failed(self, running: Running) -> tuple[int, str, str]:
        with running:
            out, error = running.communicate(timeout=DEADLINE)
        return running.returncode, out, error

    def test_is_no_directory(self, verify: Verify) -> None:
        verify.root.rmdir()
        status, out, error = self.failed(verify.start())
        assert (status, out) == (2, "")
        assert f"cannot open the directory {verify.root}: No such file" in error

    def test_is_no_redis(self, root: Path, idle_redis: RedisServer) -> None:
        status, out, error = self.failed(Verify(root, idle_redis).start())
        assert (status, out) == (2, "")
        assert f"Redis at {idle_redis.socket}" in error
        assert "REDIS_URL" in error

    def test_is_a_redis_that_asks_for_a_password(self, verify: Verify) -> None:
        verify.redis.client.config_set("requirepass", "secret")
        status, _, error = self.failed(verify.start())
        assert (status, "REDIS_PASSWORD" in error) == (2, True)
        assert verify(REDIS_PASSWORD="secret")[0] == 0  # noqa: S106  # it is no secret

    def test_is_a_redis_that_goes_away(self, verify: Verify) -> None:
        (verify.root / "a").touch()
        verify.redis.client.config_resetstat()
        running = verify.start()
        eventually(lambda: looks(verify.redis) > 0, True)
        verify.redis.kill()
        status, out, error = self.failed(running)
        assert (status, out, "Traceback" in error) == (2, "", False)

    def test_is_a_wrong_setting(self, verify: Verify) -> None:
        status, _, error = self.failed(verify.start(environ={"SYNC_RESCAN": "often"}))
        assert (status, error.splitlines()) == (
            2,
            ["mdvp-sync: SYNC_RESCAN is 'often': use a number of seconds, or 0 for never"],
        )

    def test_is_left_when_asked_to(self, verify: Verify) -> None:
        (verify.root / "a").touch()
        verify.redis.client.config_resetstat()
        running = verify.start()
        eventually(lambda: looks(verify.redis) > 0, True)
        running.send_signal(signal.SIGINT)
        status, _, error = self.failed(running)
        assert (status, error) == (2, "mdvp-sync: stopped before all was compared\n")


def test_a_terminal_shows_how_far_it_is_and_is_left_clean(verify: Verify) -> None:
    (verify.root / "a").write_text("one")
    ours, theirs = pty.openpty()
    running = verify.start(stderr=theirs)
    os.close(theirs)
    status, lines, _ = outcome(running)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert (status, lines) == (1, ["a is missing in Redis"])
    assert "[##############################] 100% 1 file (3 B)" in shown
    assert shown.endswith("\r\x1b[K")


def test_a_very_large_file_is_compared_and_mended_in_little_memory(
    verify: Verify, place: Path
) -> None:
    with (verify.root / "large").open("wb") as file:
        file.truncate(200 * MIB)
    report = place / "memory"
    script = f"""
import pathlib, re, sys
from sync.cli import main
status = main(["verify", "--repair"])
# Not ru_maxrss: that begins with what the process was that this one is a fork of.
[peak] = re.findall("VmHWM:\\s+([0-9]+) kB", pathlib.Path("/proc/self/status").read_text())
pathlib.Path({str(report)!r}).write_text(peak)
sys.exit(status)
"""
    environ = {**os.environ, "SYNC_ROOT": str(verify.root), "REDIS_URL": verify.redis.url}
    subprocess.run((SYNC[0], "-c", script), env=environ, check=True, capture_output=True)
    assert verify.redis.client.strlen("large") == 200 * MIB
    assert int(report.read_text()) < 100 << 10  # KiB


class TestBothWays:
    """Where Redis' values become files, too."""

    def test_what_is_equal_is_said_to_be(self, verify: Verify, start: Start) -> None:
        (verify.root / "of-the-disk").write_text("value\n")
        verify.redis.client.set("of-redis", LARGE)
        verify.redis.client.set("small", "value")
        service = start(in_step=True, SYNC_MODE="two-way-safe")
        eventually((verify.root / "of-redis").exists, True)
        service.stop(signal.SIGTERM)
        assert verify(SYNC_MODE="two-way-safe")[:2] == (0, [])

    @pytest.mark.parametrize("mode", ["two-way-safe", "two-way-resolved", "redis-to-disk"])
    def test_a_key_without_a_file_is_missing_on_disk(self, verify: Verify, mode: str) -> None:
        verify.redis.client.mset({"a": "", "b": "value"})
        code, lines, last = verify(SYNC_MODE=mode)
        assert (code, lines) == (1, ["a is missing on disk", "b is missing on disk"])
        assert "2 differences" in last
        assert verify("b", SYNC_MODE=mode)[1] == ["b is missing on disk"]
        assert verify(SYNC_MODE="one-way-safe")[:2] == (0, [])

    def test_what_cannot_be_a_file_is_skipped_and_nothing_outside_is_looked_at(
        self, verify: Verify, outside: Path
    ) -> None:
        (verify.root / "file").write_text("value")
        (verify.root / "dir").mkdir()
        (outside / "secret").write_text("value")
        client = verify.redis.client
        names = ("", ".", "..", f"../{outside.name}/secret", "x\0y", "x" * 256, "dir", "file/below")
        client.mset({**dict.fromkeys(names, "value"), "file": "value"})
        client.rpush("list", "x")
        code, lines, last = verify(SYNC_MODE="two-way-safe", SYNC_TREE="1")
        assert code == 0, last
        assert len(lines) == len(names) + 1
        assert [line for line in lines if not line.startswith("skipped: ")] == []

    @pytest.mark.parametrize("mode", ["two-way-safe", "redis-to-disk"])
    def test_a_file_that_redis_never_had_is_where_it_is_meant_to_be(
        self, verify: Verify, mode: str
    ) -> None:
        (verify.root / "a").write_text("value")
        code, lines, _ = verify(SYNC_MODE=mode)
        if mode == "redis-to-disk":
            assert (code, lines) == (
                *(0, ["skipped: a is missing in Redis, which has never had it: it stays"]),
            )
        else:
            assert (code, lines) == (1, ["a is missing in Redis"])

    def test_what_is_left_alone_is_skipped(self, verify: Verify, start: Start) -> None:
        (verify.root / "a").write_text("value")
        (verify.root / "b").write_text("value")
        mirrored(start, SYNC_MODE="two-way-safe")
        verify.redis.client.delete("a")
        verify.redis.client.rpush("a", "x")
        (verify.root / "b").unlink()
        (verify.root / "b").mkdir()
        code, lines, _ = verify(SYNC_MODE="two-way-safe")
        assert code == 0
        assert lines[0] == "skipped: a is no string in Redis"
        assert lines[1].startswith("skipped: b is a directory: not mirrored")
        assert verify(SYNC_MODE="one-way-replica")[0] == 1
