"""Which processes there are, and where each is: in which container, in which view of the mounts.

Failure model. Processes end while we look: what is gone is nowhere. Of one in a container that we
may not look at, a PermissionError is raised: it could have anything.

To ask all processes takes long where there are many. So a process that has been there for SETTLED
seconds is believed, for FRESH seconds, to be where it was. What container it is in it is believed
for its whole life: it gets there when it starts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mdvp.host import proc
from mdvp.host.proc import Directory, Process

SETTLED = 10.0
FRESH = 10.0


class View(NamedTuple):
    """What a process can see: its mount namespace, and of that what is below its own root.

    The root is None where it does not matter.
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
        """Take no account of containers that the `host` is in itself, nor of some namespaces.

        Of what is in a namespace that is passed over, the root does not matter.
        """
        self._host = host
        self._passed_over = passed_over
        self._places: Mapping[Process, Place] = {}

    def take(self, now: float, *, fresh: bool) -> Mapping[Process, Place]:
        """Return where all processes are; `fresh`, where they are is asked of all of them."""
        places: dict[Process, Place] = {}
        for process in proc.processes():
            known = self._places.get(process)
            if known is not None and known.holds(now) and not fresh:
                places[process] = known
            elif (place := self._ask(process.pid, known, now)) is not None:
                places[process] = place
        self._places = places
        return places

    def _ask(self, pid: str, known: Place | None, now: float) -> Place | None:
        """Ask where a process is; None when it is gone, or may not be asked and need not."""
        try:
            container = self._container(pid, known)
            try:
                thread, namespace = proc.living(pid)
                root = None if namespace in self._passed_over else proc.root(thread)
            except PermissionError:
                if container is None:
                    return None
                raise
        except (FileNotFoundError, ProcessLookupError):
            return None
        since = now if known is None else known.since
        return Place(container, thread, View(namespace, root), since, now)

    def _container(self, pid: str, known: Place | None) -> str | None:
        if known is not None and (known.container or known.read - known.since >= SETTLED):
            return known.container
        inside = [each for each in proc.containers(pid) if each not in self._host]
        # What a container makes in its own cgroup is of that container, whatever it calls it.
        return inside[0] if inside else None
