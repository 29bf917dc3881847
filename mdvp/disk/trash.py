"""Removed volumes whose content is kept: in the trash for a time, or at its place for good.

Failure model. The disk alone has this state, in a folder of mdvp's own that root alone can reach,
so it outlives a lost database. Each removed volume has a folder, named by the inode of its
directory: `record.json` says what it was, and `volume` is that directory, moved in whole. The
record is on disk before the directory leaves its place, and goes after that has left: so a folder
without the directory is what a crash has left of an operation that was not begun, or was done. A
record that is damaged, which its checksum tells, is believed in nothing: what it is of stays. The
database decides here, too: a directory that is a volume's on record goes to that volume's place,
and one that is none's comes in here from wherever on the way a crash or a power cut has left it.

Of a directory that stays where it is (`on-remove=keep`) there is the record alone.
"""

import errno
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mdvp.core.clock import Clock
from mdvp.core.errors import ConflictError
from mdvp.core.options import Removed
from mdvp.core.volume import Fate, Identity, OnRemove, Volume, timestamp
from mdvp.disk import record
from mdvp.disk.entry import LOOK, Found, identity, listed, obstacle, opened
from mdvp.disk.linux import rename_new
from mdvp.disk.odometer import Odometer
from mdvp.disk.root import Aside, Root, in_trash
from mdvp.disk.sealed import sealed, unsealed

log = logging.getLogger(__name__)

_VERSION = 1
_RECORD = "record.json"
_STRANGE = "kept-"
_NAMED_MAX = 10  # in one message
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class Entry:
    """A removed volume whose content is kept.

    Attributes:
        volume: what it was.
        removed_at: when it was removed, as the calendar had it.
        until: when it will be deleted at the earliest, as the calendar goes now; None: its
            directory stays where it is.

    """

    volume: Volume
    removed_at: datetime
    until: datetime | None

    @property
    def name(self) -> str:
        """What it was called."""
        return self.volume.name

    @property
    def kept(self) -> bool:
        """Whether its directory has stayed where it was."""
        return self.until is None

    @property
    def label(self) -> str:
        """What `-o restore=` takes for it."""
        return f"{self.name}@{timestamp(self.removed_at)}"


@dataclass(frozen=True, slots=True)
class Removal:
    """What is on disk of a removed volume, or of one that is about to be.

    Attributes:
        reading: that of the odometer when it was removed.
        seconds: for how long it can be restored; None: its directory stays where it is.

    """

    volume: Volume
    removed_at: datetime
    reading: float
    seconds: int | None

    @property
    def folder(self) -> str:
        """What its folder is called."""
        return _folder(self.volume.identity)

    def left(self, reading: float) -> float | None:
        """Return for how many seconds it is kept still, by the odometer; None: for good."""
        if self.seconds is None:
            return None
        return max(0.0, self.reading + self.seconds - reading)


