"""Which processes there are, and where each is: in which container, in which view of the mounts.

Failure model. Processes end while we look: what is gone is nowhere. Of one in a container that we
may not look at, a PermissionError is raised: it could have anything. Any user can make namespaces,
as many as they like, and mount in them what they can read, thousands of times: so what those show,
whose owner is neither root nor who runs mdvp, is not looked at.

To ask all processes takes long where there are many. So a process that has been there for SETTLED
seconds is believed, for FRESH seconds, to be where it was. What container it is in it is believed
for its whole life: it gets there when it starts.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mdvp.host import proc
from mdvp.host.proc import Directory, Process

SETTLED = 10.0
FRESH = 10.0


class View(NamedTuple):
    """What a process can see: its mount namespace, and of that what is below its own root.

    The root is None where it does not matter: in the namespace of the host, and in a user's.
    """

    namespace: str
    root: Directory | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is, as read through one of its threads at `read`; known `since`."""

    container: str | None
    thread: str
    view: View
    since: float
    read: float

    def holds(self, now: float) -> bool:
        """Say whether this can be believed without another look."""
        return self.read - self.since >= SETTLED and now - self.read < FRESH


class Census:
    """The processes that were there at the last look."""

    def __init__(self, host: Collection[str], passed_over: Collection[str]) -> None:
        """Take no account of containers that the `host` is in itself, nor of some namespaces."""
        self._host = host
        self._passed_over = passed_over
        self._places: Mapping[Process, Place] = {}
        self._counts: dict[str, bool] = {}  # of the namespaces met in this look

    def take(self, now: float, *, fresh: bool) -> Mapping[Process, Place]:
        """Return where all processes are; `fresh`, where they are is asked of all of them."""
        places: dict[Process, Place] = {}
        self._counts = {}
        for process in proc.processes():
            before = self._places.get(process)
            if before is not None and before.holds(now) and not fresh:
                places[process] = before
            elif (place := self._ask(process.pid, before, now)) is not None:
                places[process] = place
        self._places = places
        return places

    def _ask(self, pid: str, before: Place | None, now: float) -> Place | None:
        """Ask where a process is; None when it is gone, or may not be asked and need not."""
        try:
            container = self._container(pid, before)
            try:
                thread, namespace = proc.living(pid)
                root = proc.root(thread) if self._is_to_count(thread, namespace) else None
            except PermissionError:
                if container is None:
                    return None
                raise
        except (FileNotFoundError, ProcessLookupError):
            return None
        since = now if before is None else before.since
        return Place(container, thread, View(namespace, root), since, now)

    def _is_to_count(self, thread: str, namespace: str) -> bool:
        """Say whether it matters what is mounted in the namespace of a thread."""
        if namespace in self._passed_over:
            return False
        counts = self._counts.get(namespace)
        if counts is None:
            counts = proc.owner_of_namespace(thread) in (0, os.geteuid())
            self._counts[namespace] = counts
        return counts

    def _container(self, pid: str, before: Place | None) -> str | None:
        if before is not None and (before.container or before.read - before.since >= SETTLED):
            return before.container
        inside = [each for each in proc.containers(pid) if each not in self._host]
        # What a container makes in its own cgroup is of that container, whatever it calls it.
        return inside[0] if inside else None
