"""The volume driver: each operation of the protocol, on volumes, directories and leases.

Failure model. The database decides and the disk follows. A directory is made aside, recorded, and
put at its place; it is moved aside, forgotten, and deleted. So there is one rule for whatever is
aside: a directory that has the identity of a volume on record goes to that volume's place, at the
next start or when it is wanted, and all else is deleted. Every operation is then either done or not
begun. One that is adopted is at its place: it is recorded, and then gets its owner.

What is at a volume's place is compared with the record before a container gets it. A directory that
has vanished is made again, empty, since a container that cannot start helps nobody; a directory
that is not the volume's is refused, since it may be a trap.

Who has a volume is asked of the kernel at each operation for which it matters; `mdvp.core.lease`
has the rules for what it does not show.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mdvp.core.clock import Clock
from mdvp.core.errors import ConflictError, NoSuchVolumeError
from mdvp.core.figures import Figures
from mdvp.core.lease import Claims, Lease, granted, in_use, released
from mdvp.core.options import Options, differences, in_words, written
from mdvp.core.volume import Access, Identity, Volume, check_name, timestamp
from mdvp.custody import Custody, Kernel, Look, doubled
from mdvp.disk.entry import Found
from mdvp.disk.root import Aside, Root
from mdvp.disk.store import Store
from mdvp.disk.trash import Deleter
from mdvp.host import clock
from mdvp.witness import Witness

log = logging.getLogger(__name__)

_NO_OPTIONS = Options()
_PAGE = 50  # volumes that are read at a time when all are counted


@dataclass(frozen=True, slots=True)
class Report:
    """A volume as it is shown: the record, the path of its directory, and who has it.

    `warnings` is what whoever runs it should know, each as a text.
    """

    volume: Volume
    mountpoint: str
    claims: Claims
    warnings: Sequence[str]


class Driver:
    """The operations of the volume plugin protocol. Thread-safe: one operation at a time.

    Each raises a subclass of `mdvp.core.errors.MdvpError` with the reason when it is refused.
    """

    def __init__(  # noqa: PLR0913  # its collaborators
        self,
        root: Root,
        store: Store,
        kernel: Kernel,
        grace: float,
        now: Clock = clock.now,
        *,
        end: Callable[[], object],
    ) -> None:
        """Serve the volumes recorded in `store` from `root`, after mending what a crash left.

        `grace` is for how many seconds an engine may leave no trace in a volume that it has asked
        for. Should a thread fail, `end` is called, for mdvp to be started again.
        """
        self._root = root
        self._store = store
        self._kernel = kernel
        self._now = now
        self._custody = Custody(root, store, kernel, grace, now)
        self._lock = self._custody.lock
        self._warned: dict[str, str] = {}
        self._reclaimed = 0  # leases, of those that nobody gave back
        volumes = store.volumes()
        for volume in volumes:
            try:
                self._recover(volume)
            except (ConflictError, OSError) as error:  # it is tried again when it is wanted
                log.error(
                    "cannot put volume %(volume)s back at its place: %(error)s",
                    {"event": "not_put_back", "volume": volume.name, "error": error},
                )
            root.keep(volume)
        if store.new and root.used_before and not volumes:
            log.error(
                "the state database was lost, and no directory in %(root)s says of itself that it "
                "is a volume; if there were some, `docker volume create -d mdvp -o adopt=true "
                "NAME` takes each back, with its content",
                {"event": "state_lost", "root": root.path},
            )
        self._witness = Witness(self._watch, end)
        self._deleter = Deleter(root.aside, self._delete, end)

    def _delete(self, aside: Aside, go_on: Callable[[], bool]) -> bool:
        with self._lock:
            if not self._root.is_doomed(aside, lambda it: self._store.volume_of(it) is not None):
                return True
        # A machine that ends before this has the volume still, and so must have all of it.
        self._store.sync()
        return self._root.delete(aside, go_on, self._is_on_record)

    def _is_on_record(self, directory: Identity) -> bool:
        """Say whether a directory is a volume's: aside after a crash, or moved by its owner."""
        with self._lock:
            return self._store.volume_of(directory) is not None

    def _watch(self) -> bool:
        with self._lock:
            self._root.lock_again()
        return self._custody.watch()

    def _recover(self, volume: Volume) -> None:
        """Put the directory of a volume back at its place, if it is aside."""
        if self._root.find(volume.name, volume.identity) is Found.OURS:
            return
        aside = self._root.left(volume.identity)
        if aside is not None:
            self._root.place(aside, volume.name)
            log.info(
                "volume %(volume)s put back at its place",
                {"event": "put_back", "volume": volume.name},
            )

    def close(self, patience: float = 5.0) -> None:
        """Wait `patience` seconds for what was removed to be deleted; the next start goes on."""
        self._witness.close()
        self._deleter.close(patience)

    def create(self, name: str, options: Options = _NO_OPTIONS) -> None:
        """Make volume `name`. One that is there already is left as it is, if it is as asked for."""
        check_name(name)
        with self._lock:
            volume = self._store.volume(name)
            if volume is not None:
                _check_same(volume, options)
                if options.adopt:  # a crash may have come between
                    self._root.give_if_ours(volume)
                return
            volume = (self._adopt if options.adopt else self._make)(name, options)
            self._warn(volume)
        log.info(
            "volume %(volume)s created at %(mountpoint)s (%(_options)s)",
            {
                "event": "created",
                "volume": name,
                "mountpoint": self._root.mountpoint(name),
                "_options": in_words(written(options)) or "no options",
                "options": written(options),
            },
        )

    def _make(self, name: str, options: Options) -> Volume:
        aside, identity = self._root.make(name, options)
        volume = self._new_volume(name, options, identity)
        try:
            self._root.label(aside, volume)
            self._store.add(volume)
            self._store.sync()
            self._root.place(aside, name)
        except BaseException:
            self._store.delete(name)
            self._root.delete(aside)
            raise
        self._root.keep(volume)
        return volume

    def _adopt(self, name: str, options: Options) -> Volume:
        if options.access is Access.SHARED and self._is_mounted(name):
            raise ConflictError(
                f"volume {name!r} cannot be adopted as shared while a container has it: adopt it "
                "without access, or stop that container first"
            )
        try:
            volume = self._root.adopt(name, options, lambda it: self._record(name, options, it))
        except BaseException:
            self._store.delete(name)
            raise
        self._root.keep(volume)
        return volume

    def _record(self, name: str, options: Options, directory: Identity) -> Volume:
        """Record that a directory which was there is a volume now."""
        other = self._store.volume_of(directory)
        if other is not None:
            raise ConflictError(
                f"it cannot be adopted: it is the directory of volume {other.name!r}, moved; "
                "move it back"
            )
        volume = self._new_volume(name, options, directory)
        self._root.void_records(directory, volume.created_at)
        self._store.add(volume)
        self._store.sync()
        return volume

    def _is_mounted(self, name: str) -> bool:
        look = self._kernel.look(fresh=True)
        if look is None:  # it may be, unless we never know
            return self._kernel.blind is None
        return bool(look.holders([self._kernel.path(name)], (), ()))

    def _new_volume(self, name: str, options: Options, identity: Identity) -> Volume:
        access = options.access or Access.EXCLUSIVE
        return Volume(
            name, self._now().utc, identity, access, options.uid, options.gid, options.mode
        )

    def remove(self, name: str) -> None:
        """Remove volume `name` with its content; refused while somebody has it."""
        with self._lock:
            volume = self._volume(name)
            claims = self._custody.claims(volume)
            if not claims.free:
                refusal = in_use(volume, claims)
                log.warning(
                    "volume %(volume)s not removed: %(reason)s",
                    {"event": "remove_refused", "volume": name, "reason": refusal},
                )
                raise ConflictError(refusal)
            aside = self._set_aside(volume)
            self._forget(volume, aside)
            self._root.let_go(name)
            self._warned.pop(name, None)
            self._custody.forget(name)
            self._note_reclaimed(name, claims.dead)
        log.info("volume %(volume)s removed", {"event": "removed", "volume": name})
        self._deleter.wake()

    def _set_aside(self, volume: Volume) -> Aside | None:
        found = self._found(volume)
        if found is Found.OURS:
            aside = self._root.set_aside(volume.name, volume.identity)
            if aside is not None:
                return aside
            found = self._found(volume)
        log.warning(
            "volume %(volume)s: its directory is no longer at %(mountpoint)s%(_stays)s",
            {
                "event": "directory_gone",
                "volume": volume.name,
                "mountpoint": self._root.mountpoint(volume.name),
                "_stays": ", and what is there now stays" if found is Found.FOREIGN else "",
            },
        )
        return None

    def _found(self, volume: Volume) -> Found:
        """Say what is at the place of a volume; raise ConflictError if that cannot be seen.

        What is aside, as its place was taken when it was to be put back, goes back now; what could
        not be put back has not vanished.
        """
        found = self._root.find(volume.name, volume.identity)
        if found is Found.NOTHING:
            self._recover(volume)
            found = self._root.find(volume.name, volume.identity)
        if found is Found.COVERED:
            raise self._root.covered(volume.name)
        return found

    def _forget(self, volume: Volume, aside: Aside | None) -> None:
        try:
            if aside is None:  # it may come back, with its record
                self._root.void_records(volume.identity, self._now().utc)
            self._store.delete(volume.name)
        except BaseException:
            if aside is not None:
                self._root.place(aside, volume.name)
            raise

    def mount(self, name: str, mount_id: str, caller: int | None = None) -> str:
        """Let `mount_id` have volume `name`; return the path of its directory.

        Refused while another has it, unless it is shared. The same ID may mount again; each Mount
        is counted. `caller` is the id of the process that asks, if that is known.
        """
        with self._lock:
            volume = self._volume(name)
            engine = self._kernel.engine(caller)
            claims = self._custody.claims(volume, engine)
            try:
                lease = granted(volume, claims, mount_id, engine, self._now())
            except ConflictError as refusal:
                log.warning(
                    "volume %(volume)s refused to mount %(mount_id)s: %(reason)s",
                    {
                        "event": "mount_refused",
                        "volume": name,
                        "mount_id": mount_id,
                        "reason": refusal,
                    },
                )
                raise
            self._ensure_directory(volume)
            self._store.put_leases(name, [lease], ended=claims.dead)
            self._custody.mounted(name, lease)
            self._note_reclaimed(name, claims.dead)
        self._witness.wake()
        log.info(
            "volume %(volume)s mounted by %(mount_id)s (open mounts: %(mounts)d)",
            {"event": "mounted", "volume": name, "mount_id": mount_id, "mounts": lease.mounts},
        )
        return self._root.mountpoint(name)

    def _ensure_directory(self, volume: Volume) -> None:
        place = self._root.mountpoint(volume.name)
        found = self._found(volume)
        if found is Found.FOREIGN:
            log.error(
                "volume %(volume)s: what is at %(mountpoint)s is not its directory",
                {"event": "directory_foreign", "volume": volume.name, "mountpoint": place},
            )
            raise ConflictError(
                f"volume {volume.name!r}: what is at {place} is not the directory that mdvp made; "
                "move it away and mdvp makes a new, empty one"
            )
        if found is Found.NOTHING:
            self._make_again(volume)
            log.error(
                "volume %(volume)s: %(mountpoint)s had vanished, with all that was in it; made it "
                "again, empty",
                {"event": "directory_vanished", "volume": volume.name, "mountpoint": place},
            )
        self._root.keep(volume)
        self._warn(volume)

    def _warn(self, volume: Volume) -> None:
        """Log what is to be known of the directory of a volume; the same once."""
        warning = self._root.warning(volume)
        if warning is not None and self._warned.get(volume.name) != warning:
            self._warned[volume.name] = warning
            log.warning(
                "volume %(volume)s: %(reason)s",
                {"event": "volume_warning", "volume": volume.name, "reason": warning},
            )

    def _make_again(self, volume: Volume) -> None:
        options = Options(uid=volume.uid, gid=volume.gid, mode=volume.mode)
        aside, identity = self._root.make(volume.name, options)
        again = replace(volume, identity=identity)
        try:
            self._root.label(aside, again)
            if identity != volume.identity:  # as it is where births are not recorded
                self._root.void_records(volume.identity, self._now().utc)
            self._store.replace(again)
            self._store.sync()
            self._root.place(aside, volume.name)
        except BaseException:
            self._root.delete(aside)
            raise
        self._root.let_go(volume.name)
        self._root.keep(again)

    def _note_reclaimed(self, name: str, dead: Sequence[Lease]) -> None:
        for lease in (lease for lease in dead if lease.mounts):
            self._reclaimed += 1
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

    def unmount(self, name: str, mount_id: str) -> None:
        """End one Mount of `mount_id`; one that is not on record has ended, which is no error."""
        with self._lock:
            self._volume(name)
            held = {lease.mount_id: lease for lease in self._store.leases(name)}.get(mount_id)
            if held is None:
                log.warning(
                    "volume %(volume)s: unmount by %(mount_id)s, which has not mounted it",
                    {"event": "unmount_unknown", "volume": name, "mount_id": mount_id},
                )
                return
            left = released(held)
            if left is None:
                self._store.put_leases(name, [], ended=[held])
            else:
                self._store.put_leases(name, [left])
        log.info(
            "volume %(volume)s unmounted by %(mount_id)s (open mounts: %(mounts)d)",
            {
                "event": "unmounted",
                "volume": name,
                "mount_id": mount_id,
                "mounts": left.mounts if left else 0,
            },
        )

    def path(self, name: str) -> str:
        """Return the path of the directory of volume `name`."""
        with self._lock:
            return self._root.mountpoint(self._volume(name).name)

    def get(self, name: str) -> Report:
        """Report on volume `name`."""
        with self._lock:
            volume = self._volume(name)
            claims = self._custody.claims(volume)
            warnings = self._warnings(volume, claims)
            return Report(volume, self._root.mountpoint(name), claims, warnings)

    def _warnings(self, volume: Volume, claims: Claims) -> list[str]:
        warnings = []
        if claims.sight is None:
            why = self._kernel.blind or "the log of mdvp says what it cannot see"
            warnings.append(f"who has the volume is not certain: {why}")
        if doubled(volume, claims.holders):
            warnings.append("several containers have this exclusive volume: stop all but one")
        if (warning := self._root.warning(volume)) is not None:
            warnings.append(warning)
        return warnings

    def list(self) -> list[tuple[Volume, str]]:
        """Return all volumes, by name, each with the path of its directory."""
        with self._lock:
            return [(it, self._root.mountpoint(it.name)) for it in self._store.volumes()]

    def figures(self) -> Figures:
        """Count all volumes, by one look at the host.

        Each is counted as it is at one instant; others wait for one of them, not for all. Not seen
        is who has a volume without a lease whose directory somebody has moved away.
        """
        look = self._kernel.look()
        shown = look.shown_in(self._kernel.path("")) if look else frozenset()
        figures = Figures(host_visible=look is not None, removed=self._root.removed())
        for volume, used in self._pages():
            if used or look is None or os.fsencode(volume.name) in shown:
                self._count(volume.name, look, figures)
            else:
                figures.count(volume, None, doubled=False, warned=self._has_warning(volume))
        figures.reclaimed = self._reclaimed
        return figures

    def _pages(self) -> Iterator[tuple[Volume, bool]]:
        """Yield all volumes, and whether each has leases or holders on record."""
        after = ""
        while True:
            with self._lock:
                page = self._store.page(after, _PAGE)
            if not page:
                return
            yield from page
            after = page[-1][0].name

    def _has_warning(self, volume: Volume) -> bool:
        if self._root.warning(volume) is None:
            return False
        with self._lock:  # or the warning may be that it has just been removed
            return self._store.volume(volume.name) == volume

    def _count(self, name: str, look: Look | None, figures: Figures) -> None:
        with self._lock:
            volume = self._store.volume(name)
            if volume is None:  # by now
                return
            claims = self._custody.glance(volume, look)
            figures.count(
                volume,
                claims,
                doubled=bool(doubled(volume, claims.holders)),
                warned=bool(self._warnings(volume, claims)),
            )

    def _volume(self, name: str) -> Volume:
        volume = self._store.volume(check_name(name))
        if volume is None:
            raise NoSuchVolumeError(name, adoptable=self._root.has_directory(name))
        return volume


def _check_same(volume: Volume, asked: Options) -> None:
    """Raise ConflictError when the volume that is there already is not as it is `asked` for."""
    if differing := differences(volume, asked):
        raise ConflictError(
            f"volume {volume.name!r} exists with {in_words(written(volume))}, and you ask for "
            f"{in_words(differing)}: leave that out, or remove the volume first"
        )
