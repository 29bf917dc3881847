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
from mdvp.disk.entry import obstacle, open_directory

log = logging.getLogger(__name__)

_NAME = ".mdvp"
_FOLDER_MODE = 0o700
_KEY = "key"
_KEY_BYTES = 32


class State:
    """The folder, locked, with the folders for directories that are not at their places.

    Attributes:
        name: what the folder is called in the root.
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
        self.name, self._fd = self._own_folder(root)
        self.path = Path(f"/proc/self/fd/{self._fd}")
        self._lock()
        self.key, self.used_before = self._own_key()
        self.new = self._own("new")
        self.trash = self._own("trash")

    def _own_folder(self, root: int) -> tuple[str, int]:
        with os.scandir(root) as entries:
            others = sorted(it.name for it in entries if it.name.startswith(f"{_NAME}-"))
        for name in (_NAME, *others):
            if (fd := self._opened(name, root)) is not None:
                return name, fd
        name = _NAME
        try:
            os.mkdir(name, _FOLDER_MODE, dir_fd=root)
        except FileExistsError:
            name = f"{_NAME}-{secrets.token_hex(8)}"
            os.mkdir(name, _FOLDER_MODE, dir_fd=root)
            log.warning(
                "somebody else has put something at %s/%s, so mdvp keeps its state in %s there",
                self._root,
                _NAME,
                name,
            )
        return name, open_directory(name, root)

    def _opened(self, name: str, root: int) -> int | None:
        """Open the folder `name` if it is ours; None if it is not there, or is somebody else's."""
        try:
            fd = open_directory(name, root)
        except OSError as error:
            obstacle(error)
            return None
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            os.close(fd)
            return None
        if status.st_mode & 0o077:
            raise StorageError(
                f"will not keep state in {self._root}/{name}: it is open to other users, so "
                "somebody else can have changed it; `chmod 700` it if you know that nobody has"
            )
        return fd

    def _own(self, name: str) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, _FOLDER_MODE, dir_fd=self._fd)
        return open_directory(name, self._fd)

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
