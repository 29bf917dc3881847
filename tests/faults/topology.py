"""A world whose Redis is several servers, and what can happen to these.

A fault of Redis' is over when there is one master again that all agree on. So the load goes on
while nobody knows where the master is, and the next fault finds servers that are well.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import redis
from faults import hands, world
from faults.hands import TwoHandedWorld
from faults.world import SOCKET_TIMEOUT, TEXT, World
from integration.topology import PASSWORD, Cluster, Node, SentinelSet, paused
from redis.backoff import ConstantBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import ExitStack
    from pathlib import Path
    from random import Random

    from faults.world import Faults
    from integration.conftest import RedisServer

_WELL = 40.0  # seconds; Sentinels look at replicas every 10 s
_PREFIX = b"{app1}:"


class SentinelWorld(World):
    """A world with three servers and three Sentinels."""

    @staticmethod
    def _make_redis(directory: Path, running_all: ExitStack) -> RedisServer:
        servers = SentinelSet(directory)
        running_all.callback(servers.close)
        return cast("RedisServer", servers)

    @property
    def servers(self) -> SentinelSet:
        """The servers, and the Sentinels."""
        return cast("SentinelSet", self.redis)

    def new_client(self) -> redis.Redis:
        """Return a client of the master, whoever that is, that tries nothing again."""
        retry = Retry(NoBackoff(), 0)
        asked: Any = self.servers.asked
        client: redis.Redis = asked.master_for("mymaster", password=PASSWORD, retry=retry)
        return client

    def _text_client(self) -> Any:  # noqa: ANN401  # as redis-py has it
        return self.servers.asked.master_for("mymaster", password=PASSWORD, **TEXT)

    @property
    def _access(self) -> dict[str, str]:
        url = self.servers.url.replace("socket_timeout=2", f"socket_timeout={SOCKET_TIMEOUT}")
        return {**self.servers.environ, "REDIS_URL": url}

    def _start_redis(self) -> None:
        """Do nothing: they run."""
        self.servers.client.set_retry(Retry(ConstantBackoff(0.1), 100))

    def _losing(self) -> None:
        """Take note that what is written from now on may be lost."""

    def _lost(self) -> None:
        """Take note that it is."""

    def _is_well(self) -> Node:
        eventually(self.servers.has_replicas, True, _WELL)
        with suppress(redis.RedisError):
            self.redis.client.wait(1, 1000)
        return self.servers.master

    @contextmanager
    def redis_master_failed_over(self, _: Random) -> Iterator[None]:
        """Have another one made the master."""
        self._is_well()
        self._losing()
        self.servers.fail_over()
        yield
        self._is_well()
        self._lost()

    @contextmanager
    def redis_master_killed(self, random: Random) -> Iterator[None]:
        """Have it end, after a while in which the others have got nothing of it, maybe."""
        master = self._is_well()
        self._losing()
        if random.random() < 0.6:
            with self.servers.replication_cut_off():
                time.sleep(random.uniform(0, 1.0))
                master.kill()
        else:
            master.kill()
        self.servers.has_another_master(master)
        yield
        master.start()
        self._is_well()
        self._lost()

    @contextmanager
    def redis_master_paused(self, random: Random) -> Iterator[None]:
        """Have it hang until another one is the master, or not as long."""
        master = self._is_well()
        self._losing()
        with paused(master.process):
            if random.random() < 0.7:
                self.servers.has_another_master(master)
            yield
        self._is_well()
        self._lost()

    @contextmanager
    def redis_master_hidden(self, _: Random) -> Iterator[None]:
        """Have it not know that another one is the master, and take what it is sent."""
        self._is_well()
        self._losing()
        with self.servers.hidden_from_sentinels() as master:
            self.servers.has_another_master(master)
            yield
        eventually(lambda: master.client.info("replication")["role"], "slave", _WELL)
        self._is_well()
        self._lost()

    @contextmanager
    def redis_connections_killed(self, _: Random) -> Iterator[None]:
        """Have all connections to the master end."""
        self._is_well().client.client_kill_filter(_type="normal", skipme=True)
        yield

    @contextmanager
    def sentinel_paused(self, random: Random) -> Iterator[None]:
        """Have one of three hang."""
        with paused(random.choice(self.servers.sentinels)):
            yield


class SentinelHandsWorld(SentinelWorld, TwoHandedWorld):
    """The same with two hands in it."""

    def _losing(self) -> None:
        self.hands.keys_are_saved()

    def _lost(self) -> None:
        self.hands.keys_are_lost()


class ClusterWorld(World):
    """A world with a cluster of six, and all keys in one slot of it."""

    prefix = _PREFIX

    @staticmethod
    def _make_redis(directory: Path, running_all: ExitStack) -> RedisServer:
        cluster = Cluster(directory)
        running_all.callback(cluster.close)
        return cast("RedisServer", InCluster(cluster))

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return cast("InCluster", self.redis).cluster

    def _text_client(self) -> Any:  # noqa: ANN401  # as redis-py has it
        node_of: Any = ClusterNode
        nodes = [node_of("127.0.0.1", node.port) for node in self.cluster.nodes]
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **TEXT)

    @property
    def _access(self) -> dict[str, str]:
        url = self.cluster.url.replace("socket_timeout=2", f"socket_timeout={SOCKET_TIMEOUT}")
        return {"REDIS_URL": url, "SYNC_PREFIX": _PREFIX.decode()}

    def _start_redis(self) -> None:
        """Do nothing: they run."""

    @contextmanager
    def redis_slot_moved(self, _: Random) -> Iterator[None]:
        """Have the slot of all keys move, at once."""
        self.cluster.is_whole()
        self.cluster.move(_PREFIX)
        yield

    @contextmanager
    def redis_slot_moving(self, random: Random) -> Iterator[None]:
        """Have it half moved for a while."""
        self.cluster.is_whole()
        source = self.cluster.owner(_PREFIX)
        to = random.choice([node for node in self.cluster.masters() if node is not source])
        self.cluster.begin_move(_PREFIX, to)
        self.cluster.move_keys(_PREFIX, source, to, most=random.randint(0, 60))
        yield
        self.cluster.move_keys(_PREFIX, source, to)
        self.cluster.end_move(_PREFIX, to)
        self.cluster.is_whole()

    @contextmanager
    def redis_node_killed(self, random: Random) -> Iterator[None]:
        """Have the node that has the slot end, after it was alone with what it got, maybe."""
        self.cluster.is_whole()
        node = self.cluster.owner(_PREFIX)
        self.redis.client.wait(1, 1000)
        if random.random() < 0.6:
            node.do("ACL SETUSER default -psync -sync -replconf")
            node.client.client_kill_filter(_type="replica")
            time.sleep(random.uniform(0, 1.0))
        node.kill()
        self.cluster.has_another_owner(_PREFIX, node)
        yield
        self.cluster.is_whole()

    @contextmanager
    def redis_node_paused(self, random: Random) -> Iterator[None]:
        """Have it hang until another one has the slot, or not as long."""
        self.cluster.is_whole()
        node = self.cluster.owner(_PREFIX)
        with paused(node.process):
            if random.random() < 0.7:
                self.cluster.has_another_owner(_PREFIX, node)
            yield
        self.cluster.is_whole()

    @contextmanager
    def redis_node_failed_over(self, random: Random) -> Iterator[None]:
        """Have its replica take its place."""
        self.cluster.is_whole()
        node = self.cluster.owner(_PREFIX)
        replica = self.cluster.replica(_PREFIX)
        replica.do("CLUSTER FAILOVER", *random.choice([(), ("FORCE",), ("TAKEOVER",)]))
        self.cluster.has_another_owner(_PREFIX, node)
        yield
        self.cluster.is_whole()

    @contextmanager
    def redis_connections_killed(self, _: Random) -> Iterator[None]:
        """Have all connections to the node end."""
        node = self.cluster.owner(_PREFIX)
        node.client.client_kill_filter(_type="normal", skipme=True)
        yield


class InCluster:
    """A cluster as if it were one server.

    Attributes:
        client: what has the few commands that those who judge use.

    """

    def __init__(self, cluster: Cluster) -> None:
        """Show the keys of one slot."""
        self.cluster = cluster
        self.client = Tagged(cluster)


class Tagged:
    """Commands to the node that has the slot, with names that lack the prefix."""

    def __init__(self, cluster: Cluster) -> None:
        """Ask the nodes of `cluster`."""
        self._cluster = cluster
        self._node: Node | None = None

    def _do(self, act: Callable[[Any], Any]) -> Any:  # noqa: ANN401  # as redis-py has it
        for _ in range(100):
            self._node = self._node or self._cluster.owner(_PREFIX)
            try:
                return act(self._node.client)
            except (redis.RedisError, ValueError) as error:
                self._node, failed = None, error
                time.sleep(0.1)
        raise redis.ConnectionError(str(failed))

    def get(self, name: str | bytes) -> object:
        """Return a value."""
        return self._do(lambda client: client.get(_key(name)))

    def mget(self, names: list[bytes]) -> list[object]:
        """Return values."""
        found: list[object] = self._do(lambda client: client.mget([_key(n) for n in names]))
        return found

    def mset(self, values: Mapping[bytes, bytes]) -> None:
        """Put values."""
        self._do(lambda client: client.mset({_key(n): v for n, v in values.items()}))

    def hkeys(self, name: bytes) -> list[bytes]:
        """Return the fields of a hash."""
        found: list[bytes] = self._do(lambda client: client.hkeys(_key(name)))
        return found

    def wait(self, count: int, timeout: int) -> None:
        """Wait until so many replicas have what was written; it is about one connection."""
        self._do(
            lambda client: client.set(_key(b"/waited"), b"", px=1) and client.wait(count, timeout)
        )

    def scan_iter(self, match: bytes = b"*", count: int = 10) -> Iterator[bytes]:
        """Yield names; all, or none."""
        pattern = _key(match)
        self._node = None  # one that has the slot no more has no keys, and does not say so
        found = self._do(lambda client: list(client.scan_iter(match=pattern, count=count)))
        return (name.removeprefix(_PREFIX) for name in found)

    def pipeline(self, *, transaction: bool) -> Lengths:
        """Return what asks for lengths."""
        assert not transaction
        return Lengths(self._do)


class Lengths:
    """A pipeline that asks for the lengths of values."""

    def __init__(self, do: Callable[[Callable[[Any], Any]], Any]) -> None:
        """Ask by way of `do`."""
        self._do = do
        self._names: list[bytes] = []

    def __enter__(self) -> Lengths:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def strlen(self, name: bytes) -> None:
        """Ask for one."""
        self._names.append(_key(name))

    def execute(self) -> list[int]:
        """Return all."""

        def asked(client: Any) -> list[int]:  # noqa: ANN401  # as redis-py has it
            with client.pipeline(transaction=False) as pipeline:
                for name in self._names:
                    pipeline.strlen(name)
                found: list[int] = pipeline.execute()
                return found

        lengths: list[int] = self._do(asked)
        return lengths


def _key(name: str | bytes) -> bytes:
    return _PREFIX + (name if isinstance(name, bytes) else name.encode())


_SENTINEL: Faults = {
    "redis": {
        SentinelWorld.redis_master_failed_over: 2,
        SentinelWorld.redis_master_killed: 4,
        SentinelWorld.redis_master_paused: 2,
        SentinelWorld.redis_master_hidden: 2,
        SentinelWorld.redis_connections_killed: 1,
    },
    "sentinel": {SentinelWorld.sentinel_paused: 1},
}
_CLUSTER: Faults = {
    "redis": {
        ClusterWorld.redis_slot_moved: 3,
        ClusterWorld.redis_slot_moving: 3,
        ClusterWorld.redis_node_killed: 3,
        ClusterWorld.redis_node_paused: 2,
        ClusterWorld.redis_node_failed_over: 3,
        ClusterWorld.redis_connections_killed: 1,
    },
}
# For each choice of servers, the world and its faults: of an episode with a load on the directory,
# and of one with two hands.
ONE_HAND: Mapping[str, tuple[type[World], Faults]] = {
    "one": (World, world.FAULTS),
    "sentinel": (SentinelWorld, {**world.FAULTS, **_SENTINEL}),
    "cluster": (ClusterWorld, {**world.FAULTS, **_CLUSTER}),
}
TWO_HANDS: Mapping[str, tuple[type[TwoHandedWorld], Faults]] = {
    "one": (TwoHandedWorld, hands.FAULTS),
    "sentinel": (SentinelHandsWorld, {**hands.FAULTS, **_SENTINEL}),
}
