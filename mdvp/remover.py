"""How a volume that is removed leaves its place, or stays there and is a volume no more.

Failure model. Its directory is moved aside, then the volume is forgotten, then the directory is
deleted, or is in the trash for a time: a removal that is cut off before the volume is forgotten is
undone, since what is aside and on record goes back. What has to be known of it later is on disk
before its directory is touched (`mdvp.disk.trash`).
"""

import logging
from datetime import timedelta

from mdvp.core.clock import Clock
from mdvp.core.volume import NO_DIRECTORY, Fate, OnRemove, Volume
from mdvp.disk.entry import Found
from mdvp.disk.root import Aside, Root
from mdvp.disk.store import Store
from mdvp.disk.trash import Entry, Trash
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

    def remove(self, volume: Volume) -> Entry | None:
        """Remove a volume that nobody has.

        Returns what is kept of it; None: its directory is left to be deleted.
        """
        if volume.identity == NO_DIRECTORY or volume.is_being_filled:
            # It has no directory; or that is aside, and is deleted when it is on no record.
            self._store.delete(volume.name)
            return None
        fate = volume.on_remove or self._usual
        entry = None
        if fate.fate is Fate.DELETE or self._places.found(volume) is not Found.OURS:
            self._forget(volume, self._set_aside(volume))
        else:
            entry = self._remove_but_keep(volume, fate)
        self._root.let_go(volume.name)
        self._places.forget(volume.name)
        return entry

    def _remove_but_keep(self, volume: Volume, fate: OnRemove) -> Entry | None:
        entry = self._trash.prepare(volume, fate)
        try:
            if fate.fate is Fate.KEEP:
                self._forget(volume, None)
                return entry
            aside = self._set_aside(volume)
            if aside is not None:
                aside = self._take(aside, volume)
            self._forget(volume, aside)
        except BaseException:
            self._trash.forget(volume)
            raise
        if aside is None:  # it was moved away at the last moment
            self._trash.forget(volume)
            return None
        return entry

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
