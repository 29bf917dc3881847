"""Who has each volume: joins the leases on record with what looks at the host show.

Failure model. A look may miss a container just when that changes its root (pivot_root(2)): who has
opened its list of mounts before sees nothing in it afterwards. And it may rest on what was read
some seconds ago. So no lease is reclaimed on one look: a second one, afresh, must agree.

What is remembered here of the engines' work is lost with the process. While mdvp was away it could
not look; that is never read as "nothing happened": an engine that lives counts as having been at
work when mdvp started.
"""

import logging
from collections import defaultdict, deque
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from mdvp.core.clock import Clock, Moment, elapsed
from mdvp.core.lease import Claims, Engine, Holder, Lease, Sight, attributed, weigh
from mdvp.core.volume import Access, Volume, timestamp
from mdvp.disk.entry import Found
from mdvp.disk.root import Root
from mdvp.disk.store import Store

log = logging.getLogger(__name__)

# For how many seconds nothing may be seen of a container before it is looked for by another mark.
_LATE = 5.0
# Of how many leases an Unmount is expected that comes after the volume was handed on.
_HANDED_ON = 64


class Look(Protocol):
    """What one look at the host shows; `mdvp.host.look.Look` is the real one."""

    def holders(
        self,
        paths: Collection[bytes],
        engines: Collection[Engine],
        known: Collection[str],
        *,
        readers: bool = False,
    ) -> list[Holder]:
        """Return who has a directory, and of those `known` who lives; the engines do not count.

        With `readers`, it is who reads it.
        """

    def shown_in(self, folder: bytes) -> set[bytes]:
        """Return the names in a directory of what is mounted somewhere, or has that below it."""

    def begun(self, since: float) -> list[Holder]:
        """Return the containers that began after a moment, in seconds since the machine did."""

    def has_of_host(self, holder: Holder) -> bool:
        """Say whether a container has been handed something that the host has."""

    def lives(self, engine: Engine) -> bool:
        """Say whether an engine is there, and is the process that it was."""

    def at_work(self, engine: Engine, paths: Collection[bytes], *, readers: bool = False) -> bool:
        """Say whether an engine, or what it has started, has a directory open or mounted.

        With `readers`, by a mount that a reader has.
        """


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

    def paths_of(self, fd: int) -> list[bytes]:
        """Return which paths in its file system an open directory may have; none if unknown."""

    def has_view(self, root: str, below: str) -> bool:
        """Say whether the engine has a view for readers at `below` in its `root` of volumes."""

    def has_mark(self) -> bool:
        """Say whether mounts of the root have the mark of readers that are no reader's."""


@dataclass(slots=True)
class _Memory:
    """What is remembered of one volume.

    Attributes:
        worked: when work of the engine that waits was last seen, by mount ID.
        gone: since when engines are gone that waited.
        doubled: the containers of which was said that they all have the volume.
        mishanded: the mount IDs of which was said that they may have got something else.
        lost: whether was said that nobody can tell where the directory is.
        handed_on: the mount IDs whose containers ended, and whose volume another had waited for.

    """

    worked: dict[str, Moment] = field(default_factory=dict)
    gone: dict[Engine, Moment] = field(default_factory=dict)
    doubled: Set[str] = frozenset()
    mishanded: set[str] = field(default_factory=set)
    lost: bool = False
    handed_on: deque[str] = field(default_factory=lambda: deque(maxlen=_HANDED_ON))


