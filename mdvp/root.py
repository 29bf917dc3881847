"""The directories: every touch of the disk under the root of all volumes.

Failure model. The root may be `/tmp`, where any local user can put a link, a file or a directory in
the way. So all work is relative to open descriptors and follows no link, and mdvp's own folder
`.mdvp` must be a real directory that is ours alone. A directory comes to and goes from its place by
one rename(2) out of or into that folder, so it is at its place whole or not at all; what a crash
leaves aside is found again with `aside()`. rename(2) never replaces anything but an empty
directory.
"""

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from mdvp.errors import ConflictError, StorageError
from mdvp.statx import birth_time
from mdvp.volume import Identity

STATE_FOLDER = ".mdvp"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE = 0o700
_VOLUME_MODE = 0o755


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
    """The root of all volumes, held open, with mdvp's own folder in it locked."""

    def __init__(self, path: Path) -> None:
        """Open the root at `path`; raise StorageError if it is not a safe place or is taken."""
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._device = os.fstat(self._fd).st_dev
            self._state = self._own_folder(self._fd, STATE_FOLDER)
            self._lock()
            self._new = self._own_folder(self._state, "new")
            self._trash = self._own_folder(self._state, "trash")
        except OSError as error:
            raise StorageError(f"cannot use {path} as the root of volumes: {error}") from error

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

    def mountpoint(self, name: str) -> str:
        """Return the path of the directory of volume `name`, as the engine is told it."""
        return str(self.path / name)

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

    def make(self, name: str) -> Aside:
        """Make an empty directory for volume `name`, aside: no one else can reach it there.

        Raises ConflictError when something is at the volume's place.
        """
        if self._exists(name):
            raise self._taken(name)
        entry = secrets.token_hex(8)  # not the name: what a crash left may still be there
        os.mkdir(entry, dir_fd=self._new)
        os.chmod(entry, _VOLUME_MODE, dir_fd=self._new)  # whatever the umask is
        return Aside(self._new, entry, _identity(entry, self._new))

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

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
            f"{self.mountpoint(name)} exists and is no volume of mdvp: move it away, or give the "
            "volume another name (on the host it is below the plugin's data.source)"
        )

    def set_aside(self, name: str, identity: Identity) -> Aside:
        """Move the directory of volume `name` out of its place."""
        # No other directory there has this name, as no two have the same inode at a time.
        aside = Aside(self._trash, str(identity.inode), identity)
        os.rename(name, aside.entry, src_dir_fd=self._fd, dst_dir_fd=self._trash)
        return aside

    def aside(self) -> Iterator[Aside]:
        """Yield the directories that a crash has left aside."""
        for folder in (self._new, self._trash):
            for entry in os.listdir(folder):
                yield Aside(folder, entry, _identity(entry, folder))

    def delete(self, aside: Aside) -> None:
        """Delete a directory that is aside, with all that is in it; links are not followed."""
        shutil.rmtree(aside.entry, dir_fd=aside.folder)

    def close(self) -> None:
        """Give up the lock and the descriptors; the root cannot be used afterwards."""
        for fd in (self._trash, self._new, self._state, self._fd):
            os.close(fd)


def _identity(name: str, dir_fd: int) -> Identity:
    status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    return Identity(status.st_ino, birth_time(name, dir_fd))
