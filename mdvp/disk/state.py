"""mdvp's own folder under the root of the volumes, `.mdvp`.

Failure model. The root may be `/tmp`, where any user can make a `.mdvp` before we do: it is used
only if it is a directory that is ours alone, and so what is in it was put there by us. Its lock
keeps a second mdvp out. The key in it is made once; without it, nobody can vouch for the records
that directories carry, so it is at its place whole or not at all.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

from mdvp.core.errors import StorageError
from mdvp.disk.entry import is_covered, is_no_directory, open_directory

FOLDER = ".mdvp"
TRASH = f"{FOLDER}/trash"
_FOLDER_MODE = 0o700
_KEY = "key"
_KEY_BYTES = 32


class State:
    """The folder, locked, with the folders for directories that are not at their places.

    Attributes:
        path: the folder, by its descriptor: nobody can put another in its way.
        new: the descriptor of the folder for what is to come to its place.
        trash: the descriptor of the folder for what is to be deleted.
        key: what records are signed with.
        used_before: whether an mdvp has been here, by the key that it left.

    """

    def __init__(self, root: int, shown_root: Path) -> None:
        """Make it in the open `root`, or take the one there.

        Raises OSError, and StorageError if it is not ours alone or another mdvp has it.
        """
        self._root = shown_root
        self._fd = self._own(root, FOLDER)
        self.path = Path(f"/proc/self/fd/{self._fd}")
        self._lock()
        self.key, self.used_before = self._own_key()
        self.new = self._own(self._fd, "new")
        self.trash = self._own(self._fd, "trash")

    def _own(self, parent: int, name: str) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, _FOLDER_MODE, dir_fd=parent)
        try:
            fd = open_directory(name, parent)
        except OSError as error:
            if is_no_directory(error):
                raise self._not_ours(name, "is not a directory") from error
            if is_covered(error):
                raise self._not_ours(name, "is a mount point") from error
            raise
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise self._not_ours(name, f"belongs to user {status.st_uid}")
        if status.st_mode & 0o077:
            raise self._not_ours(name, "is open to other users")
        return fd

    def _not_ours(self, name: str, why: str) -> StorageError:
        return StorageError(
            f"will not keep state under {self._root}: {name} there {why}, "
            "so somebody else can change it; remove it and start again"
        )

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
        for fd in (self.trash, self.new, self._fd):
            os.close(fd)
