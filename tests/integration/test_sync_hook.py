"""SYNC_ON_CHANGE beside a real service: a command that is told what has changed."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from integration.conftest import RedisServer, Start
from support import eventually

from sync.core.changes import NONE, Confirm, Delete, Keep, Record, Rename, Set
from sync.core.plan import SPARE
from sync.service.hook import Hook

pytestmark = pytest.mark.waits

# Writes down what it was told, a file for each time that it ran, and says if two run at a time.
NOTES = (
    'mkdir "$NOTED/runs" || touch "$NOTED/twice"; while [ -e "$NOTED/shut" ]; do sleep 0.01; done; '
    'cat >"$NOTED/new"; mv "$NOTED/new" "$NOTED/$(date +%s%N).told"; rmdir "$NOTED/runs"'
)


@pytest.fixture
def noted(place: Path) -> Path:
    path = place / "noted"
    path.mkdir()
    return path


def noting(noted: Path) -> dict[str, str]:
    return {**os.environ, "NOTED": str(noted)}


def told(noted: Path) -> list[list[bytes]]:
    """Return the names of each time that the command ran."""
    files = sorted(noted.glob("*.told"))
    return [sorted(file.read_bytes().split(b"\0")[:-1]) for file in files]


def all_told(noted: Path) -> set[bytes]:
    return {name for names in told(noted) for name in names}


def texts(noted: Path, *names: str) -> list[str]:
    return [(noted / name).read_text() for name in names if (noted / name).exists()]


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.usefixtures("redis_server")
def test_it_is_told_what_changes_on_the_disk(start: Start, noted: Path) -> None:
    service = start(in_step=True, SYNC_TREE="1", SYNC_ON_CHANGE=NOTES, NOTED=str(noted))
    (service.root / "d").mkdir()
    odd = b"d/two\nlines \xff"
    (service.root / os.fsdecode(odd)).write_text("1")
    eventually(lambda: told(noted), [[odd]])
    (service.root / "d").rename(service.root / "e")
    moved = odd.replace(b"d/", b"e/")
    eventually(lambda: all_told(noted), {odd, moved})
    (service.root / "x~").write_text("1")
    (service.root / "large").write_bytes(bytes(2 << 20))
    eventually(lambda: all_told(noted), {odd, moved, b"large"})
    for file in noted.glob("*.told"):
        file.unlink()
    (service.root / os.fsdecode(moved)).unlink()
    eventually(lambda: told(noted), [[moved]])


def test_it_is_told_what_changes_in_redis(
    redis_server: RedisServer, start: Start, noted: Path
) -> None:
    service = start(
        in_step=True, SYNC_MODE="two-way-resolved", SYNC_ON_CHANGE=NOTES, NOTED=str(noted)
    )
    redis_server.client.set("a", "1")
    eventually(lambda: told(noted), [[b"a"]])
    (service.root / "b").write_text("1")
    eventually(lambda: told(noted), [[b"a"], [b"b"]])
    redis_server.client.delete("a")
    eventually(lambda: told(noted), [[b"a"], [b"b"], [b"a"]])


@pytest.mark.usefixtures("redis_server")
def test_it_is_told_what_has_changed_while_the_service_did_not_run(
    start: Start, noted: Path
) -> None:
    service = start(in_step=True)
    (service.root / "a").write_text("1")
    (service.root / "b").write_text("1")
    service.catches_up()
    assert service.stop(signal.SIGTERM) == 0
    (service.root / "a").write_text("22")
    (service.root / "b").unlink()
    start(in_step=True, SYNC_ON_CHANGE=NOTES, NOTED=str(noted))
    eventually(lambda: all_told(noted), {b"a", b"b"})


@pytest.mark.usefixtures("redis_server")
def test_what_changes_while_it_runs_is_told_once_and_after_that(start: Start, noted: Path) -> None:
    (noted / "shut").touch()
    service = start(in_step=True, SYNC_ON_CHANGE=NOTES, NOTED=str(noted))
    (service.root / "first").write_text("1")
    eventually((noted / "runs").is_dir, True)
    for number in range(500):
        (service.root / f"f{number % 100}").write_text(str(number))
    service.catches_up()
    (noted / "shut").unlink()
    eventually(lambda: len(told(noted)), 2)
    names = sorted([b".marker", *(b"f%d" % number for number in range(100))])
    assert told(noted) == [[b"first"], names]
    assert not (noted / "twice").exists()


def test_it_finds_in_redis_what_it_is_told_of(
    redis_server: RedisServer, start: Start, noted: Path
) -> None:
    looks = (
        f'xargs -0 -n1 sh -c \'redis-cli -s {redis_server.socket} get "$0" '
        '>"$NOTED/$0.new"; mv "$NOTED/$0.new" "$NOTED/$0"\''
    )
    service = start(in_step=True, SYNC_ON_CHANGE=looks, NOTED=str(noted))
    for number in range(10):
        (service.root / "a").write_text(str(number))
        (service.root / f"f{number}").write_text("1")
        eventually(partial(texts, noted, "a", f"f{number}"), [f"{number}\n", "1\n"])


@pytest.mark.usefixtures("redis_server")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("exit 3", "ended with status 3; it was told of 1 name"),
        ("kill -9 $$", "was ended by SIGKILL"),
        ("/no/such/command", "ended with status 127"),
    ],
)
def test_a_failure_is_a_line_and_nothing_more(start: Start, command: str, words: str) -> None:
    service = start(in_step=True, SYNC_ON_CHANGE=command)
    (service.root / "a").write_text("1")
    eventually(lambda: service.says("ERROR", "SYNC_ON_CHANGE", words), True)
    for number in range(4):
        (service.root / f"f{number}").write_text(str(number))
        service.catches_up()
    assert len(service.lines("ERROR")) == 1
    assert service.health()[0] == 0


@pytest.mark.usefixtures("redis_server")
@pytest.mark.parametrize("who", ["shell", "what it starts"])
def test_a_command_without_an_end_holds_up_nothing_and_ends_with_the_service(
    start: Start, noted: Path, who: str
) -> None:
    endless = '; echo $$ >"$NOTED/new"; mv "$NOTED/new" "$NOTED/group"; sleep 1000'
    ignores = 'trap "" TERM'
    endless = (ignores if who == "shell" else f"({ignores}; exec sleep 1000) & true") + endless
    service = start(in_step=True, SYNC_ON_CHANGE=endless, NOTED=str(noted))
    (service.root / "a").write_text("1")
    eventually((noted / "group").exists, True)
    group = int((noted / "group").read_text())
    for number in range(20):
        (service.root / "a").write_text(str(number))
    service.catches_up()
    assert alive(group)
    began = time.monotonic()
    assert service.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 1.5
    eventually(lambda: alive(group), False)


@pytest.mark.usefixtures("redis_server")
def test_it_has_none_of_the_service_s_files_and_no_signal_is_ignored(
    start: Start, noted: Path
) -> None:
    looks = (
        'ls /proc/self/fd >"$NOTED/fds"; grep -h -E "^Sig(Ign|Blk)" /proc/self/status '
        '>"$NOTED/new"; echo "$SYNC_ROOT" >>"$NOTED/new"; mv "$NOTED/new" "$NOTED/signals"'
    )
    service = start(in_step=True, SYNC_TREE="1", SYNC_ON_CHANGE=looks, NOTED=str(noted))
    (service.root / "a").write_text("1")
    eventually((noted / "signals").exists, True)
    # The fourth is that of what ls itself looks into.
    assert (noted / "fds").read_text().split() == ["0", "1", "2", "3"]
    *signals, root = (noted / "signals").read_text().splitlines()
    # Those above are the C library's own.
    assert [int(line.split()[1], 16) % (1 << 31) for line in signals] == [0, 0]
    assert root == str(service.root)


def test_nothing_is_read_when_more_has_changed_than_is_remembered(noted: Path) -> None:
    (noted / "shut").touch()
    hook = Hook(NOTES, noting(noted), names_max=10)
    hook.changed([Set(b"first", b"", NONE)])
    eventually((noted / "runs").is_dir, True)
    for number in range(20):
        hook.changed([Set(b"f%d" % number, b"", NONE)])
    (noted / "shut").unlink()
    eventually(lambda: told(noted), [[b"first"], []])
    hook.changed([Set(b"a", b"", NONE), Delete(b"b")])
    eventually(lambda: told(noted), [[b"first"], [], [b"a", b"b"]])
    hook.close()


def test_only_files_and_keys_are_told(noted: Path) -> None:
    hook = Hook(NOTES, noting(noted))
    hook.changed([Confirm(b"a", NONE), Record(b"b", None), Keep(b"c", 1, 1, 1)])
    hook.changed([Rename(b"d", SPARE, NONE), Rename(b"e", b"d", NONE), Rename(SPARE, b"e", NONE)])
    eventually(lambda: told(noted), [[b"d", b"e"]])
    hook.close()


def test_it_inherits_nothing_that_others_have_left_open(noted: Path) -> None:
    one, other = os.pipe()
    os.set_inheritable(one, True)
    hook = Hook('ls /proc/self/fd >"$NOTED/new"; mv "$NOTED/new" "$NOTED/fds"', noting(noted))
    hook.changed([Set(b"a", b"", NONE)])
    eventually((noted / "fds").exists, True)
    assert (noted / "fds").read_text().split() == ["0", "1", "2", "3"]
    hook.close()
    for fd in (one, other):
        os.close(fd)


def test_a_hook_that_is_closed_runs_nothing(noted: Path) -> None:
    (noted / "shut").touch()
    hook = Hook(NOTES, noting(noted))
    hook.changed([Set(b"a", b"", NONE)])
    eventually((noted / "runs").is_dir, True)
    hook.changed([Set(b"b", b"", NONE)])
    hook.close()
    (noted / "shut").unlink()
    hook.changed([Set(b"c", b"", NONE)])
    assert told(noted) == []
