"""`mdvp-sync top` on a real terminal, beside a real service and a real Redis."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.conftest import SYNC
from support import eventually
from terminal import CTRL_C, CTRL_Z, Terminal

if TYPE_CHECKING:
    from integration.conftest import RedisServer, Service, Start

WELL = "live: Redis equals the directory"

Top = Callable[..., Terminal]


@pytest.fixture
def top() -> Iterator[Top]:
    """Return what shows a service on a terminal of its own."""
    with ExitStack() as stack:

        def start(
            service: Service, *arguments: str, columns: int = 80, rows: int = 24, **environ: str
        ) -> Terminal:
            command = (*SYNC, "top", *arguments)
            size = {"columns": columns, "rows": rows}
            return stack.enter_context(Terminal(command, service.environ | environ, **size))

        yield start


def once(environ: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*SYNC, "top", *options),
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


RATE = re.compile(r"rate +[1-9][\d,]*/s, [1-9][\d.]* [kM]B/s")


def test_a_file_is_shown_within_two_seconds(service: Service, root: Path, top: Top) -> None:
    terminal = top(service)
    terminal.until_shows(WELL, "no changes yet", "master")
    (root / "key1").write_bytes(b"value1\n")
    terminal.until_shows("SET", "7 B  key1", deadline=2.0)
    (root / "key1").rename(root / "key2")
    terminal.until_shows("RENAME", "key1 -> key2", deadline=2.0)


def test_it_says_what_is_mirrored_to_where(service: Service, root: Path, top: Top) -> None:
    terminal = top(service, columns=200)
    terminal.until_shows(f"one-way-replica  {root} -> {service.redis.socket}", "live since ")


def test_a_burst_has_rates(service: Service, root: Path, top: Top) -> None:
    terminal = top(service)
    terminal.until_shows(WELL, "rate      0/s, 0 B/s")
    end = time.monotonic() + 10
    number = 0
    while not (terminal.shows("by kind   SET ") and RATE.search(terminal.text())):
        assert time.monotonic() < end, terminal.text()
        (root / f"{number}").write_bytes(b"x" * 1000)
        number += 1
    terminal.until_shows("p50 <= ", "p99 <= ")
    terminal.until_shows("rate      0/s, 0 B/s")


@pytest.mark.parametrize("keys", ["q", "Q", CTRL_C])
def test_a_key_ends_it_and_leaves_the_terminal_as_it_was(
    service: Service, top: Top, keys: str
) -> None:
    terminal = top(service)
    terminal.until_shows(WELL)
    assert not terminal.is_as_before()
    terminal.press(keys)
    assert terminal.is_as_before_at_the_end(0)


def test_other_keys_are_not_shown_and_end_nothing(service: Service, root: Path, top: Top) -> None:
    terminal = top(service)
    terminal.until_shows(WELL)
    terminal.press("x\x1b[A\x1c")
    (root / "a").write_bytes(b"")
    terminal.until_shows("0 B  a")
    assert "^" not in terminal.text()
    terminal.press("q")
    assert terminal.is_as_before_at_the_end(0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(
    service: Service, top: Top, number: signal.Signals
) -> None:
    terminal = top(service)
    terminal.until_shows(WELL)
    terminal.process.kill(number)
    assert terminal.is_as_before_at_the_end(128 + number)


def test_it_ends_with_its_terminal(service: Service, top: Top) -> None:
    terminal = top(service)
    terminal.until_shows(WELL)
    with Path(os.devnull).open("rb") as other:
        os.dup2(other.fileno(), terminal.process.child_fd)  # which closes the terminal
    pid = terminal.process.pid
    eventually(lambda: pid is not None and has_ended(pid), True)


def has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_a_failure_leaves_the_terminal_as_it_was_and_is_told(
    service: Service, top: Top, place: Path
) -> None:
    # A module that makes the first picture fail.
    (place / "sitecustomize.py").write_text(
        "import rich.live\n"
        "def fail(*_, **__): raise RuntimeError('a defect')\n"
        "rich.live.Live.update = fail\n"
    )
    terminal = top(service, PYTHONPATH=f"{place}:{Path.cwd()}")
    assert terminal.is_as_before_at_the_end(1)
    assert b"RuntimeError: a defect" in terminal.written.rpartition(b"\x1b[?1049l")[2]


def test_it_can_be_suspended(service: Service, place: Path) -> None:
    """By a shell with job control, which goes on meanwhile."""
    shell = ("bash", "--norc", "--noprofile", "-i")
    environ = service.environ | {"PS1": "shell> ", "HISTFILE": ""}
    with Terminal(shell, environ, columns=80, rows=24) as terminal:
        terminal.until_shows("shell>")
        terminal.press(f"{' '.join(SYNC)} top\n")
        terminal.until_shows(WELL)
        terminal.press(CTRL_Z)
        terminal.until_shows("Stopped")
        terminal.press("echo $((6 * 7)) && stty -a >" + str(place / "stty") + "\n")
        terminal.until_shows("\n42")
        assert " echo " in eventually_read(place / "stty")
        terminal.press("clear; fg\n")
        terminal.until_shows(WELL)
        terminal.press("q")
        terminal.press("clear; echo $((6 * 8)) $?\n")
        terminal.until_shows("48 0")


def eventually_read(path: Path) -> str:
    eventually(lambda: path.exists() and path.stat().st_size > 0, True)
    return path.read_text()


def test_the_picture_has_the_size_of_the_terminal_at_once(service: Service, top: Top) -> None:
    terminal = top(service, "--interval", "3600", columns=40, rows=10)
    terminal.until_shows("pending   0 names")
    assert not terminal.shows("files ")
    terminal.resize(columns=120, rows=30)
    terminal.until_shows("files     0 (0 B)", "─" * 120)
    terminal.resize(columns=30, rows=6)
    terminal.until_shows(WELL[:20], "rate")
    assert max(map(len, terminal.rows())) <= 30


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 24), (200, 60), (20, 3), (1, 1)])
def test_hostile_names_stay_in_their_rows(
    service: Service, root: Path, top: Top, columns: int, rows: int
) -> None:
    for name in (
        "[red]x",
        "\x1b[2J\x1b[H",
        "\u6f22" * 80,
        "e\u0301" * 80,
        "a" * 250,
        "\u202e\n",
        "\ufe0f\u200d",
    ):
        (root / name).write_bytes(b"")
        (root / f"{name[:60]}d").mkdir()
    service.catches_up()
    terminal = top(service, columns=columns, rows=rows)
    eventually(lambda: bool(terminal.rows()[0]), True)
    first = terminal.rows()[0]
    assert WELL.startswith(first) or first.endswith("…")
    if rows >= 24:
        terminal.until_shows("names skipped", "[red]x", "last changes", r"\x1b[2J", "漢")
        assert [row for row in terminal.rows() if row.startswith("last changes")] == [
            "last changes"
        ]
    terminal.press("q")
    assert terminal.is_as_before_at_the_end(0)


def test_a_service_that_was_killed_has_ended(service: Service, top: Top) -> None:
    terminal = top(service)
    terminal.until_shows(WELL)
    service.process.kill()
    service.process.wait()
    terminal.until_shows("no sign of life", "it has", "ended", "rate      not known")


def test_a_redis_that_was_stopped_is_away_until_it_is_there_again(
    service: Service, top: Top
) -> None:
    terminal = top(service, columns=120)
    terminal.until_shows(WELL, "master")
    service.redis.kill()
    terminal.until_shows("not in step: waiting for Redis at", "Redis: ", "Redis     no answer")
    service.redis.start()
    terminal.until_shows(WELL, "master")


def test_a_redis_that_hangs_holds_up_nothing(service: Service, top: Top) -> None:
    terminal = top(service, columns=120)
    terminal.until_shows(WELL, "master")
    with service.redis.paused():
        terminal.until_shows("Redis: does not answer (for 2 s)", "Redis     no answer")
        terminal.until_shows("it or Redis hangs")
        before = time.monotonic()
        terminal.press("q")
        assert terminal.is_as_before_at_the_end(0)
        assert time.monotonic() - before < 2


def test_a_redis_that_is_full_shows_how_full(
    idle_redis: RedisServer, start: Start, top: Top
) -> None:
    idle_redis.start("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    terminal = top(start(in_step=True))
    terminal.until_shows(
        "MB of 104.9 MB (", "policy    allkeys-lru", "evicted   0 keys", "clients "
    )


def test_a_user_without_the_right_to_ask_is_told_which(service: Service, top: Top) -> None:
    client = service.redis.client
    client.execute_command("ACL", "SETUSER", "nobody", "on", "nopass")  # type: ignore[no-untyped-call]
    url = service.redis.url.replace("://", "://nobody:x@")
    terminal = top(service, columns=160, REDIS_URL=url)
    terminal.until_shows(WELL, "Redis: ", "mdvp-sync acl")


def test_a_url_that_cannot_be_used_is_said_and_the_rest_is_shown(
    service: Service, top: Top
) -> None:
    terminal = top(service, columns=160, REDIS_URL="http://here")
    terminal.until_shows(WELL, "Redis: REDIS_URL cannot be used")


def test_before_the_start_the_service_has_not_started(
    redis_server: RedisServer, start: Start, place: Path, top: Top
) -> None:
    terminal = top(start(), SYNC_STATUS=str(place / "none"), REDIS_URL=redis_server.url)
    terminal.until_shows("the sync service has not started", "not known", "master")


def test_without_a_terminal_one_line_says_so(service: Service) -> None:
    done = once(service.environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "top needs a terminal" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_so_it_does_where_there_is_nothing_to_read_or_to_write_to(
    service: Service, closed: str
) -> None:
    command = ("sh", "-c", f'exec "$@" {closed}', "sh", *SYNC, "top")
    done = subprocess.run(command, env=service.environ, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert b"top needs a terminal" in done.stderr


def test_so_it_does_on_one_that_can_only_write(service: Service, top: Top) -> None:
    terminal = top(service, TERM="dumb")
    assert terminal.status() == 2
    assert b"top needs a terminal" in terminal.written
    assert b"\x1b" not in terminal.written


def test_one_picture_is_plain_text_where_there_is_no_terminal(service: Service, root: Path) -> None:
    (root / "[red]x").write_bytes(b"value")
    service.catches_up()
    eventually(lambda: "[red]x" in once(service.environ, "--once").stdout, True)
    done = once(service.environ, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    rows = done.stdout.splitlines()
    assert rows[0] == WELL
    assert "\x1b" not in done.stdout
    assert any("rate      0/s, 0 B/s" in row for row in rows)
    assert any(row.endswith(", master") for row in rows)
    assert max(map(len, rows)) <= 80


def test_one_picture_of_a_service_that_is_ill_says_so_by_its_status_too(service: Service) -> None:
    service.process.kill()
    service.process.wait()
    eventually(lambda: once(service.environ, "--once").returncode, 1)
    assert "has ended" in once(service.environ, "--once").stdout.replace("\n", " ")


def test_a_terminal_of_one_script_gets_what_it_can_write(service: Service, root: Path) -> None:
    (root / "\u6f22").write_bytes(b"")
    service.catches_up()
    environ = service.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    eventually(lambda: "0 B  ?" in once(environ, "--once").stdout, True)
    assert once(environ, "--once").stdout.isascii()


def test_colours_are_left_out_where_nobody_wants_them(service: Service, top: Top) -> None:
    coloured, plain = top(service), top(service, NO_COLOR="1")
    for terminal in (coloured, plain):
        terminal.until_shows(WELL)
    assert (b"\x1b[1;32m" in coloured.written, b"\x1b[1;32m" in plain.written) == (True, False)
    assert b";3" not in plain.written


def test_without_the_file_of_the_status_it_says_how_to_name_one() -> None:
    done = once({})
    assert (done.returncode, "set SYNC_STATUS" in done.stderr) == (2, True)
