"""Redis Sentinel: who is the master by now (redis.io, "High availability with Redis Sentinel").

All Sentinels are asked, and the one with the latest configuration is believed: one that was cut off
from the others still names the master that was. What it takes to ask once more, in each beat, is
the affair of a thread: nobody waits for a Sentinel that hangs.

Failure model. Sentinels that do not answer, or answer what makes no sense, are passed over. As long
as none of those with the latest configuration says that its master is up, there is none: what an
earlier configuration calls so was deposed. If they are all cut off from the others, the old master
is followed until it is told better: it ends all connections then.
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
        self._moved: Host | None = None  # where the thread has found that it is, since then
        self._wanted = Event()
        self._thread: Thread | None = None

    def __str__(self) -> str:
        """Name the master, and who knows it."""
        return f"{self._name} by Sentinel"

    def find(self) -> Host:
        """Ask where the master is. Raises RedisAwayError."""
        found, is_up, errors = self._ask()
        if not found or not is_up:
            raise RedisAwayError(f"no Sentinel tells where {self._name} is: {'; '.join(errors)}")
        with self._lock:
            self._found, self._moved = found, None
        return found[1]

    def has_moved(self) -> Host | None:
        """Return where the master is by now, if Sentinels say that it is elsewhere; at once.

        They are asked again by that, for the next time.
        """
        with self._lock:
            moved = self._moved
        if self._thread is None:
            self._thread = Thread(target=self._look_out, name="Sentinels", daemon=True)
            self._thread.start()
        self._wanted.set()
        return moved

    def _look_out(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            with self._lock:
                before = self._found
            seen, _, errors = self._ask()
            if not before or not seen:
                continue
            # If all know of earlier epochs alone they were told to watch another one, and count
            # anew (SENTINEL MONITOR). Some of them that do may be cut off.
            is_later = seen[0] > before[0] or (seen[0] < before[0] and not errors)
            # They may name the same one by its number and by its name, but not in a later epoch.
            moved = seen[1] if is_later and seen[1] != before[1] else None
            with self._lock:
                if self._found is before:  # else what was seen may be from before it
                    self._moved = moved

    def _ask(self) -> tuple[tuple[int, Host] | None, bool, list[str]]:
        """Return the latest epoch, and where the master is in it; whether it is up; or why not."""
        found: tuple[int, Host] | None = None
        is_up = False
        errors = []
        for host, client in self._clients.items():
            try:
                ask: Any = client.execute_command  # it has no types
                state = ask("SENTINEL MASTER", self._name)
                seen = int(state["config-epoch"]), Host(str(state["ip"]), int(state["port"]))
                is_down = not state["is_master"] or state["is_sdown"] or state["is_odown"]
            except (redis.RedisError, OSError) as error:
                errors.append(f"{host}{_why(error)}")
                continue
            except (LookupError, TypeError, ValueError) as error:  # the thread goes on, too
                errors.append(f"{host} does not answer as a Sentinel does: {error!r}")
                continue
            if is_down:
                errors.append(f"{host}: {seen[1]} is down")
            if found is None or seen[0] > found[0]:
                found, is_up = seen, not is_down
            elif seen[0] == found[0] and not is_down:
                found, is_up = (found if is_up else seen), True
        return found, is_up, errors


def _why(error: Exception) -> str:
    """Say why a Sentinel does not answer, in words that follow its name."""
    words = str(error).rstrip(".")
    if "unknown command" in words:
        return " is no Sentinel"
    if isinstance(error, redis.AuthenticationError):
        return f" wants another password than REDIS_SENTINEL_PASSWORD ({words})"
    return f": {words}"
