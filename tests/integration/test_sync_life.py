"""The service as a process: its start, its end, its log, and how one sees that it is well."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import DEADLINE, eventually

if TYPE_CHECKING:
    from integration.conftest import RedisServer, Service, Start

IN_STEP = (0, "in step: Redis equals the directory")


def ends(service: Service, status: int, *words: str) -> None:
    """Check that the service ends by itself, and why it says that it does, in one line."""
    assert service.process.wait(DEADLINE) == status
    assert len(service.lines(*words)) == 1
    assert not service.says("Traceback")


def health(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "sync", "health"),
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


class TestHealth:
    def test_before_the_start_the_service_has_not_started(self, place: Path) -> None:
        done = health({"SYNC_HEARTBEAT": str(place / "none")})
        assert (done.returncode, done.stdout) == (1, "the sync service has not started\n")

    def test_without_a_heartbeat_there_is_no_health_to_speak_of(self) -> None:
        done = health({})
        assert (done.returncode, "set SYNC_HEARTBEAT" in done.stdout) == (2, True)

    def test_a_service_in_step_is_well(self, service: Service) -> None:
        eventually(service.health, IN_STEP)

    def test_a_service_is_ill_within_seconds_after_it_or_redis_was_killed_or_stopped(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        killed, stopped, stuck = start(), start(), start()
        for service in (killed, stopped, stuck):
            eventually(service.health, IN_STEP)
        killed.process.kill()
        killed.process.wait()
        with stopped.paused(), redis_server.paused():
            for service in (killed, stopped, stuck):
                eventually(lambda: service.health()[0], 1)  # noqa: B023  # asked at once
        for service in (stopped, stuck):
            eventually(service.health, IN_STEP)

    def test_a_service_without_redis_is_ill(self, service: Service) -> None:
        eventually(service.health, IN_STEP)
        service.redis.kill()
        eventually(lambda: "not in step: waiting for Redis" in service.health()[1], True)
        assert service.health()[0] == 1


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_the_service_within_a_second(
        self, service: Service, number: signal.Signals
    ) -> None:
        assert service.stop(number) == 0
        assert len(service.lines("INFO sync: stopped")) == 1
        assert not service.says("Traceback")

    def test_sigterm_ends_the_service_within_a_second_while_redis_hangs(
        self, service: Service
    ) -> None:
        with service.redis.paused():
            (service.root / "a").write_text("one")
            assert service.stop(signal.SIGTERM) == 0

    def test_sigterm_ends_the_service_within_a_second_while_it_is_at_work(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        for number in range(10_000):
            (root / f"file-{number}").write_text("one")
        service = start()
        eventually(lambda: bool(redis_server.client.dbsize()), True)
        assert service.stop(signal.SIGTERM) == 0

    def test_a_service_that_was_killed_is_followed_by_one_that_makes_all_equal(
        self, service: Service, start: Start
    ) -> None:
        for name in ("a", "b", "c"):
            (service.root / name).write_text("one")
        service.catches_up()
        service.process.kill()
        service.process.wait()
        (service.root / "a").unlink()
        (service.root / "b").rename(service.root / "d")
        (service.root / "c").write_text("two")
        start(in_step=True)
        assert service.redis.keys() == {b"c": b"two", b"d": b"one"}


class TestRoot:
    @pytest.mark.usefixtures("redis_server")
    def test_that_is_not_there_ends_the_service(
        self,
        root: Path,
        start: Start,
    ) -> None:
        root.rmdir()
        ends(start(), 1, "ERROR", f"cannot open the directory {root}: No such file or directory")

    @pytest.mark.usefixtures("redis_server")
    def test_that_is_a_file_ends_the_service(
        self,
        root: Path,
        start: Start,
    ) -> None:
        root.rmdir()
        root.write_text("a file")
        ends(start(), 1, "ERROR", f"cannot open the directory {root}: Not a directory")

    def test_that_is_removed_ends_the_service(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        service.catches_up()
        (service.root / "a").unlink()
        service.root.rmdir()
        ends(service, 1, "ERROR", "the watched directory was deleted, moved or unmounted")

    def test_that_is_moved_ends_the_service(self, service: Service) -> None:
        service.root.rename(service.root.with_name("elsewhere"))
        ends(service, 1, "ERROR", "the watched directory was deleted, moved or unmounted")
        assert len(service.lines("ERROR")) == 1


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("SYNC_TRIM_NEWLINE", "yes", "SYNC_TRIM_NEWLINE is 'yes'"),
            ("LOG_LEVEL", "loud", "LOG_LEVEL is 'LOUD'"),
            ("REDIS_URL", "localhost:6379", "REDIS_URL cannot be used"),
            ("REDIS_URL", "redis://localhost:port", "REDIS_URL cannot be used"),
            ("REDIS_URL", "redis://localhost?no_such_option=1", "REDIS_URL cannot be used"),
            ("REDIS_URL", "redis://localhost?decode_responses=1", "decode_responses"),
            ("SYNC_HEARTBEAT", "/nowhere/heartbeat", "/nowhere/heartbeat"),
            ("SYNC_LOG_FILE", "/nowhere/log", "/nowhere/log"),
        ],
    )
    def test_that_are_wrong_end_the_service_with_a_line_that_says_which(
        self, redis_server: RedisServer, start: Start, name: str, value: str, words: str
    ) -> None:
        environ = {"REDIS_URL": redis_server.url} | {name: value}
        ends(start(in_step=False, prefix=(), **environ), 2, words)


class TestLog:
    @pytest.mark.usefixtures("redis_server")
    def test_the_log_file_gets_the_same_lines_as_the_output(
        self,
        place: Path,
        start: Start,
    ) -> None:
        file = place / "log"
        service = start(in_step=True, SYNC_LOG_FILE=str(file))
        (service.root / "a").write_text("one")
        (service.root / "X").mkdir()
        service.catches_up()
        service.stop(signal.SIGTERM)
        assert file.read_text().splitlines() == service.lines()
        assert [
            line for line in service.lines() if not re.match(r"\d{4}-.* \w+ sync: ", line)
        ] == []

    @pytest.mark.usefixtures("redis_server")
    def test_a_level_leaves_out_what_is_below_it(
        self,
        root: Path,
        start: Start,
    ) -> None:
        service = start(LOG_LEVEL="error")
        (root / "X").mkdir()
        eventually(lambda: len(service.lines("ERROR", "X is a directory")), 1)
        assert not service.says("INFO")
