"""The log: to standard output, and to a file if one was named."""

import logging
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from sync.core.errors import SettingsError

LINES_MAX = 10  # so many of a kind at once get a line each; more are logged in one line
_FILE_SIZE_MAX = 10 << 20


class Lines:
    """Lines of one kind, not more than LINES_MAX a second."""

    def __init__(self, log: logging.Logger, level: int, others: str) -> None:
        """Write to `log`; say of those that get no line what `others` says."""
        self._log = log
        self._level = level
        self._others = others
        self._count, self._second_ends = 0, 0.0  # written in this second, and when it ends

    def write(self, words: str) -> None:
        """Write a line, if there were not too many."""
        if time.monotonic() >= self._second_ends:
            self._second_ends, self._count = time.monotonic() + 1, 0
        self._count += 1
        if self._count <= LINES_MAX:
            self._log.log(self._level, "%s", words)
        elif self._count == LINES_MAX + 1:
            self._log.log(self._level, "%s", self._others)


class CappedFile(logging.FileHandler):
    """Appends to a file that others append to as well, and keeps it small.

    When the file has more than `size_max` bytes, they are copied to a file with `.1` after its name
    and this one is emptied: it stays the same file, so that nobody has to open it again. The
    rotation of logging, and supervisord's own, would leave the other writer with the old one.
    """

    def __init__(self, path: Path, size_max: int = _FILE_SIZE_MAX) -> None:
        """Append to `path`, to `size_max` bytes; raise OSError if that cannot be done."""
        super().__init__(path)
        self._size_max = size_max

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and empty the file if it has become too large."""
        super().emit(record)
        # With a disk that is full the service goes on.
        with suppress(OSError):
            self._keep_small()

    def _keep_small(self) -> None:
        stream = self.stream
        if stream is not None and stream.tell() > self._size_max:
            with suppress(OSError):  # then there is no copy, and the file is small all the same
                shutil.copyfile(self.baseFilename, f"{self.baseFilename}.1")
            stream.truncate(0)


def set_up(level: int, file: Path | None) -> None:
    """Log from `level` upwards; raise SettingsError if `file` cannot be written."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if file is not None:
        try:
            handlers.append(CappedFile(file))
        except OSError as error:
            raise SettingsError(f"SYNC_LOG_FILE cannot be written: {error}") from error
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s sync: %(message)s", handlers=handlers
    )
