"""`mdvp-sync wait` beside a real service: what is finished before is in Redis when it returns."""

import fcntl
import os
import random
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from integration.conftest import POWERLESS, SYNC, RedisServer, Service, Start
from support import eventually

from sync.core.decision import Mode
from sync.core.exclude import COOKIE
from sync.redis.waits import answer_key, paths_key
from sync.settings import Settings
from sync.wait import wait

pytestmark = pytest.mark.waits

LARGE = b"0123456789abcdef" * (1 << 17)  # bytes; it is brought beside everything else
QUICKLY = 0.4  # seconds; whoever waited for a writer at work would wait for longer
LEFTOVER = os.fsdecode(COOKIE % b"0123456789abcdef")


def waited(service: Service, *paths: str, timeout: float = 10.0) -> int:
    """Wait as the command does, without the start of an interpreter; return its exit status."""
    return wait(Settings.read(service.environ), paths, timeout)


def command(
    environ: dict[str, str], *arguments: str, prefix: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Return exit status and what is said of the command itself."""
    done = subprocess.run(
        (*prefix, *SYNC, "wait", *arguments),
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_is_written_before_is_in_redis(service: Service) -> None:
    for number in range(200):
        name = f"f{number % 7}"
        (service.root / name).write_text(str(number))
        assert waited(service) == 0
        assert service.get(name) == str(number).encode()
        if number % 10 == 0:
            (service.root / name).unlink()
            assert waited(service, name) == 0
            assert service.get(name) is None
    assert service.redis.client.keys("*waits*") == []


def test_the_command_says_nothing_when_all_is_there(service: Service) -> None:
    (service.root / "a").write_text("1")
    assert command(service.environ, "a", f"{service.root}/b", "--timeout", "5") == (0, "")
    assert service.get("a") == b"1"


def test_a_cookie_leaves_no_trace(redis_server: RedisServer, root: Path, start: Start) -> None:
    (root / LEFTOVER).touch()
    service = start(
        in_step=True, SYNC_EXCLUDE="", SYNC_MODE="two-way-resolved", SYNC_TREE="1", SYNC_PREFIX="p:"
    )
    assert redis_server.client.get("p:" + LEFTOVER) is None
    redis_server.client.set("p:" + LEFTOVER, "somebody's")
    commands = redis_server.commands(lambda: waited(service))
    assert not [each for each in commands if LEFTOVER[:15] in each and LEFTOVER not in each]
    assert [(path.name, path.read_bytes()) for path in root.iterdir()] == [(LEFTOVER, b"")]
    assert redis_server.client.get("p:" + LEFTOVER) == b"somebody's"
    assert service.health()[0] == 0


def test_a_large_file_is_waited_for(service: Service) -> None:
    for content in (LARGE, LARGE[1:], LARGE + LARGE):
        (service.root / "large").write_bytes(content)
        (service.root / "small").write_bytes(b"1")
        assert waited(service) == 0
        assert service.get("large") == content


def test_nobody_waits_for_a_writer_at_work(service: Service) -> None:
    with (service.root / "log").open("wb", buffering=0) as log:
        log.write(b"begun")
        began = time.monotonic()
        for number in range(5):
            log.write(LARGE)
            (service.root / "a").write_text(str(number))
            assert waited(service) == 0
            assert service.get("a") == str(number).encode()
        assert time.monotonic() - began < QUICKLY
    assert waited(service) == 0
    assert service.get("log") == b"begun" + 5 * LARGE


def test_what_was_finished_before_another_began_is_not_forgotten(service: Service) -> None:
    for number in range(3):
        path = service.root / f"f{number}"
        path.write_bytes(b"1")
        with path.open("ab", buffering=0) as file:
            file.write(b"2")
            assert waited(service) == 0
            assert service.get(path.name) in {b"1", b"12"}


def test_what_cannot_be_read_since_another_has_it_open_is_waited_for(service: Service) -> None:
    (service.root / "a").write_text("0")
    for number in range(1, 4):
        with (service.root / "a").open("rb+"):
            (service.root / "a").write_text(str(number))
            (service.root / "later").write_text(str(number))
            eventually(lambda: service.get("later"), str(number).encode())
            assert waited(service) == 0
            assert service.get("a") == str(number).encode()


def test_the_keys_of_a_directory_that_is_gone_are_waited_for(
    redis_server: RedisServer, start: Start, outside: Path
) -> None:
    (outside / "d").mkdir()
    for number in range(5000):
        (outside / f"d/f{number}").write_text("1")
    service = start(in_step=True, SYNC_TREE="1")
    for _ in range(3):
        (outside / "d").rename(service.root / "d")
        assert waited(service) == 0
        assert len(redis_server.keys()) == 5000
        (service.root / "d").rename(outside / "d")
        assert waited(service) == 0
        assert redis_server.keys() == {}


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.REDIS_TO_DISK])
def test_it_works_in_all_modes_in_which_redis_follows(
    redis_server: RedisServer, start: Start, mode: Mode
) -> None:
    service = start(in_step=True, SYNC_MODE=mode.value)
    for number in range(5):
        content = str(number).encode()
        (service.root / "a").write_bytes(content)
        (service.root / "large").write_bytes(content + LARGE)
        assert waited(service, "a") == 0
        assert redis_server.client.get("a") == content
        assert redis_server.client.get("large") == content + LARGE


def test_where_the_directory_follows_what_is_written_is_undone_by_then(
    redis_server: RedisServer, start: Start
) -> None:
    redis_server.client.mset({"a": "1", "large": LARGE})
    service = start(in_step=True, SYNC_MODE="redis-to-disk")
    for _ in range(3):
        (service.root / "a").write_bytes(b"22")
        (service.root / "large").write_bytes(LARGE[1:])
        assert waited(service, "a", "large") == 0
        assert service.files() == {b"a": b"1", b"large": LARGE}


def test_a_tree_is_waited_for(redis_server: RedisServer, start: Start) -> None:
    service = start(in_step=True, SYNC_TREE="1", SYNC_PREFIX="{t}:")
    for number in range(10):
        names = [f"d{number}/e{deep}/f{each}" for deep in range(5) for each in range(20)]
        for name in names:
            (service.root / name).parent.mkdir(parents=True, exist_ok=True)
            (service.root / name).write_text(str(number))
        assert waited(service, f"d{number}") == 0
        assert redis_server.client.exists(*(f"{{t}}:{name}" for name in names)) == len(names)
        (service.root / f"d{number}").rename(service.root / f"n{number}")
        (service.root / f"n{number}/e0").rename(service.root / f"m{number}")
        assert waited(service) == 0
        keys = (f"{{t}}:n{number}/e1/f0", f"{{t}}:m{number}/f0", f"{{t}}:d{number}/e1/f0")
        assert redis_server.client.mget(*keys) == [str(number).encode()] * 2 + [None]


def test_a_swap_of_a_link_is_waited_for(redis_server: RedisServer, start: Start) -> None:
    service = start(in_step=True, SYNC_TREE="1", SYNC_LINKS="inside")
    for number in range(10):
        version = service.root / f"v{number}"
        version.mkdir()
        for name in ("a", "b"):
            (version / name).write_text(str(number))
        (service.root / "new").symlink_to(version.name)
        (service.root / "new").rename(service.root / "current")
        assert waited(service, "current/a") == 0
        assert redis_server.client.mget("current/a", "current/b") == [str(number).encode()] * 2


def test_other_names_of_a_file_are_waited_for(service: Service) -> None:
    (service.root / "a").write_text("-")
    for name in ("b", "c"):
        (service.root / name).hardlink_to(service.root / "a")
    for number in range(20):
        (service.root / "abc"[number % 3]).write_text(str(number))
        assert waited(service) == 0
        assert redis_values(service, "a", "b", "c") == [str(number).encode()] * 3


def test_names_of_a_file_that_nobody_knew_of_are_waited_for(
    service: Service, outside: Path
) -> None:
    (service.root / "a").write_text("1")
    for number in range(3000):  # they are looked through before
        (service.root / f"f{number}").write_text("1")
    for number in range(5):
        assert waited(service) == 0
        (outside / "z").hardlink_to(service.root / "a")
        (outside / "z").rename(service.root / "z")
        (service.root / "z").write_text(str(number))
        assert waited(service) == 0
        assert redis_values(service, "a", "z") == [str(number).encode()] * 2
        (service.root / "z").unlink()


def test_a_file_that_somebody_has_locked_is_waited_for(service: Service) -> None:
    with (service.root / "a").open("ab") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        (service.root / "a").write_text("1")
        assert waited(service, timeout=0.5) == 1
        fcntl.flock(locked, fcntl.LOCK_UN)
        assert waited(service) == 0
        assert service.get("a") == b"1"


def redis_values(service: Service, *names: str) -> list[object]:
    return list(service.redis.client.mget(*names))


def test_what_a_service_finds_when_it_starts_is_waited_for(
    redis_server: RedisServer, root: Path, start: Start
) -> None:
    for number in range(3000):
        (root / f"f{number}").write_text("1")
    (root / "large").write_bytes(LARGE)
    service = start()
    assert waited(service) == 0
    assert len(redis_server.keys()) == 3001


def test_what_the_kernel_did_not_tell_is_waited_for(service: Service) -> None:
    with service.paused():
        for number in range(20_000):
            (service.root / f"f{number % 3000}").write_text(str(number))
    assert waited(service) == 0
    assert service.says("overflowed")
    assert service.redis.keys() == service.files()


@pytest.mark.usefixtures("redis_server")
def test_what_is_not_mirrored_is_named(start: Start) -> None:
    service = start(in_step=True, SYNC_EXCLUDE="*.tmp /cache/", SYNC_TREE="1")
    os.mkfifo(service.root / "fifo")
    for place in ("d/e", "cache/d"):
        (service.root / place).mkdir(parents=True)
    (service.root / "d/a").write_text("1")
    (service.root / "d/link").symlink_to("a")
    assert waited(service) == 0
    assert command(service.environ, "d/a", "d/none") == (0, "")
    status, said = command(service.environ, "fifo", "d", "x.tmp", "cache/d/a", "d/e", "d/a")
    assert status == 1
    lines = said.splitlines()
    assert lines[0].startswith("mdvp-sync: fifo is a FIFO: not mirrored")
    assert lines[1].startswith("mdvp-sync: d is not there as a whole: d/link is a symbolic link")
    assert lines[2:] == [
        "mdvp-sync: x.tmp is left out: see SYNC_EXCLUDE",
        "mdvp-sync: cache/d/a is left out: see SYNC_EXCLUDE",
    ]


def test_a_path_in_a_directory_that_is_not_mirrored_is_named(service: Service) -> None:
    (service.root / "d").mkdir()
    (service.root / "d/a").write_text("1")
    status, said = command(service.environ, "d/a")
    assert (status, "only SYNC_TREE=1 mirrors" in said) == (1, True)
    status, said = command(service.environ, "d")
    assert status == 1


def test_what_redis_refuses_is_named(service: Service) -> None:
    service.redis.client.config_set("proto-max-bulk-len", 2 << 20)
    (service.root / "a").write_bytes(bytes(3 << 20))
    assert waited(service) == 0
    assert waited(service, "a") == 1


def test_a_name_in_conflict_is_named(redis_server: RedisServer, start: Start) -> None:
    service = start(in_step=True, SYNC_MODE="two-way-safe")
    (service.root / "a").write_text("1")
    assert waited(service, "a") == 0
    with service.paused():
        (service.root / "a").write_text("22")
        redis_server.client.set("a", "333")
    status, said = command(service.environ, "a")
    assert (status, said) == (1, "mdvp-sync: a is in conflict: see `mdvp-sync conflicts`\n")


def test_a_service_that_is_away_is_waited_for(service: Service) -> None:
    with service.paused():
        (service.root / "a").write_text("1")
        status, said = command(service.environ, "--timeout", "0.7")
        assert status == 1
        assert "not all is in Redis" in said
        assert "after 0.7 s" in said
    assert waited(service) == 0
    assert service.get("a") == b"1"


@pytest.mark.usefixtures("redis_server")
def test_the_one_that_takes_over_answers(start: Start) -> None:
    first = start(in_step=True)
    second = start()
    eventually(lambda: second.says("standing by"), True)
    (first.root / "a").write_text("1")
    assert waited(second) == 0
    assert first.get("a") == b"1"
    with first.paused():
        (first.root / "a").write_text("2")
        assert waited(second) == 0
        assert first.get("a") == b"2"


def is_waiting(service: Service) -> bool:
    return any(each["cmd"] == "blpop" for each in service.redis.client.client_list())


def test_a_redis_that_comes_back_empty_is_waited_for(service: Service) -> None:
    (service.root / "a").write_text("1")
    service.process.send_signal(signal.SIGSTOP)
    with in_thread(lambda: waited(service)) as answer:
        eventually(lambda: is_waiting(service), True)
        service.redis.kill()
        service.redis.start()
        service.process.send_signal(signal.SIGCONT)
    assert answer() == 0
    assert service.get("a") == b"1"


def test_the_way_out_is_named_when_it_cannot_look(service: Service, outside: Path) -> None:
    outside.chmod(0o555)
    environ = {**service.environ, "SYNC_ROOT": str(outside)}
    status, said = command(environ, prefix=POWERLESS)
    assert (status, "no file can be made in" in said) == (2, True)
    status, said = command({**environ, "SYNC_ROOT": str(outside / "none")})
    assert (status, "set SYNC_ROOT" in said) == (2, True)
    status, said = command({**environ, "REDIS_URL": "redis://127.0.0.1:1"})
    assert (status, "see REDIS_URL" in said) == (2, True)
    status, said = command(environ, "/etc/passwd")
    assert (status, "is not below" in said) == (2, True)


def test_what_nobody_can_ask_for_ends_nothing(service: Service) -> None:
    cookie, client = b"0123456789abcdef", service.redis.client
    client.set(paths_key(b"", cookie), "[" * 100_000)
    (service.root / LEFTOVER).touch()
    eventually(lambda: client.llen(answer_key(b"", cookie)), 1)
    assert waited(service) == 0


def test_many_wait_at_the_same_time(service: Service) -> None:
    def writes_and_waits(number: int) -> bool:
        for each in range(10):
            (service.root / f"f{number}").write_text(str(each))
            if waited(service) != 0 or service.get(f"f{number}") != str(each).encode():
                return False
        return True

    answers: list[bool] = []
    threads = [
        threading.Thread(target=lambda number=number: answers.append(writes_and_waits(number)))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 20


@contextmanager
def in_thread(work: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """Have work done beside the block; yield what waits for its result."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()

    def answer() -> int:
        thread.join()
        return found[0]

    try:
        yield answer
    finally:
        thread.join(20.0)


@dataclass
class Writers:
    """Many who write, and what each has finished.

    Attributes:
        finished: the number of the last operation that is finished, by name.
        deleted: the number of the last that is a deletion and was begun.
        begun: the same of the last that was begun, whatever it is.
        away: how often the directory of a name was away, or is; odd while it is.

    """

    root: Path
    finished: dict[str, int] = field(default_factory=dict)
    deleted: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    begun: dict[str, int] = field(default_factory=dict)
    away: dict[str, int] = field(default_factory=dict)
    ends: threading.Event = field(default_factory=threading.Event)

    def work(self, who: int, *, is_tree: bool) -> None:
        chance = random.Random(who)  # noqa: S311  # no secret
        number = 0
        places = ["", f"d{who}/", f"d{who}/e/"] if is_tree else [""]
        while not self.ends.is_set():
            number += 1
            name = f"{chance.choice(places)}w{who}-{chance.randrange(5)}"
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = b"%d " % number
            self.begun[name] = number
            match chance.randrange(12):
                case 0:
                    content += bytes((1 << 20) + chance.randrange(1 << 20))
                    path.write_bytes(content)
                case 1 | 2:
                    self.deleted[name] = number
                    path.unlink(missing_ok=True)
                case 3 | 4 | 5:
                    new = path.with_name(f"new-{who}")
                    new.write_bytes(content)
                    new.rename(path)
                case 6:
                    with path.open("wb", buffering=0) as file:
                        file.write(content)
                        self.ends.wait(chance.random() / 10)
                        file.write(bytes(chance.randrange(1 << 12)))
                case 7 if "/" in name:
                    self._move_above(path)
                    continue
                case _:
                    path.write_bytes(content)
            if path.exists() or self.deleted[name] == number:
                self.finished[name] = number
            if chance.random() < 0.1:
                self.ends.wait(chance.random() / 5)

    def _move_above(self, path: Path) -> None:
        """Have the directory be away for a moment, with all that is in it."""
        below = f"{path.parent.relative_to(self.root)}/"
        away = path.parent.with_name(path.parent.name + "-away")
        names = [name for name in self.finished if name.startswith(below)]
        for at, to in ((path.parent, away), (away, path.parent)):
            if at != away:
                self.away |= {name: self.away.get(name, 0) + 1 for name in names}
            at.rename(to)
        self.away |= {name: self.away.get(name, 0) + 1 for name in names}

    def right(self, name: str, before: "Writers", value: bytes | None) -> bool:
        """Say whether a value is as new as what was finished before, or what came since."""
        number = before.finished[name]
        if value == b"":  # of a writer who has been at work for long
            return self.begun[name] > number
        if value:
            return int(value.split(b" ")[0]) >= number
        was_away = self.away.get(name, 0) > before.away.get(name, 0) or before.away.get(name, 0) % 2
        return bool(was_away) or self.deleted[name] >= number

    def copy(self) -> "Writers":
        """Return what is finished by now."""
        away = dict(self.away)
        return Writers(self.root, dict(self.finished), away=away)


@pytest.mark.parametrize("shape", [{}, {"SYNC_TREE": "1"}, {"SYNC_MODE": "two-way-resolved"}])
def test_nobody_is_told_too_early_while_many_write(
    redis_server: RedisServer, start: Start, shape: dict[str, str]
) -> None:
    service = start(in_step=True, **shape)
    seconds = float(os.environ.get("MDVP_TEST_SECONDS", "4"))
    writers, is_tree = Writers(service.root), "SYNC_TREE" in shape
    threads = [
        threading.Thread(target=writers.work, args=(who,), kwargs={"is_tree": is_tree})
        for who in range(6)
    ]
    for thread in threads:
        thread.start()
    ends, waits = time.monotonic() + seconds, 0
    client = redis_server.client
    try:
        while time.monotonic() < ends:
            before = writers.copy()
            assert waited(service) == 0
            waits += 1
            for name in before.finished:
                value = client.get(name)
                assert isinstance(value, bytes | None)
                assert writers.right(name, before, value), (name, before, value and value[:20])
    finally:
        writers.ends.set()
        for thread in threads:
            thread.join()
    assert waits > seconds
    assert waited(service) == 0
    eventually(lambda: redis_server.keys() == service.files(), True)
