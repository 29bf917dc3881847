"""The directories of the volumes on record: whether each is at its place, and getting it there.

What is at a volume's place is compared with the record before a container gets it. A directory that
has vanished is made again, empty, since a container that cannot start helps nobody; a directory
that is not the volume's is refused, since it may be a trap.
"""

import logging
from dataclasses import replace

from mdvp.core.clock import Clock
from mdvp.core.errors import ConflictError
from mdvp.core.options import Options
from mdvp.core.volume import Volume
from mdvp.disk.entry import Found
from mdvp.disk.root import Root
from mdvp.disk.store import Store
from mdvp.readers import Readers

log = logging.getLogger(__name__)


class Places:
    """Where the directories of volumes are. To be used by whoever holds the driver's lock."""

    def __init__(self, root: Root, store: Store, readers: Readers, now: Clock) -> None:
        """Have the directories of the volumes in `store` at their places in `root`."""
        self._root = root
        self._store = store
        self._readers = readers
        self._now = now
        self._warned: dict[str, str] = {}

    def recover(self, volume: Volume) -> None:
        """Put the directory of a volume back at its place, if it is aside and is to be there."""
        if volume.reader_of is not None or volume.is_being_filled:
            return
        if self._root.find(volume.name, volume.identity) is Found.OURS:
            return
        aside = self._root.left(volume.identity)
        if aside is not None:
            self._root.place(aside, volume.name)
            log.info(
                "volume %(volume)s put back at its place",
                {"event": "put_back", "volume": volume.name},
            )

    def found(self, volume: Volume) -> Found:
        """Say what is at the place of a volume; raise ConflictError if that cannot be seen.

        What is aside, as its place was taken when it was to be put back, goes back now; what could
        not be put back has not vanished.
        """
        found = self._root.find(volume.name, volume.identity)
        if found is Found.NOTHING:
            self.recover(volume)
            found = self._root.find(volume.name, volume.identity)
        if found is Found.COVERED:
            raise self._root.covered(volume.name)
        return found

    def ensure(self, volume: Volume) -> None:
        """Have the directory of a volume at its place; raise ConflictError when that cannot be.

        Of a reader, the directory that it shows; that can raise UnavailableError, too.
        """
        if volume.reader_of is not None:
            self._readers.ensure(volume)
            return
        place = self._root.mountpoint(volume.name)
        found = self.found(volume)
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
            volume = self._make_again(volume)
            log.error(
                "volume %(volume)s: %(mountpoint)s had vanished, with all that was in it; made it "
                "again, empty",
                {"event": "directory_vanished", "volume": volume.name, "mountpoint": place},
            )
        self.limit(volume)
        self._root.keep(volume)
        self.warn(volume)

    def limit(self, volume: Volume) -> None:
        """Set the limit of a volume, if it is to have one: it may have been taken off meanwhile."""
        if volume.size is None or volume.is_being_filled:  # that one got it with its directory
            return
        before = self._root.why_unlimited(volume.name)
        self._root.limit_again(volume)
        reason = self._root.why_unlimited(volume.name)
        if reason is not None and reason != before:
            log.error(
                "volume %(volume)s has no limit: %(reason)s",
                {"event": "not_limited", "volume": volume.name, "reason": reason},
            )

    def _make_again(self, volume: Volume) -> Volume:
        """Make the directory of a volume again, empty; return the volume as it is then."""
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
        return again

    def warn(self, volume: Volume) -> None:
        """Log what is to be known of the directory of a volume; the same once."""
        if volume.reader_of is not None:  # of the directory, its own volume tells
            return
        warning = self._root.warning(volume)
        if warning is not None and self._warned.get(volume.name) != warning:
            self._warned[volume.name] = warning
            log.warning(
                "volume %(volume)s: %(reason)s",
                {"event": "volume_warning", "volume": volume.name, "reason": warning},
            )

    def forget(self, name: str) -> None:
        """Take note that there is no volume of that name any more."""
        self._warned.pop(name, None)
