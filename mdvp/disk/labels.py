"""The records on the directories: each carries its volume's, should the database be lost.

Failure model. A record is a second copy: a file system that has no extended attributes is served
all the same. It is input like any other when it is read; `mdvp.disk.record` has what is believed.

A container that has had a volume can have kept its record, which is signed. It is worth nothing
for another directory. But the same directory can become another volume, by being adopted, or can
come back after its volume was removed or made again without it: so it is remembered since when the
records of such a directory count.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mdvp.core.volume import Identity, Volume
from mdvp.disk import record
from mdvp.disk.entry import identity

log = logging.getLogger(__name__)

_RESERVED = 64 << 10  # bytes
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Labels:
    """The records on directories, signed with a key."""

    def __init__(self, key: bytes, void: Path, *, trust: bool) -> None:
        """Sign and verify with `key`; `void` is a file, which need not be there yet.

        `trust` is whether to do without a signature where nobody else can have written the record.
        """
        self._key = key
        self._file = void
        self._trust = trust
        self._void = dict(self._remembered())
        self._reserve()

    def _reserve(self) -> None:
        # Volumes may fill the disk, and it must be possible then to remove them.
        with suppress(OSError), self._file.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, len(self._written()) + _RESERVED)

    def _written(self) -> bytes:
        try:
            return self._file.read_bytes().rstrip(b"\0")
        except FileNotFoundError:
            return b""

    def _remembered(self) -> Iterator[tuple[Identity, datetime]]:
        for line in self._written().decode(errors="replace").split("\n"):
            with suppress(ValueError):  # an empty one, or one that a crash has cut
                inode, born, until = line.split(" ")
                moment = datetime.fromisoformat(until).astimezone(UTC)
                yield Identity(int(inode), int(born)), moment

    def void(self, directory: Identity, until: datetime) -> None:
        """Have no record of a directory count, from now on, that was made before `until`."""
        # Somebody may have set the calendar back since the last time.
        until = max(until, self._void.get(directory, until))
        # On a line of its own, should a crash have cut the one before.
        line = f"\n{directory.inode} {directory.born} {until.isoformat()}\n"
        at = len(self._written())
        fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, line.encode(), at)
            os.fsync(fd)
        finally:
            os.close(fd)
        self._void[directory] = until

    def count_from(self, directory: Identity) -> datetime:
        """Return from when on a record of a directory counts: of most, any does."""
        return self._void.get(directory, datetime.min.replace(tzinfo=UTC))

    def write(self, fd: int, volume: Volume) -> None:
        """Write the record of `volume` on its directory, which is open, unless it has it."""
        text = record.encode(volume, self._key)
        try:
            if _read(fd) != text:
                os.setxattr(fd, record.ATTRIBUTE, text)
        except OSError as error:
            log.debug(
                "volume %(volume)s: its directory cannot carry its record: %(error)s",
                {"event": "no_record", "volume": volume.name, "error": error},
            )

    def read(self, fd: int, name: str | None = None) -> Volume | None:
        """Return the volume that the open directory `name` says that it is, if it says so.

        Without a name, it is not at its place.

        Raises record.BadRecordError, and OSError where the file system has no records.
        """
        text = _read(fd)
        if not text:
            return None
        trusted = self._trust and _only_ours(fd)
        volume = record.decode(text, self._key, name, identity(fd), trusted=trusted)
        until = self._void.get(volume.identity)
        if until is not None and volume.created_at < until:
            raise record.BadRecordError("it is from before the directory was given up or adopted")
        return volume


def _only_ours(fd: int) -> bool:
    """Say whether nobody else can have written the record of a directory."""
    status = os.fstat(fd)
    return status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS


def _read(fd: int) -> bytes:
    """Return the record of a directory, empty if it has none."""
    try:
        return os.getxattr(fd, record.ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return b""
        raise
