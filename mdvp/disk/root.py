"""The directories: every touch of the disk under the root of all volumes.

Failure model. The root may be `/tmp`, where any local user can put a link, a file or a directory in
the way. So all work is relative to open descriptors and follows no link, and mdvp's own folder
`.mdvp` must be a real directory that is ours alone. A directory comes to and goes from its place by
one rename(2) out of or into that folder, so it is at its place whole or not at all; what a crash
leaves aside is found again with `aside()`. rename(2) never replaces anything but an empty
directory.

systemd-tmpfiles removes what is old from `/tmp`, but leaves alone a directory that somebody holds a
BSD lock on, with all below it (tmpfiles.d(5), Age). So each volume's directory is kept open and
locked, as many as there are descriptors for.

Each directory carries its volume's record in an extended attribute, should the database be lost. A
file system without such attributes is served all the same.
"""

import errno
import fcntl
import logging
import os
import resource
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from mdvp.core.errors import ConflictError, StorageError
from mdvp.core.options import Options
from mdvp.core.volume import Identity, Volume, shown
from mdvp.disk import record, trash
from mdvp.disk.statx import birth_time

log = logging.getLogger(__name__)

STATE_FOLDER = ".mdvp"
_KEY = "key"
_KEY_BYTES = 32
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMED_MAX = 10  # in one message
_FOLDER_MODE = 0o700
_VOLUME_MODE = 0o755
# What is not for directories: connections, the database, files under way.
_DESCRIPTORS_RESERVED = 512


class Found(Enum):
    """What is at a volume's place."""

    OURS = auto()  # the directory with the volume's identity
    NOTHING = auto()
    FOREIGN = auto()  # anything else: never to be handed to a container, never to be removed


@dataclass(frozen=True, slots=True)
class Aside:
    """A directory that is not at its place: new and not there yet, or on its way out."""

    folder: int
    entry: str
    identity: Identity


