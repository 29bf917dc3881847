"""What happens to files, and what is in Redis then."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import eventually, running

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration.conftest import RedisServer, Service, Start

NAMES = [
    b"latin-1-\xe9",  # not UTF-8
    b"two\nlines",
    b"n" * 255,
    b"*",
    b" with  spaces ",
    b"-rf",
    b"\\x0a",
    b".hidden",
    b"\xff",
]


def exchange(one: Path, other: Path) -> None:
    at_fdcwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (at_fdcwd, bytes(one), at_fdcwd, bytes(other), rename_exchange)
    assert libc.renameat2(*arguments) == 0, os.strerror(ctypes.get_errno())


def swap(one: Path, other: Path) -> None:
    third = one.with_name("third")
    one.rename(third)
    other.rename(one)
    third.rename(other)


def growing(file: Path) -> Sequence[str]:
    """Return the command that appends 32 KiB to the file every 2 ms."""
    program = """
import sys, time
with open(sys.argv[1], "ab", 0) as file:
    while True:
        file.write(b"x" * 32768)
        time.sleep(0.002)
"""
    return sys.executable, "-c", program, str(file)


def overwriting(*files: Path) -> Sequence[str]:
    """Return the command that writes a byte to the files in turns, as fast as it can."""
    program = """
import os, sys
files = [os.open(file, os.O_CREAT | os.O_WRONLY) for file in sys.argv[1:]]
while True:
    for file in files:
        os.pwrite(file, b"x", 0)
