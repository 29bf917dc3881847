"""Redis Sentinel: who is the master by now (redis.io, "High availability with Redis Sentinel").

All Sentinels are asked, and the one with the latest configuration is believed: one that was cut off
from the others still names the master that was. What it takes to ask once more, in each beat, is
the affair of a thread: nobody waits for a Sentinel that hangs.

Failure model. Sentinels that do not answer are passed over. As long as none of them knows of a
master that is up, there is none. If they are all cut off from the others, the old master is
followed until it is told better: it ends all connections then.
"""

from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from typing import Any

import redis

from sync.core.errors import RedisAwayError
from sync.redis.url import Host


class Sentinels:
    """Sentinels that are asked for one master."""

    def __init__(
        self, hosts: Sequence[Host], name: str, client: Callable[[Host], redis.Redis]
    ) -> None:
        """Ask those at `hosts`, by way of `client`, for the master that is called `name`."""
        self._clients = {host: client(host) for host in hosts}
        self._name = name
        self._lock = Lock()
        self._found: tuple[int, Host] | None = None  # with its epoch, since the last `find`
        self._seen: tuple[int, Host] | None = None  # by the thread, since then
        self._wanted = Event()
        self._thread: Thread | None = None

    def __str__(self) -> str:
        """Name the master, and who knows it."""
        return f"{self._name} by Sentinel"

    def find(self) -> Host:
        """Ask where the master is. Raises RedisAwayError."""
        found, errors = self._ask()
        if not found:
            raise RedisAwayError(f"no Sentinel tells where {self._name} is: {'; '.join(errors)}")
        with self._lock:
            self._found, self._seen = found, None
        return found[1]

    def has_moved(self) -> Host | None:
        """Return where the master is by now, if Sentinels say that it is elsewhere; at once.

        They are asked again by that, for the next time.
        """
        with self._lock:
            found, seen = self._found, self._seen
        if self._thread is None:
            self._thread = Thread(target=self._look_out, name="Sentinels", daemon=True)
            self._thread.start()
        self._wanted.set()
        # They may name the same one by its number and by its name, but not in a later epoch.
        is_later = found and seen and seen[0] > found[0] and seen[1] != found[1]
        return seen[1] if seen and is_later else None

    def _look_out(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            with self._lock:
                before = self._found
            seen, _ = self._ask()
            with self._lock:
                if self._found is before:  # else what was seen may be from before it
                    self._seen = seen

    def _ask(self) -> tuple[tuple[int, Host] | None, list[str]]:
        """Return the latest epoch in which there is a master, and where that is; or why not."""
        found: tuple[int, Host] | None = None
        errors = []
        for host, client in self._clients.items():
            try:
                ask: Any = client.execute_command  # it has no types
                state = ask("SENTINEL MASTER", self._name)
            except (redis.RedisError, OSError) as error:
                errors.append(f"{host}{_why(error)}")
                continue
            if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
                errors.append(f"{host}: {state['ip']}:{state['port']} is down")
                continue
            seen = int(state["config-epoch"]), Host(str(state["ip"]), int(state["port"]))
            found = max(found or seen, seen, key=lambda each: each[0])
        return found, errors


def _why(error: Exception) -> str:
    """Say why a Sentinel does not answer, in words that follow its name."""
    words = str(error).rstrip(".")
    if "unknown command" in words:
        return " is no Sentinel"
    if isinstance(error, redis.AuthenticationError):
        return f" wants another password than REDIS_SENTINEL_PASSWORD ({words})"
    return f": {words}"
