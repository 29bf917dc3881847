"""The directories of the volumes: where they are, and how they come to their places and go.

Failure model. The root may be `/tmp`, where any local user can put a link, a file or a directory in
the way, and where the owner of a volume's directory can rename it at any time, or mount something
on it. So all work is relative to open descriptors (`mdvp.disk.entry`), and a directory is known by
its identity, not by its name. It comes to and goes from its place by one rename(2) out of or into
`.mdvp` (`mdvp.disk.state`), which replaces nothing; so it is at its place whole or not at all, and
what a crash leaves is in the folder `new` or in `trash`. What was moved is looked at afterwards:
somebody may have exchanged it just before.
"""

import errno
import logging
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from mdvp.core.errors import ConflictError, StorageError, UnavailableError
from mdvp.core.options import Options
from mdvp.core.volume import Identity, Volume, shown
from mdvp.disk import btrfs, deletion, limits
from mdvp.disk.entry import (
    LOOK,
    Found,
    identity,
    listed,
    listed_inode,
    obstacle,
    open_directory,
    opened,
)
from mdvp.disk.labels import Labels
from mdvp.disk.linux import rename_new
from mdvp.disk.locks import Locks
from mdvp.disk.record import BadRecordError
from mdvp.disk.state import State

log = logging.getLogger(__name__)

T = TypeVar("T")

_KEPT = "kept-"  # how the names begin of what is in the trash and is not to be deleted
_NAMED_MAX = 10  # in one message
_NEW_MAX = 1000  # to be looked at; only crashes leave something in `new`, and one each
_VOLUME_MODE = 0o755


@dataclass(frozen=True, slots=True)
class Aside:
    """What is not at a place: new and not there yet, or on its way out."""

    folder: int
    entry: str


def in_trash(folder: int, name: str) -> Aside:
    """Return where the directory of a removed volume is, in its folder `name` of the trash."""
    return Aside(folder, f"{name}/volume")


