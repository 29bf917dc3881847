"""A real Redis server, and the sync service as a process that mirrors a real directory to it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import pytest
import redis
from integration.servers import redis_program
from integration.shape import FLAT, TREE, Shape
from support import eventually, running

from sync.commands import needs_of
from sync.core.errors import SettingsError
from sync.redis.acl import rules
from sync.redis.keys import LEASE
from sync.settings import Settings

SYNC = (sys.executable, "-m", "sync")
# Root without the right to read what it may not.
PASSWORD = "users"  # noqa: S105  # it is no secret
POWERLESS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
# A pipe that nobody reads would stop a service that has much to say.
TO_FILE = ("sh", "-c", 'exec "$@" >"$OUTPUT" 2>&1', "sh")


@contextmanager
def paused(process: subprocess.Popen[str]) -> Iterator[None]:
    """Have the process do nothing for the time of the block."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


class RedisServer:
    """A redis-server on a Unix socket, which can be started, hurt and asked."""

    process: subprocess.Popen[str]

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.client = redis.Redis(unix_socket_path=str(self.socket))
        self._command = [
            *(redis_program(), "--port", "0", "--save", "", "--dir", str(directory)),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "777"),
        ]
        self._users: dict[str, list[bytes]] = {}
        self._running = ExitStack()

    def add_user(self, name: str, environ: Mapping[str, str]) -> str:
        """Have a user with just the rights of `mdvp-sync acl`; return the URL for it.

        There is one for as long as this server is, however often it is started.
        """
        self._users[name] = rules(needs_of(Settings.read(environ)), PASSWORD.encode())
        if self._answers():
            self.client.execute_command("ACL", "SETUSER", name, *self._users[name])  # type: ignore[no-untyped-call]
        return self.url.replace("://", f"://{name}:{PASSWORD}@")

    def refused(self) -> list[str]:
        """Return what the users that were added were refused, and who, in the server's words.

        That they may not ask for the configuration, or for the leases of others with shorter
        prefixes, is meant, and no defect.
        """
        log: Any = self.client.acl_log() if self._users and self._answers() else []
        return [
            f"{each['username']}: {each['reason']} {each['object']}"
            for each in log
            if each["username"] in self._users
            and not each["object"].startswith("config")
            and not (each["reason"] == "key" and each["object"].endswith(LEASE.decode()))
        ]

    def start(self, *options: str) -> None:
        """Start it with `options` of its command line beside the usual ones."""
        users = [("--user", name, *map(os.fsdecode, may)) for name, may in self._users.items()]
        command = [*self._command, *chain.from_iterable(users), *options]
        self.process = self._running.enter_context(running(command, os.environ))
        eventually(self._answers, True)

    def kill(self) -> None:
        self._running.close()

    def paused(self) -> AbstractContextManager[None]:
        return paused(self.process)

    def close(self) -> None:
        self.client.close()
        self.kill()

    def commands(self, work: Callable[[], object]) -> list[str]:
        """Return the commands that the server gets from its clients while `work` runs."""
        with self.client.monitor() as monitor:  # type: ignore[no-untyped-call]
            work()
            self.client.echo("the end")
            seen = (str(each["command"]) for each in monitor.listen())
            return list(takewhile(lambda command: command != "ECHO the end", seen))

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def keys(self) -> dict[bytes, bytes]:
        """Return all keys with their values, but for the service's own."""
        names = [n for n in self.client.scan_iter(count=10_000) if not n.startswith(b"/")]
        values = self.client.mget(names) if names else []
        found = dict(zip(names, values, strict=True))
        return {name: value for name, value in found.items() if value is not None}


