"""What somebody else has put into the service's own keys, or has called a key."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from integration.conftest import SYNC
from integration.files import make
from support import eventually

from sync.redis.keys import CONFLICTS, EPOCH, LOST, MANIFEST, NAMES, REQUESTS, STATE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start

Redis: TypeAlias = Any  # redis-py's own types are too wide to be of use
SAFE, RESOLVED, FROM_REDIS = "two-way-safe", "two-way-resolved", "redis-to-disk"
MODES = [SAFE, RESOLVED, FROM_REDIS]
MANY = b"9" * 5000
NOT_PATHS = (b"..", b"../x", b"/etc/passwd", b"a//f", b"", b"../", b"/", b"./", b"a\0b", b"a" * 300)


@pytest.fixture
def client(redis_server: RedisServer) -> Redis:
    return redis_server.client


@pytest.fixture
def tree(redis_server: RedisServer, start: Start) -> Tree:  # noqa: ARG001
    return Tree(start)


class Tree:
    """Starts services of a tree that are not helped by rescans."""

    def __init__(self, start: Start) -> None:
        self._start = start

    def __call__(self, mode: str = SAFE, **environ: str) -> Service:
        settings = {"SYNC_MODE": mode, "SYNC_RESCAN": "0", "SYNC_TREE": "1", **environ}
        return self._start(in_step=True, **settings)


def command(service: Service, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run((*SYNC, *words), env=service.environ, capture_output=True, check=False)


def stop(service: Service) -> None:
    service.process.kill()
    service.process.wait()


def words(disk: str) -> bytes:
    return b'{"since": 1, "disk": "%b", "redis": "x"}' % disk.encode()


def damaged_record(client: Redis) -> None:
    client.hset(MANIFEST + b"/a/", b"", b"")
    for kind in (MANIFEST, NAMES):
        client.hset(kind, b"q/", b"")
        client.hset(kind + b"/q/", b"", b"")
        client.hset(kind + b"/q/", b"/", b"")


def names_that_are_no_paths(client: Redis) -> None:
    for kind in (MANIFEST, NAMES):
        client.hset(kind, mapping=dict.fromkeys(NOT_PATHS, b"x" * 48))
    client.hset(REQUESTS, mapping=dict.fromkeys(NOT_PATHS, b"redis"))


DAMAGES: dict[str, Callable[[Redis], object]] = {
    "a conflict that is nested": lambda client: client.hset(CONFLICTS, "x", b"[" * 200_000),
    "words that are nested": lambda client: client.hset(
        CONFLICTS, "x", b'{"since":1,"redis":"x","disk":' + b"[" * 900 + b"]" * 900 + b"}"
    ),
    "a surrogate": lambda client: client.hset(CONFLICTS, "x", words(r"\ud800")),
    "a moment that is none": lambda client: client.hset(
        CONFLICTS, "x", b'{"since": NaN, "disk": "d", "redis": "x"}'
    ),
    "a large counter": lambda client: client.hset(STATE, "evicted", MANY),
    "records that are in themselves": damaged_record,
    "names that are no paths": names_that_are_no_paths,
    "a value that lost, and is large": lambda client: client.hset(
        LOST, "8", b"1 " + b"9" * 4000 + b" g"
    ),
    "a value that lost in another age": lambda client: client.hset(
        LOST, "7", b"99999999999999999999 5 g"
    ),
    "a number that is none": lambda client: client.hset(LOST, "-5", b"1 5 g"),
    "large files": lambda client: client.hset(
        MANIFEST, mapping={f"{number}": b"\xff" * 48 for number in range(100)}
    ),
}


class TestTheServicesOwnKeys:
    @pytest.mark.parametrize("what", DAMAGES)
    def test_end_nothing_when_they_are_damaged(
        self, client: Redis, root: Path, tree: Tree, what: str
    ) -> None:
        make(root, "a/f", "g")
        stop(tree())
        DAMAGES[what](client)
        service = tree()
        client.set("new", "one")
        eventually((root / "new").exists, True)
        for said in (("status",), ("conflicts", "--all"), ("conflicts", "--all", "--json")):
            assert b"Traceback" not in command(service, *said).stderr, said
        assert service.process.poll() is None
        assert (root / "a/f").read_text() == "content of a/f"

    def test_obey_no_terminal(self, client: Redis, tree: Tree) -> None:
        stop(tree())
        client.hset(CONFLICTS, "x", words(r"\u001b[31m\n" + "y" * 300))
        assert b"\x1b" not in command(tree(), "conflicts").stdout

    def test_say_the_way_out_when_the_epoch_cannot_grow(self, client: Redis, start: Start) -> None:
        client.set(EPOCH, (1 << 63) - 1)
        service = start(SYNC_MODE=SAFE)
        eventually(lambda: service.says("would overflow", "delete the keys"), True)
        client.delete(EPOCH)
        eventually(lambda: service.says(" equals "), True)
