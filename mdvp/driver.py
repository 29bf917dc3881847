"""The volume driver: each operation of the protocol, on volumes, directories and leases.

Failure model. The database decides and the disk follows. A directory is made aside, recorded, and
put at its place; it is moved aside, forgotten, and deleted. So after a crash there is one rule for
every directory found aside: if a volume on record has its identity, it goes to that volume's place,
and if none has, it is deleted. Every operation is then either done or not begun.

What is at a volume's place is compared with the record before a container gets it. A directory that
has vanished is made again, empty, since a container that cannot start helps nobody; a directory
that is not the volume's is refused, since it may be a trap.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Queue
from threading import Lock, Thread

from mdvp.errors import ConflictError, NoSuchVolumeError
from mdvp.root import Aside, Found, Root
from mdvp.store import Store
from mdvp.volume import Lease, Volume, check_name, granted, in_use, released

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """A volume as it is shown: the record, the path of its directory, and who has it mounted."""

    volume: Volume
    mountpoint: str
    leases: Sequence[Lease]


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class Driver:
    """The operations of the volume plugin protocol. Thread-safe: one operation at a time.

    Each raises a subclass of `mdvp.errors.MdvpError` with the reason when it is refused.
    """

    def __init__(self, root: Root, store: Store, now: Callable[[], datetime] = utc_now) -> None:
        """Serve the volumes recorded in `store` from `root`, after mending what a crash left."""
        self._root = root
        self._store = store
        self._now = now
        self._lock = Lock()
        self._doomed: Queue[Aside | None] = Queue()
        for aside in list(root.aside()):
            self._recover(aside)
        # A daemon, so that a directory that takes long to delete does not hold up the end.
        self._deleter = Thread(target=self._delete_doomed, name="deleter", daemon=True)
        self._deleter.start()

    def _recover(self, aside: Aside) -> None:
        volume = self._store.volume_of(aside.identity)
        if volume is None:
            self._doomed.put(aside)
            return
        try:
            self._root.place(aside, volume.name)
            log.info("volume %s put back at its place after a crash", volume.name)
        except (ConflictError, OSError) as error:
            log.error("cannot put volume %s back at its place: %s", volume.name, error)

    def create(self, name: str) -> None:
        """Make volume `name`; one that is there already is left as it is."""
        check_name(name)
        with self._lock:
            if self._store.volume(name) is not None:
                return
            aside = self._root.make(name)
            try:
                self._store.add(Volume(name, self._now(), aside.identity))
                self._root.place(aside, name)
            except BaseException:
                self._store.delete(name)
                self._root.delete(aside)
                raise
        log.info("volume %s created at %s", name, self._root.mountpoint(name))

    def remove(self, name: str) -> None:
        """Remove volume `name` with its content; refused while it is mounted."""
        with self._lock:
            volume = self._volume(name)
            leases = self._store.leases(name)
            if leases:
                log.warning("volume %s not removed: mount %s has it", name, leases[0].mount_id)
                raise in_use(name, leases[0])
            aside = self._set_aside(volume)
            self._forget(volume, aside)
        log.info("volume %s removed", name)
        if aside is not None:
            self._doomed.put(aside)

    def _set_aside(self, volume: Volume) -> Aside | None:
        found = self._root.find(volume.name, volume.identity)
        if found is Found.OURS:
            return self._root.set_aside(volume.name, volume.identity)
        log.warning(
            "volume %s: its directory is no longer at %s%s",
            volume.name,
            self._root.mountpoint(volume.name),
            ", and what is there now stays" if found is Found.FOREIGN else "",
        )
        return None

    def _forget(self, volume: Volume, aside: Aside | None) -> None:
        try:
            self._store.delete(volume.name)
        except BaseException:
            if aside is not None:
                self._root.place(aside, volume.name)
            raise

    def _delete_doomed(self) -> None:
        # Of a thread of its own: the engine waits a minute for a Remove, and some seconds for a
        # plugin to start, and a volume may have millions of files.
        while (aside := self._doomed.get()) is not None:
            try:
                self._root.delete(aside)
            except OSError as error:
                log.error("cannot delete all of a removed volume before the next start: %s", error)

    def close(self, patience: float = 5.0) -> None:
        """Wait `patience` seconds for what was removed to be deleted; the next start goes on."""
        self._doomed.put(None)
        self._deleter.join(patience)

    def mount(self, name: str, mount_id: str) -> str:
        """Let `mount_id` have volume `name`; return the path of its directory.

        Refused while another mount ID has it. The same ID may mount again; each Mount is counted.
        """
        with self._lock:
            volume = self._volume(name)
            try:
                lease = granted(name, self._store.leases(name), mount_id, self._now())
            except ConflictError as refusal:
                log.warning("mount %s refused: %s", mount_id, refusal)
                raise
            self._ensure_directory(volume)
            self._store.put_lease(name, lease)
        log.info("volume %s mounted by %s (%s)", name, mount_id, _open_mounts(lease))
        return self._root.mountpoint(name)

    def _ensure_directory(self, volume: Volume) -> None:
        place = self._root.mountpoint(volume.name)
        found = self._root.find(volume.name, volume.identity)
        if found is Found.FOREIGN:
            log.error("volume %s: what is at %s is not its directory", volume.name, place)
            raise ConflictError(
                f"volume {volume.name!r}: what is at {place} is not the directory that mdvp made; "
                "move it away and mdvp makes a new, empty one"
            )
        if found is Found.NOTHING:
            aside = self._root.make(volume.name)
            try:
                self._store.set_identity(volume.name, aside.identity)
                self._root.place(aside, volume.name)
            except BaseException:
                self._root.delete(aside)
                raise
            log.error(
                "volume %s: %s had vanished, with all that was in it; made it again, empty",
                volume.name,
                place,
            )

    def unmount(self, name: str, mount_id: str) -> None:
        """End one Mount of `mount_id`; one that is not on record has ended, which is no error."""
        with self._lock:
            self._volume(name)
            held = {lease.mount_id: lease for lease in self._store.leases(name)}.get(mount_id)
            if held is None:
                log.warning("volume %s: unmount by %s, which has not mounted it", name, mount_id)
                return
            left = released(held)
            if left is None:
                self._store.end_lease(name, mount_id)
            else:
                self._store.put_lease(name, left)
        log.info("volume %s unmounted by %s (%s)", name, mount_id, _open_mounts(left))

    def path(self, name: str) -> str:
        """Return the path of the directory of volume `name`."""
        with self._lock:
            return self._root.mountpoint(self._volume(name).name)

    def get(self, name: str) -> Report:
        """Report on volume `name`."""
        with self._lock:
            return self._report(self._volume(name), self._store.leases(name))

    def list(self) -> list[Report]:
        """Report on all volumes, by name."""
        with self._lock:
            leases = self._store.all_leases()
            return [
                self._report(volume, leases.get(volume.name, ()))
                for volume in self._store.volumes()
            ]

    def _report(self, volume: Volume, leases: Sequence[Lease]) -> Report:
        return Report(volume, self._root.mountpoint(volume.name), leases)

    def _volume(self, name: str) -> Volume:
        volume = self._store.volume(check_name(name))
        if volume is None:
            raise NoSuchVolumeError(name)
        return volume


def _open_mounts(lease: Lease | None) -> str:
    return f"open mounts: {lease.mounts if lease else 0}"
