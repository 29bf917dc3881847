"""Locks that keep volumes from systemd-tmpfiles.

It removes what is old from `/tmp`, but leaves alone a directory that somebody holds a BSD lock on,
with all below it (tmpfiles.d(5), Age). So each volume's directory is kept open and locked, as many
as there are descriptors for; a volume without a lock is as good as one with it, but for that.
"""

import fcntl
import logging
import os
import resource

log = logging.getLogger(__name__)

# What is not for directories: connections, the database, files under way.
_DESCRIPTORS_RESERVED = 512


class Locks:
    """The locks on the directories of volumes, by the volumes' names.

    Attributes:
        refused: the volumes whose directories somebody else has locked; it may be over by now.

    """

    def __init__(self, *, wanted: bool) -> None:
        """Begin without a lock; take none unless they are `wanted`."""
        self._wanted = wanted
        self._warned = False
        self._held: dict[str, int] = {}
        self.refused: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Say whether the directory of volume `name` is locked."""
        return name in self._held

    def take(self, name: str, fd: int) -> None:
        """Lock the directory of volume `name`, which is open; the caller closes `fd`."""
        if not self._wanted:
            return
        held = os.dup(fd)  # the lock is of the opening, which both share
        if self._affordable(name, held) and self._locked(name, held):
            self._held[name] = held
        else:
            os.close(held)

    def _locked(self, name: str, fd: int) -> bool:
        """Lock an open directory, and say whether that could be."""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if name not in self.refused:
                log.warning(
                    "volume %s: somebody else has locked its directory, so mdvp does not keep "
                    "systemd-tmpfiles from what is old in it; `lslocks` shows who",
                    name,
                )
            self.refused.add(name)
            return False
        self.refused.discard(name)
        return True

    def _affordable(self, name: str, fd: int) -> bool:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        affordable = fd < limit - _DESCRIPTORS_RESERVED
        if not affordable and not self._warned:
            log.warning(
                "volume %s and others: their directories are not locked, so systemd-tmpfiles "
                "may remove what is old in them: mdvp may have only %d files open",
                name,
                limit,
            )
            self._warned = True
        return affordable

    def descriptor(self, name: str) -> int | None:
        """Return the open descriptor of the directory of volume `name`, if it is locked."""
        return self._held.get(name)

    def give_up(self, name: str) -> None:
        """Unlock the directory of volume `name`."""
        self.refused.discard(name)
        if (fd := self._held.pop(name, None)) is not None:
            os.close(fd)

    def close(self) -> None:
        """Unlock all."""
        for name in list(self._held):
            self.give_up(name)
