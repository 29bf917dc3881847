"""What a user of Redis has to be allowed: no less will do, and what is lacking is said.

That no more is needed all other tests show: the services that they start have users with just these
rights, who may be refused nothing (`RedisServer.add_user`).
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from integration.conftest import PASSWORD, SYNC
from support import eventually

from sync.commands import needs_of
from sync.redis.acl import rules
from sync.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.conftest import RedisServer, Start

USER, PREFIX = "app", "app [1]:"
LARGE = b"large" * 300_000


class World:
    """A service whose user has just the rights that it needs, or one less."""

    def __init__(self, server: RedisServer, start: Start, **environ: str) -> None:
        url = server.url.replace("://", f"://{USER}:{PASSWORD}@") + "?db=1"
        self.environ = {
            "REDIS_URL": url,
            "SYNC_RESCAN": "0",
            "SYNC_PREFIX": PREFIX,
            "SYNC_STREAM": "feed",
            **environ,
        }
        self.client: Any = server.client
        self.rights = rules(needs_of(Settings.read(self.environ)), PASSWORD.encode())
        self.allow(self.rights)
        self.service = start(in_step=True, **self.environ)
        self.root, self._said = self.service.root, 0
        self.client.select(1)

    def allow(self, may: list[bytes]) -> None:
        self.client.execute_command("ACL", "SETUSER", USER, *may)

    @contextmanager
    def without(self, right: str) -> Iterator[None]:
        """Take one right away for the time of the block."""
        assert right.encode() in self.rights
        self._said = len(self.service.lines())
        self.allow([each for each in self.rights if each != right.encode()])
        try:
            yield
        finally:
            self.allow(self.rights)

    def begin_anew(self) -> None:
        self.client.execute_command("CLIENT", "KILL", "USER", USER)

    def says(self, *words: str) -> bool:
        lines = self.service.lines()[self._said :]
        return any(all(word in line for word in words) for line in lines)

    def lacks(self, right: str) -> None:
        """Wait until the service has said that it lacks a right, by its name."""
        name = right.lstrip("+").partition("|")[0]
        eventually(lambda: self.says("permissions to run the", f"'{name}"), True)

    def is_well(self) -> None:
        eventually(lambda: self.service.health()[0], 0)

    def key(self, name: str) -> str:
        return PREFIX + name

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command beside the service; return its exit status and what it says."""
        done = subprocess.run(
            *((*SYNC, *arguments),),
            env={**self.service.environ},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def world(redis_server: RedisServer, start: Start) -> World:
    """Return one in which the service has most to do: both ways, with a stream."""
    return World(redis_server, start, SYNC_MODE="two-way-resolved")


class Tried:
    """The rights of a world that were tried out."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rights: set[str] = set()

    def __call__(self, right: str, work: Callable[[], object]) -> None:
        """Check that one right is missed, by its name, when `work` is done without it."""
        self.rights.add(right)
        with self._world.without(right):
            work()
            self._world.lacks(right)


BEGINNING = (
    *("multi", "exec", "watch", "get", "incrby", "hmget", "hlen", "hscan", "hset", "hdel"),
    *("set", "del", "pttl", "scan", "select", "xadd", "xinfo|stream"),
    *("client|id", "client|tracking", "subscribe"),
)


def test_each_right_is_needed_and_said_to_be_lacking(world: World) -> None:
    tried, client, root, key = Tried(world), world.client, world.root, world.key
    (root / "a").write_text("one")
    (root / "b").write_text("two")
    world.is_well()

    for each in BEGINNING:
        tried(f"+{each}", world.begin_anew)
    world.begin_anew()
    world.is_well()

    tried("+strlen", lambda: client.set(key("a"), "more"))
    world.is_well()
    tried("+mget", lambda: client.set(key("a"), "more yet"))
    world.is_well()
    tried("+getrange", lambda: client.set(key("large"), LARGE))
    world.is_well()
    for right in ("+exists", "+rename", "+persist", "+pexpire"):
        content = LARGE + right.encode()
        tried(right, partial((root / "large").write_bytes, content))
        world.is_well()
    tried("+type", lambda: client.set(key("x/mdvp-sync/epoch"), "1"))


def test_the_line_is_what_redis_cli_takes(redis_server: RedisServer, start: Start) -> None:
    secret = {"REDIS_PASSWORD": "secret", "SYNC_PREFIX": PREFIX}
    done = subprocess.run(
        (*SYNC, "acl", "--user", USER), env=secret, capture_output=True, text=True, check=True
    )
    assert "secret" not in done.stdout + done.stderr
    told = subprocess.run(
        ("redis-cli", "-s", str(redis_server.socket)),
        input=done.stdout.replace("PASSWORD", PASSWORD),
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "OK\n"
    url = redis_server.url.replace("://", f"://{USER}:{PASSWORD}@")
    service = start(in_step=True, REDIS_URL=url, SYNC_PREFIX=PREFIX)
    (service.root / "a").write_text("one")
    eventually(lambda: service.get(PREFIX + "a"), b"one")
    client: Any = redis_server.client
    assert {each["object"] for each in client.acl_log()} <= {"config|get", "/mdvp-sync/lease"}
