"""How a new volume comes to its directory.

Failure model. The database decides and the disk follows: a directory is made aside, recorded, and
put at its place. One that is adopted is at its place: it is recorded, and then gets its owner. A
reader has none: it is a record.
"""

from mdvp.core import options as core_options
from mdvp.core.clock import Clock
from mdvp.core.errors import ConflictError
from mdvp.core.options import Options
from mdvp.core.volume import NO_DIRECTORY, Access, Identity, Volume
from mdvp.custody import Kernel
from mdvp.disk.root import Root
from mdvp.disk.store import Store
from mdvp.readers import Readers


class Maker:
    """Makes volumes. To be used by whoever holds the driver's lock."""

    def __init__(
        self, root: Root, store: Store, kernel: Kernel, readers: Readers, now: Clock
    ) -> None:
        """Make them in `root`, and record them in `store`."""
        self._root = root
        self._store = store
        self._kernel = kernel
        self._readers = readers
        self._now = now

    def make(self, name: str, options: Options) -> Volume:
        """Make volume `name`, which is not there yet, with the content that `options` ask for."""
        if options.reader_of is not None:
            return self._make_reader(name, options, options.reader_of)
        volume = (self._adopt if options.adopt else self._make)(name, options)
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
        return core_options.volume(name, self._now().utc, identity, options)
