"""A file for node_exporter's textfile collector, in a directory that others may write to as well.

Source: node_exporter, "Textfile Collector": it reads all that ends in `.prom`, at any time, and
shows when each such file was written.

Failure model. The file is there whole or not at all: it is written beside its place and renamed.
The directory can be missing, full, read-only or somebody else's. It is opened anew each time, for
what was missing may be there by now; no link is followed on the way to it or in it, and nothing is
replaced or removed but a regular file of ours. Who may write to the directory can put something
else there in the instant after we have looked: then that is replaced, and what it leads to is not
touched.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mdvp.core.errors import StorageError
from mdvp.disk.linux import open_without_links

_NAME = "mdvp.prom"
_NEW = ".mdvp.prom.new"  # which nobody reads
_MODE = 0o644
_NULL = os.makedev(1, 3)

_WAYS_OUT = {
    errno.ENOENT: "there is no such directory: make it",
    errno.ENOTDIR: "that is no directory: name one",
    errno.ELOOP: "a link is on the way: name the directory that it leads to",
    errno.EROFS: "it is mounted read-only: mount it for writing",
    errno.ENOSPC: "its file system is full: make room",
    errno.EDQUOT: "its quota is used up: make room",
    errno.EACCES: "mdvp may not write there: let it, or name another directory",
    errno.EPERM: "mdvp may not write there: let it, or name another directory",
}


class Textfile:
    """The file `mdvp.prom` in a directory."""

    def __init__(self, directory: Path) -> None:
        """Write it to `directory` when told to; that need not be there yet."""
        self._directory = directory

    def __str__(self) -> str:
        """Return where it is."""
        return str(self._directory / _NAME)

    def is_nowhere(self) -> bool:
        """Say whether the directory is the null device, which stands for none.

        That is for where one must be named.
        """
        with suppress(OSError):
            status = self._directory.stat()
            return stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL
        return False

    def write(self, content: bytes) -> None:
        """Put a new file in the place of the old one; StorageError says why that cannot be."""
        try:
            with self._opened() as folder:
                self._write(content, folder)
        except OSError as error:
            raise StorageError(_why(error)) from error

    def remove(self) -> None:
        """Remove the file if it is there and ours; OSError or StorageError when it cannot be."""
        with self._opened() as folder:
            self._clear(_NEW, folder)
            self._clear(_NAME, folder)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        folder = open_without_links(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield folder
        finally:
            os.close(folder)

    def _write(self, content: bytes, folder: int) -> None:
        self._check(_NAME, folder)
        self._clear(_NEW, folder)  # what a run left that was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_NEW, flags, 0o600, dir_fd=folder)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, _MODE)  # whatever the umask is
                file.write(content)
            os.rename(_NEW, _NAME, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(_NEW, dir_fd=folder)
            raise

    def _clear(self, name: str, folder: int) -> None:
        if self._check(name, folder):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)

    def _check(self, name: str, folder: int) -> bool:
        """Say whether there is a file of ours; raise StorageError for anything else."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{name} is there and is no regular file: remove it")
        if status.st_uid != os.geteuid():
            raise StorageError(f"{name} is there and is user {status.st_uid}'s: remove it")
        return True


def _why(error: OSError) -> str:
    return _WAYS_OUT.get(error.errno or 0, str(error.strerror))
