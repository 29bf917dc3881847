"""How a volume that is removed leaves its place, or stays there and is a volume no more.

Failure model. Its directory is moved aside, then the volume is forgotten, then the directory is
deleted, or is in the trash for a time: a removal that is cut off before the volume is forgotten is
undone, since what is aside and on record goes back. What has to be known of it later is on disk
before its directory is touched (`mdvp.disk.trash`).
"""

import logging
from datetime import timedelta

from mdvp.core.clock import Clock
from mdvp.core.errors import ConflictError
from mdvp.core.volume import DELETE, NO_DIRECTORY, Fate, OnRemove, Volume
from mdvp.disk.entry import Found
from mdvp.disk.root import Aside, Root
from mdvp.disk.store import Store
from mdvp.disk.trash import Entry, Removal, Trash
from mdvp.places import Places

log = logging.getLogger(__name__)


class Remover:
    """Removes volumes. To be used by whoever holds the driver's lock."""

    def __init__(  # noqa: PLR0913, PLR0917  # its collaborators
        self,
        root: Root,
        store: Store,
        places: Places,
        trash: Trash,
        now: Clock,
        usual: OnRemove,
    ) -> None:
        """Take them out of `root` and `store`.

        `usual` is what becomes of those that do not say what is to become of them.
        """
        self._root = root
        self._store = store
        self._places = places
        self._trash = trash
        self._now = now
        self._usual = usual

    def keeps(self, volume: Volume) -> bool:
        """Say whether something is kept of a volume that is removed."""
        return self._fate(volume).fate is not Fate.DELETE

    def prepare(self, volume: Volume) -> Removal | None:
        """Have on disk what is to be known of a volume when it is removed; None: nothing.

        It waits for the disk, and so does without the driver's lock: one volume at a time.
        """
        return self._trash.prepare(volume, self._fate(volume)) if self.keeps(volume) else None

    def remove(self, volume: Volume, prepared: Removal | None) -> Entry | None:
        """Remove a volume that nobody has, and for which `prepared` was made.

        Returns what is kept of it; None: its directory is left to be deleted, and what was prepared
        is to be discarded.
        """
        self._check(volume, prepared)
        if volume.identity == NO_DIRECTORY or volume.is_being_filled:
            # It has no directory; or that is aside, and is deleted when it is on no record.
            self._store.delete(volume.name)
            return None
        kept = None
        if prepared is None:
            self._forget(volume, self._set_aside(volume))
        else:
            kept = self._remove_but_keep(volume, prepared)
        self._root.let_go(volume.name)
        self._places.forget(volume.name)
        return kept

    def discard(self, prepared: Removal) -> None:
        """Clear away what was prepared in vain."""
        self._trash.discard(prepared.volume)

    def _check(self, volume: Volume, prepared: Removal | None) -> None:
        fits = not self.keeps(volume) if prepared is None else prepared.volume == volume
        if not fits:
            raise ConflictError(f"volume {volume.name!r} has just been changed: remove it again")

    def _fate(self, volume: Volume) -> OnRemove:
        if volume.identity == NO_DIRECTORY or volume.is_being_filled:
            return DELETE  # there is no content but another's
        return volume.on_remove or self._usual

    def _remove_but_keep(self, volume: Volume, prepared: Removal) -> Entry | None:
        self._check_place(volume)
        if prepared.seconds is None:
            found = self._places.found(volume)
            if found is not Found.OURS:
                self._warn(volume, found)
            self._forget(volume, None)
            return self._trash.add(prepared) if found is Found.OURS else None
        aside = self._set_aside(volume)
        if aside is not None:
            aside = self._take(aside, volume)
        self._forget(volume, aside)
        # None: it was moved away, be it at the last moment.
        return None if aside is None else self._trash.add(prepared)

    def _check_place(self, volume: Volume) -> None:
        """Raise ConflictError when a crash has left the directory aside, and its place is taken."""
        if self._places.found(volume) is Found.FOREIGN and self._root.left(volume.identity):
            raise ConflictError(
                f"volume {volume.name!r}: something else is at "
                f"{self._root.mountpoint(volume.name)} since a crash: move that away, and remove "
                "the volume then"
            )

    def _take(self, aside: Aside, volume: Volume) -> Aside:
        try:
            return self._trash.take(aside, volume)
        except BaseException:
            self._root.place(aside, volume.name)
            raise

    def _set_aside(self, volume: Volume) -> Aside | None:
        found = self._places.found(volume)
        if found is Found.OURS:
            aside = self._root.set_aside(volume.name, volume.identity)
            if aside is not None:
                return aside
            found = self._places.found(volume)
        self._warn(volume, found)
        if (left := self._root.left(volume.identity)) is not None:
            self._root.doom(left, volume.identity)  # by a crash, and its place is taken
        return None

    def _warn(self, volume: Volume, found: Found) -> None:
        log.warning(
            "volume %(volume)s: its directory is no longer at %(mountpoint)s%(_stays)s",
            {
                "event": "directory_gone",
                "volume": volume.name,
                "mountpoint": self._root.mountpoint(volume.name),
                "_stays": ", and what is there now stays" if found is Found.FOREIGN else "",
            },
        )

    def _forget(self, volume: Volume, aside: Aside | None) -> None:
        try:
            if aside is None:  # it stays, or may come back, with its record
                # Somebody may have set the calendar back since it was made.
                until = max(self._now().utc, volume.created_at + timedelta(microseconds=1))
                self._root.void_records(volume.identity, until)
            self._store.delete(volume.name)
        except BaseException:
            if aside is not None:
                self._root.place(aside, volume.name)
            raise
