"""What a user of Redis has to be allowed: no less will do, and what is lacking is said.

That no more is needed all other tests show: the services that they start have users with just these
rights, who may be refused nothing (`RedisServer.add_user`).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from integration.conftest import PASSWORD, SYNC
from integration.servers import redis_program
from integration.topology import NAME, Node, free_port
from support import eventually, running

from sync.commands import needs_of
from sync.core.decision import Mode
from sync.redis.acl import lines, rules
from sync.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.conftest import RedisServer, Service, Start

pytestmark = pytest.mark.waits

USER, PREFIX = "app", "app [1]:"
LARGE = b"large" * 300_000
LONG = 30.0  # seconds; some of it is found out once in seconds only


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
        self.root = self.service.root
        self._said, self._answers = 0, list[str]()  # lines so far, and those of the last command
        self.client.select(1)

    def allow(self, may: list[bytes]) -> None:
        self.client.execute_command("ACL", "SETUSER", USER, *may)

    @contextmanager
    def without(self, right: str) -> Iterator[None]:
        """Take one right away for the time of the block."""
        assert right.encode() in self.rights
        self._said, self._answers = len(self.service.lines()), []
        self.allow([each for each in self.rights if each != right.encode()])
        try:
            yield
        finally:
            self.allow(self.rights)

    def begin_anew(self) -> None:
        self.client.execute_command("CLIENT", "KILL", "USER", USER)

    def says(self, *words: str) -> bool:
        lines = [*self.service.lines()[self._said :], *self._answers]
        return any(all(word in line for word in words) for line in lines)

    def lacks(self, right: str, *words: str) -> None:
        """Wait until the service, or a command, has said that it lacks a right, by its name."""
        name = right.lstrip("+").partition("|")[0]
        said = words or ("permissions to run the", f"'{name}")
        eventually(lambda: self.says(*said), True, LONG)

    def is_well(self) -> None:
        """Wait until it is in step again, since the last session has ended."""
        eventually(self._is_well, True, LONG)

    def _is_well(self) -> bool:
        told = [
            line for line in self.service.lines() if "waiting for" in line or " equals " in line
        ]
        return " equals " in told[-1]

    def key(self, name: str) -> str:
        return PREFIX + name

    def command(self, *arguments: str) -> int:
        """Run a command beside the service; return its exit status."""
        done = subprocess.run(
            (*SYNC, *arguments),
            env=self.service.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        self._answers = (done.stdout + done.stderr).splitlines()
        return done.returncode


@pytest.fixture
def world(redis_server: RedisServer, start: Start) -> World:
    """Return one in which the service has most to do: both ways, with a stream."""
    return World(redis_server, start, SYNC_MODE="two-way-resolved")


class Tried:
    """The rights of a world that were tried out."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rights: set[str] = set()

    def __call__(self, right: str, work: Callable[[], object], *words: str) -> None:
        """Check that one right is missed, in these words or by its name, when `work` is done."""
        self.rights.add(right)
        with self._world.without(right):
            work()
            self._world.lacks(right, *words)


BEGINNING = (
    *("multi", "exec", "watch", "get", "incrby", "hmget", "hlen", "hscan", "hset", "hdel"),
    *("set", "del", "pttl", "scan", "select", "xadd", "xinfo|stream"),
    *("client|id", "client|tracking", "subscribe"),
)


@pytest.mark.timeout(300)
def test_each_right_is_needed_and_said_to_be_lacking(world: World) -> None:
    tried, client, root, key = Tried(world), world.client, world.root, world.key
    (root / "a").write_text("one")
    (root / "b").write_text("two")
    world.is_well()

    for each in BEGINNING:
        tried(f"+{each}", world.begin_anew)
    for right, words in (
        ("~app?\\[1\\]:*", ("permissions to access", "key")),
        ("&__redis__:invalidate", ("permissions to access", "channel", "rescans only")),
        ("+info", ("allow it +info",)),
    ):
        tried(right, world.begin_anew, *words)
    world.begin_anew()
    world.is_well()

    # What somebody changes in Redis, and large values.
    tried("+strlen", lambda: client.set(key("a"), "more"))
    world.is_well()
    tried("+mget", lambda: client.set(key("a"), "more yet"))
    world.is_well()
    tried("+getrange", lambda: client.set(key("large"), LARGE))
    world.is_well()
    for right in ("+exists", "+rename", "+persist", "+pexpire"):
        tried(right, partial((root / "large").write_bytes, LARGE + right.encode()))
        world.is_well()
    tried("+type", lambda: client.set(key("x/mdvp-sync/epoch"), "1"))
    world.is_well()

    # What both have changed, and what is held.
    def change_both() -> None:
        with world.service.paused():
            (root / "b").write_text("on disk")
            client.set(key("b"), "in Redis")

    tried("+hincrby", change_both)
    world.is_well()
    tried("+unwatch", lambda: world.command("resolve", "b", "--take", "redis"))
    for right in ("+rpush", "+blpop"):
        tried(right, lambda: world.command("wait", "--timeout", "1"))
    many = [f"f{number}" for number in range(150)]
    for name in many:
        (root / name).touch()
    eventually(lambda: client.exists(*map(key, many)), len(many))
    with world.service.paused():
        world.begin_anew()  # so nobody hears of this
        client.delete(*map(key, many))
    tried("+hget", lambda: None)
    eventually(lambda: world.says("holding"), True)
    tried("+hexists", lambda: world.command("accept", "disk"))
    world.is_well()  # it has heard of it

    tried("+ping", world.begin_anew)
    first = world.rights.index(b"resetchannels") + 1
    assert tried.rights == {each.decode() for each in world.rights[first:]}


