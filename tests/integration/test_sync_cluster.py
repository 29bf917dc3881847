"""The node of a cluster that has the slot of all keys: found, and followed when it is another."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest
import redis
from integration.conftest import SYNC
from integration.files import make, write
from integration.topology import Cluster, Load, free_port, paused
from integration.ways import FROM_REDIS, REPLICA, RESOLVED
from redis.crc import key_slot
from support import eventually

from sync.core.access import Access
from sync.core.changes import Set, Signature
from sync.core.errors import RedisAwayError
from sync.core.manifest import Entries
from sync.redis.address import Address
from sync.redis.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.conftest import RedisServer, Service, Start

pytestmark = pytest.mark.waits

LONG = 30.0  # seconds; a failover takes two or three
NUMBERS = count(1)
SIGNATURE = Signature(1, 3, 1, 1)
ENTRIES = Entries(trimmed=False)
LARGE = b"large" * 600_000
STILL = [f"still-{number}" for number in range(300)]


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        memory = Path("/dev/shm")  # noqa: S108
        place = tempfile.mkdtemp(prefix="sync-", dir=memory if memory.is_dir() else None)
        stack.callback(shutil.rmtree, place)
        cluster = Cluster(Path(place))
        stack.callback(cluster.close)
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """Return a cluster that is whole; tests have prefixes of their own in it."""
    running_cluster.is_whole()
    return running_cluster


def identities(root: Path) -> dict[str, int]:
    """Return which file each name is."""
    return {entry.name: entry.inode() for entry in os.scandir(root)}


class Mirror:
    """A service that mirrors to one slot of a cluster."""

    def __init__(self, cluster: Cluster, start: Start, **environ: str) -> None:
        self.cluster = cluster
        self.prefix = b"{t%d}:" % next(NUMBERS)
        self.service: Service = start(
            in_step=True,
            **{
                "REDIS_URL": cluster.url,
                "SYNC_PREFIX": self.prefix.decode(),
                "SYNC_RESCAN": "0",
                **environ,
            },
        )

    def keys(self) -> dict[bytes, bytes] | None:
        return self.cluster.keys(self.prefix)

    def is_equal(self) -> None:
        """Wait until the cluster holds what is in the directory, and follows it."""
        marker = self.service.root / ".marker"
        for content in (b"here", None):
            if content:
                marker.write_bytes(content)
            else:
                marker.unlink()
            eventually(lambda: (self.keys() or {}).get(b".marker"), content, LONG)
        eventually(lambda: self.keys() == self.service.files(), True, LONG)


def run(**environ: str) -> tuple[int, str]:
    """Run a service that ends by itself; return its exit status and what it said."""
    done = subprocess.run(
        (*SYNC, "run"), env=environ, capture_output=True, text=True, check=False, timeout=10
    )
    return done.returncode, done.stdout + done.stderr


def test_it_is_refused_at_once_without_its_scheme_or_without_a_hash_tag(
    cluster: Cluster, idle_redis: RedisServer, root: Path
) -> None:
    place = {"SYNC_ROOT": str(root)}
    node = cluster.nodes[0].address
    for url in (f"redis://{node}", f"redis://{node}/3"):
        status, said = run(**place, REDIS_URL=url, SYNC_PREFIX="{a}:")
        assert (status, "use redis+cluster://" in said) == (2, True), said
    status, said = run(**place, REDIS_URL=cluster.url, SYNC_PREFIX="app1:")
    assert (status, "such as SYNC_PREFIX='{app1}:'" in said) == (2, True), said
    port = free_port()
    idle_redis.start("--port", str(port))
    url = f"redis+cluster://127.0.0.1:{port}"
    status, said = run(**place, REDIS_URL=url, SYNC_PREFIX="{a}:")
    assert (status, "is no node of a cluster" in said) == (2, True), said


@pytest.mark.parametrize("mode", [REPLICA, RESOLVED])
def test_all_keys_are_in_one_slot(cluster: Cluster, root: Path, start: Start, mode: str) -> None:
    make(root, "a", "d/b", "{x}", "}{y}")
    (root / "large").write_bytes(LARGE)
    mirror = Mirror(cluster, start, SYNC_MODE=mode, SYNC_TREE="1")
    owner = cluster.owner(mirror.prefix)
    assert mirror.service.says(f"{owner.address} (slot {key_slot(mirror.prefix)} of the cluster)")
    (root / "a").rename(root / "d/c")
    mirror.is_equal()
    if mode != REPLICA:
        owner.client.set(mirror.prefix + b"d/theirs", "theirs")
        eventually((root / "d/theirs").exists, True)
    command = (*SYNC, "verify")
    done = subprocess.run(command, env=mirror.service.environ, capture_output=True, check=False)
    assert done.returncode == 0, done


def test_two_directories_have_a_slot_each(
    cluster: Cluster, root: Path, outside: Path, start: Start
) -> None:
    make(root, "a")
    make(outside, "b")
    one = Mirror(cluster, start)
    other = Mirror(cluster, start, SYNC_ROOT=str(outside))
    assert cluster.owner(one.prefix) is not cluster.owner(other.prefix)
    assert one.keys() == {b"a": b"content of a"}
    assert other.keys() == {b"b": b"content of b"}


@pytest.mark.parametrize("mode", [REPLICA, RESOLVED])
def test_a_slot_is_moved_there_and_back_under_load(
    cluster: Cluster, root: Path, start: Start, mode: str
) -> None:
    make(root, *STILL)
    (root / "large").write_bytes(LARGE)
    files = identities(root)
    mirror = Mirror(cluster, start, SYNC_MODE=mode)
    source = cluster.owner(mirror.prefix)
    with Load(root):
        for _ in range(2):
            cluster.move(mirror.prefix)
            eventually(lambda: (mirror.keys() or {}).keys() >= {b"large"}, True, LONG)
    cluster.move(mirror.prefix)
    mirror.is_equal()
    assert files.items() <= identities(root).items(), "a file was removed, and made again"
    assert not source.client.keys(mirror.prefix + b"*") or cluster.owner(mirror.prefix) is source


def test_keys_that_move_with_their_slot_are_no_files_that_are_to_go(
    cluster: Cluster, root: Path, start: Start
) -> None:
    mirror = Mirror(cluster, start, SYNC_MODE=FROM_REDIS)
    client = cluster.client(mirror.prefix)
    client.mset({mirror.prefix + name.encode(): name for name in STILL})
    eventually(lambda: len(identities(root)), len(STILL))
    files = identities(root)
    for _ in range(2):
        cluster.move(mirror.prefix)
        client = cluster.client(mirror.prefix)
        client.set(mirror.prefix + b"new", str(client))
        eventually(lambda: mirror.service.files().get(b"new"), str(client).encode(), LONG)
    assert files.items() <= identities(root).items(), "a file was removed, and made again"
    client.delete(mirror.prefix + STILL[0].encode())
    eventually((root / STILL[0]).exists, False)


@pytest.mark.parametrize("mode", [REPLICA, RESOLVED])
def test_while_a_slot_is_half_moved_it_waits_and_says_so(
    cluster: Cluster, root: Path, start: Start, mode: str
) -> None:
    make(root, *(f"f{number}" for number in range(100)))
    mirror = Mirror(cluster, start, SYNC_MODE=mode)
    source = cluster.owner(mirror.prefix)
    to = next(node for node in cluster.masters() if node is not source)
    cluster.begin_move(mirror.prefix, to)
    cluster.move_keys(mirror.prefix, source, to, most=60)
    write(root / "new")
    (root / "f1").unlink()
    eventually(lambda: mirror.service.says("waiting for", "is being moved", "--cluster fix"), True)
    status, words = mirror.service.health()
    assert (status, "is being moved" in words, "(since 20" in words) == (1, True, True)
    assert len(list(root.iterdir())) == 100
    Cluster.cli("--cluster", "fix", source.address)
    mirror.is_equal()
    assert len(list(root.iterdir())) == 100
    assert len(mirror.service.lines("is being moved")) == 1


class KeysLoad:
    """Keys that change all the time, for the time of a block; `last` is what they had last."""

    def __init__(self, mirror: Mirror) -> None:
        self.last: dict[str, bytes] = {}
        self._mirror = mirror
        self._over = Event()
        self._thread = Thread(target=self._work, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        for number in count():
            name, value = f"r{number % 20}", b"%d" % number
            while not self._is_set(self._mirror.prefix + name.encode(), value):
                pass
            self.last[name] = value
            if self._over.wait(0.002):
                return

    def _is_set(self, key: bytes, value: bytes) -> bool:
        try:
            return bool(self._mirror.cluster.client(self._mirror.prefix).set(key, value))
        except redis.RedisError:
            return False  # its slot is being moved


def test_a_slot_is_moved_while_both_sides_change(
    cluster: Cluster, root: Path, start: Start
) -> None:
    make(root, *STILL)
    mirror = Mirror(cluster, start, SYNC_MODE=RESOLVED)
    files = identities(root)
    keys = KeysLoad(mirror)
    with Load(root), keys:
        for _ in range(4):
            cluster.move(mirror.prefix)
            before = len(mirror.service.lines(" equals "))
            eventually(lambda: len(mirror.service.lines(" equals ")) > before, True, LONG)  # noqa: B023
    mirror.is_equal()
    assert files.items() <= identities(root).items(), "a file was removed, and made again"
    assert {name: (root / name).read_bytes() for name in keys.last} == keys.last


def test_what_a_node_says_of_a_key_that_has_moved_is_no_answer(cluster: Cluster) -> None:
    """Nor is it a refusal of one name's value."""
    prefix = b"{t%d}:" % next(NUMBERS)
    address = Address(Access(cluster.url), prefix)
    acts: dict[str, Callable[[Target], object]] = {
        "lengths": lambda target: target.lengths([b"a"]),
        "are there": lambda target: target.are_there([b"a"]),
        "piece": lambda target: target.piece(b"a", 0, 9),
        "download": lambda target: list(target.download(b"a").pieces()),
        "look": lambda target: target.look([b"a"], watch=False),
        "one": lambda target: target.apply([Set(b"a", b"two", SIGNATURE)]),
        "both": lambda target: target.apply(
            [Set(b"b", b"two", SIGNATURE), Set(b"a", b"two", SIGNATURE)]
        ),
    }
    with ExitStack() as stack:
        targets = {
            name: stack.enter_context(closing(Target(address.dial, ENTRIES, prefix, place=address)))
            for name in acts
        }
        first = targets["look"]
        first.connect()
        first.apply([Set(b"a", b"one", SIGNATURE), Set(b"b", b"one", SIGNATURE)])
        for target in targets.values():
            target.join()
        source = cluster.owner(prefix)
        to = next(node for node in cluster.masters() if node is not source)
        cluster.begin_move(prefix, to)
        stack.callback(cluster.end_move, prefix, to)
        stack.callback(cluster.move_keys, prefix, source, to)
        source.do("MIGRATE", "127.0.0.1", to.port, prefix + b"a", 0, 5000)
        for name, act in acts.items():
            with pytest.raises(RedisAwayError, match="is being moved to another node"):
                pytest.fail(f"{name}: {act(targets[name])}")


@pytest.mark.parametrize("how", ["is killed", "hangs"])
@pytest.mark.parametrize("mode", [REPLICA, RESOLVED])
def test_another_node_takes_over_under_load(
    cluster: Cluster, root: Path, start: Start, mode: str, how: str
) -> None:
    make(root, *STILL)
    files = identities(root)
    mirror = Mirror(cluster, start, SYNC_MODE=mode)
    owner = cluster.owner(mirror.prefix)
    with Load(root):
        if how == "is killed":
            owner.process.kill()
            owner.process.wait()
            cluster.has_another_owner(mirror.prefix, owner)
            cluster.is_whole()
        else:
            with paused(owner.process):
                cluster.has_another_owner(mirror.prefix, owner)
        eventually(lambda: mirror.keys() is not None, True)
    mirror.is_equal()
    assert files.items() <= identities(root).items(), "a file was removed, and made again"