class Trash:
    """The removed volumes. To be used by whoever holds the driver's lock, but for `prepare`."""

    def __init__(self, root: Root, now: Clock, is_on_record: Callable[[Identity], bool]) -> None:
        """Look through the folder of `root`, and clear away what a crash has left there.

        `is_on_record` says whether a directory is that of a volume.
        """
        self._root = root
        self._now = now
        self._removals: dict[str, Removal] = {}  # by their folders
        with listed(root.removed_folder) as found:
            names = [each.name for each in found if not each.name.startswith(_STRANGE)]
        for name in names:
            try:
                self._take_in(name, is_on_record)
            except (ConflictError, OSError) as error:
                log.error(
                    "cannot tell what %(path)s is, so it stays: %(error)s",
                    {"event": "removed_unreadable", "path": self._shown(name), "error": error},
                )
        floor = max((it.reading for it in self._removals.values()), default=0.0)
        self._odometer = Odometer(root.odometer, now, floor)

    def _take_in(self, name: str, is_on_record: Callable[[Identity], bool]) -> None:
        removal, inside = self._read(name), self._has_volume(name)
        if removal is None:
            self._set_apart(name) if inside else self._clear(name)
        elif is_on_record(removal.volume.identity):
            if not inside:  # or its place is taken, for now
                self._clear(name)
        elif inside and not self._is_of(removal):
            self._set_apart(name)
        elif inside or self._is_kept_still(removal) or self._is_moved_in(removal):
            self._remember(removal)
        else:
            self._clear(name)

    def _remember(self, removal: Removal) -> None:
        # An inode is used again: then the directory of the other that was kept is long gone.
        if (other := self._removals.pop(removal.folder, None)) is not None:
            self._root.unguard(other.volume)
        self._removals[removal.folder] = removal
        if removal.seconds is None:
            self._root.guard(removal.volume)

    def _is_of(self, removal: Removal) -> bool:
        """Say whether the directory in its folder is that of the volume.

        Raises OSError when something is mounted on it, below which it may be.
        """
        aside = self.aside(removal.volume)
        try:
            with opened(aside.entry, aside.folder, LOOK) as fd:
                return identity(fd) == removal.volume.identity
        except OSError as error:
            if obstacle(error) is Found.COVERED:
                raise
            return False

    def _is_kept_still(self, removal: Removal) -> bool:
        """Say whether the directory that was to stay at its place did; put it back if need be."""
        volume = removal.volume
        if removal.seconds is not None:
            return False
        if self._root.find(volume.name, volume.identity) in (Found.OURS, Found.COVERED):
            return True
        left = self._root.left(volume.identity)
        if left is None:
            return False
        # Its owner had moved it into a volume that was deleted.
        with suppress(ConflictError):  # the next start may find its place free
            self._root.place(left, volume.name)
        return True

    def _is_moved_in(self, removal: Removal) -> bool:
        """Move in the directory of a removed volume that is on its way; return whether it was.

        A power cut can take back that it was moved, and not that the volume was forgotten: btrfs
        has on disk what was written to a file before it has what was renamed. It is the same with
        what was on its way out, as it was due: it will be again.
        """
        volume = removal.volume
        if removal.seconds is None:
            return False
        if self._root.find(volume.name, volume.identity) is Found.OURS:
            self._root.set_aside(volume.name, volume.identity)
        left = self._root.left(volume.identity)
        if left is None:
            return False
        self.take(left, volume)
        return True

    def _set_apart(self, name: str) -> None:
        """Leave to whoever looks after the machine what nobody can tell what it is."""
        apart = f"{_STRANGE}{secrets.token_hex(8)}"
        rename_new(name, self._folder, apart, self._folder)
        log.error(
            "nobody can tell which removed volume this was; it is kept as %(path)s, for you to "
            "look at and remove",
            {"event": "removed_unknown", "path": self._shown(apart)},
        )

    def _shown(self, name: str) -> str:
        return f"{self._root.removed_path}/{name}"

    @property
    def _folder(self) -> int:
        return self._root.removed_folder

    def _has_volume(self, name: str) -> bool:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.stat(in_trash(self._folder, name).entry, dir_fd=self._folder, follow_symlinks=False)
            return True
        return False

    # What there is.

    def entries(self) -> list[Entry]:
        """Return all removed volumes whose content is kept, the last removed of a name first."""
        self._drop_missing()
        return self._shown_as(sorted(self._removals.values(), key=_order))

    def _drop_missing(self) -> None:
        """Take note of what root has taken away by hand."""
        with listed(self._folder) as found:
            names = {each.name for each in found}
        for removal in [it for it in self._removals.values() if it.folder not in names]:
            # Nothing to be cleared away: there may be what is just being prepared, by now.
            del self._removals[removal.folder]
            self._root.unguard(removal.volume)

    def _shown_as(self, removals: Iterable[Removal]) -> list[Entry]:
        reading, now = self._odometer.reading(), self._now().utc  # once, however many there are
        return [
            Entry(it.volume, it.removed_at, _after(now, left))
            for it in removals
            for left in [it.left(reading)]
        ]

    def restorable(self) -> int:
        """Return how many removed volumes can be restored."""
        return sum(it.seconds is not None for it in self._removals.values())

    def kept(self, directory: Identity) -> Volume | None:
        """Return the removed volume whose directory this is that has stayed; None for none."""
        removal = self._of(directory)
        return None if removal is None or removal.seconds is not None else removal.volume

    def _of(self, directory: Identity) -> Removal | None:
        removal = self._removals.get(_folder(directory))
        return removal if removal is not None and removal.volume.identity == directory else None

    def find(self, wanted: Removed) -> Entry:
        """Return the last removed of those that are `wanted`; ConflictError if there is none."""
        of_name = [it for it in self.entries() if it.name == wanted.name]
        when = wanted.when or ""
        for entry in of_name:
            if not entry.kept and timestamp(entry.removed_at).startswith(when):
                return entry
        raise ConflictError(self._missing(wanted, of_name))

    def _missing(self, wanted: Removed, of_name: list[Entry]) -> str:
        named = [it.label for it in of_name if not it.kept]
        if named:
            more = f" and {len(named) - _NAMED_MAX} more" if len(named) > _NAMED_MAX else ""
            return (
                f"no volume {wanted.name!r} was removed at {wanted.when}: those that can be "
                f"restored are {', '.join(named[:_NAMED_MAX])}{more}"
            )
        if of_name:
            place = self._root.mountpoint(wanted.name)
            return (
                f"volume {wanted.name!r} is not in the trash: its directory was kept at {place}; "
                "take it back with `-o adopt=true`"
            )
        return (
            f"no removed volume {wanted.name!r} is in the trash: `mdvp ls --trash` shows those "
            "that can be restored"
        )

    # Into it and out of it.

    def prepare(self, volume: Volume, fate: OnRemove) -> Removal:
        """Have on disk what `volume` was, before it is removed; `add` or `discard` has to follow.

        It waits for the disk, and so is to be called without the driver's lock, for one volume at a
        time. Raises ConflictError when there is no room, or the volume is not at its place yet.
        """
        seconds = fate.seconds if fate.fate is Fate.TRASH else None
        removal = Removal(volume, self._now().utc, self._odometer.reading(), seconds)
        if self._has_volume(removal.folder):
            raise ConflictError(
                f"volume {volume.name!r} was being restored, and something else is at "
                f"{self._root.mountpoint(volume.name)} by now: move that away, and remove the "
                "volume then"
            )
        try:
            self._clear(removal.folder)  # as a crash has left it, or of one that is long gone
            self._write(removal)
        except OSError as error:
            self.discard(volume)
            if error.errno in _FULL:
                raise ConflictError(
                    f"volume {volume.name!r} cannot be kept for later: {error.strerror}; make "
                    "room, or have it deleted at once: `mdvp change "
                    f"{volume.name} -o on-remove=delete`"
                ) from error
            raise
        return removal

    def add(self, removal: Removal) -> Entry:
        """Take note that a volume is removed."""
        self._remember(removal)
        return self._shown_as([removal])[0]

    def take(self, aside: Aside, volume: Volume) -> Aside:
        """Move the directory of a volume in, which is aside; return where it is then."""
        return self._root.move(aside, self.aside(volume))

    def aside(self, volume: Volume) -> Aside:
        """Return where the directory of a removed volume is."""
        return in_trash(self._folder, _folder(volume.identity))

    def due(self) -> list[Entry]:
        """Return those that have been in the trash for their time."""
        reading = self._odometer.reading()
        return self._shown_as([it for it in self._removals.values() if it.left(reading) == 0.0])

    def due_in(self) -> float | None:
        """Return in how many seconds the next is due; None when none will be."""
        reading = self._odometer.reading()
        lefts = [it.left(reading) for it in self._removals.values()]
        return min((left for left in lefts if left is not None), default=None)

    def expire(self, entry: Entry) -> None:
        """Have a removed volume deleted if it is there still, and due."""
        removal = self._of(entry.volume.identity)
        if removal is None or removal.left(self._odometer.reading()) != 0.0:
            return
        with suppress(FileNotFoundError):  # as root has taken it away
            self._root.doom(self.aside(removal.volume), removal.volume.identity)
        self.forget(removal.volume)
        log.info(
            "removed volume %(volume)s is deleted: it was in the trash since %(removed_at)s",
            {
                "event": "expired",
                "volume": entry.name,
                "removed_at": timestamp(entry.removed_at),
            },
        )

    def keep_time(self) -> None:
        """Have on disk how much time has passed. Any thread may call this."""
        self._odometer.keep()

    def forget(self, volume: Volume) -> None:
        """Take note that this is no removed volume any more: it is on record, or is deleted."""
        if (removal := self._of(volume.identity)) is not None:
            del self._removals[removal.folder]
            self._root.unguard(removal.volume)
        self.discard(volume)

    def discard(self, volume: Volume) -> None:
        """Clear away what is on disk of the removal of a volume that is not removed after all."""
        try:
            self._clear(_folder(volume.identity))
        except OSError as error:  # the next start does
            log.debug(
                "cannot clear away the record of removed volume %(volume)s: %(error)s",
                {"event": "not_cleared", "volume": volume.name, "error": error},
            )

    def _clear(self, folder: str) -> None:
        """Remove a folder in which no directory is."""
        if self._has_volume(folder):
            raise OSError(errno.ENOTEMPTY, "is the directory of a removed volume", folder)
        with suppress(FileNotFoundError):
            os.unlink(f"{folder}/{_RECORD}", dir_fd=self._folder)
        with suppress(FileNotFoundError):
            os.rmdir(folder, dir_fd=self._folder)

    # The record.

    def _read(self, name: str) -> Removal | None:
        try:
            with opened(name, self._folder) as folder:
                fd = os.open(_RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                with os.fdopen(fd, "rb") as file:
                    removal = _removal(unsealed(file.read()))
        except (FileNotFoundError, ValueError, LookupError, TypeError, record.BadRecordError):
            return None
        return removal if removal.folder == name else None

    def _write(self, removal: Removal) -> None:
        os.mkdir(removal.folder, 0o700, dir_fd=self._folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with opened(removal.folder, self._folder) as folder:
            fd = os.open(_RECORD, flags, 0o600, dir_fd=folder)
            with os.fdopen(fd, "w") as file:
                file.write(_written(removal))
                file.flush()
                os.fsync(fd)  # its name, too, on all file systems that we know


def _folder(identity: Identity) -> str:
    return str(identity.inode)


def _after(now: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)


def _order(removal: Removal) -> tuple[str, float]:
    return removal.volume.name, -removal.reading


def _written(removal: Removal) -> str:
    return sealed(
        {
            "version": _VERSION,
            "volume": record.in_fields(removal.volume),
            "removed_at": removal.removed_at.isoformat(),
            "reading": removal.reading,
            "seconds": removal.seconds,
        }
    )


def _removal(fields: Mapping[str, Any]) -> Removal:
    if fields["version"] != _VERSION:
        raise ValueError(f"version {fields['version']}")
    seconds = fields["seconds"]
    return Removal(
        record.of_fields(fields["volume"]),
        datetime.fromisoformat(fields["removed_at"]).astimezone(UTC),
        float(fields["reading"]),
        None if seconds is None else int(seconds),
    )
