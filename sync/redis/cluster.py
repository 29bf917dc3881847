"""Redis Cluster: which node has the slot that all keys are in (redis.io, "Cluster specification").

Failure model. Any node is asked, at each session another one first, but one that is cut off from
most others is not believed. What it tells may still be late: then the node that it names says
itself that the slot is elsewhere (MOVED), and the next session asks the next node. A node that is
cut off itself refuses everything after the cluster's node timeout (CLUSTERDOWN). So nobody need be
asked in between.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.crc import key_slot

from sync.core.errors import RedisAwayError, SettingsError
from sync.redis.url import Host

_KNOWN_MAX = 50  # nodes that may be asked, beside those of REDIS_URL


class ClusterNodes:
    """Nodes that are asked for the one that has the slot."""

    def __init__(
        self, hosts: Sequence[Host], prefix: bytes, client: Callable[[Host], redis.Redis]
    ) -> None:
        """Ask those at `hosts`, by way of `client`, for the slot of keys with `prefix`.

        Raises SettingsError if not all of these are in one slot.
        """
        if not tag(prefix):
            name = prefix.decode(errors="replace").strip(":/") or "app1"
            raise SettingsError(
                "REDIS_URL names a cluster, where all keys have to be in one slot: put a hash tag "
                f"in SYNC_PREFIX, such as SYNC_PREFIX='{{{name.strip('{}')}}}:'"
            )
        self._slot = key_slot(prefix)
        self._given = list(hosts)
        self._nodes = deque(hosts)
        self._client = client

    def __str__(self) -> str:
        """Say what they are asked for."""
        return f"slot {self._slot} of the cluster"

    def find(self) -> Host:
        """Ask which node has the slot. Raises RedisAwayError, or SettingsError."""
        self._nodes.rotate(-1)
        errors = []
        for node in list(self._nodes):
            client = self._client(node)
            try:
                ask: Any = client.execute_command  # it has no types
                state, slots = ask("CLUSTER INFO"), ask("CLUSTER SLOTS")
            except redis.ResponseError as error:
                if "cluster support disabled" in str(error):
                    raise SettingsError(
                        f"Redis at {node} is no node of a cluster: use redis:// or rediss:// in "
                        "REDIS_URL"
                    ) from error
                errors.append(f"{node}: {error}")
                continue
            except (redis.RedisError, OSError) as error:
                errors.append(f"{node}: {error}")
                continue
            finally:
                client.close()
            if state["cluster_state"] != "ok":
                errors.append(f"{node}: the cluster is down")
            elif found := self._take_up(node, slots):
                return found
            else:
                errors.append(f"{node}: no node has slot {self._slot}")
        raise RedisAwayError("; ".join(errors))

    @staticmethod
    def has_moved() -> Host | None:
        """Return nothing: a node that has the slot no more says so itself."""
        return None

    def _take_up(self, node: Host, slots: Sequence[Sequence[object]]) -> Host | None:
        """Remember whom to ask, and return who has the slot."""
        masters, found = dict.fromkeys(self._given), None
        for first, last, master, *replicas in slots:
            masters.update(dict.fromkeys(_host(each, node) for each in (master, *replicas)))
            if first <= self._slot <= last:  # type: ignore[operator]  # they are numbers
                found = _host(master, node)
        known = list(masters)[: len(self._given) + _KNOWN_MAX]
        after = known.index(node) if node in known else 0
        self._nodes = deque(known[after:] + known[:after])
        return found


def _host(told: object, node: Host) -> Host:
    """Return where a node is that another one has told of: without a name it is the same host."""
    assert isinstance(told, list)  # noqa: S101  # what CLUSTER SLOTS returns
    name, port = told[:2]
    return Host((name or b"").decode().replace("?", "") or node.name, int(port))


def tag(key: bytes) -> bytes:
    """Return the hash tag of a key, empty if it has none."""
    _, opened, rest = key.partition(b"{")
    inside, closed, _ = rest.partition(b"}")
    return inside if opened and closed else b""
