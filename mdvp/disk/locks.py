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
    """The directories of volumes that are kept open, locked where that can be, by name."""

    def __init__(self, *, wanted: bool) -> None:
        """Begin without a lock; take none unless they are `wanted`."""
        self._wanted = wanted
        self._warned = False
        self._held: dict[str, int] = {}
        self._refused: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Say whether the directory of volume `name` is kept open."""
        return name in self._held

    def take(self, name: str, fd: int) -> None:
        """Lock the directory of volume `name`, which is open; the caller closes `fd`."""
        if not self._wanted:
            return
        held = os.dup(fd)  # the lock is of the opening, which both share
        if self._affordable(name, held):
            self._held[name] = held
            self._lock(name)
        else:
            os.close(held)

    def _lock(self, name: str) -> None:
        try:
            fcntl.flock(self._held[name], fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if name not in self._refused:
                log.warning(
                    "volume %(volume)s: somebody else has locked its directory, so mdvp does not "
                    "keep systemd-tmpfiles from what is old in it; `lslocks` shows who",
                    {"event": "not_locked", "volume": name},
                )
            self._refused.add(name)
        else:
            self._refused.discard(name)

    def try_again(self) -> None:
        """Lock what could not be locked before."""
        for name in list(self._refused):
            self._lock(name)

    def _affordable(self, name: str, fd: int) -> bool:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        affordable = fd < limit - _DESCRIPTORS_RESERVED
        if not affordable and not self._warned:
            log.warning(
                "volume %(volume)s and others: their directories are not locked, so "
                "systemd-tmpfiles may remove what is old in them: mdvp may have "
                "only %(limit)d files open",
                {"event": "lock_limit", "volume": name, "limit": limit},
            )
            self._warned = True
        return affordable

    def descriptor(self, name: str) -> int | None:
        """Return the open descriptor of the directory of volume `name`, if it is kept open."""
        return self._held.get(name)

    def rename(self, name: str, new: str) -> None:
        """Take note that volume `name` is called `new`; its directory stays locked."""
        if name in self._refused:
            self._refused.discard(name)
            self._refused.add(new)
        if (fd := self._held.pop(name, None)) is not None:
            self._held[new] = fd

    def give_up(self, name: str) -> None:
        """Unlock the directory of volume `name`, and close it."""
        self._refused.discard(name)
        if (fd := self._held.pop(name, None)) is not None:
            os.close(fd)

    def close(self) -> None:
        """Unlock all."""
        for name in list(self._held):
            self.give_up(name)
