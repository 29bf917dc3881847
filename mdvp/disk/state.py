"""mdvp's own folder under the root of the volumes, `.mdvp`.

Failure model. The root may be `/tmp`, where any user can make a `.mdvp` before we do: it is used
only if it is a directory that is ours alone, and so what is in it was put there by us. If it is
somebody's, ours has a name that nobody can foresee, `.mdvp-` and something. Its lock keeps a second
mdvp out. The key in it is made once; without it, nobody can vouch for the records
that directories carry, so it is at its place whole or not at all.
"""

import fcntl
import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

from mdvp.core.errors import StorageError
from mdvp.disk import btrfs
from mdvp.disk.entry import LOOK, obstacle, open_directory, opened
from mdvp.disk.linux import birth_time, mount_read_only, open_beneath, unmount

log = logging.getLogger(__name__)

_NAME = ".mdvp"
_FOLDER_MODE = 0o700
_KEY = "key"
_VIEW = "readonly"
_KEY_BYTES = 32


class State:
    """The folder, locked, with the folders for directories that are not at their places.

    Attributes:
        name: what the folder is called in the root.
        path: the folder, by its descriptor: nobody can put another in its way.
        new: the descriptor of the folder for what is to come to its place.
        trash: the descriptor of the folder for what is to be deleted.
        removed: the descriptor of the folder for what can be restored (`mdvp.disk.trash`).
        view: where the read-only view of the root belongs, `mdvp.readers`.
        key: what records are signed with.
        used_before: whether an mdvp has been here, by the key that it left.

    """

    def __init__(self, root: int, shown_root: Path) -> None:
        """Make it in the open `root`, or take the one there.

        Raises OSError, and StorageError if another mdvp has it, or others may have changed it.
        """
        self._root = shown_root
        self.name, self._fd = self._own_folder(root)
        self.path = Path(f"/proc/self/fd/{self._fd}")
        btrfs.write_in_place(self._fd, wanted=True)  # the database, above all
        self._lock()
        self.key, self.used_before = self._own_key()
        self.new = self._own("new")
        self.trash = self._own("trash")
        self.removed = self._own("removed")
        self.view = f"{self.name}/{_VIEW}"
        self._make(_VIEW)

    def _own_folder(self, root: int) -> tuple[str, int]:
        with os.scandir(root) as entries:
            names = [it.name for it in entries if it.name.partition("-")[0] == _NAME]
        opened = [(name, self._opened(name, root)) for name in sorted(names)]
        ours = [(name, fd) for name, fd in opened if fd is not None]
        if not ours:
            return self._make_folder(root)
        # A user can move in what root has made in a directory of theirs, but ours was there first.
        name, fd = min(ours, key=lambda it: birth_time(it[1]))
        for _, other in ours:
            if other != fd:
                os.close(other)
        return name, fd

    def _make_folder(self, root: int) -> tuple[str, int]:
        name = _NAME
        try:
            os.mkdir(name, _FOLDER_MODE, dir_fd=root)
        except FileExistsError:
            if (fd := self._opened(name, root)) is not None:  # another mdvp's, that starts, too
                return name, fd
            self._check_for_key(root)
            name = f"{_NAME}-{secrets.token_hex(8)}"
            os.mkdir(name, _FOLDER_MODE, dir_fd=root)
            log.error(
                "somebody else has put something at %(root)s/%(_name)s, so mdvp keeps its state in "
                "%(folder)s there",
                {"event": "folder_taken", "root": self._root, "_name": _NAME, "folder": name},
            )
        return name, open_directory(name, root)

    def _opened(self, name: str, root: int) -> int | None:
        """Open the folder `name` if it is ours alone; None if it is not there, or is not."""
        try:
            fd = open_directory(name, root)
        except OSError as error:
            obstacle(error)
            return None
        if _is_ours_alone(fd):
            return fd
        os.close(fd)
        return None

    def _check_for_key(self, root: int) -> None:
        """Raise StorageError if what is there was ours, by its key, and is open to others by now.

        To begin anew would be to forget all volumes.
        """
        with suppress(OSError), opened(_NAME, root, LOOK) as folder:
            key = open_beneath(_KEY, folder, LOOK | os.O_NOFOLLOW)
            try:
                was_ours = _is_ours_alone(key)
            finally:
                os.close(key)
            if was_ours:
                raise StorageError(
                    f"will not keep state in {self._root}/{_NAME}: it is open to other users, who "
                    "can have changed it; `chown root` and `chmod 700` it if you know that nobody "
                    "has, or remove it"
                )

    def _own(self, name: str) -> int:
        self._make(name)
        fd = open_directory(name, self._fd)
        btrfs.write_in_place(fd, wanted=False)  # what is made in it is the volumes'
        return fd

    def _make(self, name: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, _FOLDER_MODE, dir_fd=self._fd)

    def mount_view(self, root: int) -> None:
        """Mount the open `root` where its read-only view belongs; raises OSError."""
        point = open_directory(_VIEW, self._fd, LOOK)
        try:
            mount_read_only(root, point)
        finally:
            os.close(point)

    def unmount_view(self) -> None:
        """Take the read-only view away; raises OSError."""
        unmount(_VIEW, self._fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"another mdvp serves the volumes in {self._root}: stop that one, or give this one "
                "a root of its own (`docker plugin set NAME data.source=DIR`)"
            ) from error

    def _own_key(self) -> tuple[bytes, bool]:
        path = self.path / _KEY
        with suppress(FileNotFoundError):
            key = path.read_bytes()
            if len(key) == _KEY_BYTES:
                return key, True
        key = secrets.token_bytes(_KEY_BYTES)
        # Half a key would sign what nobody could verify.
        new = path.with_suffix(".new")
        new.touch(0o600)
        new.write_bytes(key)
        new.replace(path)
        return key, False

    def close(self) -> None:
        """Give up the lock and the descriptors."""
        for fd in (self.removed, self.trash, self.new, self._fd):
            os.close(fd)


def _is_ours_alone(fd: int) -> bool:
    status = os.fstat(fd)
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077
