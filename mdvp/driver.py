"""The volume driver: each operation of the protocol, on volumes, directories and leases.

Failure model. The database decides and the disk follows. A directory is made aside, recorded, and
put at its place (`mdvp.maker`); it is moved aside, forgotten, and deleted (`mdvp.remover`). So
there is one rule for whatever is aside: a directory that has the identity of a volume on record
goes to that volume's place, at the next start or when it is wanted, and all else is deleted. Every
operation is then either done or not begun.

Who has a volume is asked of the kernel at each operation for which it matters; `mdvp.core.lease`
has the rules for what it does not show.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

from mdvp.changes import Changer
from mdvp.core.clock import Clock
from mdvp.core.errors import ConflictError, LaterError, NoSuchVolumeError
from mdvp.core.lease import Claims, Engine, Lease, granted, in_use, released
from mdvp.core.options import Changes, Options, differences, in_words, written
from mdvp.core.volume import DELETE, Identity, OnRemove, Volume, check_name, timestamp
from mdvp.custody import Custody, Kernel
from mdvp.disk.deletion import Deleter
from mdvp.disk.root import Aside, Root
from mdvp.disk.store import Store
from mdvp.disk.trash import Entry, Removal, Trash
from mdvp.expiry import Expiry
from mdvp.filler import Filler
from mdvp.host import clock
from mdvp.jobs import Job
from mdvp.maker import Maker
from mdvp.places import Places
from mdvp.readers import Readers
from mdvp.remover import Remover
from mdvp.turns import SOMEBODY, Client, Turn, Turns
from mdvp.witness import Witness

log = logging.getLogger(__name__)

_NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Report:
    """A volume as it is shown: the record, the path of its directory, and who has it.

    `warnings` is what whoever runs it should know, each as a text. `waiting` is how many Mounts
    wait for their turn, `filling` how far it is with getting the content of another, if it is at
    that.
    """

    volume: Volume
    mountpoint: str
    claims: Claims
    warnings: Sequence[str]
    waiting: int = 0
    filling: str | None = None


class Driver:
    """The operations of the volume plugin protocol. Thread-safe: one operation at a time.

    Each raises a subclass of `mdvp.core.errors.MdvpError` with the reason when it is refused.

    Attributes:
        custody: who has each volume.
        turns: who waits for one.
        filler: which get the content of others; to be used with the lock of `custody`.
        trash: the removed volumes whose content is kept; to be used with the lock of `custody`.

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
        on_remove: OnRemove = DELETE,
    ) -> None:
        """Serve the volumes recorded in `store` from `root`, after mending what a crash left.

        `grace` is for how many seconds an engine may leave no trace in a volume that it has asked
        for. `on_remove` is what becomes of removed volumes that do not say. Should a thread fail,
        `end` is called, for mdvp to be started again.
        """
        self._root = root
        self._store = store
        self._kernel = kernel
        self._now = now
        self.custody = Custody(root, store, kernel, grace, now)
        self._lock = self.custody.lock
        self._removing = Lock()  # taken before that, for what is kept of one volume at a time
        self._readers = Readers(root, store, kernel, self.custody)
        self._places = Places(root, store, self._readers, now)
        self._changer = Changer(root, store, self._places, self.custody)
        if store.new:
            self._take_back_renamed()
        volumes = store.volumes()
        for volume in volumes:
            self._recover(volume)
        self.trash = Trash(root, now, self._has)
        self._maker = Maker(root, store, kernel, self.trash, self._readers, now)
        self._remover = Remover(root, store, self._places, self.trash, now, on_remove)
        self._changer.settle_all()
        if store.new and root.used_before and not volumes:
            _say_lost(root)
        self.turns = Turns(self._lock, kernel.look, end)
        self.filler = Filler(root, store, self._places, self.custody, now, self._note_filled, end)
        self._witness = Witness(self._watch, end)
        self._deleter = Deleter(root.aside, self._delete, end)
        self._expiry = Expiry(self.trash, self._lock, self._deleter.wake, end)
        with self._lock:
            for volume in volumes:
                if volume.is_being_filled:
                    self.filler.resume(volume)

    def _take_back_renamed(self) -> None:
        """Record what was just being renamed when mdvp and the database came to an end."""
        for volume in self._root.cut_off():
            if not self._has(volume.identity) and self._store.volume(volume.name) is None:
                self._store.add(volume)

    def _recover(self, volume: Volume) -> None:
        """Have a volume as it is on record, if a crash or somebody has left it otherwise."""
        try:
            self._places.recover(volume)
            self._places.limit(volume)
        except (ConflictError, OSError) as error:  # it is tried again when it is wanted
            log.error(
                "cannot put volume %(volume)s back at its place: %(error)s",
                {"event": "not_put_back", "volume": volume.name, "error": error},
            )
        self._root.keep(volume)

    def _delete(self, aside: Aside, go_on: Callable[[], bool]) -> bool:
        with self._lock:
            if self.filler.is_at_work(aside) or not self._root.is_doomed(aside, self._is_to_stay):
                return True
        # A machine that ends before this has the volume still, and so must have all of it.
        self._store.sync()
        return self._root.delete(aside, go_on, self._is_spared)

    def _is_spared(self, directory: Identity) -> bool:
        with self._lock:
            return self._is_to_stay(directory)

    def _is_to_stay(self, directory: Identity) -> bool:
        """Say whether a directory is not to be deleted: aside after a crash, or moved by its owner.

        It is a volume's, or was one's and is to be kept.
        """
        return self._has(directory) or self.trash.kept(directory) is not None

    def _has(self, directory: Identity) -> bool:
        return self._store.volume_of(directory) is not None

    def _note_filled(self, name: str) -> None:
        """Take note that a copy has ended, by which a volume, or another, may be free now."""
        self.turns.wake(name)
        self._deleter.wake()

    def _watch(self) -> bool:
        with self._lock:
            self._root.lock_again()
        return self.custody.watch()

    def end_waits(self) -> None:
        """Answer all who wait for something that mdvp ends; nobody can wait from now on."""
        self.turns.close()
        self.filler.stop_all()

    def close(self, patience: float = 5.0) -> None:
        """Wait `patience` seconds for what was removed to be deleted; the next start goes on."""
        self.end_waits()
        self.filler.close()
        self._witness.close()
        self._expiry.close()
        self._deleter.close(patience)
        self._readers.close()

    def create(self, name: str, options: Options = _NO_OPTIONS, client: Client = SOMEBODY) -> None:
        """Make volume `name`. One that is there already is left as it is, if it is as asked for.

        What is copied into it is waited for, but not for ever.
        """
        check_name(name)
        with self._lock:
            made, job = self._make(name, options)
        if job is not None:
            with client.waits():
                self.filler.wait(job)
        if made:
            self._log_created(name, options)

    def _make(self, name: str, options: Options) -> tuple[bool, Job | None]:
        """Make a volume; return whether it is new, and what is to be waited for."""
        volume = self._store.volume(name)
        if volume is not None:
            _check_same(volume, options)
            return False, self.filler.join(name)
        if (job := self.filler.running(name)) is not None:
            raise LaterError(f"volume {name!r} is being made: {job}")
        if options.origin is not None:
            return True, self.filler.begin(name, options)
        volume = self._maker.make(name, options)
        self._places.warn(volume)
        return True, None

    def _log_created(self, name: str, options: Options) -> None:
        log.info(
            "volume %(volume)s created at %(mountpoint)s (%(_options)s)",
            {
                "event": "created",
                "volume": name,
                "mountpoint": self._root.shows(name, options.reader_of),
                "_options": in_words(written(options)) or "no options",
                "options": written(options),
            },
        )

    def remove(self, name: str) -> None:
        """Remove volume `name`, with its content or not; refused while somebody has it."""
        with self._lock:
            volume = self._volume(name)
        if self._remover.keeps(volume):
            with self._removing:
                kept = self._remove_and_keep(name)
        else:
            kept = self._remove(name, None)
        self._log_removed(name, kept)
        self._deleter.wake()
        self._expiry.wake()

    def _remove_and_keep(self, name: str) -> Entry | None:
        with self._lock:
            volume = self._volume(name)
        prepared, kept = self._remover.prepare(volume), None  # others need not wait for the disk
        try:
            kept = self._remove(name, prepared)
        finally:
            if prepared is not None and kept is None:
                self._remover.discard(prepared)
        return kept

    def _remove(self, name: str, prepared: Removal | None) -> Entry | None:
        with self._lock:
            volume = self._volume(name)
            claims = self.custody.claims(volume)
            refusal = (
                _refusal(volume, claims)
                or self._readers.refusal(volume)
                or self.filler.why_copied(name)
            )
            if refusal is not None:
                log.warning(
                    "volume %(volume)s not removed: %(reason)s",
                    {"event": "remove_refused", "volume": name, "reason": refusal},
                )
                raise ConflictError(refusal)
            self.filler.stop(name)
            kept = self._remover.remove(volume, prepared)
            self.custody.forget(name)
            self.turns.wake(name)  # to be told
            self.custody.note_reclaimed(name, claims.dead)
        return kept

    def _log_removed(self, name: str, kept: Entry | None) -> None:
        until = kept.until if kept else None
        if kept is None:
            rest = ""
        elif until is None:
            rest = f"; its directory stays at {self._root.mountpoint(name)}"
        else:
            rest = f"; until {timestamp(until)} `-o restore={kept.label}` takes it back"
        log.info(
            "volume %(volume)s removed%(_rest)s",
            {
                "event": "removed",
                "volume": name,
                "_rest": rest,
                "became": "deleted" if kept is None else "kept" if kept.kept else "trash",
                "until": until and timestamp(until),
            },
        )

    def change(self, name: str, changes: Changes) -> None:
        """Change options of volume `name`.

        Refused while somebody has it, if its access, its owner or its permissions are to change.
        """
        with self._lock:
            volume = self._changer.change(self._volume(name), changes)
            self._places.warn(volume)
            self.turns.wake(name)  # who waits may have it now, or have less time
        log.info(
            "volume %(volume)s changed (%(_options)s)",
            {
                "event": "changed",
                "volume": name,
                "_options": in_words(written(volume)),
                "options": written(volume),
            },
        )

    def rename(self, name: str, new: str) -> None:
        """Have volume `name` called `new`, content and all; refused while somebody has it."""
        check_name(new)
        with self._lock:
            volume = self._volume(name)
            if (copied := self.filler.why_copied(name)) is not None:
                raise ConflictError(copied)
            if self._store.volume(new) is not None or self.filler.running(new) is not None:
                raise ConflictError(f"there is a volume {new!r} already: choose another name")
            renamed = self._changer.rename(volume, new)
            self.turns.wake(name)  # to be told
        log.info(
            "volume %(volume)s is called %(new_name)s from now on, and is at %(mountpoint)s",
            {
                "event": "renamed",
                "volume": name,
                "new_name": new,
                "mountpoint": self._root.shown_at(renamed),
            },
        )

    def mount(self, name: str, mount_id: str, client: Client = SOMEBODY) -> str:
        """Let `mount_id` have volume `name`; return the path of its directory.

        Refused while another has it, unless it is shared; but first it waits its turn, if that is
        an option of the volume. The same ID may mount again; each Mount is counted.
        """
        engine = self._kernel.engine(client.pid)
        try:
            lease, place = self.turns.take(
                name, mount_id, lambda turn: self._grant(name, mount_id, engine, turn), client
            )
        except LaterError as refusal:
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
        self._witness.wake()
        log.info(
            "volume %(volume)s mounted by %(mount_id)s (open mounts: %(mounts)d)",
            {"event": "mounted", "volume": name, "mount_id": mount_id, "mounts": lease.mounts},
        )
        return place

    def _grant(
        self, name: str, mount_id: str, engine: Engine | None, turn: Turn
    ) -> tuple[Lease, str]:
        """Give a volume to `mount_id`, and put that on record; LaterError: another has it.

        Returns what it has from then on, and where.
        """
        volume = self._volume(name)
        self.filler.check_mount(volume, again=turn.waited is None)
        if turn.look is not None:  # what that lets through is looked at once more
            claims = self.custody.glance(volume, turn.look, engine)
            granted(volume, claims, mount_id, engine, self._now(), turn.before)
        claims = self.custody.claims(volume, engine)
        lease = granted(volume, claims, mount_id, engine, self._now(), turn.before)
        self._places.ensure(volume)
        self._changer.settle(name)
        self._store.put_leases(name, [lease], ended=claims.dead)
        self.custody.mounted(name, lease)
        dead = claims.dead
        if turn.waited is not None:
            dead = self.custody.hand_on(name, dead, engine)
        self.custody.note_reclaimed(name, dead)
        return lease, self._root.shown_at(volume)

    def unmount(self, name: str, mount_id: str) -> None:
        """End one Mount of `mount_id`; one that is not on record has ended, which is no error."""
        with self._lock:
            self._volume(name)
            held = {lease.mount_id: lease for lease in self._store.leases(name)}.get(mount_id)
            if held is None:
                self._note_unheld(name, mount_id)
                return
            left = released(held)
            if left is None:
                self._store.put_leases(name, [], ended=[held])
            else:
                self._store.put_leases(name, [left])
            self.turns.wake(name)
        log.info(
            "volume %(volume)s unmounted by %(mount_id)s (open mounts: %(mounts)d)",
            {
                "event": "unmounted",
                "volume": name,
                "mount_id": mount_id,
                "mounts": left.mounts if left else 0,
            },
        )

    def _note_unheld(self, name: str, mount_id: str) -> None:
        """Take note of an Unmount of what is not on record, or not any more."""
        if self.custody.was_handed_on(name, mount_id):
            log.info(
                "volume %(volume)s unmounted by %(mount_id)s, after it was handed on (open mounts: "
                "%(mounts)d)",
                {"event": "unmounted", "volume": name, "mount_id": mount_id, "mounts": 0},
            )
            return
        log.warning(
            "volume %(volume)s: unmount by %(mount_id)s, which has not mounted it",
            {"event": "unmount_unknown", "volume": name, "mount_id": mount_id},
        )

    def path(self, name: str) -> str:
        """Return the path of the directory of volume `name`."""
        with self._lock:
            return self._root.shown_at(self._volume(name))

    def get(self, name: str) -> Report:
        """Report on volume `name`."""
        with self._lock:
            volume = self._volume(name)
            claims = self.custody.claims(volume)
            warnings = self.custody.warnings(volume, claims)
            waiting = self.turns.waiting(name)
            filling = self.filler.state(volume)
            place = self._root.shown_at(volume)
            return Report(volume, place, claims, warnings, waiting, filling)

    def list(self) -> list[tuple[Volume, str]]:
        """Return all volumes, by name, each with the path of its directory."""
        with self._lock:
            return [(it, self._root.shown_at(it)) for it in self._store.volumes()]

    def _volume(self, name: str) -> Volume:
        volume = self._store.volume(check_name(name))
        if volume is None:
            raise NoSuchVolumeError(name, adoptable=self._root.has_directory(name))
        return volume


def _say_lost(root: Root) -> None:
    log.error(
        "the state database was lost, and no directory in %(root)s says of itself that it is a "
        "volume; if there were some, `docker volume create -d mdvp -o adopt=true NAME` takes each "
        "back, with its content",
        {"event": "state_lost", "root": root.path},
    )


def _refusal(volume: Volume, claims: Claims) -> str | None:
    """Say why a volume cannot be removed; None when it can."""
    if not claims.free:
        return in_use(volume, claims)
    if volume.protect:
        return (
            f"volume {volume.name!r} is protected: `mdvp change {volume.name} -o protect=false` "
            "takes that off"
        )
    return None


def _check_same(volume: Volume, asked: Options) -> None:
    """Raise ConflictError when the volume that is there already is not as it is `asked` for."""
    if differing := differences(volume, asked):
        raise ConflictError(
            f"volume {volume.name!r} exists with {in_words(written(volume))}, and you ask for "
            f"{in_words(differing)}: leave that out, or remove the volume first"
        )
