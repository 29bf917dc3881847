"""How a volume that is there becomes another: with other options, or by another name.

Failure model. The database decides and the disk follows. A change of the directory's owner or
permissions is recorded with what the directory is yet to be given, and given then; what a crash
has left due is given at the next start, or before anybody gets the volume. A limit is on record
before it is set, and until it is taken off; at a start the one on record is set. A volume that is
renamed goes aside, is recorded by its new name, and goes to the place of that: by the one rule for
what is aside, a crash leaves it by the old name or by the new one.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress

from mdvp.core.errors import ConflictError, UnavailableError
from mdvp.core.lease import Lease, in_use
from mdvp.core.options import Changes, Options, changed
from mdvp.core.volume import NO_DIRECTORY, Volume
from mdvp.custody import Custody
from mdvp.disk.entry import Found
from mdvp.disk.root import Aside, Root
from mdvp.disk.store import Store
from mdvp.places import Places

log = logging.getLogger(__name__)

# What is a matter of the directory itself.
_GIVEN = ("uid", "gid", "mode")


class Changer:
    """Changes volumes. To be used by whoever holds the driver's lock."""

    def __init__(self, root: Root, store: Store, places: Places, custody: Custody) -> None:
        """Change those in `store`, whose directories are in `root`."""
        self._root = root
        self._store = store
        self._places = places
        self._custody = custody

    # Options.

    def change(self, volume: Volume, changes: Changes) -> Volume:
        """Change a volume; return it as it is then.

        Raises ConflictError when what is to be changed needs that nobody has it, and somebody has.
        """
        wanted, had = changed(volume, changes), Options()
        if wanted.access is not volume.access or changes.of(*_GIVEN):
            self._check_free(volume)
        if changes.of(*_GIVEN):
            self._get_ready(volume)
            had = self._root.given(volume)
        limits = changes.of("size") and (wanted.size, volume.size) != (None, None)
        if limits:
            self._check_filled(volume)
        if limits and wanted.size is None:
            self._root.limit(volume, None)  # after a crash the one on record is set again
        self._store.change(wanted, self._due(changes))
        self._store.sync()
        try:
            if limits and wanted.size is not None:
                self._root.limit(wanted, wanted.size)
            self._settle(wanted)
        except BaseException:
            self._take_back(volume, had, changes)
            raise
        self._root.relabel(wanted)
        return wanted

    def _settle(self, volume: Volume) -> None:
        try:
            self.settle(volume.name)
        except OSError as error:
            raise ConflictError(
                f"volume {volume.name!r} is as it was: its directory takes no other owner or "
                f"permissions: {error.strerror}"
            ) from error

    def _take_back(self, volume: Volume, had: Options, changes: Changes) -> None:
        """Have a volume as it was, with what its directory had of owner and permissions."""
        self._store.change(volume, due=had)
        self._store.sync()
        if changes.of("size"):
            with suppress(UnavailableError, ConflictError):
                self._root.limit(volume, volume.size)
        if had != Options():
            with suppress(ConflictError, OSError):  # what cannot be given back was not taken
                self._root.give(volume, had)
        self._store.settle(volume.name)

    def settle(self, name: str) -> None:
        """Give the directory of volume `name` what a change on record has left due.

        Raises ConflictError when that is not at its place.
        """
        due = self._store.due(name)
        if due is not None:
            self._root.give(self._volume(name), due)
            self._store.settle(name)

    def settle_all(self) -> None:
        """Do that for all volumes; what cannot be done now is done when one is wanted."""
        for name in self._store.all_due():
            try:
                self.settle(name)
            except (ConflictError, OSError) as error:
                log.error(
                    "volume %(volume)s was changed, and its directory is not as it is to be yet: "
                    "%(error)s",
                    {"event": "change_due", "volume": name, "error": error},
                )

    def _due(self, changes: Changes) -> Options:
        return Options(
            **{
                name: getattr(self._root.usual if name in changes.off else changes.given, name)
                for name in _GIVEN
            }
        )

    def _get_ready(self, volume: Volume) -> None:
        """Have the directory of a volume at its place, with all that is due.

        Raises ConflictError when it is not there.
        """
        self._check_filled(volume)
        if self._places.found(volume) is Found.NOTHING:  # else a new, empty one would be made
            place = self._root.mountpoint(volume.name)
            raise ConflictError(
                f"volume {volume.name!r}: its directory is not at {place}: put it back, or start a "
                "container with the volume, for which mdvp makes a new, empty one"
            )
        self._places.ensure(volume)
        if self._volume(volume.name) != volume:  # it was taken away at that very moment
            raise ConflictError(f"volume {volume.name!r} has just got a new directory: try again")
        self.settle(volume.name)

    def _check_filled(self, volume: Volume) -> None:
        if volume.is_being_filled:
            raise ConflictError(
                f"volume {volume.name!r} is being filled: `docker volume inspect` shows how far "
                "that is; its name, its owner, its permissions and its limit can be changed then"
            )

    def _check_free(self, volume: Volume) -> Sequence[Lease]:
        """Raise ConflictError when somebody has a volume; return the leases that are dead."""
        claims = self._custody.claims(volume)
        if not claims.free:
            raise ConflictError(
                f"{in_use(volume, claims)}; its name, access, owner and permissions can be changed "
                "while nobody has it"
            )
        return claims.dead

    # The name.

    def rename(self, volume: Volume, new: str) -> Volume:
        """Have a volume called `new`, which is free; return it as it is then."""
        dead = self._check_free(volume)
        self._check_not_starting(volume)
        if volume.identity == NO_DIRECTORY:
            self._record(volume.name, new)
        else:
            self._root.check_free(new)
            self._get_ready(volume)
            self._move(volume, new)
            self._root.rename_kept(volume.name, new)
        self._custody.forget(volume.name)
        self._custody.note_reclaimed(volume.name, dead)
        self._places.forget(volume.name)
        return self._volume(new)

    def _check_not_starting(self, volume: Volume) -> None:
        """Raise ConflictError when a reader of a volume starts: it was told where that is."""
        for reader in self._store.readers_of(volume.name):
            claims = self._custody.claims(reader)
            if any(lease.waits for lease in claims.living):
                raise ConflictError(
                    f"volume {volume.name!r} is just being given to who reads it: "
                    f"{in_use(reader, claims)}; try again when that has started"
                )

    def _move(self, volume: Volume, new: str) -> None:
        # To stay: nobody wants it deleted, should the database be lost at this moment.
        aside = self._root.set_aside(volume.name, volume.identity, to_stay=True)
        if aside is None:
            raise ConflictError(
                f"volume {volume.name!r}: its directory has just been moved away from "
                f"{self._root.mountpoint(volume.name)}: move it back"
            )
        try:
            # Or a machine that ends now could have the new name on record, and not this.
            self._root.sync()
            self._record(volume.name, new)
            self._place(aside, new)
        except BaseException:
            self._move_back(aside, volume.name, new)
            raise

    def _move_back(self, aside: Aside, name: str, new: str) -> None:
        """Undo what is done of a renaming; what cannot go back to its place waits for it."""
        if self._store.volume(new) is not None:
            self._record(new, name)
        self._place(aside, name)

    def _record(self, name: str, new: str) -> None:
        self._store.rename(name, new)
        self._store.sync()

    def _place(self, aside: Aside, name: str) -> None:
        self._root.label(aside, self._volume(name))
        self._root.place(aside, name)

    def _volume(self, name: str) -> Volume:
        volume = self._store.volume(name)
        if volume is None:  # not while the driver's lock is held
            raise AssertionError(name)
        return volume
