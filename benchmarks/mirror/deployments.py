"""Servers as people run them: one, one with replicas, a cluster, and what Sentinels watch.

All listen on ports of the loopback address, and write nothing to disk. Each has a Unix socket
beside that, for whoever measures.

Failure model. What does not come to be whole is a `BenchmarkError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from integration.topology import NAME, PASSWORD, Cluster, Node, SentinelSet

from benchmarks import BenchmarkError
from benchmarks.mirror.server import Server, until

DOWN_AFTER = 1.0  # seconds without a sign of life after which a server counts as down
REPLICAS = 2
TAG = b"{mirror}"  # that all keys have, so that they are in one slot
_PATIENCE = 30.0  # seconds until all have what one has
_AT_ONCE = ("--repl-diskless-sync-delay", "0")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deployment:
    """Servers that run together.

    name     what they are
    environ  what mdvp-sync is told of them
    nodes    all of them
    owner    that which has the keys; all are well
    told     the ports of those that have them, in the words of those who are asked for it
    mend     start those that have ended, and wait until all are well
    password that they want
    fails_over whether another one takes the place of the owner when that dies
    """

    name: str
    environ: Mapping[str, str]
    nodes: Sequence[Node]
    owner: Callable[[], Node]
    told: Callable[[], set[int]]
    mend: Callable[[], None]
    password: str | None = None
    fails_over: bool = False

    def server(self) -> Server:
        """Return the server that has the keys by now, to be asked and closed."""
        return Server(self.owner().socket, self.password)

    def empty(self) -> None:
        """Have no keys, and wait until the replicas have none."""
        client = self.owner().client
        client.flushall()
        replicas = int(client.info("replication")["connected_slaves"])
        client.wait(replicas, int(_PATIENCE * 1e3))


@contextmanager
def alone(place: Path) -> Iterator[Deployment]:
    """Run one server."""
    with _one("a server", place, 0) as deployment:
        yield deployment


@contextmanager
def replicated(place: Path) -> Iterator[Deployment]:
    """Run one server with as many replicas as one that Sentinels watch."""
    with _one(f"a server with {REPLICAS} replicas", place, REPLICAS) as deployment:
        yield deployment


@contextmanager
def watched(place: Path) -> Iterator[Deployment]:
    """Run three servers, and three Sentinels that watch them."""
    with closing(_well(lambda: SentinelSet(place))) as servers:
        for sentinel in servers.asked.sentinels:
            milliseconds = str(int(DOWN_AFTER * 1e3))
            words = ("SENTINEL SET", NAME, "down-after-milliseconds", milliseconds)
            sentinel.execute_command(*words)
        yield Deployment(
            *("Sentinels", servers.environ, servers.nodes, lambda: servers.master),
            lambda: {int(state["port"]) for state in servers.states()},
            lambda: _well(servers.is_whole),
            PASSWORD,
            fails_over=True,
        )


@contextmanager
def clustered(place: Path) -> Iterator[Deployment]:
    """Run a cluster: three nodes that have slots, each with a replica."""
    with closing(_well(lambda: Cluster(place))) as cluster:
        for node in cluster.nodes:
            node.client.config_set("appendonly", "no")  # as with all the others
            node.client.config_set("cluster-node-timeout", int(DOWN_AFTER * 1e3))
        yield Deployment(
            *("a cluster", {"REDIS_URL": cluster.url}, cluster.nodes),
            lambda: cluster.owner(TAG),
            lambda: {cluster.owner(TAG).port},
            lambda: _well(cluster.is_whole),
            fails_over=True,
        )


ALL: Sequence[Callable[[Path], AbstractContextManager[Deployment]]] = (
    alone,
    replicated,
    watched,
    clustered,
)


@contextmanager
def _one(name: str, place: Path, replicas: int) -> Iterator[Deployment]:
    with ExitStack() as stack:
        nodes = [Node(place / str(number), *_AT_ONCE) for number in range(1 + replicas)]
        for node in nodes:
            stack.callback(node.close)
            node.start()
        first = nodes[0]
        for node in nodes[1:]:
            node.client.replicaof("127.0.0.1", str(first.port))
        until(
            lambda: first.client.info("replication")["connected_slaves"] == replicas,
            what="a replica",
        )
        environ = {"REDIS_URL": f"redis://{first.address}/"}
        yield Deployment(name, environ, nodes, lambda: first, lambda: {first.port}, lambda: None)


def _well(wait: Callable[[], T]) -> T:
    """Wait for what tests wait for, too."""
    try:
        return wait()
    except AssertionError as error:
        raise BenchmarkError(f"the servers are not well: {error}") from error
