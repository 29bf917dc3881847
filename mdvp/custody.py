"""Who has each volume: joins the leases on record with what looks at the host show.

Failure model. A look may miss a container just when that changes its root (pivot_root(2)): who has
opened its list of mounts before sees nothing in it afterwards. And it may rest on what was read
some seconds ago. So no lease is reclaimed on one look: a second one, afresh, must agree.

What is remembered here of the engines' work is lost with the process. While mdvp was away it could
not look; that is never read as "nothing happened": an engine that lives counts as having been at
work when mdvp started.
"""

import logging
from collections.abc import Collection, Sequence
from threading import Lock
from typing import Protocol

from mdvp.core.clock import Clock, Moment, elapsed
from mdvp.core.lease import Claims, Engine, Holder, Lease, Sight, attributed, weigh
from mdvp.core.volume import Access, Volume
from mdvp.disk.root import Found, Root
from mdvp.disk.store import Store

log = logging.getLogger(__name__)

# For how many seconds nothing may be seen of a container before it is looked for by another mark.
_LATE = 5.0


class Look(Protocol):
    """What one look at the host shows; `mdvp.host.look.Look` is the real one."""

    def holders(
        self, paths: Collection[bytes], engines: Collection[Engine], known: Collection[str]
    ) -> list[Holder]:
        """Return who has a directory, and of those `known` who lives; the engines do not count."""

    def begun(self, since: float) -> list[Holder]:
        """Return the containers that began after a moment, in seconds since the machine did."""

    def has_of_host(self, holder: Holder) -> bool:
        """Say whether a container has been handed something that the host has."""

    def lives(self, engine: Engine) -> bool:
        """Say whether an engine is there, and is the process that it was."""

    def at_work(self, engine: Engine, paths: Collection[bytes]) -> bool:
        """Say whether an engine, or what it has started, has a directory open or mounted."""


class Kernel(Protocol):
    """Who looks at the host; `mdvp.host.kernel.Kernel` is the real one."""

    @property
    def blind(self) -> str | None:
        """Why it cannot look, None when it can."""

    def look(self, *, fresh: bool = False) -> Look | None:
        """Look at the host; None when it cannot. `fresh`: nothing seen before is believed."""

    def engine(self, pid: int | None) -> Engine | None:
        """Return who calls by the id of the process; None where that is not known."""

    def path(self, name: str, *, removed: bool = False) -> bytes:
        """Return the path, in its file system, of what is, or was, called `name` in the root."""

    def path_of(self, fd: int) -> bytes | None:
        """Return the path, in its file system, of an open directory; None if we cannot tell."""