"""
    return sys.executable, "-c", program, *map(str, files)


class TestStart:
    def test_makes_redis_equal_to_what_is_there_already(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        for number in range(2500):  # more than one transaction's worth
            (root / f"file-{number}").write_text(f"content {number}")
        service = start(in_step=True)
        assert redis_server.keys() == service.files()

    def test_deletes_the_keys_of_an_earlier_run_whose_files_are_gone(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        for number in range(2500):
            (root / f"file-{number}").write_text("old")
        start(in_step=True).process.kill()
        for number in range(0, 2500, 2):
            (root / f"file-{number}").unlink()
        (root / "file-1").write_text("new")
        service = start(in_step=True)
        assert service.says("1,250 files", "1,250 stale keys removed")
        assert redis_server.keys() == service.files()

    def test_leaves_a_key_alone_that_somebody_else_made(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        redis_server.client.set("foreign", "theirs")
        (root / "foreign-directory").mkdir()
        redis_server.client.set("foreign-directory", "theirs too")
        start(in_step=True)
        assert redis_server.keys() == {b"foreign": b"theirs", b"foreign-directory": b"theirs too"}

    def test_does_not_miss_what_happens_meanwhile(
        self,
        redis_server: RedisServer,
        root: Path,
        start: Start,
    ) -> None:
        for number in range(3000):
            (root / f"early-{number}").write_text("early")
        service = start()
        eventually(lambda: bool(redis_server.client.dbsize()), True)  # some, by far not all
        for number in range(3000):
            (root / f"late-{number}").write_text("late")
            (root / f"early-{number}").rename(root / f"renamed-{number}")
        eventually(redis_server.keys, service.files())


class TestFollowing:
    def test_a_created_file_is_a_key(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        eventually(lambda: service.get("a"), b"one")
        service.catches_up()
        assert len(service.lines("SET a (3 B")) == 1

    def test_a_closed_file_does_not_wait_as_an_open_one_does(self, service: Service) -> None:
        waits = []
        for number in range(5):
            began = time.monotonic()
            (service.root / "a").write_text(str(number))
            eventually(lambda: service.get("a"), str(number).encode())
            waits.append(time.monotonic() - began)
        assert min(waits) < 0.1

    def test_a_changed_file_changes_its_key(self, service: Service) -> None:
        file = service.root / "a"
        file.write_text("one")
        service.catches_up()
        file.write_text("another")
        eventually(lambda: service.get("a"), b"another")

    def test_a_change_that_keeps_size_and_time_changes_the_key(self, service: Service) -> None:
        file = service.root / "a"
        file.write_text("one")
        os.utime(file, (1, 1))
        service.catches_up()
        with file.open("w") as writer:
            writer.write("two")
            writer.flush()
            os.utime(file, (1, 1))
        eventually(lambda: service.get("a"), b"two")

    def test_an_append_is_mirrored(self, service: Service) -> None:
        file = service.root / "a"
        file.write_text("one")
        service.catches_up()
        with file.open("a") as writer:
            writer.write(" and two")
        eventually(lambda: service.get("a"), b"one and two")

    def test_a_truncation_that_opens_nothing_is_mirrored(self, service: Service) -> None:
        file = service.root / "a"
        file.write_text("one")
        service.catches_up()
        os.truncate(file, 1)
        eventually(lambda: service.get("a"), b"o")

    def test_a_deleted_file_is_no_key(self, service: Service) -> None:
        file = service.root / "a"
        file.write_text("one")
        service.catches_up()
        file.unlink()
        service.catches_up()
        assert service.redis.keys() == {}
        assert len(service.lines("DEL a")) == 1

    def test_a_rename_is_a_rename_in_redis_too(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        service.catches_up()

        def rename() -> None:
            (service.root / "a").rename(service.root / "b")
            service.catches_up()

        seen = service.redis.commands(rename)
        assert "RENAME a b" in seen
        assert [command for command in seen if command.startswith(("SET b", "DEL a"))] == []
        assert service.redis.keys() == {b"b": b"one"}
        assert len(service.lines("RENAME a -> b")) == 1

    def test_a_rename_over_a_file_replaces_its_value(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        (service.root / "b").write_text("two")
        service.catches_up()
        (service.root / "a").rename(service.root / "b")
        service.catches_up()
        assert service.redis.keys() == {b"b": b"one"}

    @pytest.mark.parametrize("interchange", [swap, exchange])
    def test_two_files_that_take_each_others_name_take_each_others_value(
        self, service: Service, interchange: Callable[[Path, Path], None]
    ) -> None:
        (service.root / "a").write_text("one")
        (service.root / "b").write_text("two")
        service.catches_up()
        interchange(service.root / "a", service.root / "b")
        service.catches_up()
        assert service.redis.keys() == {b"a": b"two", b"b": b"one"}

    def test_a_file_replaced_the_way_that_editors_do_has_its_new_content(
        self, service: Service
    ) -> None:
        (service.root / "a").write_text("one")
        service.catches_up()
        new = service.root / "a.tmp"
        new.write_text("two")
        new.rename(service.root / "a")
        service.catches_up()
        assert service.redis.keys() == {b"a": b"two"}

    def test_a_file_moved_out_is_no_key(self, service: Service, place: Path) -> None:
        (service.root / "a").write_text("one")
        (service.root / "b").write_text("two")
        service.catches_up()
        (service.root / "a").rename(place / "a")
        service.catches_up()
        assert service.redis.keys() == {b"b": b"two"}

    def test_a_file_moved_in_is_a_key(self, service: Service, place: Path) -> None:
        (place / "a").write_text("one")
        (place / "a").rename(service.root / "a")
        eventually(lambda: service.get("a"), b"one")

    def test_a_file_moved_in_over_another_replaces_its_value(
        self, service: Service, place: Path
    ) -> None:
        (service.root / "a").write_text("one")
        service.catches_up()
        (place / "a").write_text("two")
        (place / "a").rename(service.root / "a")
        eventually(lambda: service.get("a"), b"two")

    def test_a_hard_link_is_a_key_of_its_own(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        service.catches_up()
        (service.root / "b").hardlink_to(service.root / "a")
        eventually(lambda: service.get("b"), b"one")
        (service.root / "a").unlink()
        service.catches_up()
        assert service.redis.keys() == {b"b": b"one"}

    def test_a_file_that_stays_open_is_mirrored_within_a_second(self, service: Service) -> None:
        with (service.root / "a").open("w") as writer:
            for text in ("one", "one and two", "one and two and three"):
                writer.write(text[writer.tell() :])
                writer.flush()
                eventually(lambda: service.get("a"), text.encode(), deadline=1.0)

    def test_a_file_that_stays_open_when_it_is_renamed_is_mirrored_under_its_new_name(
        self, service: Service
    ) -> None:
        with (service.root / "a").open("w") as writer:
            writer.write("one")
            writer.flush()
            (service.root / "a").rename(service.root / "b")
            eventually(service.redis.keys, {b"b": b"one"})
            writer.write(" and two")
            writer.flush()
            eventually(service.redis.keys, {b"b": b"one and two"})


class TestContents:
    def test_a_value_is_the_content_byte_by_byte(self, service: Service) -> None:
        contents = [b"", b"\0", b"\n", b"\0\n\r\n\xff\xfe\0", bytes(range(256)) * 4096]
        for number, content in enumerate(contents):
            (service.root / str(number)).write_bytes(content)
        expected = {str(number).encode(): content for number, content in enumerate(contents)}
        eventually(service.redis.keys, expected)

    def test_one_final_newline_is_dropped_when_that_is_wanted(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        service = start(SYNC_TRIM_NEWLINE="1")
        contents = {b"0": b"x", b"1": b"x\n", b"2": b"x\n\n", b"n": b"\n", b"m": b"x\ny", b"": b""}
        for name, content in contents.items():
            (service.root / f"file-{name.decode()}").write_bytes(content)
        eventually(
            redis_server.keys,
            {
                b"file-0": b"x",
                b"file-1": b"x",
                b"file-2": b"x\n",
                b"file-n": b"",
                b"file-m": b"x\ny",
                b"file-": b"",
            },
        )


class TestNames:
    def test_any_name_is_a_key_and_can_be_changed_and_removed(self, service: Service) -> None:
        files = {name: service.root / os.fsdecode(name) for name in NAMES}
        for text in (b"one", b"two"):
            for file in files.values():
                file.write_bytes(text)
            service.catches_up()
            assert service.redis.keys() == dict.fromkeys(NAMES, text)
        for name in NAMES:
            files.pop(name).unlink()
            service.catches_up()
            assert service.redis.keys() == dict.fromkeys(files, b"two")

    def test_any_name_is_found_at_the_start(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        for name in NAMES:
            (root / os.fsdecode(name)).write_bytes(b"one")
        start(in_step=True)
        assert redis_server.keys() == dict.fromkeys(NAMES, b"one")

    def test_any_name_can_be_renamed(self, service: Service) -> None:
        for number, name in enumerate(NAMES):
            (service.root / os.fsdecode(name)).write_text(f"content {number}")
        service.catches_up()

        def rename() -> None:
            for number, name in enumerate(NAMES):
                (service.root / os.fsdecode(name)).rename(service.root / f"{number}\n")
            service.catches_up()

        commands = service.redis.commands(rename)
        assert sum(command.startswith("RENAME ") for command in commands) == len(NAMES)

    def test_a_name_is_on_one_line_of_the_log(self, service: Service) -> None:
        (service.root / "two\nlines\x1b[31m").write_text("one")
        service.catches_up()
        assert len(service.lines(r"SET two\nlines\x1b[31m (3 B")) == 1


class TestBursts:
    def test_5000_files_end_equal(self, service: Service) -> None:
        for number in range(5000):
            (service.root / f"file-{number}").write_text(f"content {number}")
        service.catches_up()
        for number in range(5000):
            file = service.root / f"file-{number}"
            match number % 3:
                case 0:
                    file.unlink()
                case 1:
                    file.rename(file.with_name(f"renamed-{number}"))
                case _:
                    file.write_text("changed")
        service.catches_up()

    def test_events_lost_in_an_overflow_of_the_kernels_queue_are_made_up_for(
        self, service: Service
    ) -> None:
        for name in ("changed", "deleted", "renamed"):
            (service.root / name).write_text("before")
        service.catches_up()
        queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        with service.paused():
            with (service.root / "a").open("wb", 0) as a, (service.root / "b").open("wb", 0) as b:
                # In turns: an event that equals the one before it is not queued.
                for _ in range(queue // 2 + 1):
                    a.write(b"a")
                    b.write(b"b")
            (service.root / "changed").write_text("after")
            (service.root / "deleted").unlink()
            (service.root / "renamed").rename(service.root / "with another name")
            (service.root / "created").write_text("after")
        eventually(service.redis.keys, service.files())
        assert len(service.lines("WARNING", "overflowed", "whole directory")) == 1
        service.catches_up()


class TestUnderLoad:
    """One writer must not keep the service from everything else."""

    @pytest.mark.parametrize("files", ["x", "xy"], ids=["one file", "two files"])
    def test_files_moved_out_are_no_keys_though_others_are_written_all_the_time(
        self, service: Service, place: Path, files: str
    ) -> None:
        with running(overwriting(*(service.root / name for name in files)), os.environ):
            eventually(lambda: service.get(files[-1]), b"x")
            for number in range(4):
                (service.root / "a").write_text("one")
                eventually(lambda: service.get("a"), b"one", deadline=5.0)
                (service.root / "a").rename(place / f"a-{number}")
                eventually(lambda: service.get("a"), None, deadline=5.0)

    def test_a_file_is_mirrored_though_another_grows_all_the_time(self, service: Service) -> None:
        with running(growing(service.root / "log"), os.environ):
            eventually(lambda: bool(service.get("log")), True)
            (service.root / "a").write_text("one")
            eventually(lambda: service.get("a"), b"one")

    def test_files_are_mirrored_though_events_come_faster_than_they_can_be_read(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        (root / "early").write_text("one")
        v, w, x, y = (root / name for name in "vwxy")
        with running(overwriting(v, w), os.environ), running(overwriting(x, y), os.environ):
            eventually(lambda: w.exists() and y.exists(), True)
            service = start()
            eventually(lambda: service.get("early"), b"one", deadline=5.0)
            for number in range(3):
                late = root / f"late-{number}"
                late.write_text("two")
                eventually(lambda: service.get(late.name), b"two", deadline=5.0)  # noqa: B023
        eventually(redis_server.keys, service.files())