@dataclass
class Service:
    """`mdvp-sync run`: its process, what it mirrors and where to, and what it says."""

    process: subprocess.Popen[str]
    root: Path
    redis: RedisServer
    environ: dict[str, str]

    def lines(self, *words: str) -> list[str]:
        """Return the lines of its output so far that have all these words in them."""
        output = Path(self.environ["OUTPUT"])
        lines = output.read_text().splitlines() if output.exists() else []
        return [line for line in lines if all(word in line for word in words)]

    def says(self, *words: str) -> bool:
        return bool(self.lines(*words))

    def get(self, name: str | bytes) -> object:
        return self.redis.client.get(name)

    def paused(self) -> AbstractContextManager[None]:
        return paused(self.process)

    @property
    def shape(self) -> Shape:
        """What it was told to mirror."""
        return next(each for each in (TREE, FLAT) if self.environ.items() >= each.environ.items())

    def files(self) -> dict[bytes, bytes]:
        """Return the regular files that it is to mirror, with their contents."""
        return {
            name: Path(os.fsdecode(entry.path)).read_bytes()
            for name, entry in self.shape.regular_files(self.root)
        }

    def catches_up(self, foreign: Mapping[bytes, bytes] = MappingProxyType({})) -> None:
        """Wait until it has followed all that was done to the directory before, and all is equal.

        A file that no one closes is not waited for. Keys that are `foreign` must be there, too.
        """
        marker = self.root / ".marker"
        marker.write_bytes(b"here")
        eventually(lambda: self.get(marker.name), b"here")
        marker.unlink()
        eventually(lambda: self.get(marker.name), None)
        # What is small does not wait for what is large.
        eventually(lambda: self.redis.keys() == {**self.files(), **foreign}, True)

    def health(self) -> tuple[int, str]:
        """Return exit status and first line of `mdvp-sync status`."""
        done = subprocess.run(
            (*SYNC, "status"), env=self.environ, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout.partition("\n")[0]

    def stop(self, number: signal.Signals) -> int:
        """Send a signal; return the exit status. It is an error to take longer than two seconds."""
        self.process.send_signal(number)
        return self.process.wait(2.0)


class Start(Protocol):
    """Starts a service; returns at once, unless it is to be `in_step` first."""

    def __call__(
        self, *, in_step: bool = False, prefix: Sequence[str] = (), **environ: str
    ) -> Service: ...


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a new directory that all users may use, in memory: tests make thousands of files."""
    memory = Path("/dev/shm")  # noqa: S108
    path = Path(tempfile.mkdtemp(prefix="sync-", dir=memory if memory.is_dir() else None))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def idle_redis(place: Path) -> Iterator[RedisServer]:
    """Return a Redis server that has not been started.

    None of the users that were added may be refused anything in the end.
    """
    server = RedisServer(place)
    yield server
    refused = server.refused()
    server.close()
    assert not refused


@pytest.fixture
def redis_server(idle_redis: RedisServer) -> RedisServer:
    """Return a running Redis server that holds nothing."""
    idle_redis.start()
    return idle_redis


@pytest.fixture
def root(place: Path) -> Path:
    """Return the directory to mirror; it is empty."""
    path = place / "root"
    path.mkdir()
    return path


@pytest.fixture
def point(short_path: Path) -> Path:
    """Return a directory to mount a volume at, as the `/data` of a container."""
    path = short_path / "point"
    path.mkdir()
    return path


@pytest.fixture
def outside(place: Path) -> Path:
    """Return a directory beside the root; it is empty."""
    path = place / "outside"
    path.mkdir()
    return path


@pytest.fixture
def start(place: Path, root: Path, idle_redis: RedisServer) -> Iterator[Start]:
    """Return what starts services that mirror `root` to `idle_redis`."""
    with ExitStack() as stack:
        started = 0

        def start(*, in_step: bool = False, prefix: Sequence[str] = (), **environ: str) -> Service:
            nonlocal started
            started += 1
            complete = {
                **os.environ,
                "SYNC_ROOT": str(root),
                "REDIS_URL": idle_redis.url,
                "SYNC_STATUS": str(place / f"status-{started}.json"),
                "OUTPUT": str(place / f"output-{started}"),
                **environ,
            }
            if environ.keys().isdisjoint(("REDIS_URL", "REDIS_USERNAME", "REDIS_PASSWORD")):
                with suppress(SettingsError):  # the service will say so
                    complete["REDIS_URL"] = idle_redis.add_user(f"sync-{started}", complete)
            process = stack.enter_context(running((*TO_FILE, *prefix, *SYNC, "run"), complete))
            service = Service(process, root, idle_redis, complete)
            if in_step:
                eventually(lambda: service.says(" equals "), True)
            return service

        yield start


@pytest.fixture
def service(redis_server: RedisServer, start: Start) -> Service:  # noqa: ARG001
    """Return a service that is in step with an empty directory."""
    return start(in_step=True)
