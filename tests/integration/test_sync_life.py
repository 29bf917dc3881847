"""The service as a process: its start, its end, its log, and how one sees that it is well."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from base64 import b64decode
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import DEADLINE, eventually

if TYPE_CHECKING:
    from integration.conftest import RedisServer, Service, Start

IN_STEP = (0, "live: Redis equals the directory")


def ends(service: Service, status: int, *words: str) -> None:
    """Check that the service ends by itself, and why it says that it does, in one line."""
    assert service.process.wait(DEADLINE) == status
    assert len(service.lines(*words)) == 1
    assert not service.says("Traceback")


def status(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "sync", "status"),
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def figures(service: Service, *keys: str) -> list[Any]:
    """Return what its status has for programs under these keys."""
    said = json.loads(Path(service.environ["SYNC_STATUS"]).read_text())
    return [said[key] for key in keys]


def unmounts(path: Path) -> bool:
    return subprocess.run(("umount", path), check=False, capture_output=True).returncode == 0


class TestStatus:
    def test_before_the_start_the_service_has_not_started(self, place: Path) -> None:
        done = status({"SYNC_STATUS": str(place / "none")})
        assert (done.returncode, done.stdout) == (1, "the sync service has not started\n")

    def test_without_the_file_of_the_status_it_says_how_to_name_one(self) -> None:
        done = status({})
        assert (done.returncode, "set SYNC_STATUS" in done.stderr) == (2, True)

    def test_a_service_in_step_is_well(self, service: Service) -> None:
        eventually(service.health, IN_STEP)

    def test_a_service_is_ill_within_seconds_after_it_or_redis_was_killed_or_stopped(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        killed, stopped, stuck = (start(SYNC_PREFIX=each) for each in ("k:", "s:", "r:"))
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

    def test_one_that_waits_remembers_what_was_done_and_has_nothing_pending(
        self, service: Service, root: Path
    ) -> None:
        with (root / "locked").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            (root / "a").write_bytes(b"value")
            eventually(lambda: figures(service, "state", "pending", "moved"), ["live", 1, 5])
            service.redis.kill()
            eventually(lambda: figures(service, "state", "pending", "moved"), ["waiting", 0, 5])
            assert [each["name"] for each in figures(service, "recent")[0]] == ["a"]


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
    """The directory may not be there, or be another one: the service waits, and then goes on."""

    def goes_on(self, service: Service) -> None:
        """Make a directory anew, and check that it is mirrored."""
        service.root.mkdir()
        (service.root / "b").write_text("two")
        eventually(service.redis.keys, {b"b": b"two"})
        eventually(service.health, IN_STEP)
        service.catches_up()
        assert not service.says("Traceback")

    @pytest.mark.usefixtures("redis_server")
    def test_that_is_not_there_is_waited_for(self, root: Path, start: Start) -> None:
        root.rmdir()
        service = start()
        words = f"waiting for the directory: cannot open the directory {root}: No such file"
        eventually(lambda: len(service.lines("WARNING", words)), 1)
        eventually(lambda: words in service.health()[1], True)
        self.goes_on(service)
        assert len(service.lines(words)) == 1

    @pytest.mark.usefixtures("redis_server")
    def test_that_is_a_file_is_waited_for(self, root: Path, start: Start) -> None:
        root.rmdir()
        root.write_text("a file")
        service = start()
        words = f"cannot open the directory {root}: Not a directory; mount a volume there"
        eventually(lambda: service.says("WARNING", words), True)
        root.unlink()
        self.goes_on(service)

    def test_that_is_removed_is_waited_for(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        service.catches_up()
        (service.root / "a").unlink()
        service.root.rmdir()
        eventually(lambda: service.says("ERROR", "waiting for the directory"), True)
        self.goes_on(service)

    def test_that_is_moved_away_is_not_followed(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        service.catches_up()
        elsewhere = service.root.rename(service.root.with_name("elsewhere"))
        eventually(lambda: service.says("ERROR", "waiting for the directory"), True)
        (elsewhere / "c").write_text("not mirrored")
        self.goes_on(service)

    def test_that_is_replaced_by_another_is_mirrored_instead(self, service: Service) -> None:
        (service.root / "a").write_text("one")
        service.catches_up()
        other = service.root.with_name("other")
        other.mkdir()
        (other / "b").write_text("two")
        service.root.rename(service.root.with_name("elsewhere"))
        other.rename(service.root)
        eventually(service.redis.keys, {b"b": b"two"})
        service.catches_up()

    def test_can_be_unmounted_and_mounted_again(
        self, redis_server: RedisServer, root: Path, start: Start
    ) -> None:
        with ExitStack() as stack:
            mount = ("mount", "-t", "tmpfs", "tmpfs", root)
            subprocess.run(mount, check=True)
            stack.callback(subprocess.run, ("umount", "--lazy", root), check=False)
            (root / "a").write_text("one")
            service = start(in_step=True)
            eventually(lambda: unmounts(root), True)  # no longer than the service is at work
            eventually(redis_server.keys, {})
            subprocess.run(mount, check=True)
            (root / "b").write_text("two")
            eventually(redis_server.keys, {b"b": b"two"})
            service.catches_up()


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
            ("SYNC_EXCLUDE", "*~ a/[b", "SYNC_EXCLUDE has 'a/[b', which cannot be used: write"),
            ("SYNC_STATUS", "/nowhere/status", "/nowhere/status"),
            ("SYNC_LOG_FILE", "/nowhere/log", "/nowhere/log"),
        ],
    )
    def test_that_are_wrong_end_the_service_with_a_line_that_says_which(
        self, redis_server: RedisServer, start: Start, name: str, value: str, words: str
    ) -> None:
        environ = {"REDIS_URL": redis_server.url} | {name: value}
        ends(start(in_step=False, prefix=(), **environ), 2, words)


def written(text: str) -> list[dict[str, Any]]:
    """Return the lines of a log in JSON: each of them is a line of JSON."""
    return [json.loads(line) for line in text.splitlines()]


class TestLogAsJson:
    @pytest.mark.usefixtures("redis_server")
    def test_each_line_says_what_has_happened(self, place: Path, start: Start) -> None:
        file = place / "log"
        service = start(in_step=True, LOG_FORMAT="json", SYNC_LOG_FILE=str(file))
        (service.root / "a\n'\"").write_text("one")
        service.catches_up()
        (service.root / "a\n'\"").rename(os.fsdecode(os.fsencode(service.root) + b"/\xff"))
        service.catches_up()
        (service.root / "X").mkdir()
        eventually(lambda: service.says("X is a directory"), True)
        service.stop(signal.SIGTERM)
        lines = written("\n".join(service.lines()))
        assert lines == written(file.read_text())
        assert all(line["time"].endswith("Z") and line["message"] for line in lines)
        assert [lines[0]["event"], lines[-1]["event"]] == ["started", "stopped"]
        assert (lines[0]["root"], lines[0]["mode"]) == (str(service.root), "one-way-replica")
        (set_,) = [line for line in lines if line["event"] == "set" and line["key"] != ".marker"]
        assert (set_["key"], set_["bytes"]) == ("a\\n'\"", 3)
        assert 0 < set_["seconds"] < DEADLINE
        (rename,) = [line for line in lines if line["event"] == "rename"]
        assert b64decode(rename["key_base64"]) == b"a\n'\""
        assert (rename["new_key"], b64decode(rename["new_key_base64"])) == ("\\xff", b"\xff")
        (skipped,) = [line for line in lines if line["event"] == "skipped"]
        assert (skipped["key"], skipped["level"]) == ("X", "ERROR")

    def test_a_burst_is_summed_up_in_numbers(self, redis_server: RedisServer, start: Start) -> None:
        service = start(in_step=True, LOG_FORMAT="json")
        with redis_server.paused():
            for number in range(50):
                (service.root / str(number)).write_text("12345")
        service.catches_up()
        eventually(lambda: service.says('"event": "changes"'), True)
        lines = written("\n".join(service.lines()))
        # Of the marker there are some, too.
        assert (
            sum(line.get("set", 0) for line in lines)
            + sum(line["event"] == "set" for line in lines)
            >= 51
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [("SYNC_TRIM_NEWLINE", "yes"), ("SYNC_LOG_FILE", "/nowhere/log"), ("REDIS_URL", "nowhere")],
    )
    def test_what_ends_it_at_the_start_is_a_line_too(
        self, redis_server: RedisServer, start: Start, name: str, value: str
    ) -> None:
        environ = {"REDIS_URL": redis_server.url, "LOG_FORMAT": "json"} | {name: value}
        service = start(in_step=False, prefix=(), **environ)
        ends(service, 2)
        (line,) = written("\n".join(service.lines()))
        assert (line["event"], line["level"]) == ("failed", "ERROR")
        assert name in line["error"]

    def test_a_format_that_is_none_is_refused_as_text(
        self, redis_server: RedisServer, start: Start
    ) -> None:
        service = start(in_step=False, LOG_FORMAT="xml", REDIS_URL=redis_server.url)
        ends(service, 2, "mdvp-sync: LOG_FORMAT is 'xml': use one of text, json")

    def test_those_who_ask_are_answered_in_words(self) -> None:
        done = status({"LOG_FORMAT": "json"})
        assert done.stderr.startswith("mdvp-sync: set SYNC_STATUS")


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
