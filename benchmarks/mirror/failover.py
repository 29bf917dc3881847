"""What happens when the server that has the keys dies, while files change all the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import count

import redis
from integration.topology import Node

from benchmarks import BenchmarkError
from benchmarks.mirror.contenders import Contender
from benchmarks.mirror.deployments import Deployment
from benchmarks.mirror.load import name, value
from benchmarks.mirror.results import Failover
from benchmarks.mirror.server import Server, until

_EACH = 0.005  # seconds between two files
_PATIENCE = 60.0  # seconds; far more than any failover takes


def fail_over(deployment: Deployment, contender: Contender, busy: float) -> Failover:
    """Have files come for `busy` seconds, and the server that has the keys die then.

    Files come on until one of them has come to the server that takes its place. That has to be
    equal to the directory soon after: what the dead one had given to no replica has to come again.
    """
    files = _files(contender)
    end = time.monotonic() + busy
    while time.monotonic() < end:
        next(files)
    owner = deployment.owner()
    heirs = [node for node in deployment.nodes if _master_of(node) == owner.port]
    owner.kill()
    began = time.monotonic()
    marker = next(files)
    seen: dict[str, float] = {}
    while not (heir := _which(heirs, lambda node: _has(node, contender.kind.key(marker)))):
        if "promoted" not in seen and _which(heirs, _is_master):
            seen["promoted"] = time.monotonic() - began
        if "told" not in seen and deployment.told() - {owner.port}:
            seen["told"] = time.monotonic() - began
        if time.monotonic() - began > _PATIENCE:
            raise BenchmarkError(f"{contender.kind.name}: nothing was written after a failover")
        next(files)
    written = time.monotonic() - began
    with closing(Server(heir.socket, deployment.password)) as server:
        until(
            lambda: server.compared(contender.root, contender.kind.prefix).equal,
            what="that the server which is left is equal to the directory",
        )
    equal = time.monotonic() - began
    return Failover(seen.get("promoted", written), seen.get("told", written), written, equal)


def _files(contender: Contender) -> Iterator[str]:
    """Write one new file after the other, with a moment between them; yield their names."""
    for number in count():
        (contender.root / name(number)).write_bytes(value(number))
        contender.says("")  # it must not end by what happens
        yield name(number)
        time.sleep(_EACH)


def _which(nodes: Sequence[Node], probe: Callable[[Node], bool]) -> Node | None:
    """Return a node of which something is true; what it refuses to say is not."""
    for node in nodes:
        with suppress(redis.RedisError):
            if probe(node):
                return node
    return None


def _has(node: Node, key: str) -> bool:
    return bool(node.client.exists(key))


def _is_master(node: Node) -> bool:
    return bool(node.client.info("replication")["role"] == "master")


def _master_of(node: Node) -> int | None:
    """Return the port of the server that a node is a replica of, if it is one."""
    return node.client.info("replication").get("master_port")