class Custody:
    """Who has each volume.

    Attributes:
        lock: to be held by who calls anything here but `watch`, which takes it for each volume.

    """

    def __init__(self, root: Root, store: Store, kernel: Kernel, grace: float, now: Clock) -> None:
        """Judge the leases in `store` by what `kernel` shows. `grace` is in seconds."""
        self._root = root
        self._store = store
        self._kernel = kernel
        self._grace = grace
        self._now = now
        self.lock = Lock()
        self._started = now()
        self._gone: dict[Engine, Moment] = {}
        self._worked: dict[tuple[str, str], Moment] = {}  # by volume and mount ID
        self._doubled: dict[str, frozenset[str]] = {}
        self._mishanded: set[tuple[str, str]] = set()
        self._lost: set[str] = set()

    def claims(self, volume: Volume, caller: Engine | None = None) -> Claims:
        """Return who has a volume now; what `caller` itself does there does not count."""
        claims = self._weigh(volume, self._kernel.look(), caller)
        # Of what the engine has given back, only the end of a process is to be seen: one look does.
        if any(lease.mounts for lease in claims.dead):
            claims = self._weigh(volume, self._kernel.look(fresh=True), caller)
        return claims

    def mounted(self, name: str, lease: Lease) -> None:
        """Take note of a Mount: an engine that asks is at work."""
        self._worked[name, lease.mount_id] = self._now()

    def _weigh(self, volume: Volume, look: Look | None, caller: Engine | None = None) -> Claims:
        leases = self._store.leases(volume.name)
        now = self._now()
        paths = self._paths(volume)
        if look is None or paths is None:
            return weigh(leases, None, now, self._grace)
        sight = self._sight(volume, leases, paths, look, caller)
        claims = weigh(leases, sight, now, self._grace)
        given = attributed(claims, [holder for holder in sight.holders if holder.ready])
        if not given:
            return claims
        self._store.put_leases(volume.name, given)
        log.info("volume %s is mounted in %s", volume.name, _names(sight.holders))
        return weigh(self._store.leases(volume.name), sight, now, self._grace)

    def _sight(
        self,
        volume: Volume,
        leases: Sequence[Lease],
        paths: Collection[bytes],
        look: Look,
        caller: Engine | None,
    ) -> Sight:
        engines = {lease.engine for lease in leases if lease.engine} | {caller}
        known = {lease.holder for lease in leases if lease.holder}
        self._note(volume.name, leases, paths, look)
        holders = look.holders(paths, {engine for engine in engines if engine}, known)
        self._check_alone(volume, holders)
        worked = {
            mount_id: moment
            for (name, mount_id), moment in self._worked.items()
            if name == volume.name
        }
        return Sight(holders, self._gone, worked)

    def _paths(self, volume: Volume) -> list[bytes] | None:
        """Return where the directory of a volume is, whatever it is called by now.

        None if that cannot be told: its owner may have moved it to where paths are too long.
        """
        if self._root.find(volume.name, volume.identity) is Found.OURS:
            return [self._kernel.path(volume.name)]
        paths = [self._kernel.path(volume.name, removed=True)]
        if (fd := self._root.kept(volume.name)) is not None:
            path = self._kernel.path_of(fd)
            if path is None:
                self._say_lost(volume)
                return None
            paths.append(path)
        elif (name := self._root.name_of(volume.identity)) is not None:
            paths.append(self._kernel.path(name))
        return paths

    def _say_lost(self, volume: Volume) -> None:
        """Say, once, that nobody can tell who has a volume that is nobody knows where."""
        if volume.name not in self._lost:
            self._lost.add(volume.name)
            log.error(
                "volume %s: its directory has been moved to where its path is too long to be told, "
                "so mdvp cannot see who has it; move it back to %s",
                volume.name,
                self._root.mountpoint(volume.name),
            )

    def _note(
        self, name: str, leases: Sequence[Lease], paths: Collection[bytes], look: Look
    ) -> None:
        """Take note of which engines are gone, and of which work there is a trace."""
        now = self._now()
        for lease in leases:
            engine, key = lease.engine, (name, lease.mount_id)
            if not lease.waits or engine is None or lease.since.boot != now.boot:
                continue
            if not look.lives(engine):
                self._gone.setdefault(engine, now)
            elif look.at_work(engine, paths):
                self._worked[key] = now
            else:
                self._worked.setdefault(key, self._started)
        waiting = {lease.mount_id for lease in leases if lease.waits}
        for key in [key for key in self._worked if key[0] == name and key[1] not in waiting]:
            del self._worked[key]

    def _check_alone(self, volume: Volume, holders: Sequence[Holder]) -> None:
        """Say so, once, when two containers have an exclusive volume, however that came."""
        containers = frozenset(holder.who for holder in holders if holder.container)
        if volume.access is not Access.EXCLUSIVE or len(containers) < 2:  # noqa: PLR2004  # two
            self._doubled.pop(volume.name, None)
        elif not containers <= self._doubled.get(volume.name, frozenset()):
            self._doubled[volume.name] = containers
            log.error(
                "volume %s is exclusive, and yet several containers have it: %s; stop all of them "
                "but one",
                volume.name,
                _names([holder for holder in holders if holder.container]),
            )

    # What is looked out for.

    def watch(self) -> bool:
        """Look for containers that have started, work that goes on, and volumes had twice.

        Returns whether there are leases that wait for their holders.
        """
        with self.lock:
            names = self._store.leased()
        look = self._kernel.look() if names else None
        if look is None:
            return False
        waiting = [self._watch(name, look) for name in names]  # all of them
        return any(waiting)

    def _watch(self, name: str, look: Look) -> bool:
        with self.lock:
            volume = self._store.volume(name)
            if volume is None:
                return False
            claims = self._weigh(volume, look)
            waiting = [lease for lease in claims.living if lease.waits]
            for lease in waiting:
                self._check_handed(volume, lease, look)
            return bool(waiting)

    def _check_handed(self, volume: Volume, lease: Lease, look: Look) -> None:
        """Say so, once, when a container that starts may have been handed something else.

        Whoever owns the directory can put a link in its place between our answer and the start.
        """
        key = volume.name, lease.mount_id
        if lease.holder is not None or key in self._mishanded:
            return
        place = self._root.mountpoint(volume.name)
        if self._root.find(volume.name, volume.identity) is not Found.OURS:
            self._mishanded.add(key)
            log.error(
                "volume %s: what is at %s is no longer its directory, and a container is starting "
                "with it (mount %s): it is handed what is there instead. Stop %s, move away what "
                "is there, and put the directory back, or let mdvp make a new one",
                volume.name,
                place,
                lease.mount_id,
                _names(look.begun(lease.since.uptime)) or "it",
            )
        elif self._is_late(volume, lease) and (strangers := self._strangers(lease, look)):
            self._mishanded.add(key)
            log.error(
                "volume %s was mounted for a container that does not show (mount %s), and %s, "
                "which began since, does not have it: if that should have the volume, it was "
                "handed what somebody had put at %s for a moment. Stop it, and see who owns that",
                volume.name,
                lease.mount_id,
                _names(strangers),
                place,
            )

    def _is_late(self, volume: Volume, lease: Lease) -> bool:
        """Say whether the holder of a lease should have been seen by now."""
        worked = self._worked.get((volume.name, lease.mount_id), lease.since)
        return elapsed(worked, self._now()) > _LATE

    def _strangers(self, lease: Lease, look: Look) -> list[Holder]:
        """Return the containers that began since, have something of the host's, and no lease."""
        held = {each.holder for name in self._store.leased() for each in self._store.leases(name)}
        begun = look.begun(lease.since.uptime)
        return [each for each in begun if each.who not in held and look.has_of_host(each)]


def is_doubled(volume: Volume, claims: Claims) -> bool:
    """Say whether several containers have an exclusive volume."""
    containers = [holder for holder in claims.holders if holder.container]
    return volume.access is Access.EXCLUSIVE and len(containers) > 1


def _names(holders: Sequence[Holder]) -> str:
    return ", ".join(map(str, holders))
