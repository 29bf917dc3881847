"""How a new volume comes to its directory.

Failure model. The database decides and the disk follows: a directory is made aside, recorded, and
put at its place. One that is adopted is at its place: it is recorded, and then gets its owner. One
that is restored is aside already, in the trash: as soon as it is on record, it goes to its place. A
reader has no directory: it is a record.
"""

import logging
from dataclasses import replace
from datetime import datetime, timedelta

from mdvp.core import options as core_options
from mdvp.core.clock import Clock
from mdvp.core.errors import ConflictError
from mdvp.core.options import Changes, Options
from mdvp.core.volume import NO_DIRECTORY, Access, Identity, Volume, timestamp
from mdvp.custody import Kernel
from mdvp.disk.root import Root
from mdvp.disk.store import Store
from mdvp.disk.trash import Entry, Trash
from mdvp.readers import Readers

log = logging.getLogger(__name__)

_NO_OPTIONS = Options()


class Maker:
    """Makes volumes. To be used by whoever holds the driver's lock."""

    def __init__(  # noqa: PLR0913, PLR0917  # its collaborators
        self,
        root: Root,
        store: Store,
        kernel: Kernel,
        trash: Trash,
        readers: Readers,
        now: Clock,
    ) -> None:
        """Make them in `root`, or take them from `trash`, and record them in `store`."""
        self._root = root
        self._store = store
        self._kernel = kernel
        self._trash = trash
        self._readers = readers
        self._now = now

    def make(self, name: str, options: Options) -> Volume:
        """Make volume `name`, which is not there yet, with the content that `options` ask for."""
        if options.reader_of is not None:
            return self._make_reader(name, options, options.reader_of)
        if options.restore is not None:
            volume = self._restore(name, self._trash.find(options.restore), options)
        elif options.adopt:
            volume = self._adopt(name, options)
        else:
            volume = self._make(name, options)
        self._root.keep(volume)
        return volume

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
        return volume

    def _make_reader(self, name: str, options: Options, of: str) -> Volume:
        self._readers.check_source(of)
        volume = self._new_volume(name, options, NO_DIRECTORY)
        self._store.add(volume)
        self._store.sync()
        return volume

    def _restore(self, name: str, entry: Entry, options: Options) -> Volume:
        self._root.check_free(name)
        volume = self._renewed(name, entry.volume, options)
        aside = self._trash.aside(volume)
        had = self._root.give_aside(aside, _NO_OPTIONS)
        try:
            self._root.void_records(volume.identity, volume.created_at)
            self._store.add(volume, due=options)
            self._store.sync()
            if options.size is not None:  # first, as it may be full
                self._root.limit_aside(aside, options.size)
            self._root.give_aside(aside, options)
            self._root.label(aside, volume)  # should the database be lost in a crash
            self._root.place(aside, name)
        except BaseException:
            self._store.delete(name)
            self._root.give_aside(aside, had)
            raise
        self._store.settle(name)
        self._trash.forget(volume)
        log.info(
            "volume %(removed)s, removed at %(removed_at)s, restored as volume %(volume)s",
            {
                "event": "restored",
                "volume": name,
                "removed": entry.name,
                "removed_at": timestamp(entry.removed_at),
            },
        )
        return volume

    def _renewed(self, name: str, was: Volume, options: Options) -> Volume:
        """Return a removed volume as it is when it is there again: as it was, or is asked for."""
        # What its directory said of itself before has to be older, whatever the calendar says.
        at = max(self._since(was.identity), was.created_at + timedelta(microseconds=1))
        again = replace(was, name=name, created_at=at)
        return core_options.changed(again, Changes(options))

    def _adopt(self, name: str, options: Options) -> Volume:
        def record(directory: Identity) -> Volume:
            return self._record(name, options, directory)

        def is_known(directory: Identity) -> bool:
            return self._trash.kept(directory) is not None

        try:
            volume = self._root.adopt(name, options, record, is_known)
        except BaseException:
            self._store.delete(name)
            raise
        self._store.settle(name)
        if is_known(volume.identity):
            self._root.keep(volume)  # it has one record or the other, should the database be lost
            self._trash.forget(volume)
        return volume

    def _record(self, name: str, options: Options, directory: Identity) -> Volume:
        """Record that a directory which was there is a volume now."""
        other = self._store.volume_of(directory)
        if other is not None:
            raise ConflictError(
                f"it cannot be adopted: it is the directory of volume {other.name!r}, moved; "
                "move it back"
            )
        kept = self._trash.kept(directory)
        if kept is None:
            volume = self._new_volume(name, options, directory)
        else:
            volume = self._renewed(name, kept, options)
        if volume.access is Access.SHARED and self._is_mounted(name):
            raise ConflictError(
                f"volume {name!r} cannot be adopted as shared while a container has it: adopt it "
                "with access=exclusive, or stop that container first"
            )
        self._root.void_records(directory, volume.created_at)
        self._store.add(volume, due=options)
        self._store.sync()
        return volume

    def _is_mounted(self, name: str) -> bool:
        look = self._kernel.look(fresh=True)
        if look is None:  # it may be, unless we never know
            return self._kernel.blind is None
        return bool(look.holders([self._kernel.path(name)], (), ()))

    def _new_volume(self, name: str, options: Options, identity: Identity) -> Volume:
        return core_options.volume(name, self._since(identity), identity, options)

    def _since(self, directory: Identity) -> datetime:
        """Return when a volume with this directory is made: now, or when its records count from.

        That is later if somebody has set the calendar back.
        """
        return max(self._now().utc, self._root.records_count_from(directory))