def test_a_copy_takes_other_rights(redis_server: RedisServer, start: Start) -> None:
    world = World(redis_server, start, SYNC_MODE="one-way-replica")
    tried = Tried(world)
    tried("+mset", partial((world.root / "a").write_text, "one"))
    world.is_well()
    # How much memory there is: what it has no room for is not sent.
    used = world.client.info("memory")["used_memory"]
    world.client.config_set("maxmemory", used + len(LARGE) // 2)
    (world.root / "large").write_bytes(LARGE)
    eventually(lambda: world.says("large", "has no room"), True)
    with world.without("+info"):
        (world.root / "large").write_bytes(LARGE + b"more")
        eventually(lambda: world.says("large", "is refused by Redis"), True)


def allows(*words: str, **environ: str) -> bool:
    """Say whether the line for some settings has all these words in it."""
    rights = [each.decode() for each in rules(needs_of(Settings.read(environ)))]
    return not set(words) - set(rights)


def test_what_is_not_done_is_not_allowed() -> None:
    hears = ("+client|id", "+client|tracking", "+subscribe", "+ping", "&__redis__:invalidate")
    assert allows("~*", "+mset", *hears)
    assert not any(allows(each, SYNC_GUARD="0") for each in hears)
    assert allows(*hears, SYNC_GUARD="0", SYNC_MODE="two-way-safe")
    for mode in Mode:
        taken = [allows(each, SYNC_MODE=mode.value) for each in ("+scan", "+type", "+hincrby")]
        assert set(taken) == {mode.writes_files}
        assert allows("+mset", SYNC_MODE=mode.value) == (mode is Mode.ONE_WAY_REPLICA)
    assert not allows("+xadd")
    assert allows("+xadd", "+xinfo|stream", SYNC_STREAM="changes")
    assert not allows("+select")
    assert allows("+select", REDIS_URL="redis://host/3")
    assert not allows("+cluster|slots")
    assert not allows("+config|get")


def test_the_documented_command_takes_a_password_of_any_characters(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "existing-redis.md").read_text()
    (rest,) = re.findall(r"acl --user app1 (2>/dev/null [|] .*?redis-cli)\n", text, re.DOTALL)
    rest = rest.replace("/etc/app1.password", "app1.password").replace("docker exec -i redis ", "")
    awkward = "a/b&c \"d\" 'e' \\1 $f"
    (tmp_path / "app1.password").write_text(f"{awkward}\n")
    script = f"{shlex.join(SYNC)} acl --user app1 {rest} -s {redis_server.socket}"
    told = subprocess.run(
        ("sh", "-ec", script),
        cwd=tmp_path,
        env={**os.environ, "SYNC_PREFIX": "app1:"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "OK\n"
    client: Any = redis_server.client
    assert client.execute_command("AUTH", "app1", awkward)


@pytest.mark.servers
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
    meant = {"config", "config|get", "/mdvp-sync/lease"}
    assert {each["object"] for each in client.acl_log()} <= meant


@pytest.fixture
def node(place: Path) -> Iterator[Node]:
    """Return one node that is a whole cluster."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with closing(Node(place / "node", *options)) as node:
        node.start()
        node.do("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: b"cluster_state:ok" in node.do("CLUSTER", "INFO"), True)
        yield node


def test_in_a_cluster_it_is_asked_for_the_slot(node: Node, start: Start) -> None:
    settings = {"REDIS_URL": f"redis+cluster://{node.address}", "SYNC_PREFIX": "{a}:"}
    may = rules(needs_of(Settings.read(settings)), PASSWORD.encode())
    service: Service | None = None
    for right in (b"+cluster|info", b"+cluster|slots", b""):
        node.do("ACL", "SETUSER", USER, *(each for each in may if each != right))
        service = service or start(
            in_step=False, REDIS_USERNAME=USER, REDIS_PASSWORD=PASSWORD, **settings
        )
        words = right.decode().strip("+").partition("|")
        said = ("permissions to run the", f"'{words[0]}") if right else (" equals ",)
        eventually(partial(service.says, *said), True)


def test_sentinels_are_asked_as_a_user_of_theirs(place: Path, start: Start) -> None:
    with closing(Node(place / "node")) as node:
        node.start()
        port = free_port()
        path = place / "sentinel.conf"
        path.write_text(
            f"port {port}\ndir {place}\nsentinel monitor {NAME} 127.0.0.1 {node.port} 1\n"
        )
        command = (redis_program(), str(path), "--sentinel")
        url = f"redis+sentinel://127.0.0.1:{port}/{NAME}"
        needs = needs_of(Settings.read({"REDIS_URL": url}))
        with running(command, os.environ), closing(redis.Redis(port=port)) as sentinel:
            _, line = lines(USER, needs)
            rights = line.replace("PASSWORD", PASSWORD).split()[3:]
            node.do("ACL", "SETUSER", USER, *rules(needs, PASSWORD.encode()))
            ask: Any = sentinel.execute_command
            eventually(lambda: answers(sentinel), True)
            ask("ACL", "SETUSER", USER, *rights[:-1])
            service = start(
                REDIS_URL=url,
                REDIS_USERNAME=USER,
                REDIS_PASSWORD=PASSWORD,
                REDIS_SENTINEL_USERNAME=USER,
                REDIS_SENTINEL_PASSWORD=PASSWORD,
            )
            assert rights[-1] == "+sentinel|master"
            eventually(lambda: service.says("permissions to run the", "'sentinel"), True)
            ask("ACL", "SETUSER", USER, *rights)
            eventually(lambda: service.says(" equals "), True)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