class Custody:
    """Who has each volume.

    Attributes:
        lock: to be held by who calls anything here but `watch`, which takes it for each volume.
        reclaimed: how many leases were ended that nobody gave back.

    """

    def __init__(self, root: Root, store: Store, kernel: Kernel, grace: float, now: Clock) -> None:
        """Judge the leases in `store` by what `kernel` shows. `grace` is in seconds."""
        self._root = root
        self._store = store
        self._kernel = kernel
        self._grace = grace
        self._now = now
        self.lock = Lock()
        self.reclaimed = 0
        self._started = now()
        self._memory: defaultdict[str, _Memory] = defaultdict(_Memory)

    def claims(self, volume: Volume, caller: Engine | None = None) -> Claims:
        """Return who has a volume now; what `caller` itself does there does not count."""
        claims = self._weigh(volume, self._kernel.look(), caller)
        # Of what the engine has given back, only the end of a process is to be seen: one look does.
        if any(lease.mounts for lease in claims.dead):
            claims = self._weigh(volume, self._kernel.look(fresh=True), caller)
        return claims

    def glance(self, volume: Volume, look: Look | None, caller: Engine | None = None) -> Claims:
        """Return who has a volume by a look that was taken before; `caller` does not count.

        Nothing is put on record on this: who has come since is not in that look, and may be on
        record by now.
        """
        leases = self._store.leases(volume.name)
        now = self._now()
        if look is None:
            return weigh(leases, None, now, self._grace)
        sight, _, _ = self._sight(volume, leases, look, caller)
        claims = weigh(leases, sight, now, self._grace)
        given = {lease.mount_id: lease for lease in attributed(claims, now.boot)}
        return weigh([given.get(it.mount_id, it) for it in leases], sight, now, self._grace)

    def mounted(self, name: str, lease: Lease) -> None:
        """Take note of a Mount: an engine that asks is at work."""
        self._memory[name].worked[lease.mount_id] = self._now()

    def forget(self, name: str) -> None:
        """Take note that there is no volume of that name any more."""
        self._memory.pop(name, None)

    def _weigh(self, volume: Volume, look: Look | None, caller: Engine | None = None) -> Claims:
        leases = self._store.leases(volume.name)
        if look is None:
            return weigh(leases, None, self._now(), self._grace)
        sight, before, living = self._sight(volume, leases, look, caller)
        self._remember(volume.name, sight)
        if living != before:
            self._store.put_seen(volume.name, living, self._started.boot)
        self._check_alone(volume, sight.holders)
        now = self._now()
        claims = weigh(leases, sight, now, self._grace)
        given = attributed(claims, now.boot)
        if not given:
            return claims
        self._store.put_leases(volume.name, given)
        log.info(
            "volume %(volume)s is mounted in %(_names)s",
            {
                "event": "in_use",
                "volume": volume.name,
                "_names": _names(sight.holders),
                "holders": list(sight.holders),
            },
        )
        return weigh(self._store.leases(volume.name), sight, now, self._grace)

    def _sight(
        self,
        volume: Volume,
        leases: Sequence[Lease],
        look: Look,
        caller: Engine | None = None,
    ) -> tuple[Sight, set[str], set[str]]:
        """Return what a look shows of a volume; and who was seen with it before, and is by now."""
        paths, readers = self._paths(volume), volume.reader_of is not None
        current = [lease for lease in leases if lease.since.boot == self._started.boot]
        engines = {lease.engine for lease in current} | {caller}
        seen = self._store.seen(volume.name, self._started.boot)
        known = seen | {lease.holder for lease in current if lease.holder}
        asking = {engine for engine in engines if engine}
        holders = look.holders(paths, asking, known, readers=readers)
        # Whoever was set up with it once has it until they end, whatever they show by then.
        living = {each.who for each in holders if each.ready or each.who in known}
        sight = Sight(holders, *self._work(volume.name, current, paths, look, readers=readers))
        return sight, seen, living

    def _remember(self, name: str, sight: Sight) -> None:
        """Remember what was seen of the engines' work."""
        memory = self._memory[name]
        memory.gone, memory.worked = dict(sight.gone), dict(sight.worked)

    def _paths(self, volume: Volume) -> list[bytes]:
        """Return where the directory of a volume is, or may be, whatever it is called by now."""
        shown = self._shown(volume)
        return [] if shown is None else self._paths_of(shown)

    def _shown(self, volume: Volume) -> Volume | None:
        """Return the volume whose directory it is that a volume shows."""
        return volume if volume.reader_of is None else self._store.volume(volume.reader_of)

    def _paths_of(self, volume: Volume) -> list[bytes]:
        if self._root.find(volume.name, volume.identity) is Found.OURS:
            return [self._kernel.path(volume.name)]
        removed = self._kernel.path(volume.name, removed=True)
        if (fd := self._root.kept(volume.name)) is not None:
            paths = self._kernel.paths_of(fd)
            if not paths:
                self._say_lost(volume)
            return [removed, *paths]
        name = self._root.name_of(volume.identity)
        return [removed] if name is None else [removed, self._kernel.path(name)]

    def _say_lost(self, volume: Volume) -> None:
        """Say, once, that a directory is where nobody can tell who has it mounted."""
        memory = self._memory[volume.name]
        if not memory.lost:
            memory.lost = True
            log.error(
                "volume %(volume)s: its directory has been moved to where its path is too long to "
                "be told; who was not seen with it before is not seen by now. Move it back to "
                "%(mountpoint)s",
                {
                    "event": "directory_moved",
                    "volume": volume.name,
                    "mountpoint": self._root.mountpoint(volume.name),
                },
            )

    def _work(
        self,
        name: str,
        leases: Sequence[Lease],
        paths: Collection[bytes],
        look: Look,
        *,
        readers: bool,
    ) -> tuple[dict[Engine, Moment], dict[str, Moment], bool]:
        """Return since when engines are gone, when others worked last, and if one is at it now."""
        memory, now = self._memory[name], self._now()
        waiting = {lease.mount_id: lease.engine for lease in leases if lease.waits}
        asked = {engine for engine in waiting.values() if engine}
        living = {engine for engine in asked if look.lives(engine)}
        working = {engine for engine in living if look.at_work(engine, paths, readers=readers)}
        gone = {engine: memory.gone.get(engine, now) for engine in asked - living}
        before = dict.fromkeys((it for it in waiting if waiting[it] in living), self._started)
        before.update((it, at) for it, at in memory.worked.items() if it in waiting)
        worked = {it: now if waiting[it] in working else at for it, at in before.items()}
        return gone, worked, bool(working)

    def _check_alone(self, volume: Volume, holders: Sequence[Holder]) -> None:
        """Say so, once, when two containers have an exclusive volume, however that came."""
        memory = self._memory[volume.name]
        several = doubled(volume, holders)
        containers = {holder.who for holder in several}
        if not containers <= memory.doubled:
            log.error(
                "volume %(volume)s is exclusive, and yet several containers have it: %(_names)s; "
                "stop all of them but one",
                {
                    "event": "had_twice",
                    "volume": volume.name,
                    "_names": _names(several),
                    "holders": list(several),
                },
            )
        memory.doubled = containers

    def warnings(self, volume: Volume, claims: Claims) -> list[str]:
        """Return what whoever runs a volume should know, each as a text."""
        warnings = []
        if claims.sight is None:
            why = self._kernel.blind or "the log of mdvp says what it cannot see"
            warnings.append(f"who has the volume is not certain: {why}")
        if doubled(volume, claims.holders):
            warnings.append("several containers have this exclusive volume: stop all but one")
        shown = self._shown(volume)
        if shown is None:
            warnings.append(f"there is no volume {volume.reader_of!r}, which it shows")
        elif (warning := self._root.warning(shown)) is not None:
            warnings.append(warning)
        if (reason := self._root.why_unlimited(volume.name)) is not None:
            warnings.append(f"it has no limit: {reason}")
        return warnings

    def note_reclaimed(self, name: str, dead: Sequence[Lease]) -> None:
        """Take note of leases that are ended, as nobody lives who had them."""
        for lease in (lease for lease in dead if lease.mounts):
            self.reclaimed += 1
            log.warning(
                "volume %(volume)s reclaimed from mount %(mount_id)s, which had it since %(since)s "
                "and did not give it back: no container has it mounted",
                {
                    "event": "reclaimed",
                    "volume": name,
                    "mount_id": lease.mount_id,
                    "since": timestamp(lease.since.utc),
                },
            )

    def hand_on(self, name: str, dead: Sequence[Lease], engine: Engine | None) -> list[Lease]:
        """Take note that who waited has a volume whose leases are `dead`; return all others.

        When a container ends, the engine gives its volumes back a moment later. Who waits does not
        wait for that, so it is nothing to warn of.
        """
        handed = [lease for lease in dead if lease.holder and lease.engine == engine]
        self._memory[name].handed_on.extend(lease.mount_id for lease in handed if lease.mounts)
        return [lease for lease in dead if lease not in handed]

    def was_handed_on(self, name: str, mount_id: str) -> bool:
        """Say whether an Unmount is of a Mount that ended when the volume was handed on."""
        return name in self._memory and mount_id in self._memory[name].handed_on

    # What is looked out for.

    def watch(self) -> bool:
        """Look for containers that have started, work that goes on, and volumes had twice.

        Returns whether there are leases that wait for their holders.
        """
        with self.lock:
            names = self._store.used()
        look = self._kernel.look() if names else None
        if look is None:  # perhaps for now, but where nothing is to be seen
            return bool(names) and self._kernel.blind is None
        waiting, failure = False, None
        for name in names:  # all of them, whatever is wrong with one
            try:
                waiting |= self._watch(name, look)
            except Exception as error:  # noqa: BLE001  # it is raised below
                failure = failure or error
        if failure is not None:
            raise failure
        return waiting

    def _watch(self, name: str, look: Look) -> bool:
        with self.lock:
            volume = self._store.volume(name)
            if volume is None:
                return False
            claims = self._weigh(volume, look)
            # Of what the engine has given back, the end of a process is all there was to wait for.
            if over := [lease for lease in claims.dead if not lease.mounts]:
                self._store.put_leases(name, [], ended=over)
            waiting = [lease for lease in claims.living if lease.waits]
            for lease in waiting:
                self._check_handed(volume, lease, look)
            return bool(waiting)

    def _check_handed(self, volume: Volume, lease: Lease, look: Look) -> None:
        """Say so, once, when a container that starts may have been handed something else.

        Whoever owns the directory can put a link in its place between our answer and the start.
        """
        memory = self._memory[volume.name]
        shown = self._shown(volume)
        if lease.holder is not None or lease.mount_id in memory.mishanded or shown is None:
            return
        place = self._root.mountpoint(shown.name)
        if self._root.find(shown.name, shown.identity) is not Found.OURS:
            memory.mishanded.add(lease.mount_id)
            begun = look.begun(lease.since.uptime)
            log.error(
                "volume %(volume)s: what is at %(mountpoint)s is no longer its directory, and a "
                "container is starting with it (mount %(mount_id)s): it is handed what is there "
                "instead. Stop %(_names)s, move away what is there, and put the directory back, or "
                "let mdvp make a new one",
                {
                    "event": "mishanded",
                    "volume": volume.name,
                    "mountpoint": place,
                    "mount_id": lease.mount_id,
                    "_names": _names(begun) or "it",
                    "holders": begun,
                },
            )
        elif (
            self._root.warning(shown) is not None  # else nobody can have put anything there
            and self._is_late(volume, lease)
            and (strangers := self._strangers(lease, look))
        ):
            memory.mishanded.add(lease.mount_id)
            log.error(
                "volume %(volume)s was mounted for a container that does not show (mount "
                "%(mount_id)s), and %(_names)s, which began since, does not have it: if that "
                "should have the volume, it was handed what somebody had put at %(mountpoint)s for "
                "a moment. Stop it, and see who owns that",
                {
                    "event": "perhaps_mishanded",
                    "volume": volume.name,
                    "mountpoint": place,
                    "mount_id": lease.mount_id,
                    "_names": _names(strangers),
                    "holders": strangers,
                },
            )

    def _is_late(self, volume: Volume, lease: Lease) -> bool:
        """Say whether the holder of a lease should have been seen by now."""
        worked = self._memory[volume.name].worked.get(lease.mount_id, lease.since)
        return elapsed(worked, self._now()) > _LATE

    def _strangers(self, lease: Lease, look: Look) -> list[Holder]:
        """Return the containers that began since, have something of the host's, and no lease."""
        held = {each.holder for name in self._store.used() for each in self._store.leases(name)}
        begun = look.begun(lease.since.uptime)
        return [each for each in begun if each.who not in held and look.has_of_host(each)]


def doubled(volume: Volume, holders: Sequence[Holder]) -> Sequence[Holder]:
    """Return the containers that have an exclusive volume, if they are several."""
    containers = [holder for holder in holders if holder.container]
    return containers if volume.access is Access.EXCLUSIVE and len(containers) > 1 else ()


def _names(holders: Sequence[Holder]) -> str:
    return ", ".join(map(str, holders))