class Root:
    """The root of all volumes, held open, with mdvp's own folder in it locked.

    Attributes:
        path: where it is.
        used_before: whether an mdvp has been here, by the key that it left.

    """

    def __init__(self, path: Path, *, lock_directories: bool = True) -> None:
        """Open the root at `path`; raise StorageError if it is not a safe place or is taken.

        `lock_directories` is whether to keep those of the volumes from systemd-tmpfiles.
        """
        self.path = path
        self._text = str(path).rstrip("/")
        self._lock_directories = lock_directories
        self._warned = False
        self._kept: dict[str, int] = {}  # the descriptors of locked directories, by volume name
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._device = os.fstat(self._fd).st_dev
            self._check_root()
            self._state = self._own_folder(self._fd, STATE_FOLDER)
            self._lock()
            self._signing_key, self.used_before = self._own_key()
            self._new = self._own_folder(self._state, "new")
            self._trash = self._own_folder(self._state, "trash")
        except OSError as error:
            raise StorageError(f"cannot use {path} as the root of volumes: {error}") from error

    @property
    def is_open_to_all(self) -> bool:
        """Whether every user can make files in the root."""
        return bool(os.fstat(self._fd).st_mode & stat.S_IWOTH)

    def _check_root(self) -> None:
        if self.is_open_to_all and not os.fstat(self._fd).st_mode & stat.S_ISVTX:
            raise StorageError(
                f"will not keep volumes in {self.path}: every user can rename and remove what is "
                "in it; `chmod +t` or `chmod o-w` it"
            )

    @property
    def database(self) -> Path:
        """Where the state database belongs: a path through the open descriptor of our folder."""
        return Path(f"/proc/self/fd/{self._state}/state.db")

    def _own_folder(self, parent: int, name: str) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, _FOLDER_MODE, dir_fd=parent)
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise self._not_ours(name, "is not a directory") from error
            raise
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise self._not_ours(name, f"belongs to user {status.st_uid}")
        if status.st_mode & 0o077:
            raise self._not_ours(name, "is open to other users")
        return fd

    def _not_ours(self, name: str, why: str) -> StorageError:
        return StorageError(
            f"will not keep state under {self.path}: {name} there {why}, "
            "so somebody else can change it; remove it and start again"
        )

    def _lock(self) -> None:
        try:
            fcntl.flock(self._state, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"another mdvp serves the volumes in {self.path}: stop that one, or give this one "
                "a root of its own (`docker plugin set NAME data.source=DIR`)"
            ) from error

    def _own_key(self) -> tuple[bytes, bool]:
        """Return the key that records are signed with, and whether it was there already."""
        path = Path(f"/proc/self/fd/{self._state}/{_KEY}")
        with suppress(FileNotFoundError):
            key = path.read_bytes()
            if len(key) == _KEY_BYTES:
                return key, True
        key = secrets.token_bytes(_KEY_BYTES)
        # It is at its place whole or not at all: half a key would sign what nobody could verify.
        new = path.with_suffix(".new")
        new.touch(0o600)
        new.write_bytes(key)
        new.replace(path)
        return key, False

    @property
    def descriptor(self) -> int:
        """The open descriptor of the root."""
        return self._fd

    def mountpoint(self, name: str) -> str:
        """Return the path of the directory of volume `name`, as the engine is told it."""
        return f"{self._text}/{name}"  # for all volumes at once, a Path is slow

    def has_directory(self, name: str) -> bool:
        """Say whether there is a directory at the place that a volume `name` would have."""
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:  # nothing there, or what only its owner may look at, such as a FUSE mount
            return False
        return stat.S_ISDIR(status.st_mode)

    def find(self, name: str, identity: Identity) -> Found:
        """Say what is at the place of volume `name`, whose directory has `identity`."""
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            found = Identity(status.st_ino, birth_time(name, self._fd))
        except FileNotFoundError:
            return Found.NOTHING
        # Not the recorded device: its number may change with a reboot. A volume's directory is on
        # the file system of the root, or rename(2) could not have put it there.
        ours = stat.S_ISDIR(status.st_mode) and status.st_dev == self._device
        return Found.OURS if ours and found == identity else Found.FOREIGN

    def make(self, name: str, options: Options) -> Aside:
        """Make an empty directory for volume `name`, aside: no one else can reach it there.

        It has the owner and permissions that `options` ask for. Raises ConflictError when something
        is at the volume's place.
        """
        if _exists(name, self._fd):
            raise self._taken(name)
        entry = secrets.token_hex(8)  # not the name: what a crash left may still be there
        os.mkdir(entry, dir_fd=self._new)
        fd = os.open(entry, _DIRECTORY, dir_fd=self._new)
        try:
            os.fchmod(fd, _VOLUME_MODE)  # whatever the umask is
            _give(fd, options)
            return Aside(self._new, entry, _identity(fd))
        except BaseException:
            os.rmdir(entry, dir_fd=self._new)
            raise
        finally:
            os.close(fd)

    def adopt(self, name: str, options: Options, check: Callable[[Identity], object]) -> Identity:
        """Take over the directory that is at the place of volume `name`, with its content.

        It gets the owner and permissions that `options` ask for, once `check` has not raised.
        Raises ConflictError when it is not a directory of root's (or of whom mdvp runs as) in the
        file system of the root.
        """
        place = self.mountpoint(name)
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=self._fd)
        except FileNotFoundError as error:
            raise ConflictError(
                f"there is no {place} to adopt: leave adopt out for a new directory (on the host "
                "it is below the plugin's data.source)"
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise ConflictError(
                    f"{place} cannot be adopted: it is not a directory itself"
                ) from error
            raise
        try:
            status = os.fstat(fd)
            if status.st_dev != self._device:
                raise ConflictError(
                    f"{place} cannot be adopted: it is another file system; mount that elsewhere"
                )
            if status.st_uid != os.geteuid():
                raise ConflictError(
                    f"{place} cannot be adopted: it belongs to user {status.st_uid}, who could "
                    f"have put anything there; if you trust it, `chown root` it first"
                )
            identity = _identity(fd)
            check(identity)
            _give(fd, options)
            return identity
        finally:
            os.close(fd)

    def place(self, aside: Aside, name: str) -> None:
        """Put a directory that is aside at the place of volume `name`; ConflictError if taken."""
        try:
            os.rename(aside.entry, name, src_dir_fd=aside.folder, dst_dir_fd=self._fd)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise self._taken(name) from error
            raise

    def _taken(self, name: str) -> ConflictError:
        return ConflictError(
            f"{self.mountpoint(name)} exists and is no volume of mdvp: take it over with "
            "`-o adopt=true`, move it away, or give the volume another name (on the host it is "
            "below the plugin's data.source)"
        )

    def set_aside(self, name: str, identity: Identity) -> Aside:
        """Move the directory of volume `name` out of its place; ConflictError if that cannot be."""
        # No other directory there has this name, as no two have the same inode at a time.
        aside = Aside(self._trash, str(identity.inode), identity)
        try:
            os.rename(name, aside.entry, src_dir_fd=self._fd, dst_dir_fd=self._trash)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise ConflictError(
                    f"{self.mountpoint(name)} is a mount point on the host: unmount it first"
                ) from error
            raise
        return aside

    def aside(self) -> Iterator[Aside]:
        """Yield the directories that a crash has left aside."""
        for folder in (self._new, self._trash):
            for entry in os.listdir(folder):
                fd = os.open(entry, _DIRECTORY, dir_fd=folder)
                try:
                    yield Aside(folder, entry, _identity(fd))
                finally:
                    os.close(fd)

    def delete(self, aside: Aside) -> None:
        """Delete a directory that is aside, with all in it; see `mdvp.disk.trash.delete`."""
        trash.delete(aside.folder, aside.entry)

    def keep(self, volume: Volume) -> None:
        """Lock the directory of `volume` against cleaners, and label it should it have no record.

        Does nothing if it is not at its place.
        """
        if volume.name in self._kept:
            return
        try:
            fd = os.open(volume.name, _DIRECTORY, dir_fd=self._fd)
        except OSError:
            return
        if _identity(fd) == volume.identity:
            self._write_record(fd, volume)
            if self._lock_directories and self._locked(fd, volume.name):
                self._kept[volume.name] = fd
                return
        os.close(fd)

    def _locked(self, fd: int, name: str) -> bool:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if fd >= limit - _DESCRIPTORS_RESERVED:
            if not self._warned:
                log.warning(
                    "volume %s and others: their directories are not locked, so systemd-tmpfiles "
                    "may remove what is old in them: mdvp may have only %d files open",
                    name,
                    limit,
                )
                self._warned = True
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("volume %s: somebody else has locked its directory, so mdvp does not", name)
            return False
        return True

    def kept(self, name: str) -> int | None:
        """Return the open descriptor of the directory of volume `name`, if it is kept open."""
        return self._kept.get(name)

    def name_of(self, identity: Identity) -> str | None:
        """Return what the directory with this identity is called in the root, if it is there."""
        with os.scandir(self._fd) as entries:
            names = [each.name for each in entries if each.inode() == identity.inode]
        return next((name for name in names if self.find(name, identity) is Found.OURS), None)

    def let_go(self, name: str) -> None:
        """Unlock the directory of volume `name`."""
        if (fd := self._kept.pop(name, None)) is not None:
            os.close(fd)

    def label(self, aside: Aside, volume: Volume) -> None:
        """Write the record of `volume` on its directory, which is aside."""
        fd = os.open(aside.entry, _DIRECTORY, dir_fd=aside.folder)
        try:
            self._write_record(fd, volume)
        finally:
            os.close(fd)

    def _write_record(self, fd: int, volume: Volume) -> None:
        text = record.encode(volume, self._signing_key)
        try:
            if _read_record(fd) != text:
                os.setxattr(fd, record.ATTRIBUTE, text)
        except OSError as error:
            # It is a second copy: without it, the volume is as good as with it.
            log.debug("volume %s: its directory cannot carry its record: %s", volume.name, error)

    def volumes(self) -> Iterator[Volume]:
        """Yield the volumes whose directories are at their places and say so."""
        # Without the key of before, who can have written a record is all there is to go by.
        trust = not self.used_before
        refused = []
        for name in os.listdir(self._fd):
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=self._fd)
            except OSError:
                continue  # not a directory
            try:
                status = os.fstat(fd)
                text = _read_record(fd)
                ours = trust and status.st_uid == os.geteuid()
                if text and status.st_dev == self._device:
                    yield record.decode(text, self._signing_key, name, _identity(fd), trusted=ours)
            except OSError:
                continue  # this file system has no records
            except record.BadRecordError as error:
                refused.append(f"{shown(name)} ({error})")
            finally:
                os.close(fd)
        if refused:
            log.warning(
                "%d directories in %s have a volume's record that is not to be trusted: %s%s; for "
                "what was a volume, `docker volume create -d mdvp -o adopt=true NAME` makes it one "
                "again",
                len(refused),
                self.path,
                ", ".join(refused[:_NAMED_MAX]),
                " and others" if len(refused) > _NAMED_MAX else "",
            )

    def close(self) -> None:
        """Give up the locks and the descriptors; the root cannot be used afterwards."""
        for fd in (*self._kept.values(), self._trash, self._new, self._state, self._fd):
            os.close(fd)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _identity(fd: int) -> Identity:
    return Identity(os.fstat(fd).st_ino, birth_time("", fd))


def _give(fd: int, options: Options) -> None:
    """Give a directory the permissions and the owner that are asked for."""
    status = os.fstat(fd)
    uid = status.st_uid if options.uid is None else options.uid
    gid = status.st_gid if options.gid is None else options.gid
    if options.mode is not None:
        # While it is ours: the permissions of what is another user's, and the set-group-ID bit of
        # what is another group's, would each take one more capability.
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, options.mode)
    os.fchown(fd, uid, gid)


def _read_record(fd: int) -> bytes:
    """Return the record of a directory, empty if it has none."""
    try:
        return os.getxattr(fd, record.ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return b""
        raise