class Root:
    """The root of all volumes, held open, with mdvp's own folder in it locked.

    Attributes:
        path: where it is.
        used_before: whether an mdvp has been here.

    """

    def __init__(self, path: Path, *, lock_directories: bool = True) -> None:
        """Open the root at `path`; raise StorageError if it is not a safe place or is taken.

        `lock_directories` is whether to keep those of the volumes from systemd-tmpfiles.
        """
        self.path = path
        self._text = str(path).rstrip("/")
        self._locks = Locks(wanted=lock_directories)
        self._unlimited: dict[str, str] = {}
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._check()
            self._state = State(self._fd, path)
        except OSError as error:
            raise StorageError(_why_unusable(path, error)) from error
        self.used_before = self._state.used_before
        self._trash = path / self._state.name / "trash"
        # Without the key of before, who can have written a record is all there is to go by.
        self._labels = Labels(
            self._state.key, self._state.path / "void", trust=not self.used_before
        )

    def _check(self) -> None:
        status = os.fstat(self._fd)
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise StorageError(
                f"will not keep volumes in {self.path}: every user can rename and remove what is "
                "in it; `chmod +t` or `chmod o-w` it"
            )
        if not _is_ours(status):
            who, way_out = f"belongs to user {status.st_uid}", "chown root"
        elif status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_ISVTX:
            who, way_out = f"is writable for group {status.st_gid}", "chmod g-w"
        else:
            return
        log.warning(
            "%(root)s %(_who)s, who can put other things in the place of all volumes, such as "
            "links to anywhere; `%(_way_out)s` it, or keep volumes elsewhere",
            {"event": "root_not_safe", "root": self.path, "_who": who, "_way_out": way_out},
        )

    @property
    def database(self) -> Path:
        """Where the state database belongs: a path through the open descriptor of our folder."""
        return self._state.path / "state.db"

    @property
    def odometer(self) -> Path:
        """Where the odometer belongs (`mdvp.disk.odometer`), likewise."""
        return self._state.path / "odometer"

    @property
    def removed_folder(self) -> int:
        """The open descriptor of the folder for removed volumes that can be restored."""
        return self._state.removed

    @property
    def removed_path(self) -> Path:
        """Where that folder is, to be shown."""
        return self.path / self._state.name / "removed"

    @property
    def descriptor(self) -> int:
        """The open descriptor of the root."""
        return self._fd

    def close(self) -> None:
        """Give up the locks and the descriptors; the root cannot be used afterwards."""
        self._locks.close()
        self._state.close()
        os.close(self._fd)

    # What is where.

    def mountpoint(self, name: str) -> str:
        """Return the path of the directory of volume `name`, as the engine is told it."""
        return f"{self._text}/{name}"  # for all volumes at once, a Path is slow

    def shown_at(self, volume: Volume) -> str:
        """Return the path of the directory that a volume shows, as the engine is told it."""
        return self.shows(volume.name, volume.reader_of)

    def shows(self, name: str, reader_of: str | None) -> str:
        """Return the path of what a volume `name` shows that is, or is not, a reader of another."""
        if reader_of is None:
            return self.mountpoint(name)
        return f"{self._text}/{self.view}/{reader_of}"

    @property
    def view(self) -> str:
        """Where in the root its read-only view belongs."""
        return self._state.view

    def mount_view(self) -> None:
        """Mount the read-only view of the root; raises OSError."""
        self._state.mount_view(self._fd)

    def unmount_view(self) -> None:
        """Take it away; raises OSError."""
        self._state.unmount_view()

    def has_directory(self, name: str) -> bool:
        """Say whether there is a directory at the place that a volume `name` would have."""
        try:
            with opened(name, self._fd, LOOK):
                return True
        except OSError:
            return False

    def find(self, name: str, sought: Identity) -> Found:
        """Say what is at the place of volume `name`, whose directory has the identity `sought`."""
        try:
            with opened(name, self._fd, LOOK) as fd:
                return Found.OURS if identity(fd) == sought else Found.FOREIGN
        except OSError as error:
            return obstacle(error)

    def name_of(self, sought: Identity) -> str | None:
        """Return what the directory with this identity is called in the root, if it is there."""
        with listed(self._fd) as entries:
            names = [each.name for each in entries if each.inode() == listed_inode(sought)]
        return next((name for name in names if self.find(name, sought) is Found.OURS), None)

    def warning(self, volume: Volume) -> str | None:
        """Return what is to be known of the directory of a volume, None if there is nothing.

        Who owns a directory in a place where others can make some can rename it.
        """
        if volume.is_being_filled:  # it is aside, where nobody else comes
            return None
        root = os.fstat(self._fd)
        if _is_ours(root) and not root.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            return None
        try:
            with opened(volume.name, self._fd, LOOK) as fd:
                status = os.fstat(fd)
                if identity(fd) != volume.identity:
                    return f"what is at {self.mountpoint(volume.name)} is not its directory"
        except OSError as error:
            covered = obstacle(error) is Found.COVERED
            what = "a mount point is" if covered else "its directory is not"
            return f"{what} at {self.mountpoint(volume.name)}"
        if _is_ours(status):
            return None
        return (
            f"its directory is user {status.st_uid}'s, and {self.path} is open to others: on the "
            "host that user can put another thing in its place, such as a link to anywhere"
        )

    # To a place, and away.

    def make(self, name: str, options: Options) -> tuple[Aside, Identity]:
        """Make an empty directory for volume `name`, aside: no one else can reach it there.

        It has the owner, the permissions and the limit that `options` ask for. Raises ConflictError
        when something is at the volume's place, and UnavailableError when it can have no limit.
        """
        self.check_free(name)
        entry = secrets.token_hex(8)  # not the name: what a crash left may still be there
        self._make_directory(entry)
        try:
            with opened(entry, self._state.new) as fd:
                os.fchmod(fd, _VOLUME_MODE)  # whatever the umask is
                if options.size is not None:
                    limits.limit(fd, options.size, self._text)
                _give(fd, options)
                return Aside(self._state.new, entry), identity(fd)
        except BaseException:
            os.rmdir(entry, dir_fd=self._state.new)
            raise

    def _make_directory(self, entry: str) -> None:
        """Make a directory in the folder `new`, on btrfs one that can be copied at once."""
        try:
            btrfs.make_subvolume(entry, self._state.new)
        except OSError:  # it is another file system, or has no room for one more of these
            os.mkdir(entry, dir_fd=self._state.new)

    def limit(self, volume: Volume, size: int | None) -> None:
        """Let there be at most `size` bytes in the directory of a volume; None: any number.

        Raises UnavailableError, with what is missing, and ConflictError when the directory is not
        at its place.
        """
        with self._own(volume) as fd:
            limits.limit(fd, size, self._text)
        self._unlimited.pop(volume.name, None)

    def limit_again(self, volume: Volume) -> None:
        """Set the limit that a volume is to have; `why_unlimited` tells if that cannot be."""
        try:
            self.limit(volume, volume.size)
        except (UnavailableError, ConflictError) as error:
            self._unlimited[volume.name] = str(error)

    def why_unlimited(self, name: str) -> str | None:
        """Return why volume `name` has no limit, though it is to have one; None if it has."""
        return self._unlimited.get(name)

    def limit_aside(self, aside: Aside, size: int | None) -> None:
        """Let there be at most `size` bytes in a directory that is aside; raises as `limit`."""
        with opened(aside.entry, aside.folder) as fd:
            limits.limit(fd, size, self._text)

    def open_volume(self, volume: Volume) -> int:
        """Open the directory of a volume at its place, for the caller to close.

        Raises OSError, and ConflictError if what is there is not its directory.
        """
        fd = open_directory(volume.name, self._fd)
        if identity(fd) == volume.identity:
            return fd
        os.close(fd)
        raise ConflictError(
            f"what is at {self.mountpoint(volume.name)} is not the directory of volume "
            f"{volume.name!r}"
        )

    def new_aside(self) -> Aside:
        """Return where something new can be made, aside; there is nothing yet."""
        return Aside(self._state.new, secrets.token_hex(8))

    def check_free(self, name: str) -> None:
        """Raise ConflictError when something is at the place that a volume `name` would have."""
        if self._is_taken(name):
            raise self._taken(name)

    def _is_taken(self, name: str) -> bool:
        try:
            with opened(name, self._fd, LOOK):
                return True
        except OSError as error:
            return obstacle(error) is not Found.NOTHING

    def _taken(self, name: str) -> ConflictError:
        return ConflictError(
            f"{self.mountpoint(name)} exists and is no volume of mdvp: take it over with "
            "`-o adopt=true`, move it away, or give the volume another name (on the host it is "
            "below the plugin's data.source)"
        )

    def adopt(
        self,
        name: str,
        options: Options,
        record: Callable[[Identity], T],
        known: Callable[[Identity], bool],
    ) -> T:
        """Take over the directory that is at the place of volume `name`; return its record.

        It gets the owner, permissions and limit that `options` ask for, once `record` has not
        raised. Raises ConflictError when it is not a directory of root's (or of whom mdvp runs as)
        in the file system of the root, nor one that is `known` to have been a volume, and
        UnavailableError when it can have no limit.
        """
        fd = self._open_to_adopt(name)
        try:
            which = identity(fd)
            if not known(which):
                self._check_ours(fd, name)
            recorded = record(which)
            if options.size is not None:
                limits.limit(fd, options.size, self._text)
            _give(fd, options)
            return recorded
        finally:
            os.close(fd)

    @property
    def usual(self) -> Options:
        """The owner, group and permissions that a directory has where nothing else was asked."""
        return Options(uid=os.geteuid(), gid=os.getegid(), mode=_VOLUME_MODE)

    def give(self, volume: Volume, options: Options) -> None:
        """Give the directory of a volume another owner, or other permissions, and its record.

        Raises ConflictError when it is not at its place.
        """
        with self._own(volume) as fd:
            _give(fd, options)
            self._labels.write(fd, volume)

    def given(self, volume: Volume) -> Options:
        """Return the owner and permissions that the directory of a volume has; raises as `give`."""
        with self._own(volume) as fd:
            return _has(fd)

    @contextmanager
    def _own(self, volume: Volume) -> Iterator[int]:
        """Open the directory of a volume for the time of the block; ConflictError if it is away."""
        try:
            fd = self.open_volume(volume)
        except OSError as error:
            if obstacle(error) is Found.COVERED:
                raise self.covered(volume.name) from error
            raise ConflictError(
                f"volume {volume.name!r}: its directory is no longer at "
                f"{self.mountpoint(volume.name)}"
            ) from error
        try:
            yield fd
        finally:
            os.close(fd)

    def relabel(self, volume: Volume) -> None:
        """Write the record of `volume` on its directory, if that is at its place."""
        with suppress(OSError), opened(volume.name, self._fd) as fd:
            if identity(fd) == volume.identity:
                self._labels.write(fd, volume)

    def _open_to_adopt(self, name: str) -> int:
        place = self.mountpoint(name)
        try:
            return open_directory(name, self._fd)
        except OSError as error:
            match obstacle(error):
                case Found.NOTHING:
                    refusal = (
                        f"there is no {place} to adopt: leave adopt out for a new directory (on "
                        "the host it is below the plugin's data.source)"
                    )
                case Found.COVERED:
                    refusal = (
                        f"{place} cannot be adopted: it is a mount point; mount that elsewhere"
                    )
                case _:
                    refusal = f"{place} cannot be adopted: it is not a directory itself"
            raise ConflictError(refusal) from error

    def _check_ours(self, fd: int, name: str) -> None:
        place = self.mountpoint(name)
        status = os.fstat(fd)
        if not _is_ours(status):
            raise ConflictError(
                f"{place} cannot be adopted: it belongs to user {status.st_uid}, who could "
                f"have put anything there; if you trust it, `chown root` it first"
            )

    def place(self, aside: Aside, name: str) -> None:
        """Put a directory that is aside at the place of volume `name`; ConflictError if taken."""
        try:
            _move(aside.entry, aside.folder, name, self._fd)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EBUSY):
                raise self._taken(name) from error
            raise

    def give_aside(self, aside: Aside, options: Options) -> Options:
        """Give what is aside the owner and permissions that are asked for; return what it had."""
        with opened(aside.entry, aside.folder) as fd:
            had = _has(fd)
            _give(fd, options)
        return had

    def move(self, aside: Aside, to: Aside) -> Aside:
        """Move what is aside to where nothing is, aside as well; return where it is then."""
        _move(aside.entry, aside.folder, to.entry, to.folder)
        return to

    def doom(self, aside: Aside, sought: Identity) -> None:
        """Have what is aside, the directory with the identity `sought`, deleted in time."""
        doomed = Aside(self._state.trash, str(sought.inode))
        if aside != doomed:
            self._is_strange(doomed)
            self.move(aside, doomed)

    def set_aside(self, name: str, sought: Identity, *, to_stay: bool = False) -> Aside | None:
        """Move the directory of volume `name` out of its place, into the trash.

        There it is deleted when it is on no record, unless it is `to_stay`. Returns None when it is
        no longer there; raises ConflictError when it cannot be moved.
        """
        entry = _stays_as(sought) if to_stay else str(sought.inode)
        aside = Aside(self._state.trash, entry)
        self._is_strange(aside)
        try:
            _move(name, self._fd, aside.entry, aside.folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise self.covered(name) from error
            if error.errno in (errno.EPERM, errno.EXDEV):
                raise ConflictError(
                    f"{self.mountpoint(name)} cannot be moved away: {error.strerror}; `lsattr -pd` "
                    "shows whether it is immutable, or of another project than its place"
                ) from error
            if error.errno == errno.EROFS:
                raise ConflictError(
                    f"{self.mountpoint(name)} cannot be moved away, as it is read-only: `btrfs "
                    "property set PATH ro false`, on the host, ends that for a subvolume"
                ) from error
            raise
        if self.identity(aside) == sought:
            return aside
        # Its owner has put something else there at the last moment.
        try:
            self.place(aside, name)
        except ConflictError:
            self._is_strange(aside)
        return None

    def _is_strange(self, aside: Aside) -> bool:
        """Say whether what is called as a removed volume is something else: put out of the way now.

        Its owner had put it in the place of the volume just before that was moved into the trash.
        It is never deleted.
        """
        found = self.identity(aside)
        if found is not None and str(found.inode) == aside.entry.removeprefix(_KEPT):
            return False
        kept = f"{_KEPT}{secrets.token_hex(8)}"
        try:
            rename_new(aside.entry, aside.folder, kept, aside.folder)
        except FileNotFoundError:
            return False
        log.error(
            "somebody had put something in the place of a volume that was being removed; it is "
            "kept as %(_folder)s/%(_kept)s, for you to look at and remove",
            {
                "event": "stranger_kept",
                "_folder": self._trash,
                "_kept": kept,
                "path": f"{self._trash}/{kept}",
            },
        )
        return True

    def covered(self, name: str) -> ConflictError:
        """Return the refusal to use the place of volume `name` as something is mounted there."""
        return ConflictError(
            f"{self.mountpoint(name)} is a mount point on the host: unmount it first"
        )

    # What is aside.

    def identity(self, aside: Aside) -> Identity | None:
        """Return which directory it is that is aside; None when it is none, or a mount point."""
        try:
            with opened(aside.entry, aside.folder, LOOK) as fd:
                return identity(fd)
        except OSError as error:
            obstacle(error)
            return None

    def left(self, sought: Identity) -> Aside | None:
        """Return where the directory with this identity is, if a crash has left it aside."""
        trashed = Aside(self._state.trash, str(sought.inode))
        renamed = Aside(self._state.trash, _stays_as(sought))
        removed = in_trash(self._state.removed, str(sought.inode))
        with listed(self._state.new) as entries:
            new = [Aside(self._state.new, each.name) for each in islice(entries, _NEW_MAX)]
        return next(
            (it for it in (trashed, renamed, removed, *new) if self.identity(it) == sought), None
        )

    def cut_off(self) -> Iterator[Volume]:
        """Yield the volumes that a crash has left aside as they were renamed, by what they say.

        By the old name or the new one: only what has lost the record of them wants to know that.
        """
        with listed(self._state.trash) as entries:
            names = [each.name for each in entries if each.name.startswith(_KEPT)]
        for name in names:
            with suppress(OSError, BadRecordError), opened(name, self._state.trash) as fd:
                volume = self._labels.read(fd)
                if volume is not None and name == _stays_as(volume.identity):
                    yield volume

    def aside(self) -> Iterator[Aside]:
        """Yield all that is aside, to be deleted: there may be any number."""
        for folder in (self._state.trash, self._state.new):
            with listed(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith(_KEPT):
                        yield Aside(folder, entry.name)

    def removed(self) -> int:
        """Return how many directories of removed volumes are yet to be deleted."""
        with listed(self._state.trash) as entries:
            return sum(not entry.name.startswith(_KEPT) for entry in entries)

    def is_doomed(self, aside: Aside, spared: Callable[[Identity], bool]) -> bool:
        """Say whether what is aside is to be deleted: not what is `spared`, nor what is strange.

        What is called as a removed volume is and is something else is put out of the way.
        """
        found = self.identity(aside)
        if found is not None and spared(found):
            return False
        if aside.folder == self._state.trash and aside.entry.isdecimal():
            return not self._is_strange(aside)
        return True

    def delete(
        self,
        aside: Aside,
        go_on: Callable[[], bool] = lambda: True,
        spared: Callable[[Identity], bool] = lambda _: False,
    ) -> bool:
        """Delete what is aside, with all in it but what is `spared`; see `mdvp.disk.deletion`."""
        return deletion.delete(aside.folder, aside.entry, go_on, spared)

    def sync(self) -> None:
        """Return when what was moved out of its place is on disk there."""
        os.fsync(self._state.trash)
        os.fsync(self._fd)

    # What is kept, and what directories say.

    def keep(self, volume: Volume) -> None:
        """Lock the directory of `volume` against cleaners, and label it should it have no record.

        Does nothing if it is not at its place.
        """
        if volume.name in self._locks or volume.reader_of is not None:
            return
        try:
            with opened(volume.name, self._fd) as fd:
                if identity(fd) == volume.identity:
                    self._labels.write(fd, volume)
                    self._locks.take(volume.name, fd)
        except OSError as error:
            log.debug(
                "volume %(volume)s: its directory is not kept: %(error)s",
                {"event": "not_kept", "volume": volume.name, "error": error},
            )

    def guard(self, volume: Volume) -> None:
        """Lock the directory of what was a volume against cleaners, if it is at its place."""
        with suppress(OSError), opened(volume.name, self._fd) as fd:
            if identity(fd) == volume.identity:
                self._locks.take(_guarded(volume), fd)

    def unguard(self, volume: Volume) -> None:
        """Unlock the directory of what was a volume."""
        self._locks.give_up(_guarded(volume))

    def kept(self, name: str) -> int | None:
        """Return the open descriptor of the directory of volume `name`, if it is kept open."""
        return self._locks.descriptor(name)

    def rename_kept(self, name: str, new: str) -> None:
        """Take note that volume `name` is called `new`; its directory stays locked."""
        self._locks.rename(name, new)
        if (why := self._unlimited.pop(name, None)) is not None:
            self._unlimited[new] = why

    def lock_again(self) -> None:
        """Lock those directories that somebody else had locked, if they have not any more."""
        self._locks.try_again()

    def let_go(self, name: str) -> None:
        """Unlock the directory of volume `name`, which is there no more."""
        self._locks.give_up(name)
        self._unlimited.pop(name, None)

    def label(self, aside: Aside, volume: Volume) -> None:
        """Write the record of `volume` on its directory, which is aside."""
        with opened(aside.entry, aside.folder) as fd:
            self._labels.write(fd, volume)

    def void_records(self, directory: Identity, until: datetime) -> None:
        """Have no record of that directory count, from now on, that was made before `until`."""
        self._labels.void(directory, until)

    def records_count_from(self, directory: Identity) -> datetime:
        """Return from when on a record of that directory counts."""
        return self._labels.count_from(directory)

    def volumes(self, patience: float = math.inf) -> Iterator[Volume]:
        """Yield the volumes whose directories are at their places and say so.

        Users can have made any number of others there: it stops after so many seconds.
        """
        refused = []
        over = time.monotonic() + patience
        with listed(self._fd) as entries:
            for entry in entries:
                if time.monotonic() > over:
                    log.warning(
                        "%(root)s has too many directories to ask all what they are",
                        {"event": "too_many_directories", "root": self.path},
                    )
                    break
                try:
                    volume = self._said(entry)
                except OSError:
                    continue  # no directory after all, or the file system has no records
                except BadRecordError as error:
                    refused.append(f"{shown(entry.name)} ({error})")
                    continue
                if volume is not None:
                    yield volume
        if refused:
            self._warn_of_records(refused)

    def _said(self, entry: os.DirEntry[str]) -> Volume | None:
        if not entry.is_dir(follow_symlinks=False):  # to open all that users have made takes long
            return None
        with opened(entry.name, self._fd) as fd:
            return self._labels.read(fd, entry.name)

    def _warn_of_records(self, refused: list[str]) -> None:
        log.warning(
            "%(directories)d directories in %(root)s have a volume's record that is not to be "
            "trusted: %(_named)s%(_others)s; for what was a volume, `docker volume create -d mdvp "
            "-o adopt=true NAME` makes it one again",
            {
                "event": "records_not_trusted",
                "directories": len(refused),
                "root": self.path,
                "_named": ", ".join(refused[:_NAMED_MAX]),
                "_others": " and others" if len(refused) > _NAMED_MAX else "",
            },
        )


def _stays_as(directory: Identity) -> str:
    return f"{_KEPT}{directory.inode}"


def _guarded(volume: Volume) -> str:
    return f"{volume.name}/{volume.identity.inode}"  # no volume's name


def _why_unusable(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSYS:
        return "the kernel lacks a system call (openat2): mdvp needs Linux 5.6 or newer"
    return f"cannot use {path} as the root of volumes: {error}"


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid()


def _has(fd: int) -> Options:
    """Return the owner and the permissions that a directory has."""
    status = os.fstat(fd)
    return Options(uid=status.st_uid, gid=status.st_gid, mode=stat.S_IMODE(status.st_mode))


def _move(name: str, folder: int, new_name: str, new_folder: int) -> None:
    """Rename a directory, replacing nothing; whoever owns it cannot hinder that."""
    try:
        rename_new(name, folder, new_name, new_folder)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        with opened(name, folder) as fd:
            if not btrfs.make_writable(fd):
                raise error from None
        rename_new(name, folder, new_name, new_folder)


def _give(fd: int, options: Options) -> None:
    """Give a directory the permissions and the owner that are asked for."""
    status = os.fstat(fd)
    uid = status.st_uid if options.uid is None else options.uid
    gid = status.st_gid if options.gid is None else options.gid
    # One that has them may have no room left below its limit, not even for this.
    had = (status.st_uid, status.st_gid)
    if had == (uid, gid) and options.mode in (None, stat.S_IMODE(status.st_mode)):
        return
    with suppress(OSError):
        btrfs.make_writable(fd)
    if options.mode is not None:
        # While it is ours: the permissions of what is another user's, and the set-group-ID bit of
        # what is another group's, would each take one more capability.
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, options.mode)
    os.fchown(fd, uid, gid)
