"""What somebody else has put into the service's own keys, or has called a key."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from integration.conftest import SYNC
from integration.files import make
from support import eventually

from sync.redis.keys import CONFLICTS, EPOCH, LOST, MANIFEST, NAMES, REQUESTS, STATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.conftest import RedisServer, Service, Start

Redis: TypeAlias = Any  # redis-py's own types are too wide to be of use
SAFE, RESOLVED, FROM_REDIS = "two-way-safe", "two-way-resolved", "redis-to-disk"
MODES = [SAFE, RESOLVED, FROM_REDIS]
MANY = b"9" * 5000
TEMPORARY = ".mdvp-sync-0123456789abcdef~"
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


def skipped(service: Service) -> dict[str, str]:
    """Return what is not mirrored, and why."""
    said: dict[str, str] = json.loads(Path(service.environ["SYNC_STATUS"]).read_text())["skipped"]
    return said


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


class TestKeysThatLookLikeTheServicesOwn:
    @pytest.mark.parametrize("mode", [*MODES, "one-way-safe", "one-way-replica"])
    def test_are_files_where_files_have_their_names(
        self, client: Redis, root: Path, tree: Tree, mode: str
    ) -> None:
        names = ["etc/mdvp-sync/conf", "etc/mdvp-sync/epoch", "etc/mdvp-sync/names/a"]
        make(root, *names)
        client.mset({name: f"content of {name}" for name in names})
        service = tree(mode)
        client.hset("etc/mdvp-sync/state", "a", "b")
        client.hset("etc/mdvp-sync/manifest", "a", "b")
        client.mset(dict.fromkeys(names, "22"))
        if mode in MODES:
            eventually(lambda: [(root / name).read_text() for name in names], ["22"] * 3)
        elif mode == "one-way-safe":
            eventually(lambda: sorted(client.hkeys(CONFLICTS)), sorted(map(str.encode, names)))
        else:
            eventually(
                lambda: client.mget(names), [f"content of {name}".encode() for name in names]
            )
        assert service.process.poll() is None

    @pytest.mark.parametrize("mode", MODES)
    def test_become_files_unless_there_is_an_epoch(
        self, client: Redis, root: Path, tree: Tree, mode: str
    ) -> None:
        service = tree(mode)
        client.set("z/mdvp-sync/epoch", "7")
        client.set("z/mdvp-sync/lost/1", "x")
        client.set("etc/mdvp-sync/new", "1")
        client.set("etc/mdvp-sync/lost/1", "1")
        eventually((root / "etc/mdvp-sync/new").exists, True)
        eventually((root / "etc/mdvp-sync/lost/1").exists, True)
        theirs = {"z/mdvp-sync/epoch", "z/mdvp-sync/lost/1"}
        eventually(lambda: set(skipped(service)), theirs)
        assert service.says("z/mdvp-sync/epoch is called like")
        client.delete("z/mdvp-sync/epoch")
        eventually((root / "z/mdvp-sync/lost/1").exists, True)
        eventually(lambda: skipped(service), {})
        assert not (root / "z/mdvp-sync/epoch").exists()


class TestKeysThatCanBeNoFiles:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("is_there_before", [False, True])
    def test_are_named_as_long_as_they_are_there(
        self, client: Redis, root: Path, tree: Tree, mode: str, *, is_there_before: bool
    ) -> None:
        names = ("foo~", TEMPORARY, f"q/{TEMPORARY}", "d/", "none/")
        make(root, "d/a")
        client.set("d/a", "content of d/a")
        if is_there_before:
            client.mset(dict.fromkeys(names, "x"))
        service = tree(mode)
        client.mset(dict.fromkeys(names, "x"))
        eventually(lambda: set(skipped(service)), set(names))
        assert [len(service.lines(f" {name} ")) for name in names] == [1] * len(names)
        client.delete(*names[1:])
        eventually(lambda: set(skipped(service)), {"foo~"})
        stop(service)
        client.delete("foo~")
        service = tree(mode)
        assert skipped(service) == {}
        assert client.hget(MANIFEST, "d/") == b""
        assert [path.name for path in root.rglob("*")] == ["d", "a"]

    def test_are_no_directories_that_cannot_be_listed(
        self, client: Redis, root: Path, tree: Tree
    ) -> None:
        service = tree()
        client.set("d/", "x")
        eventually(lambda: set(skipped(service)), {"d/"})
        make(root, "d/a")  # the directory is listed
        eventually(lambda: service.get("d/a"), b"content of d/a")
        client.set("d/b", "x")
        eventually((root / "d/b").exists, True)
        (root / "d/a").unlink()
        eventually(lambda: service.get("d/a"), None)
        assert set(skipped(service)) == {"d/"}
        client.delete("d/")
        eventually(lambda: skipped(service), {})

    def test_are_asked_for_in_vain(self, client: Redis, tree: Tree) -> None:
        stop(tree())
        client.hset(CONFLICTS, "d/", words("none"))
        service = tree("one-way-safe")
        client.hset(REQUESTS, "d/", "disk")
        eventually(lambda: (client.hkeys(REQUESTS), client.hkeys(CONFLICTS)), ([], []))
        assert service.process.poll() is None
