"""Real servers together: three Sentinels with three servers, and a cluster of six nodes."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import redis
from integration.conftest import RedisServer, paused
from integration.files import write
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel
from support import eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PASSWORD, SENTINEL_PASSWORD = "of-servers", "of-sentinels"
NAME = "mymaster"
SENTINEL_USER = "sentinel"  # as whom Sentinels come to the servers
_QUORUM = 2
_DOWN_AFTER = 500  # ms
_NODE_TIMEOUT = 1000  # ms
_SETTLED = 30.0  # seconds
_FIRST, _LAST = 20_000, 32_000  # ports that the kernel gives to nobody by itself


def free_port() -> int:
    """Return a port of the loopback address that nobody has."""
    while True:
        port = random.randint(_FIRST, _LAST)  # noqa: S311
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


class Load:
    """Files that change all the time, for the time of a block."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._over = Event()
        self._thread = Thread(target=self._work, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        number = 0
        while not self._over.wait(0.002):
            number += 1
            write(self._root / f"f{number % 40}", f"{number}")
            if number % 3 == 0:
                (self._root / f"f{(number * 7) % 40}").unlink(missing_ok=True)
            elif number % 5 == 0:
                with suppress(FileNotFoundError):
                    (self._root / f"f{number % 40}").rename(self._root / f"f{number % 11}")


class Node(RedisServer):
    """A server on a port of its own; `client` goes to it by its socket."""

    def __init__(self, directory: Path, *options: str, password: str | None = None) -> None:
        directory.mkdir()
        super().__init__(directory)
        self.client.close()
        self.client = redis.Redis(
            unix_socket_path=str(self.socket),
            password=password,
            socket_timeout=2,  # it may be paused
            retry=Retry(NoBackoff(), 2),  # its connections are killed, too
        )
        self.port = free_port()
        log = ("--logfile", str(directory / "log"))
        self._options = ("--port", str(self.port), *log, *options)

    def start(self, *options: str) -> None:
        super().start(*self._options, *options)

    def do(self, *request: object) -> Any:  # noqa: ANN401  # as redis-py has it
        """Return what the server answers."""
        client: Any = self.client
        return client.execute_command(*request)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def is_paused(self) -> bool:
        """Whether it does nothing, so that nobody need wait for its answer."""
        if not self.is_running:
            return False
        told = Path(f"/proc/{self.process.pid}/stat").read_text()
        return told.rpartition(")")[2].split()[0] == "T"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class SentinelSet:
    """Three servers, of which one is the master, and three Sentinels.

    Attributes:
        url: for REDIS_URL.
        client: of redis-py's, to whoever is the master.

    """

    def __init__(self, place: Path) -> None:
        """Start all, in a directory that is empty."""
        self._stack = ExitStack()
        options = (
            *("--requirepass", PASSWORD, "--masterauth", PASSWORD),
            *("--repl-diskless-sync-delay", "0", "--repl-backlog-size", "64mb"),
            *("--user", SENTINEL_USER, "on", f">{PASSWORD}", "allcommands", "allchannels"),
        )
        self.nodes = [Node(place / f"{i}", *options, password=PASSWORD) for i in range(3)]
        for node in self.nodes:
            self._stack.callback(node.close)
            node.start()
        first = self.nodes[0]
        for node in self.nodes[1:]:
            node.client.replicaof("127.0.0.1", first.port)
        eventually(lambda: first.client.info("replication")["connected_slaves"], 2)
        ports = [free_port() for _ in range(3)]
        self.sentinels = [self._sentinel(place, port, first.port) for port in ports]
        self.hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        self.url = f"redis+sentinel://{self.hosts}/{NAME}?socket_timeout=2"
        self.environ = {
            "REDIS_URL": self.url,
            "REDIS_PASSWORD": PASSWORD,
            "REDIS_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        }
        told = {"password": SENTINEL_PASSWORD, "socket_timeout": 1.0}
        quick: dict[str, Any] = {"retry": Retry(NoBackoff(), 0)}
        make: Any = Sentinel  # it has no types
        self.asked = make(
            [("127.0.0.1", port) for port in ports], 0, {**told, **quick}, socket_timeout=2.0
        )
        self.client: redis.Redis = self.asked.master_for(NAME, password=PASSWORD, **quick)
        self._stack.callback(self.client.close)
        self._stack.callback(self.asked.close)
        self.is_whole()

    def _sentinel(self, place: Path, port: int, master: int) -> subprocess.Popen[str]:
        path = place / f"sentinel-{port}.conf"
        path.write_text(
            f"port {port}\ndir {place}\nlogfile {place}/sentinel-{port}.log\n"
            f"requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {master} {_QUORUM}\n"
            f"sentinel auth-user {NAME} {SENTINEL_USER}\nsentinel auth-pass {NAME} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {NAME} {_DOWN_AFTER}\n"
            f"sentinel failover-timeout {NAME} 1000\n"
        )
        command = ("redis-server", str(path), "--sentinel")
        return self._stack.enter_context(running(command, os.environ))

    def close(self) -> None:
        self._stack.close()

    def states(self) -> list[dict[str, Any]]:
        """Return what each Sentinel says of the master; of those that do not answer, nothing."""
        found = []
        for sentinel in self.asked.sentinels:
            with suppress(redis.RedisError):
                found.append(sentinel.sentinel_masters()[NAME])
        return found

    @property
    def master(self) -> Node:
        """The server that all Sentinels which answer name."""
        eventually(lambda: len(self._ports()), 1, _SETTLED)
        ports = self._ports()
        return next(node for node in self.nodes if node.port in ports)

    def _ports(self) -> set[int]:
        return {int(state["port"]) for state in self.states()}

    def is_whole(self) -> None:
        """Start what does not run, and wait until all know each other and who is the master."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        eventually(self._is_whole, True, _SETTLED)

    def _is_whole(self) -> bool:
        states = self.states()
        if len(states) < len(self.sentinels) or len(self._ports()) != 1:
            return False
        for state in states:
            flags = state["flags"]
            if set(flags if isinstance(flags, set) else flags.split(",")) != {"master"}:
                return False
            if (state["num-slaves"], state["num-other-sentinels"]) != (2, 2):
                return False
        try:
            roles = [node.client.info("replication") for node in self.nodes]
        except redis.RedisError:
            return False
        masters = [each for each in roles if each["role"] == "master"]
        return len(masters) == 1 and masters[0]["connected_slaves"] == 2

    def has_replicas(self) -> bool:
        """Say whether all name one master that is one, is up, and could be followed by another."""
        states = self.states()
        if not states or len(self._ports()) != 1:
            return False
        if any(
            "down" in str(state["flags"]) or "failover" in str(state["flags"]) for state in states
        ):
            return False
        try:
            roles = [node.client.info("replication") for node in self.nodes]
        except redis.RedisError:
            return False
        masters = [each for each in roles if each["role"] == "master"]
        if len(masters) != 1:  # one that is none any more, and is not told yet, takes writes
            return False
        replicas = [each for each in masters[0].values() if isinstance(each, dict)]
        if not any(each["state"] == "online" for each in replicas):
            return False
        return min(int(state["num-slaves"]) for state in states) > 0

    def has_another_master(self, than: Node) -> None:
        """Wait until some Sentinel names another server."""
        eventually(lambda: self._ports() - {than.port} != set(), True, _SETTLED)

    def fail_over(self) -> None:
        """Have the Sentinels name another master, though this one is well."""
        was = self.master

        def begun() -> bool:
            for sentinel in list[Any](self.asked.sentinels):
                with suppress(redis.RedisError):  # one is under way still, or it hangs
                    sentinel.execute_command("SENTINEL FAILOVER", NAME)
                    return True
            return False

        eventually(begun, True, _SETTLED)
        self.has_another_master(was)

    @contextmanager
    def replication_cut_off(self) -> Iterator[Node]:
        """Have the master's replicas get nothing more; return it."""
        master = self.master
        master.do("ACL SETUSER default -psync -sync -replconf")
        master.client.client_kill_filter(_type="replica")
        yield master
        if master.is_running:
            master.do("ACL SETUSER default +@all")

    @contextmanager
    def hidden_from_sentinels(self) -> Iterator[Node]:
        """Have the Sentinels not get at the master, while all others do; return it."""
        master = self.master
        master.do(f"ACL SETUSER {SENTINEL_USER} off")
        self._end_sentinels(master)
        yield master
        master.do(f"ACL SETUSER {SENTINEL_USER} on")
        self._end_sentinels(master)

    def _end_sentinels(self, node: Node) -> None:
        node.do(f"CLIENT KILL USER {SENTINEL_USER}")


class Cluster:
    """Six nodes, three of them masters.

    Attributes:
        hosts: of three, for REDIS_URL.

    """

    def __init__(self, place: Path) -> None:
        """Start all, in a directory that is empty."""
        self._stack = ExitStack()
        self.nodes: list[Node] = []
        buses = [free_port() for _ in range(6)]
        for number, port in enumerate(buses):
            bus = ("--cluster-port", str(port))
            node = Node(
                place / f"{number}",
                *("--cluster-enabled", "yes", "--cluster-node-timeout", str(_NODE_TIMEOUT)),
                *("--cluster-replica-validity-factor", "0", *bus),
                *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
                *("--appendonly", "yes"),
            )
            self._stack.callback(node.close)
            node.start()
            self.nodes.append(node)
        self._join(buses)
        self.hosts = ",".join(node.address for node in self.nodes[:3])
        self.url = f"redis+cluster://{self.hosts}/?socket_timeout=2"
        self.is_whole()

    def _join(self, buses: Sequence[int]) -> None:
        """Make a cluster of the nodes, as redis-cli does, which takes its time."""
        first = self.nodes[0].do
        for number, (node, bus) in enumerate(zip(self.nodes, buses, strict=True)):
            node.do("CLUSTER SET-CONFIG-EPOCH", number + 1)
            first("CLUSTER MEET", "127.0.0.1", node.port, bus)
        eventually(lambda: {self._known(node) for node in self.nodes}, {6}, _SETTLED)
        for number in range(3):
            master, replica = self.nodes[number], self.nodes[number + 3]
            slots = (number * 5461, number * 5461 + 5460 + number // 2)
            master.do("CLUSTER ADDSLOTSRANGE", *slots)
            replica.do("CLUSTER REPLICATE", _id(self.nodes[number]))

    @staticmethod
    def _known(node: Node) -> int:
        return int(node.do("CLUSTER INFO")["cluster_known_nodes"])

    def close(self) -> None:
        self._stack.close()

    @staticmethod
    def cli(*arguments: str) -> str:
        done = subprocess.run(
            ("redis-cli", *arguments), capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_whole(self) -> None:
        """Start what does not run, and wait until all agree, and each master has a replica."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        eventually(self._is_whole, True, _SETTLED)

    def _is_whole(self) -> bool:
        views = set()
        for node in self.nodes:
            try:
                info = node.do("CLUSTER INFO")
                slots = node.do("CLUSTER SLOTS")
            except redis.RedisError:
                return False
            if info["cluster_state"] != "ok":
                return False
            if any(len(each) != 4 for each in slots):  # a master and a replica
                return False
            views.add(str([(first, last, master[1]) for first, last, master, _ in sorted(slots)]))
        return len(views) == 1

    def owner(self, prefix: bytes) -> Node:
        """Return the node that has the slot of keys with this prefix, as most see it."""
        slot = key_slot(prefix)
        seen: dict[int, int] = {}
        for node in self.nodes:
            if node.is_paused:
                continue
            with suppress(redis.RedisError):
                for first, last, master, *_ in node.do("CLUSTER SLOTS"):
                    if first <= slot <= last:
                        seen[master[1]] = seen.get(master[1], 0) + 1
        port = max(seen, key=lambda each: seen[each])
        return next(node for node in self.nodes if node.port == port)

    def replica(self, prefix: bytes) -> Node:
        """Return a replica of the node that has the slot."""
        port = self.owner(prefix).port
        return next(
            node
            for node in self.nodes
            if node.client.info("replication").get("master_port") == port
        )

    def masters(self) -> Sequence[Node]:
        return [n for n in self.nodes if n.client.info("replication")["role"] == "master"]

    def client(self, prefix: bytes) -> redis.Redis:
        """Return a client of the node that has the slot by now."""
        return self.owner(prefix).client

    def has_another_owner(self, prefix: bytes, than: Node) -> None:
        eventually(lambda: self.owner(prefix) is not than, True, _SETTLED)

    def keys(self, prefix: bytes) -> dict[bytes, bytes] | None:
        """Return all keys with this prefix, without it, but for the service's own.

        Return None when that cannot be known.
        """
        try:
            client = self.owner(prefix).client
            pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]\\" else bytes([c]) for c in prefix)
            found = client.scan_iter(match=pattern + b"*", count=10_000)
            names = [name for name in found if not name.startswith(prefix + b"/")]
            values: Any = client.mget(names) if names else []
        except (redis.RedisError, ValueError):
            return None
        return {
            name.removeprefix(prefix): value
            for name, value in zip(names, values, strict=True)
            if value is not None
        }

    def begin_move(self, prefix: bytes, to: Node) -> Node:
        """Begin to move the slot of keys with this prefix to another master; return from where."""
        slot, source = key_slot(prefix), self.owner(prefix)
        to.do("CLUSTER SETSLOT", slot, "IMPORTING", _id(source))
        source.do("CLUSTER SETSLOT", slot, "MIGRATING", _id(to))
        return source

    @staticmethod
    def move_keys(prefix: bytes, source: Node, to: Node, most: int | None = None) -> int:
        """Move keys of the slot, `most` of them at most; return how many."""
        slot, moved = key_slot(prefix), 0
        while most is None or moved < most:
            count = 10 if most is None else min(10, most - moved)
            # As two words, or redis-py makes text of the names.
            names = source.do("CLUSTER", "GETKEYSINSLOT", slot, count)
            if not names:
                break
            arguments = ("127.0.0.1", to.port, "", 0, 5000, "REPLACE", "KEYS", *names)
            source.do("MIGRATE", *arguments)
            moved += len(names)
        return moved

    def end_move(self, prefix: bytes, to: Node) -> None:
        """Say that all of the slot has moved."""
        slot = key_slot(prefix)
        for node in [to, *(each for each in self.masters() if each is not to)]:
            node.do("CLUSTER SETSLOT", slot, "NODE", _id(to))

    def move(self, prefix: bytes) -> None:
        """Move the slot of keys with this prefix to some other master."""
        source = self.owner(prefix)
        to = next(node for node in self.masters() if node is not source)
        self.begin_move(prefix, to)
        self.move_keys(prefix, source, to)
        self.end_move(prefix, to)
        eventually(lambda: self.owner(prefix) is to, True)


def _id(node: Node) -> str:
    told = node.do("CLUSTER MYID")
    return told.decode() if isinstance(told, bytes) else str(told)


__all__ = [
    "NAME",
    "PASSWORD",
    "SENTINEL_PASSWORD",
    "Cluster",
    "Load",
    "Node",
    "SentinelSet",
    "paused",
]
